"""Memos, queues, schedules and workers, in PostgreSQL: records that belong to no run."""

from flowdsl.core.ownership import is_unchanged
from flowdsl.storage import columns
from flowdsl.storage.operations import (
    DropMemo,
    DropQueue,
    DropSchedule,
    DropWorker,
    Operation,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutWorker,
)
from flowdsl.storage.outcomes import Done, Missing, Outcome
from flowdsl.storage.postgres.fragments import Sql
from flowdsl.storage.postgres.rows import Dialogue, checked, is_text
from flowdsl.storage.postgres.transaction import Transaction

__all__ = ["drop", "put_memo", "put_queue", "put_schedule", "put_worker"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def put_memo(tx: Transaction, op: PutMemo) -> Dialogue[Outcome]:
    """Insert or replace a memo."""
    yield tx.sql.put_memo, checked(columns.values_of(op.memo), (op.memo.key,))
    return _DONE


def put_queue(tx: Transaction, op: PutQueue) -> Dialogue[Outcome]:
    """Insert or replace a queue."""
    values = checked(columns.values_of(op.row), (op.row.name,))
    if op.if_new and (yield tx.sql.has_queue, (op.row.name,)):
        return _EXISTED
    yield tx.sql.put_queue, values
    return _DONE


def put_schedule(tx: Transaction, op: PutSchedule) -> Dialogue[Outcome]:
    """Insert or replace a schedule."""
    values = checked(columns.values_of(op.row), (op.row.name,))
    if op.if_new and (yield tx.sql.has_schedule, (op.row.name,)):
        return _EXISTED
    if op.was is not None:
        found = yield tx.sql.get_schedule, (op.row.name,)
        if not is_unchanged(columns.schedule_of(found[0]) if found else None, op.was):
            return _MISSING
    yield tx.sql.put_schedule, values
    return _DONE


def put_worker(tx: Transaction, op: PutWorker) -> Dialogue[Outcome]:
    """Insert or replace a worker."""
    yield tx.sql.put_worker, checked(columns.values_of(op.row), (op.row.id,))
    return _DONE


def drop(tx: Transaction, op: DropMemo | DropQueue | DropSchedule | DropWorker) -> Dialogue[Outcome]:
    """Delete a record."""
    found: dict[type[Operation], tuple[Sql, str]] = {
        DropMemo: (tx.sql.drop_memo, "key"),
        DropQueue: (tx.sql.drop_queue, "name"),
        DropSchedule: (tx.sql.drop_schedule, "name"),
        DropWorker: (tx.sql.drop_worker, "id"),
    }
    statement, name = found[type(op)]
    value = getattr(op, name)
    if is_text(value):
        yield statement, (value,)
    return _DONE
