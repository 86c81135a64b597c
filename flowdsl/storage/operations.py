"""What a storage can be asked to do.

Everything that writes is an *operation*. A storage takes several at a time, in ``commit``, and gives one
*outcome* for each (:mod:`flowdsl.storage.outcomes`). A senseless operation (an empty id, a field that cannot
be set) raises ``ValueError`` when it is made, so a storage never sees one.

:mod:`flowdsl.core.ownership` decides what an operation means for a run's owner, epoch and status.
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
    """A validator: the value is an id, or these attributes of it are."""

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

    Its epoch is 1, or greater than that of every run deleted before. So the owner of a deleted run never fits
    its successor.

    With ``run.number`` ``None`` the id is given. If a run of this id exists (a pruned one included), the
    outcome is ``Found((it,))``. Otherwise the run is inserted.

    With ``run.dedup``, a run of the same workflow, queue and ``dedup`` may be pending or running. Then the
    outcome is ``Found((it,))``, whatever the id.

    Otherwise the run is numbered, and ``run.id`` is only a prefix. Unless *fresh*, runs of ``run.key`` are
    looked for that can be continued. They are ``pending`` or ``running`` with an owner not in *skip_owners*
    (no owner counts as not in it), or ``failed`` and ``retryable``. If there are any, the outcome is
    ``Found`` with the oldest of them, at most sixteen, by number. Otherwise the run is inserted with the next
    number of its key (1 + the highest) and the id ``f"{prefix}-{number}"``. If that id is taken, the next
    number is tried. With *number*, the run gets that one. If a run of its key has it or a higher one, or the
    id is taken, nothing happens: ``Missing()``.

    Outcome: ``Opened(run as inserted)``, ``Found(runs)`` or ``Missing()``. The same ``run.owner`` may send it
    again with the same ``nonce`` after an unknown outcome. If the insertion had happened, the outcome is
    ``Opened`` again.
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

    Takes effect if all of these hold: the run exists and is not pruned; it has exactly this epoch; it has one
    of the statuses *if_status*, if given; and *force* is set, or it has no owner, or its lease has expired on
    the storage's clock. Then owner := *owner*, epoch += 1, status := ``running``, ``finished_at`` := None,
    lease := now + *lease*, and *changes* are applied as by ``UpdateRun``.

    Outcome: ``Opened(run after the claim)``, ``Fenced(run as it is)`` or ``Missing()`` (pruned ones
    included). The same *owner* may send it again with the same *nonce*. If the claim had happened, the
    outcome is ``Opened`` again.
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

    Interrupted runs come first, oldest first: they are ``running``, no other run has called them, and they
    have no owner or a lease that has passed. Then come ``pending`` runs without an owner that are due, in the
    order and within the limits of :mod:`flowdsl.core.queues`. A run without a queue counts as one of the
    queue ``default``. Only runs of *workflows* (pairs of path and version known) are taken, and none of a
    version that is not known. With *queues*, pending runs are taken only from those, and interrupted ones
    only from those or from none. *after* is ``(priority, created_at, id)`` of a pending run: the search
    begins after it. That is a low-water mark, for a storage in which passing over dead rows costs time. Runs
    whose ids are in *skip* are not taken.

    A taken run is ``running``. If it was pending, ``claimed_at`` is set. If it had an owner, ``recoveries``
    += 1. Outcome: ``Claimed(runs as they now stand)``. If the same *owner* sends it again with the same
    *nonce*, the outcome is the same.
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

    With *epoch*, the run must have it, otherwise ``Fenced``. With *if_status*, the run must have one of
    these, otherwise ``Fenced`` too. But if both are given, and all of *changes* are in place already, the
    same owner has sent it again: ``Done(existed=True)``. With *lease*, the lease is renewed to now + *lease*
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
    """Begin the next generation of a run: ``generation`` += 1, epoch += 1, and *changes* are applied as by
    ``UpdateRun``. The journal is deleted. So are the messages that were taken, unless their sender asked for
    a reply. Unread messages, published items, tags and the owner stay. The epoch refuses what the former
    generation still sends.

    *epoch* is as in ``UpdateRun``. The run may be in the generation that *changes* name already, and nobody
    has claimed it since. Then it was sent again, and nothing happens: ``Done(existed=True)``.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=_an_id("run id"))
    epoch: int | None
    changes: Mapping[str, Any] = field(factory=dict, validator=_fields)


