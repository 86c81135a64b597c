"""Topics of runs, queues and schedules. Whoever waits for a change names some, and is told of those."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flowdsl.storage.operations import (
    AddSignal,
    ClaimRun,
    DeleteRun,
    DropQueue,
    DropSchedule,
    OpenRun,
    Operation,
    Publish,
    PutQueue,
    PutSchedule,
    Reply,
    Restart,
    UpdateRun,
)

__all__ = [
    "GIVEN_BACK_TOPIC",
    "QUEUES_TOPIC",
    "SCHEDULES_TOPIC",
    "queue_topic",
    "run_topic",
    "topics_of",
]


def run_topic(run_id: str) -> str:
    """The topic of a run: a message, a reply, an item, a request to cancel, its end."""
    return f"run:{run_id}"


def queue_topic(name: str) -> str:
    """The topic of a queue: runs that are enqueued, and changes of the queue."""
    return f"queue:{name}"


SCHEDULES_TOPIC = "schedules"
"""The topic of changed schedules."""

QUEUES_TOPIC = "queues"
"""The topic of all queues."""

GIVEN_BACK_TOPIC = "given back"
"""The topic of runs that their owner let go before their end."""


def topics_of(operations: Iterable[Operation]) -> Sequence[str]:
    """The topics to tell once *operations* are durable. Steps and renewed leases have none: whoever wants to
    see them waits for any change."""
    found: list[str] = []
    for op in operations:
        topics = _TOPICS.get(type(op))
        if topics is not None:
            found += topics(op)
    return found


def _of_opening(op: OpenRun) -> Sequence[str]:
    return () if op.run.queue is None else (queue_topic(op.run.queue), QUEUES_TOPIC)


def _of_update(op: UpdateRun) -> Sequence[str]:
    changes, release = op.changes, op.release
    ends = "status" in changes
    topics = [run_topic(op.run_id)] if release or ends or "cancel_requested" in changes else []
    if release and not ends:
        topics.append(GIVEN_BACK_TOPIC)
    if changes.get("queue") is not None:
        topics += (queue_topic(changes["queue"]), QUEUES_TOPIC)
    return topics


def _of_run(op: ClaimRun | Reply | Restart | DeleteRun) -> Sequence[str]:
    return (run_topic(op.run_id),)


def _of_schedule(_: PutSchedule | DropSchedule) -> Sequence[str]:
    return (SCHEDULES_TOPIC,)


_TOPICS: dict[type, Callable[[Any], Sequence[str]]] = {
    OpenRun: _of_opening,
    UpdateRun: _of_update,
    ClaimRun: _of_run,
    Reply: _of_run,
    Restart: _of_run,
    DeleteRun: _of_run,
    AddSignal: lambda op: (run_topic(op.signal.run_id),),
    Publish: lambda op: (run_topic(op.item.run_id),),
    PutQueue: lambda op: (queue_topic(op.row.name), QUEUES_TOPIC),
    DropQueue: lambda op: (queue_topic(op.name), QUEUES_TOPIC),
    PutSchedule: _of_schedule,
    DropSchedule: _of_schedule,
}
"""What each kind of operation tells. Those that are not here tell only those who wait for any change."""
