"""What is asked of a storage.

Everything that writes is an *operation*. A storage takes several at a time, in ``commit``, and gives one
*outcome* for each (:mod:`flowdsl.storage.outcomes`). An operation that makes no sense (an empty id, a field
that cannot be set) raises ``ValueError`` when it is made, so a storage never sees one.

What an operation means for a run's owner, epoch and status is decided in :mod:`flowdsl.core.ownership`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import Attribute, define, field, frozen

from flowdsl.core.ownership import RUN_FIELDS
from flowdsl.core.records import Item, Memo, QueueRow, Run, ScheduleRow, Signal, Step, WorkerRow
from flowdsl.core.status import RunStatus

__all__ = [
    "REWRITABLE",
    "AddSignal",
    "ClaimNext",
    "ClaimRun",
    "DeleteRun",
    "DropMemo",
    "DropQueue",
    "DropSchedule",
    "DropSteps",
    "DropWorker",
    "OpenRun",
    "Operation",
    "Publish",
    "PutMemo",
    "PutQueue",
    "PutSchedule",
    "PutStep",
    "PutWorker",
    "Reply",
    "Restart",
    "Rewrite",
    "TakeSignal",
    "UpdateRun",
    "require_id",
    "require_limit",
    "require_operations",
]


def require_id(value: str, what: str = "run id") -> None:
    """Raise ``ValueError`` unless *value* is a non-empty string."""
    if not value or not isinstance(value, str):
        raise ValueError(f"{what} must be a non-empty string, not {value!r}")


def require_limit(limit: int | None) -> None:
    """Raise ``ValueError`` for a negative limit (0 is an empty page, ``None`` no limit)."""
    if limit is not None and limit < 0:
        raise ValueError(f"limit must not be negative, not {limit!r}")


def _an_id(what: str, *names: str) -> Callable[[Any, "Attribute[Any]", Any], None]:
    """A validator: the value, or these attributes of it, are ids."""

    def check(_: Any, __: "Attribute[Any]", value: Any) -> None:
        if not names:
            require_id(value, what)
        for name in names:
            require_id(getattr(value, name), f"{what} {name}".replace("run_id", "run id"))

    return check


def _address(step: Step) -> None:
    require_id(step.run_id)
    require_id(step.key, "step key")


def _fields(_: Any, __: "Attribute[Any]", changes: Mapping[str, Any]) -> None:
    if changes and not RUN_FIELDS.issuperset(changes):
        unknown = ", ".join(sorted(set(changes) - RUN_FIELDS))
        raise ValueError(f"not a field of Run that can be set: {unknown}")


def _keys(_: Any, __: "Attribute[Any]", keys: tuple[str, ...]) -> None:
    for key in keys:
        require_id(key, "step key")


@frozen(slots=True)
class OpenRun:
    """Insert a run owned by ``run.owner`` with a lease of *lease* seconds, or find the one to continue.

    Its epoch is 1, or greater than that of every run deleted before: the owner of a deleted run never fits
    its successor.

    With ``run.number`` ``None`` the id is given: if a run of this id exists (a pruned one included), the
    outcome is ``Found((it,))``, else the run is inserted.

    With ``run.dedup``, if a run of the same workflow, queue and ``dedup`` is pending or running, the outcome
    is ``Found((it,))``, whatever the id.

    Otherwise the run is numbered and ``run.id`` is only a prefix. Unless *fresh*, if runs of ``run.key``
    exist that are ``pending`` or ``running`` with an owner not in *skip_owners* (no owner counts as not in
    it), or ``failed`` and ``retryable``, the outcome is ``Found`` with the oldest of them, sixteen at most,
    by number. Else the run is inserted with the next number of its key (1 + the highest) and the id
    ``f"{prefix}-{number}"``, going on to the next number while that id is taken. With *number*, it gets that
    one; if a run of its key has it or a higher one, or the id is taken, nothing happens: ``Missing()``.

    Outcome: ``Opened(run as inserted)``, ``Found(runs)`` or ``Missing()``. Sent again after an unknown
    outcome by the same ``run.owner`` with the same ``nonce``, an insertion that had happened is ``Opened``
    again.
    """

    run: Run = field(validator=_an_id("run", "id"))
    lease: float
    fresh: bool = False
    skip_owners: tuple[str, ...] = ()
    nonce: str = ""
    number: int | None = None


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

    run_id: str = field(validator=_an_id("run id"))
    epoch: int
    owner: str = field(validator=_an_id("owner"))
    lease: float
    force: bool = False
    changes: Mapping[str, Any] = field(factory=dict, validator=_fields)
    nonce: str = ""
    if_status: Sequence[RunStatus] = ()


@frozen(slots=True)
class ClaimNext:
    """Take the next runs that *owner* may execute, at most *limit*, each with a lease of *lease* seconds.

    Taken are runs that are interrupted (``running``, not called by another run, without an owner or with a
    lease that has passed), oldest first; then ``pending`` runs without an owner that are due, in the order
    and within the limits of :mod:`flowdsl.core.queues`. A run without a queue counts as one of the queue
    ``default``. Only runs of *workflows* (pairs of path and version known) are taken, none of a version that
    is not known. With *queues*, pending ones only of those, and interrupted ones only of those or of none.
    With *after*, ``(priority, created_at, id)`` of a pending run, the search begins behind it: a low-water
    mark, for a storage in which passing over dead rows costs. Runs whose ids are in *skip* are not taken.

    A taken run is ``running``; ``claimed_at`` is set when it was pending; ``recoveries`` += 1 if it had an
    owner. Outcome: ``Claimed(runs as they now stand)``. Sent again by the same *owner* with the same
    *nonce*, it is the same.
    """

    owner: str
    lease: float
    workflows: tuple[tuple[str, str], ...]
    queues: tuple[str, ...] | None = None
    limit: int = 1
    after: tuple[int, float, str] | None = None
    nonce: str = ""
    skip: tuple[str, ...] = ()


@frozen(slots=True)
class UpdateRun:
    """Set fields of a run. *changes* maps names of :class:`~flowdsl.core.records.Run` fields (those in
    ``RUN_FIELDS``) to values.

    With *epoch*, the run must have it, else ``Fenced``. With *if_status*, the run must have one of these,
    else ``Fenced`` likewise — but with both, and all of *changes* in place already, it is
    ``Done(existed=True)``: the same owner sends it again. With *lease*, the lease is renewed to now + *lease*
    seconds. With *release*, the owner is dropped and the lease ends now.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=_an_id("run id"))
    changes: Mapping[str, Any] = field(factory=dict, validator=_fields)
    epoch: int | None = None
    if_status: tuple[RunStatus, ...] = ()
    lease: float | None = None
    release: bool = False


