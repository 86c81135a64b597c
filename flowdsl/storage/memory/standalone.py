"""Memos, queues, schedules and workers, in memory: records that belong to no run."""

from flowdsl.core.ownership import is_unchanged
from flowdsl.storage.memory.tables import Tables
from flowdsl.storage.operations import (
    DropMemo,
    DropQueue,
    DropSchedule,
    DropWorker,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutWorker,
)
from flowdsl.storage.outcomes import Done, Missing, Outcome

__all__ = [
    "drop_memo",
    "drop_queue",
    "drop_schedule",
    "drop_worker",
    "put_memo",
    "put_queue",
    "put_schedule",
    "put_worker",
]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def put_memo(tables: Tables, op: PutMemo) -> Outcome:
    """Insert or replace a memo."""
    tables.memos[op.memo.key] = op.memo
    return _DONE


def drop_memo(tables: Tables, op: DropMemo) -> Outcome:
    """Delete a memo."""
    tables.memos.pop(op.key, None)
    return _DONE


def put_queue(tables: Tables, op: PutQueue) -> Outcome:
    """Insert or replace a queue."""
    if op.if_new and op.row.name in tables.queues:
        return _EXISTED
    tables.queues[op.row.name] = op.row
    return _DONE


def drop_queue(tables: Tables, op: DropQueue) -> Outcome:
    """Delete a queue."""
    tables.queues.pop(op.name, None)
    return _DONE


def put_schedule(tables: Tables, op: PutSchedule) -> Outcome:
    """Insert or replace a schedule."""
    if op.if_new and op.row.name in tables.schedules:
        return _EXISTED
    if not is_unchanged(tables.schedules.get(op.row.name), op.was):
        return _MISSING
    tables.schedules[op.row.name] = op.row
    return _DONE


def drop_schedule(tables: Tables, op: DropSchedule) -> Outcome:
    """Delete a schedule."""
    tables.schedules.pop(op.name, None)
    return _DONE


def put_worker(tables: Tables, op: PutWorker) -> Outcome:
    """Insert or replace a worker."""
    tables.workers[op.row.id] = op.row
    return _DONE


def drop_worker(tables: Tables, op: DropWorker) -> Outcome:
    """Delete a worker."""
    tables.workers.pop(op.id, None)
    return _DONE
