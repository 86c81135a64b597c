"""Every error flowdsl raises.

::

    FlowError
    ├── UnkeyableArgument          an argument has no canonical encoding (also a TypeError)
    ├── NondeterminismError        the code makes another call than the recorded one
    ├── RunConflict                one run id, two different meanings
    ├── RunNotFound                no run of that id (also a LookupError)
    ├── RunFinished                the run has ended; it takes no more signals or cancels
    ├── RunTimeout                 the run passed its deadline (also a TimeoutError)
    ├── RunCancelled               the run was cancelled
    ├── StepNotFound               no step of that name (also a LookupError)
    ├── AmbiguousStep              two functions of one name are in use
    ├── StepFailed                 stands for an exception that could not be stored
    ├── StepTimeout                one attempt passed its timeout (also a TimeoutError)
    ├── StepOutcomeUnknown         an ``in_doubt="raise"`` step was executing when the process died
    ├── ResultNotStorable          a result cannot be stored and loaded again
    ├── Refused                    a message was refused with an error that cannot be stored
    ├── WaitTimeout                no signal came in time (also a TimeoutError)
    ├── LeaseLost                  another process took this run over
    ├── RecoveryLimit              the run was taken over too often; something kills its processes
    └── StorageError               the storage failed
        ├── StorageFull            no space left
        ├── StorageUnavailable     it cannot be opened or reached
        ├── SchemaMismatch         the stored schema is newer than this flowdsl
        ├── CorruptPayload         a stored payload fails its checksum
        └── MissingClass           a stored payload names a class that is not there any more

:class:`Stopped` is not in the tree. It carries one of these errors through a body that must not swallow it.

Each error has a message, and its facts as attributes (``run``, ``step``, …), which are given as keywords.
"""

from typing import Any

__all__ = [
    "AmbiguousStep",
    "CorruptPayload",
    "FlowError",
    "LeaseLost",
    "MissingClass",
    "NondeterminismError",
    "RecoveryLimit",
    "Refused",
    "ResultNotStorable",
    "RunCancelled",
    "RunConflict",
    "RunFinished",
    "RunNotFound",
    "RunTimeout",
    "SchemaMismatch",
    "StepFailed",
    "StepNotFound",
    "StepOutcomeUnknown",
    "StepTimeout",
    "Stopped",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "UnkeyableArgument",
    "WaitTimeout",
]


class FlowError(Exception):
    """Root of all errors of flowdsl.

    Parameters: *message* says what was wrong and what to do; keywords become attributes.

    >>> RunNotFound("no run 'x'", run="x").run
    'x'
    """

    run: str | None = None
    step: str | None = None

    def __init__(self, message: str = "", /, **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


class UnkeyableArgument(FlowError, TypeError):
    """An argument has no canonical encoding, so the call has no key."""


class NondeterminismError(FlowError):
    """The replayed code made a call with other arguments than the recorded one; its body was not executed."""


class RunConflict(FlowError):
    """The run id exists with another workflow or other arguments, or a run would wait for itself."""


class RunNotFound(FlowError, LookupError):
    """No run of that id is stored."""


class RunFinished(FlowError):
    """The run has ended."""


class RunTimeout(FlowError, TimeoutError):
    """The run passed its deadline."""


class RunCancelled(FlowError):
    """The run was cancelled."""


class StepNotFound(FlowError, LookupError):
    """No step of that name is registered, or the run has no such step."""


class AmbiguousStep(FlowError):
    """The same code made two functions of one name, and both are in use. ``name=`` tells them apart."""


class StepFailed(FlowError):
    """A step failed with an exception that cannot be stored; ``type_name`` and the message describe it."""

    type_name: str | None = None


class StepTimeout(FlowError, TimeoutError):
    """One attempt of a step took longer than its timeout."""


class StepOutcomeUnknown(FlowError):
    """A step marked ``in_doubt="raise"`` was executing when its process died. ``Runtime.resolve`` decides."""


class ResultNotStorable(FlowError):
    """A value cannot be stored, or does not load again. ``where`` names the attribute at fault."""

    where: str | None = None


class Refused(FlowError):
    """A run refused a message with an error that could not be stored. The asker gets this in its place."""


class WaitTimeout(FlowError, TimeoutError):
    """No matching signal, no answer or no item came in time."""


class LeaseLost(FlowError):
    """This process no longer owns the run; its write was refused by the storage."""


class RecoveryLimit(FlowError):
    """The run was recovered more often than allowed."""


class StorageError(FlowError):
    """The storage failed; nothing that was acknowledged is lost."""


class StorageFull(StorageError):
    """The storage has no space left."""


class StorageUnavailable(StorageError):
    """The storage cannot be opened or reached. ``outcome_unknown`` is true if a commit may have happened.
    ``lasting`` is true if it does not help to try again (the storage is closed, or is no database)."""

    outcome_unknown: bool = False
    lasting: bool = False


class SchemaMismatch(StorageError):
    """The stored schema is newer than this version of flowdsl (``found``, ``supported``)."""


class CorruptPayload(StorageError):
    """A stored payload is damaged or was signed with another key; it was not loaded."""


class MissingClass(StorageError):
    """A stored payload names a class or function that cannot be imported (``module``, ``name``)."""


class Stopped(BaseException):
    """Raised in a body that must stop: the run was cancelled or timed out, its lease or storage was lost, or
    it replays wrongly. ``error`` is the typed error.

    It is not an ``Exception``, so ``except Exception`` in the body does not catch it. Later durable calls
    raise it again. The caller of the workflow gets ``error``.
    """

    def __init__(self, error: FlowError) -> None:
        super().__init__(str(error))
        self.error = error