@frozen(slots=True)
class Restart:
    """Begin the next generation of a run: ``generation`` += 1, epoch += 1, *changes* are applied as by
    ``UpdateRun``, and the journal goes, with the messages that were taken, unless their sender asked for a
    reply. Unread messages, published items and tags stay, and so does the owner. What the former generation
    still sends is refused by its epoch.

    *epoch* as in ``UpdateRun``. If the run is in the generation that *changes* name already, and nobody has
    claimed it since, nothing happens: ``Done(existed=True)``, for it is sent again.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=_an_id("run id"))
    epoch: int | None
    changes: Mapping[str, Any] = field(factory=dict, validator=_fields)


@define(slots=True, unsafe_hash=True, init=False)  # each step makes one: it is neither frozen nor generated
class PutStep:
    """Append a step record to the journal of its run. An earlier one of the same key does not count any more.

    *epoch* as in ``UpdateRun``. With *once*, an existing record of the key counts on and nothing is appended:
    ``Done(seq of the existing, existed=True)``. That looks through the journal of the run, so it is for what
    happens seldom.

    Sent again after an unknown outcome, the record is appended again, which changes nothing but its ``seq``.

    Outcome: ``Done(seq)``, ``Fenced(run)``, ``Missing()`` (no such run).
    """

    step: Step
    epoch: int | None = None
    once: bool = False

    def __init__(self, step: Step, epoch: int | None = None, once: bool = False) -> None:
        if not (step.run_id and step.key):
            _address(step)
        self.step = step
        self.epoch = epoch
        self.once = once


@frozen(slots=True)
class DropSteps:
    """Delete the step records of *keys*; those that are not there do not matter. Their ``seq`` are not given
    again. *epoch* as in ``UpdateRun``.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=_an_id("run id"))
    keys: tuple[str, ...] = field(validator=_keys)
    epoch: int | None = None


@frozen(slots=True)
class AddSignal:
    """Store a message for a run that has not ended (``pending``, ``running`` or ``failed``).

    A message whose ``key`` is not ``None`` and equals that of an earlier one of the same run and name is
    dropped: ``Done(seq of the earlier, existed=True)``. So is one whose ``id`` the run has already.

    Outcome: ``Done(seq)``, ``Missing()`` (no such run) or ``Fenced(run)`` (``completed`` or ``cancelled``).
    """

    signal: Signal = field(validator=_an_id("signal", "run_id", "id"))


@frozen(slots=True)
class TakeSignal:
    """Mark message *signal_id* as taken by ``step.key`` and put the step, both or neither.

    Outcome: ``Done(seq of the step)``, ``Fenced(run)``, or ``Missing()`` (no such run or message, or it is
    already taken by another key).
    """

    signal_id: str = field(validator=_an_id("signal id"))
    step: Step = field(validator=lambda _, __, step: _address(step))
    epoch: int | None = None


@frozen(slots=True)
class Reply:
    """Store the reply to a message; with *failed*, *payload* is an error. The first reply counts.

    *epoch* as in ``UpdateRun``. Outcome: ``Done()``, ``Done(existed=True)`` (there was one), ``Fenced(run)``,
    or ``Missing()`` (no such run or message).
    """

    run_id: str = field(validator=_an_id("run id"))
    signal_id: str = field(validator=_an_id("signal id"))
    payload: bytes
    preview: str = ""
    failed: bool = False
    epoch: int | None = None
    seal: bytes = b""


