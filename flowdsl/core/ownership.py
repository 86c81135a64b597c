"""Who may write a run: what opening, claiming, updating and taking mean for rows. It is pure, and the same
for all storages.

The rules
    * A run has an *owner*, a *lease* and an *epoch*. Whoever claims it raises the epoch. A write with another
      epoch than the run's is refused. So a stale owner can do no harm, however late it wakes up.
    * A run is free if it has no owner or its lease has passed. *force* is for callers who know that the owner
      is gone.
    * The next generation of a run has another epoch, too. The former one may still have work under way when
      it ends (a flush of the keeper's, a beat of a body that was left behind). That is refused like a stale
      owner's.
    * An operation may be sent twice, because nobody knows what became of a commit whose answer was lost. A
      claim and an opening carry a nonce. If the run has that nonce, the operation has happened. If a new
      status is in place already, the change has happened. So has a change of generations by one epoch.

A storage reads rows, asks here, and writes the answer. It decides nothing itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve

from flowdsl.core.queues import DEFAULT
from flowdsl.core.records import Run, ScheduleRow, Signal, Tags, changed, fields_of
from flowdsl.core.status import RunStatus

__all__ = [
    "FOUND_AT_MOST",
    "LIVE",
    "RUN_FIELDS",
    "Standing",
    "arrived",
    "claimed",
    "claimed_next",
    "fits",
    "free_at",
    "has_restarted",
    "has_updated",
    "inserted",
    "is_unchanged",
    "may_claim",
    "may_come_from",
    "may_continue",
    "may_take",
    "merged_tags",
    "outlives_restart",
    "own_tags",
    "remains",
    "restarted",
    "sent_again",
    "stub",
    "takes_messages",
    "updated",
]

FOUND_AT_MOST = 16
"""Most runs that an opening that inserts nothing names: the oldest."""

LIVE = (RunStatus.PENDING, RunStatus.RUNNING)
"""The statuses of runs that have not ended."""

# Naming a member looks it up anew each time, which takes ten times as long.
_PENDING, _RUNNING, _FAILED = RunStatus.PENDING, RunStatus.RUNNING, RunStatus.FAILED
_ENDED = (RunStatus.COMPLETED, RunStatus.CANCELLED)
_NOT_CHANGEABLE = frozenset({"id", "epoch", "lease_until", "pruned"})

RUN_FIELDS: frozenset[str] = frozenset(fields_of(Run)) - _NOT_CHANGEABLE
"""Names of the fields of a run that an operation may set."""


class Standing(Protocol):
    """The fields that decide about an operation on a run. A :class:`~flowdsl.core.records.Run` has them."""

    @property
    def epoch(self) -> int: ...
    @property
    def status(self) -> RunStatus: ...


def inserted(run: Run, run_id: str, number: int | None, epoch: int, lease_until: float) -> Run:
    """*run* as it is stored: with the given id and number, owned until *lease_until*."""
    return changed(
        run,
        {
            "id": run_id,
            "number": number,
            "epoch": epoch,
            "lease_until": lease_until,
            "tags": own_tags(run.tags),
            "pruned": False,
        },
    )


def sent_again(nonce: str, owner: str | None, last_nonce: str, run: Run) -> bool:
    """Whether an opening or a claim of *owner* with this *nonce* has happened already. *last_nonce* is
    that of the last opening or claim of *run*."""
    return nonce != "" and last_nonce == nonce and run.owner == owner


def may_continue(run: Run, skip_owners: Sequence[str]) -> bool:
    """Whether a call without an id continues this run of its key instead of beginning another one."""
    if run.number is None:
        return False
    if run.status in LIVE:
        return run.owner is None or run.owner not in skip_owners
    return run.status is _FAILED and run.retryable


def fits(run: Standing, epoch: int | None, if_status: Sequence[RunStatus] = ()) -> bool:
    """Whether a run has the epoch and one of the statuses that an operation asks for, if it asks."""
    return (epoch is None or run.epoch == epoch) and (not if_status or run.status in if_status)


def claimed(
    run: Run,
    *,
    epoch: int,
    owner: str,
    lease: float,
    force: bool,
    if_status: Sequence[RunStatus],
    changes: Mapping[str, Any],
    now: float,
) -> dict[str, Any] | None:
    """The fields that a claim changes in a run. ``None`` if the claim is refused."""
    free = force or run.owner is None or run.lease_until <= now
    if not free or not fits(run, epoch, if_status):
        return None
    claim = {"owner": owner, "status": _RUNNING, "finished_at": None}
    return {**claim, **changes, "epoch": run.epoch + 1, "lease_until": now + lease}


def claimed_next(run: Run, *, owner: str, lease: float, now: float) -> dict[str, Any]:
    """The fields that change when a worker takes a run. A pending run begins; an interrupted one goes on.
    Taking it from an owner that has died counts (``recoveries``). A run that was given back does not
    count."""
    changes: dict[str, Any] = {}
    if run.claimed_at is None and run.status is _PENDING:
        changes["claimed_at"] = now
    if run.owner is not None:
        changes["recoveries"] = run.recoveries + 1
    claim = {"owner": owner, "status": _RUNNING, "finished_at": None}
    return {**claim, **changes, "epoch": run.epoch + 1, "lease_until": now + lease}


def may_claim(run: Run, now: float) -> bool:
    """Whether a worker may take a run: it is pending and due, or running and nobody executes it. A run that
    another run has called is continued by that one."""
    if run.status is _PENDING:
        return run.owner is None and (run.not_before is None or run.not_before <= now)
    interrupted = run.owner is None or run.lease_until <= now
    return run.status is _RUNNING and run.parent is None and interrupted


def free_at(run: Run) -> float | None:
    """From when on a worker may take a run, as it stands now. ``None`` means never."""
    if run.status is _PENDING:
        return (run.not_before or 0.0) if run.owner is None else None
    if run.status is _RUNNING and run.parent is None:
        return 0.0 if run.owner is None else run.lease_until
    return None


def may_come_from(run: Run, queues: Sequence[str] | None) -> bool:
    """Whether a worker that takes from *queues* (``None``: from all) may take a run. Any worker may continue
    a run that was not enqueued."""
    if queues is None:
        return True
    if run.queue is None and run.status is _RUNNING:
        return True
    return (run.queue or DEFAULT) in queues


def is_unchanged(found: ScheduleRow | None, was: ScheduleRow | None) -> bool:
    """Whether a schedule that was *found* is as it *was* (but for its seal). If *was* is ``None``, any is
    right."""
    if was is None:
        return True
    return found is not None and evolve(found, seal=b"") == evolve(was, seal=b"")


def updated(changes: Mapping[str, Any], lease: float | None, release: bool, now: float) -> dict[str, Any]:
    """The fields that an update changes in a run that fits it."""
    if release:
        return {**changes, "owner": None, "lease_until": now}
    return {**changes, "lease_until": now + lease} if lease is not None else dict(changes)


def has_updated(
    run: Run, epoch: int | None, if_status: Sequence[RunStatus], changes: Mapping[str, Any]
) -> bool:
    """Whether an update that the status refuses has already been made, and the same owner sends it
    again."""
    again = bool(changes) and bool(if_status) and epoch is not None and run.epoch == epoch
    return again and all(getattr(run, name) == value for name, value in changes.items())


def restarted(run: Run, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that change when the next generation of a run begins. They fence off the former one."""
    return {**changes, "generation": run.generation + 1, "epoch": run.epoch + 1}


