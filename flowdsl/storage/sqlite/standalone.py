"""Memos, queues, schedules and workers, in SQLite: records that belong to no run."""

from flowdsl.core.ownership import is_unchanged
from flowdsl.storage import columns
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
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["drop", "put_memo", "put_queue", "put_schedule", "put_worker"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()
_DROP = {
    DropMemo: (sql.DROP_MEMO, "key"),
    DropQueue: (sql.DROP_QUEUE, "name"),
    DropSchedule: (sql.DROP_SCHEDULE, "name"),
    DropWorker: (sql.DROP_WORKER, "id"),
}


def put_memo(tx: Transaction, op: PutMemo) -> Outcome:
    """Insert or replace a memo."""
    tx.execute(sql.PUT_MEMO, columns.values_of(op.memo))
    return _DONE


def put_queue(tx: Transaction, op: PutQueue) -> Outcome:
    """Insert or replace a queue."""
    if op.if_new and tx.one(sql.HAS_QUEUE, op.row.name):
        return _EXISTED
    tx.execute(sql.PUT_QUEUE, columns.values_of(op.row))
    return _DONE


def put_schedule(tx: Transaction, op: PutSchedule) -> Outcome:
    """Insert or replace a schedule."""
    if op.if_new and tx.one(sql.HAS_SCHEDULE, op.row.name):
        return _EXISTED
    if op.was is not None:
        found = tx.one(sql.GET_SCHEDULE, op.row.name)
        if not is_unchanged(columns.schedule_of(found) if found else None, op.was):
            return _MISSING
    tx.execute(sql.PUT_SCHEDULE, columns.values_of(op.row))
    return _DONE


def put_worker(tx: Transaction, op: PutWorker) -> Outcome:
    """Insert or replace a worker."""
    tx.execute(sql.PUT_WORKER, columns.values_of(op.row))
    return _DONE


def drop(tx: Transaction, op: DropMemo | DropQueue | DropSchedule | DropWorker) -> Outcome:
    """Delete a record."""
    statement, name = _DROP[type(op)]
    tx.execute(statement, (getattr(op, name),))
    return _DONE
