"""The storage port: records in, records out.

A storage keeps :mod:`flowdsl.core.records` whose payloads are opaque bytes. It never sees a function and
never unpickles. Everything that writes is an *operation*, and the one writing primitive is
``commit(operations)``:

* All operations of one ``commit`` share one transaction, and when ``commit`` returns they are durable.
* Operations of many runs may share a commit. Each operation that carries an ``epoch`` is checked against the
  epoch of its run by itself; one that is fenced, or that asks for a run that is not there, *fails alone*: its
  outcome says so, and the others take effect.
* Order counts: an operation sees what the ones before it did.
* If the transaction cannot be made durable, ``commit`` raises a :class:`~flowdsl.errors.StorageError` and
  nothing of it took effect — unless ``StorageUnavailable.outcome_unknown`` is set. Every operation may be
  sent a second time after an unknown outcome: it then has the outcome that it would have had the first time
  (``OpenRun`` and ``ClaimRun`` when they carry a ``nonce``).
* A row that the storage cannot take (too large, a text that is not Unicode, a number beyond 64 bits) has the
  outcome ``Unstorable``, whatever the operation; nothing of that operation takes effect.

Leases are on the storage's own clock (the database's, where there is one), so that hosts need not agree on
the time.

A backend implements ``commit``, six readers, ``clear`` and ``close``. ``wait_for_change``, ``attention`` and
``now`` have defaults that work in one process. The verbs ``set_… delete_… add_signal get_state`` stand on
``commit`` and need no implementation.
"""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from attrs import define, evolve, field, frozen

from flowdsl.core.kinds import STORE
from flowdsl.core.records import Memo, Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.errors import RunConflict, StorageError

__all__ = [
    "AddSignal",
    "Attention",
    "ClaimRun",
    "DeleteRun",
    "Done",
    "DropMemo",
    "DropSteps",
    "Fenced",
    "Found",
    "Missing",
    "OpenRun",
    "Opened",
    "Operation",
    "Outcome",
    "PutMemo",
    "PutStep",
    "Storage",
    "TakeSignal",
    "Unstorable",
    "UpdateRun",
    "raise_unstorable",
]

# ------------------------------------------------------------------------------------------------- operation


@frozen(slots=True)
class OpenRun:
    """Insert a run owned by ``run.owner`` with a lease of *lease* seconds, or find the one to continue.

    Its epoch is 1, or greater than that of every run deleted before: the owner of a deleted run never fits
    its successor.

    With ``run.number`` ``None`` the id is given: if a run of this id exists (a pruned one included), the
    outcome is ``Found((it,))``, else the run is inserted.

    Otherwise the run is numbered and ``run.id`` is only a prefix. Unless *fresh*, if runs of ``run.key``
    exist that are ``pending`` or ``running`` with an owner not in *skip_owners* (no owner counts as not in
    it), or ``failed`` and ``retryable``, the outcome is ``Found`` with the oldest of them, sixteen at most,
    by number. Else the run is inserted with the next number of its key (1 + the highest) and the id
    ``f"{prefix}-{number}"``, going on to the next number while that id is taken.

    Outcome: ``Opened(run as inserted)`` or ``Found(runs)``. Sent again after an unknown outcome by the same
    ``run.owner`` with the same ``nonce``, an insertion that had happened is ``Opened`` again.
    """

    run: Run
    lease: float
    fresh: bool = False
    skip_owners: tuple[str, ...] = ()
    nonce: str = ""


@frozen(slots=True)
class ClaimRun:
    """Take a run over: compare-and-swap on its *epoch*.

    Takes effect if the run exists, is not pruned, has exactly this epoch and, where given, one of the
    statuses *if_status*, and (*force*, or it has no owner, or its lease has expired on the storage's clock).
    Then owner := *owner*, epoch += 1, status := ``running``, ``finished_at`` := None, lease := now + *lease*,
    and *changes* are applied as by ``UpdateRun``.

    Outcome: ``Opened(run after the claim)``, ``Fenced(run as it is)`` or ``Missing()`` (pruned ones
    included). Sent again by the same *owner* with the same *nonce*, a claim that had happened is ``Opened``
    again.
    """

    run_id: str
    epoch: int
    owner: str
    lease: float
    force: bool = False
    changes: Mapping[str, Any] = field(factory=dict)
    nonce: str = ""
    if_status: Sequence[RunStatus] = ()


@frozen(slots=True)
class UpdateRun:
    """Set fields of a run. *changes* maps names of :class:`Run` fields (those in ``RUN_FIELDS``) to values.

    With *epoch*, the run must have it, else ``Fenced``. With *if_status*, the run must have one of these,
    else ``Fenced`` likewise — but with both, and all of *changes* in place already, it is
    ``Done(existed=True)``: the same owner sends it again. With *lease*, the lease is renewed to now + *lease*
    seconds. With *release*, the owner is dropped and the lease ends now.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str
    changes: Mapping[str, Any] = field(factory=dict)
    epoch: int | None = None
    if_status: tuple[RunStatus, ...] = ()
    lease: float | None = None
    release: bool = False


@define(slots=True, unsafe_hash=True)  # each step makes one; a frozen one costs three times as much
class PutStep:
    """Insert a step record or replace the one of the same ``(run_id, key)``; it gets the next ``seq`` anyway.

    *epoch* as in ``UpdateRun``. With *once*, an existing record stays as it is and the outcome is
    ``Done(seq of the existing, existed=True)``.

    Outcome: ``Done(seq)``, ``Fenced(run)``, ``Missing()`` (no such run).
    """

    step: Step
    epoch: int | None = None
    once: bool = False


@frozen(slots=True)
class DropSteps:
    """Delete the step records of *keys*; those that are not there do not matter. *epoch* as in ``UpdateRun``.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str
    keys: tuple[str, ...]
    epoch: int | None = None