def has_restarted(run: Run, epoch: int | None, changes: Mapping[str, Any]) -> bool:
    """Whether the generation that *changes* name has already begun, and the same owner sends its beginning
    again."""
    return changes.get("generation") == run.generation and epoch in (None, run.epoch, run.epoch - 1)


def outlives_restart(signal: Signal) -> bool:
    """Whether a message stays when the next generation of its run begins: nobody has taken it, or its sender
    waits for a reply."""
    return signal.taken_by is None or signal.asked


def arrived(signal: Signal, seq: int) -> Signal:
    """A new message as it is stored: nobody has taken it or replied to it."""
    return evolve(
        signal, seq=seq, taken_by=None, reply=None, reply_preview="", reply_failed=False, reply_seal=b""
    )


def takes_messages(status: RunStatus) -> bool:
    """Whether a run of this status takes messages. A failed one does, because it may go on."""
    return status not in _ENDED


def may_take(taken_by: str | None, step_key: str) -> bool:
    """Whether the wait of *step_key* may take a message. It may take again what it has taken."""
    return taken_by is None or taken_by == step_key


def own_tags(tags: Tags) -> Tags:
    """A copy that nobody else can change. No tags are always ``()``.

    >>> own_tags(["a"]), own_tags({})
    (('a',), ())
    """
    return (dict(tags) if isinstance(tags, Mapping) else tuple(tags)) if tags else ()


def merged_tags(old: Tags, new: Mapping[str, str]) -> dict[str, str]:
    """The *old* tags of a run with *new* ones, whose values count. A tag that was only a name has no value.

    >>> merged_tags(("urgent",), {"shop": "north"}), merged_tags({"shop": "south"}, {"shop": "north"})
    ({'urgent': '', 'shop': 'north'}, {'shop': 'north'})
    """
    return {**(old if isinstance(old, Mapping) else dict.fromkeys(old, "")), **new}


def remains(run: Run, tombstone: bool, seal: bytes) -> Run | None:
    """What remains of a run that is deleted: with *tombstone*, of a run whose id was given, a stub with its
    identity and its times. A stub remains as it is. ``None`` means that nothing remains."""
    if not tombstone or run.number is not None:
        return None
    return run if run.pruned else stub(run, seal)


def stub(run: Run, seal: bytes = b"") -> Run:
    """The stub of a run: its identity and its times."""
    return Run(
        id=run.id,
        workflow=run.workflow,
        key=run.key,
        status=run.status,
        created_at=run.created_at,
        finished_at=run.finished_at,
        epoch=run.epoch,
        version=run.version,
        pruned=True,
        seal=seal,
    )