@frozen(slots=True)
class Publish:
    """Store an item of a channel. The owner of the run numbers them; an item that is there stays as it is.

    *epoch* as in ``UpdateRun``. Outcome: ``Done()``, ``Done(existed=True)``, ``Fenced(run)`` or
    ``Missing()``.
    """

    item: Item = field(validator=_an_id("item", "run_id", "channel"))
    epoch: int | None = None


@frozen(slots=True)
class DeleteRun:
    """Delete a run with its steps, messages and items. A missing one is no error. Outcome: ``Done()``.

    With *tombstone*, a run whose id was given stays as a stub (``pruned``: no args, no result, no error
    bytes) so that its id is never used again; readers do not show it, only ``OpenRun`` finds it. A stub keeps
    it; without *tombstone*, it is deleted too.
    """

    run_id: str = field(validator=_an_id("run id"))
    tombstone: bool = False


@frozen(slots=True)
class PutMemo:
    """Insert or replace a memo. Outcome: ``Done()``."""

    memo: Memo = field(validator=_an_id("memo", "key"))


@frozen(slots=True)
class DropMemo:
    """Delete a memo; a missing one is no error. Outcome: ``Done()``."""

    key: str = field(validator=_an_id("memo key"))


@frozen(slots=True)
class PutQueue:
    """Insert or replace a queue; with *if_new*, one that is there stays: ``Done(existed=True)``. Else
    ``Done()``."""

    row: QueueRow = field(validator=_an_id("queue", "name"))
    if_new: bool = False


@frozen(slots=True)
class DropQueue:
    """Delete a queue; a missing one is no error. Outcome: ``Done()``."""

    name: str = field(validator=_an_id("queue name"))


@frozen(slots=True)
class PutSchedule:
    """Insert or replace a schedule; with *if_new*, one that is there stays: ``Done(existed=True)``. With
    *was*, it is replaced only while it stands as *was* says (but for its seal), else ``Missing()``. Else
    ``Done()``."""

    row: ScheduleRow = field(validator=_an_id("schedule", "name"))
    if_new: bool = False
    was: ScheduleRow | None = None


@frozen(slots=True)
class DropSchedule:
    """Delete a schedule; a missing one is no error. Outcome: ``Done()``."""

    name: str = field(validator=_an_id("schedule name"))


@frozen(slots=True)
class PutWorker:
    """Insert or replace a worker. Outcome: ``Done()``."""

    row: WorkerRow = field(validator=_an_id("worker", "id"))


@frozen(slots=True)
class DropWorker:
    """Delete a worker; a missing one is no error. Outcome: ``Done()``."""

    id: str = field(validator=_an_id("worker id"))


REWRITABLE: Mapping[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "run": (("run_id",), frozenset({"args", "result", "error", "seal", "cancel_seal"})),
    "step": (("run_id", "seq"), frozenset({"payload", "seal"})),
    "signal": (("run_id", "id"), frozenset({"payload", "reply", "seal", "reply_seal"})),
    "item": (("run_id", "channel", "n"), frozenset({"payload", "seal"})),
    "memo": (("key",), frozenset({"payload", "seal"})),
    "queue": (("name",), frozenset({"seal"})),
    "schedule": (("name",), frozenset({"args", "seal"})),
}
"""What ``Rewrite`` may replace: for each kind of record, what addresses one, and its fields of bytes."""


@frozen(slots=True)
class Rewrite:
    """Replace bytes of one record where they stand, as a new secret wants it. Nothing else changes: no
    ``seq``, no epoch; nobody is woken; a run may execute meanwhile.

    *kind* and *key* say which record, see ``REWRITABLE``. *was* and *now* hold the same fields; *was* as they
    were read.

    Outcome: ``Done()``, or ``Missing()`` if the record is gone or its bytes are not any more what *was* says.
    """

    kind: str
    key: tuple[str | int, ...]
    was: Mapping[str, bytes | None]
    now: Mapping[str, bytes | None]

    def __attrs_post_init__(self) -> None:
        address, fields = REWRITABLE.get(self.kind, ((), frozenset()))
        if not address or len(self.key) != len(address):
            raise ValueError(f"{self.kind!r} {self.key!r} addresses no record; there are {dict(REWRITABLE)}")
        if not self.was or self.was.keys() != self.now.keys() or not fields.issuperset(self.was):
            raise ValueError(
                f"of a {self.kind} these can be rewritten: {sorted(fields)}; got {sorted(self.now)}"
            )


Operation = (
    OpenRun
    | ClaimRun
    | ClaimNext
    | UpdateRun
    | Restart
    | PutStep
    | DropSteps
    | AddSignal
    | TakeSignal
    | Reply
    | Publish
    | DeleteRun
    | PutMemo
    | DropMemo
    | PutQueue
    | DropQueue
    | PutSchedule
    | DropSchedule
    | PutWorker
    | DropWorker
    | Rewrite
)

_OPERATIONS = frozenset(Operation.__args__)


def require_operations(operations: Sequence[Operation]) -> None:
    """Raise ``ValueError`` for what is no operation. A storage asks before it applies the first."""
    for operation in operations:
        if type(operation) not in _OPERATIONS:
            raise ValueError(f"not an operation: {operation!r}")