@frozen(slots=True)
class AddSignal:
    """Store a signal for a run that has not ended (``pending``, ``running`` or ``failed``).

    A signal whose ``key`` is not ``None`` and equals that of an earlier one of the same run and name is
    dropped: ``Done(seq of the earlier, existed=True)``. So is one whose ``id`` the run has already.

    Outcome: ``Done(seq)``, ``Missing()`` (no such run) or ``Fenced(run)`` (``completed`` or ``cancelled``).
    """

    signal: Signal


@frozen(slots=True)
class TakeSignal:
    """Mark signal *signal_id* as taken by ``step.key`` and put the step, both or neither.

    Outcome: ``Done(seq of the step)``, ``Fenced(run)``, or ``Missing()`` (no such run or signal, or it is
    already taken by another key).
    """

    signal_id: str
    step: Step
    epoch: int | None = None


@frozen(slots=True)
class DeleteRun:
    """Delete a run with its steps and signals. A missing one is no error. Outcome: ``Done()``.

    With *tombstone*, a run whose id was given stays as a stub (``pruned``: no args, no result, no error
    bytes) so that its id is never used again; readers do not show it, only ``OpenRun`` finds it. A stub keeps
    it; without *tombstone*, it is deleted too.
    """

    run_id: str
    tombstone: bool = False


@frozen(slots=True)
class PutMemo:
    """Insert or replace a memo. Outcome: ``Done()``."""

    memo: Memo


@frozen(slots=True)
class DropMemo:
    """Delete a memo; a missing one is no error. Outcome: ``Done()``."""

    key: str


Operation = (
    OpenRun
    | ClaimRun
    | UpdateRun
    | PutStep
    | DropSteps
    | AddSignal
    | TakeSignal
    | DeleteRun
    | PutMemo
    | DropMemo
)

# --------------------------------------------------------------------------------------------------- outcome


@define(slots=True, unsafe_hash=True)  # as for PutStep
class Done:
    """It took effect (``existed``: it had already, and ``seq`` is that of the existing row)."""

    seq: int = 0
    existed: bool = False


@frozen(slots=True)
class Opened:
    """The run is ours, as it now stands."""

    run: Run


@frozen(slots=True)
class Found:
    """Nothing was inserted: these runs exist."""

    runs: tuple[Run, ...]


@frozen(slots=True)
class Fenced:
    """Refused: the run has another epoch or status than asked for; ``run`` is how it stands."""

    run: Run


@frozen(slots=True)
class Missing:
    """Refused: what the operation is about is not there."""


@frozen(slots=True)
class Unstorable:
    """Refused: the storage cannot take this row."""

    error: StorageError


Outcome = Done | Opened | Found | Fenced | Missing | Unstorable


@frozen(slots=True)
class Attention:
    """What an executing run must notice: is it still ours, should it stop, are there unread signals?"""

    run_id: str
    epoch: int
    status: RunStatus
    cancel_requested: float | None
    unread: int


# ------------------------------------------------------------------------------------------------------- po


