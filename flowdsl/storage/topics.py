"""Topics of runs, queues and schedules. Whoever waits for a change names some, and is told of those."""

from collections.abc import Iterable, Sequence

from flowdsl.storage.operations import (
    AddSignal,
    ClaimRun,
    DeleteRun,
    DropMemo,
    DropQueue,
    DropSchedule,
    DropSteps,
    DropWorker,
    OpenRun,
    Operation,
    Publish,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutStep,
    PutWorker,
    Reply,
    Restart,
    Rewrite,
    TakeSignal,
    UpdateRun,
)

__all__ = ["GIVEN_BACK_TOPIC", "QUEUES_TOPIC", "SCHEDULES_TOPIC", "queue_topic", "run_topic", "topics_of"]


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


_SILENT = frozenset({PutStep, TakeSignal, DropSteps, PutMemo, DropMemo, PutWorker, DropWorker, Rewrite})
"""Operations that are told only to those who wait for any change."""


def topics_of(operations: Iterable[Operation]) -> list[str]:
    """The topics to tell once *operations* are durable. Steps and renewed leases have none: whoever wants to
    see them waits for any change."""
    for operation in operations:
        if type(operation) not in _SILENT:
            return [topic for op in operations if type(op) not in _SILENT for topic in _topics_of(op)]
    return []


def _topics_of(op: Operation) -> Sequence[str]:
    match op:
        case UpdateRun():  # this and the next are what every run makes, so they are asked for first
            return _topics_of_update(op)
        case OpenRun():
            return () if op.run.queue is None else (queue_topic(op.run.queue), QUEUES_TOPIC)
        case PutQueue():
            return queue_topic(op.row.name), QUEUES_TOPIC
        case DropQueue():
            return queue_topic(op.name), QUEUES_TOPIC
        case PutSchedule() | DropSchedule():
            return (SCHEDULES_TOPIC,)
        case AddSignal():
            return (run_topic(op.signal.run_id),)
        case Publish():
            return (run_topic(op.item.run_id),)
        case ClaimRun() | Reply() | Restart() | DeleteRun():
            return (run_topic(op.run_id),)
    return ()


def _topics_of_update(op: UpdateRun) -> list[str]:
    topics, ends = [], "status" in op.changes
    if op.release or ends or "cancel_requested" in op.changes:
        topics.append(run_topic(op.run_id))
    if op.release and not ends:
        topics.append(GIVEN_BACK_TOPIC)
    if op.changes.get("queue") is not None:
        topics += (queue_topic(op.changes["queue"]), QUEUES_TOPIC)
    return topics
