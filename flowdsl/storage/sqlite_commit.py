"""One commit on the writing connection: in one statement where that is enough, else in a transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from flowdsl.storage import sqlite_rows as sql
from flowdsl.storage.base import Done, Operation, Outcome, PutStep, UpdateRun
from flowdsl.storage.sqlite_writer import Transaction, changes_of, is_unstorable, unstorable

__all__ = ["clear", "commit"]


def commit(writer: sqlite3.Connection, operations: Sequence[Operation], now: float) -> list[Outcome]:
    """Apply *operations* durably; one outcome for each. Errors of the driver pass, with nothing done."""
    if len(operations) == 1:
        operation = operations[0]
        at_once = _AT_ONCE.get(type(operation))
        if at_once is not None and (outcome := at_once(writer, operation, now)) is not None:
            return [outcome]
    elif not operations:
        return []
    return _transact(writer, now, lambda transaction: transaction.apply(operations))


def clear(writer: sqlite3.Connection, _: None, now: float) -> list[Outcome]:
    """Delete everything."""
    return _transact(writer, now, lambda transaction: transaction.clear())


def _transact(
    writer: sqlite3.Connection, now: float, work: Callable[[Transaction], list[Outcome]]
) -> list[Outcome]:
    writer.execute(sql.BEGIN)
    try:
        outcomes = work(Transaction(writer, now))
        writer.execute(sql.COMMIT)
    except BaseException:
        if writer.in_transaction:  # some errors have rolled back already
            writer.execute(sql.ROLLBACK)
        raise
    return outcomes


# Most commits of a lone run are one operation, and one statement is one transaction: no BEGIN, no COMMIT.
# Where it changes nothing, or cannot say all that the outcome must say, the answer is None: look closer.


def _insert_step(writer: sqlite3.Connection, op: PutStep, _: float) -> Outcome | None:
    step, epoch = op.step, op.epoch
    try:
        if epoch is None:
            cursor = writer.execute(sql.INSERT_STEP, (*sql.step_values(step), step.run_id))
        else:
            cursor = writer.execute(sql.INSERT_STEP_FENCED, (*sql.step_values(step), step.run_id, epoch))
    except Exception as error:
        if is_unstorable(error):
            return unstorable(error)
        raise
    return Done(cursor.lastrowid or 0) if cursor.rowcount == 1 else None


def _update_run(writer: sqlite3.Connection, op: UpdateRun, now: float) -> Outcome | None:
    if "tags" in op.changes or not (changes := changes_of(op, now)):
        return None
    values = [sql.encode_run_field(name, value) for name, value in changes.items()]
    fence = () if op.epoch is None else (op.epoch,)
    statuses = tuple(status.value for status in op.if_status)
    statement = sql.update_run_if(tuple(changes), bool(fence), len(statuses))
    try:
        cursor = writer.execute(statement, (*values, op.run_id, *fence, *statuses))
    except Exception as error:
        if is_unstorable(error):
            return unstorable(error)
        raise
    return Done() if cursor.rowcount == 1 else None


_AT_ONCE: dict[type, Callable[[sqlite3.Connection, Any, float], Outcome | None]] = {
    PutStep: _insert_step,
    UpdateRun: _update_run,
}