class Storage(ABC):
    """Base class of all storages. Safe for use by many threads; values returned are never shared.

    * ``url``: how to open the same storage again in another process; ``None`` if that is impossible (memory).
    * ``patience``: for how many seconds the engine sends operations again while the storage is unavailable
      (:class:`~flowdsl.errors.StorageUnavailable`, unless that is ``lasting``).
    * ``inline``: whether a commit takes microseconds, so that async code may call it on its event loop.
    """

    url: str | None = None
    inline: bool = False
    patience: float = 30.0

    # What a backend implements -----------------------------------------------------------------------------

    @abstractmethod
    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        """Apply *operations* in order in one transaction; return one outcome for each, in order.

        An empty sequence returns ``[]``. Raises ``ValueError`` for an empty id or an unknown operation or
        field (before anything is applied) and :class:`~flowdsl.errors.StorageError` if the transaction fails.
        """

    @abstractmethod
    def get_run(self, run_id: str, /) -> Run | None:
        """The run of this id; ``None`` if there is none or it was pruned. ``ValueError`` for an empty id."""

    @abstractmethod
    def list_runs(self, where: RunFilter = RunFilter(), /) -> list[Run]:  # noqa: B008 - frozen
        """The runs that match, by ``(created_at, id)``; none pruned, and none after an unknown ``after``."""

    @abstractmethod
    def get_step(self, run_id: str, key: str, /) -> Step | None:
        """The record of this address, or ``None``."""

    @abstractmethod
    def list_steps(self, run_id: str, /, *, after: int = 0, limit: int | None = None) -> list[Step]:
        """The records of a run with ``seq > after`` in the order of ``seq``; an unknown run has none."""

    @abstractmethod
    def list_signals(
        self, run_id: str, /, *, name: str | None = None, unread: bool = False, limit: int | None = None
    ) -> list[Signal]:
        """Signals of a run in the order of arrival; of one *name* only, or only those not taken."""

    @abstractmethod
    def get_memo(self, key: str, /) -> Memo | None:
        """The memo of this key, or ``None``. Expiry is the caller's to judge."""

    @abstractmethod
    def clear(self) -> None:
        """Delete everything: runs, tombstones, steps, signals, memos."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections and files. To close twice is fine; other calls raise ``StorageUnavailable``."""

    # Defaults that work in one process ---------------------------------------------------------------------

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._versions = itertools.count(2)
        self._version = 1
        self._waiting = 0

    def now(self) -> float:
        """The storage's clock, in seconds; leases are on it."""
        return time.time()

    def notify(self) -> None:
        """Say that a commit happened in this process (called by ``commit``); wakes ``wait_for_change``."""
        # No lock unless somebody waits. Numbers are never used twice, so two threads that set them in the
        # wrong order cost a spurious return at most; and a waiter announces itself before it looks at the
        # version.
        self._version = next(self._versions)
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def wait_for_change(self, seen: int, timeout: float, /) -> int:
        """Wait until something may have changed since version *seen*, at most *timeout* seconds.

        Returns the version now, to be passed the next time; 0 is older than any.

        Spurious returns are allowed. A backend shared by processes overrides this so that their commits are
        seen too, within a tenth of a second.
        """
        with self._changed:
            self._waiting += 1
            try:
                if self._version == seen:
                    self._changed.wait(timeout)
            finally:
                self._waiting -= 1
            return self._version

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        """What the given runs must notice; runs that do not exist are left out."""
        found = []
        for run_id in run_ids:
            run = self.get_run(run_id)
            if run is not None:
                unread = len(self.list_signals(run_id, unread=True))
                found.append(Attention(run_id, run.epoch, run.status, run.cancel_requested, unread))
        return found

    # The verbs of the field, standing on commit ------------------------------------------------------------

    def set_run(self, run: Run, /) -> None:
        """Insert a run as it is, or replace all its fields but the epoch and the lease.

        Raises ``ValueError`` for a pruned *run* and :class:`~flowdsl.errors.RunConflict` when its id belongs
        to a pruned one.
        """
        if run.pruned:
            raise ValueError("a pruned run cannot be set; delete it with a tombstone")
        insert = OpenRun(evolve(run, number=None), 0.0)
        opened, updated = self.commit(
            [insert, UpdateRun(run.id, run_changes(run), release=run.owner is None)]
        )
        if isinstance(updated, Missing) and isinstance(opened, Found):
            raise RunConflict(
                f"the id {run.id!r} belonged to a run that was pruned; take another id", run=run.id
            )
        raise_unstorable(opened, updated)

    def delete_run(self, run_id: str, /) -> None:
        """Delete a run with all that belongs to it; a missing one is no error."""
        self.commit([DeleteRun(run_id)])

    def set_step(self, step: Step, /) -> None:
        """Insert or replace a step record of an existing run; ``LookupError`` when the run is missing."""
        (outcome,) = self.commit([PutStep(step)])
        raise_unstorable(outcome)
        if isinstance(outcome, Missing):
            raise LookupError(f"no run {step.run_id!r}")

    def delete_step(self, run_id: str, key: str, /) -> None:
        """Delete a step record; a missing one is no error."""
        self.commit([DropSteps(run_id, (key,))])

    def add_signal(self, signal: Signal, /) -> bool:
        """Store a signal; ``False`` when the run is missing or has ended."""
        (outcome,) = self.commit([AddSignal(signal)])
        raise_unstorable(outcome)
        return isinstance(outcome, Done)

    def get_state(self, run_id: str, /) -> list[Step]:
        """The store operations of a run in order; the run store's state is their fold."""
        return [step for step in self.list_steps(run_id) if step.kind == STORE]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_NOT_CHANGEABLE = frozenset({"id", "epoch", "lease_until", "pruned"})


def raise_unstorable(*outcomes: Outcome) -> None:
    """Raise what the storage says of a row that it cannot take."""
    for outcome in outcomes:
        if isinstance(outcome, Unstorable):
            raise outcome.error


def run_changes(run: Run) -> dict[str, Any]:
    """All fields of *run* that ``UpdateRun`` may set.

    >>> "epoch" in run_changes(Run(id="a", workflow="w", key="k"))
    False
    """
    return {name: getattr(run, name) for name in Run.__slots__ if name in RUN_FIELDS}


RUN_FIELDS: frozenset[str] = frozenset(
    name for name in Run.__slots__ if not name.startswith("__") and name not in _NOT_CHANGEABLE
)
"""Names that ``UpdateRun.changes`` may hold."""
