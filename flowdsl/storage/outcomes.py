"""The outcome of an operation. Each operation has one."""

from attrs import define, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.opening import Decision
from flowdsl.core.records import Run
from flowdsl.errors import CorruptPayload, ResultNotStorable, StorageError

__all__ = [
    "Claimed",
    "Done",
    "Fenced",
    "Found",
    "Missing",
    "Opened",
    "Outcome",
    "Unstorable",
    "not_storable",
    "opened",
    "raise_not_storable",
    "raise_unstorable",
]


@define(slots=True, eq=False, repr=False)  # as for PutStep
class Done(ByFields):
    """It took effect. ``existed``: it had before, and ``seq`` is that of the existing row."""

    seq: int = 0
    existed: bool = False


@define(slots=True, eq=False, repr=False)
class Opened(ByFields):
    """The run is ours, as it now stands."""

    run: Run


@frozen(slots=True, eq=False, repr=False)
class Claimed(ByFields):
    """These runs are ours, as they now stand; there may be none. *damaged*: why others were passed over."""

    runs: tuple[Run, ...]
    damaged: tuple[CorruptPayload, ...] = ()


@frozen(slots=True, eq=False, repr=False)
class Found(ByFields):
    """Nothing was inserted: these runs exist."""

    runs: tuple[Run, ...]


@frozen(slots=True, eq=False, repr=False)
class Fenced(ByFields):
    """Refused: the run has another epoch or status than asked for. ``run`` is the run as it is."""

    run: Run


@frozen(slots=True, eq=False, repr=False)
class Missing(ByFields):
    """Refused: the object of the operation does not exist."""


@frozen(slots=True, eq=False, repr=False)
class Unstorable(ByFields):
    """Refused: the storage cannot take this row."""

    error: StorageError


Outcome = Done | Opened | Claimed | Found | Fenced | Missing | Unstorable


def opened(decision: Decision) -> Opened | Found | Missing:
    """The outcome of an opening."""
    if isinstance(decision, Run):
        return Opened(decision)
    return Found(decision) if decision else Missing()


def raise_unstorable(*outcomes: Outcome) -> None:
    """Raise the storage's error for a row that it cannot take."""
    for outcome in outcomes:
        if isinstance(outcome, Unstorable):
            raise outcome.error


def raise_not_storable(*outcomes: Outcome) -> None:
    """As :func:`raise_unstorable`, if the row holds a value that somebody wants to store."""
    for outcome in outcomes:
        if isinstance(outcome, Unstorable):
            raise not_storable(outcome)


def not_storable(outcome: Unstorable, **where: str) -> ResultNotStorable | CorruptPayload:
    """The error for whoever made the value that the storage cannot take. *where* names run and step. Nobody
    made an altered row, so its error stays as it is."""
    if isinstance(outcome.error, CorruptPayload):
        return outcome.error
    error = ResultNotStorable(str(outcome.error), **where)
    error.__cause__ = outcome.error
    return error