@define(slots=True, unsafe_hash=True, init=False)  # each step makes one: it is neither frozen nor generated
class PutStep:
    """Append a step record to the journal of its run. An earlier one of the same key counts no more.

    *epoch* is as in ``UpdateRun``. With *once*, an existing record of the key continues to count, and nothing
    is appended: ``Done(seq of the existing, existed=True)``. That looks through the journal of the run, so it
    is for rare events.

    Sent again after an unknown outcome, the record is appended again. That changes nothing but its ``seq``.

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
    """Delete the step records of *keys*. Missing ones do not matter. Their ``seq`` are not given again.
    *epoch* is as in ``UpdateRun``.

    Outcome: ``Done()``, ``Fenced(run)`` or ``Missing()``.
    """

    run_id: str = field(validator=_an_id("run id"))
    keys: tuple[str, ...] = field(validator=_keys)
    epoch: int | None = None


@frozen(slots=True)
class AddSignal:
    """Store a message for a run that has not ended (``pending``, ``running`` or ``failed``).

    If its ``key`` is not ``None`` and equals that of an earlier message of the same run and name, it is
    dropped: ``Done(seq of the earlier, existed=True)``. The same happens if the run has its ``id`` already.

    Outcome: ``Done(seq)``, ``Missing()`` (no such run) or ``Fenced(run)`` (``completed`` or ``cancelled``).
    """

    signal: Signal = field(validator=_an_id("signal", "run_id", "id"))


@frozen(slots=True)
class TakeSignal:
    """Mark message *signal_id* as taken by ``step.key``, and put the step: both or neither.

    Outcome: ``Done(seq of the step)``, ``Fenced(run)``, or ``Missing()`` (no such run or message, or it is
    already taken by another key).
    """

    signal_id: str = field(validator=_an_id("signal id"))
    step: Step = field(validator=lambda _, __, step: _address(step))
    epoch: int | None = None


@frozen(slots=True)
class Reply:
    """Store the reply to a message. With *failed*, *payload* is an error. The first reply counts.

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
    """Store an item of a channel. The owner of the run numbers the items. An existing item stays as it is.

    *epoch* as in ``UpdateRun``. Outcome: ``Done()``, ``Done(existed=True)``, ``Fenced(run)`` or
    ``Missing()``.
    """

    item: Item = field(validator=_an_id("item", "run_id", "channel"))
    epoch: int | None = None


@frozen(slots=True)
class DeleteRun:
    """Delete a run with its steps, messages and items. A missing one is no error. Outcome: ``Done()``.

    With *tombstone*, a run whose id was given leaves a stub (``pruned``: no args, no result, no error bytes),
    so that its id is never used again. Readers do not show it. Only ``OpenRun`` finds it. Another deletion
    with *tombstone* keeps the stub; one without deletes it too. *seal* is that of the stub.
    """

    run_id: str = field(validator=_an_id("run id"))
    tombstone: bool = False
    seal: bytes = b""


@frozen(slots=True)
class PutMemo:
    """Insert or replace a memo. Outcome: ``Done()``."""

    memo: Memo = field(validator=_an_id("memo", "key"))


@frozen(slots=True)
class DropMemo:
    """Delete a memo. A missing one is no error. Outcome: ``Done()``."""

    key: str = field(validator=_an_id("memo key"))


@frozen(slots=True)
class PutQueue:
    """Insert or replace a queue. With *if_new*, an existing one stays: ``Done(existed=True)``. Otherwise
    ``Done()``."""

    row: QueueRow = field(validator=_an_id("queue", "name"))
    if_new: bool = False


@frozen(slots=True)
class DropQueue:
    """Delete a queue. A missing one is no error. Outcome: ``Done()``."""

    name: str = field(validator=_an_id("queue name"))


@frozen(slots=True)
class PutSchedule:
    """Insert or replace a schedule. With *if_new*, an existing one stays: ``Done(existed=True)``. With *was*,
    it is replaced only if it is as *was* says (apart from its seal), otherwise ``Missing()``. In all other
    cases ``Done()``."""

    row: ScheduleRow = field(validator=_an_id("schedule", "name"))
    if_new: bool = False
    was: ScheduleRow | None = None


@frozen(slots=True)
class DropSchedule:
    """Delete a schedule. A missing one is no error. Outcome: ``Done()``."""

    name: str = field(validator=_an_id("schedule name"))


@frozen(slots=True)
class PutWorker:
    """Insert or replace a worker. Outcome: ``Done()``."""

    row: WorkerRow = field(validator=_an_id("worker", "id"))


@frozen(slots=True)
class DropWorker:
    """Delete a worker. A missing one is no error. Outcome: ``Done()``."""

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
"""What ``Rewrite`` may replace. For each kind of record: what addresses one, and its fields of bytes."""


@frozen(slots=True)
class Rewrite:
    """Replace bytes of one record in its place, because the secret has changed. Nothing else changes: no
    ``seq``, no epoch. Nobody is woken. A run may execute meanwhile.

    *kind* and *key* say which record, see ``REWRITABLE``. *was* and *now* hold the same fields. *was* holds
    them as they were read.

    Outcome: ``Done()``, or ``Missing()`` if the record is gone or its bytes are no longer those of *was*.
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
    """Raise ``ValueError`` for anything that is no operation. A storage asks before it applies the first."""
    for operation in operations:
        if type(operation) not in _OPERATIONS:
            raise ValueError(f"not an operation: {operation!r}")
