"""The connection with which a process writes SQLite.

Most commits of a lone run are one operation. One statement is a transaction, without ``BEGIN`` and
``COMMIT``. All other commits are inside one ``BEGIN IMMEDIATE``.

Steps are numbered here. The writer remembers the number of the last step of each run that this process has
written. So it stores the next step without a look. If another process has stored one since, that number is
taken, and the statement stores nothing. Then a transaction looks.
"""

import sqlite3
from collections.abc import Callable, Sequence

from flowdsl.core.ownership import updated
from flowdsl.storage import columns
from flowdsl.storage.operations import Operation, PutStep, UpdateRun
from flowdsl.storage.outcomes import Done, Outcome
from flowdsl.storage.sqlite import rows
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.apply import apply
from flowdsl.storage.sqlite.transaction import NUMBER, Transaction

__all__ = ["Writer"]

_DONE = Done()
_REMEMBERED = 10_000  # for so many runs the last number is remembered


class Writer:
    """The connection of a process that writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        connection.text_factory = rows.or_bytes
        self._execute = connection.execute
        self._lasts: dict[str, int] = {}  # run → the seq of its last step that this process stored

    def commit(self, operations: Sequence[Operation], now: float) -> list[Outcome]:
        """Apply *operations* durably. Returns one outcome for each. Errors of the driver pass, and then
        nothing is done."""
        if len(operations) == 1:
            operation = operations[0]
            if type(operation) is PutStep:
                outcome = self._append(operation)
            elif type(operation) is UpdateRun:
                outcome = self._update(operation, now)
            else:
                outcome = None
            if outcome is not None:
                return [outcome]
        elif not operations:
            return []
        return self._transact(now, lambda tx: apply(tx, operations))

    def clear(self, _: None, now: float) -> list[Outcome]:
        """Delete everything."""

        def work(tx: Transaction) -> list[Outcome]:
            tx.clear()
            return []

        return self._transact(now, work)

    # If one statement changes nothing, or cannot tell the whole outcome, the answer is None. Then a
    # transaction looks.

    def _append(self, op: PutStep) -> Outcome | None:
        step = op.step
        last = self._lasts.get(step.run_id)
        if last is None or op.once:
            return None
        seq = last + 1
        given, values = rows.step_values(step)
        fenced = op.epoch is not None
        values = (seq, *values, last >> 32, step.run_id)
        try:
            cursor = self._execute(sql.append_step(given, fenced), (*values, op.epoch) if fenced else values)
        except rows.UNSTORABLE as error:
            if rows.is_unstorable(error):
                return rows.unstorable(error)
            raise
        if cursor.rowcount != 1:
            return None
        self._lasts[step.run_id] = seq
        return Done(seq & NUMBER)

    def _update(self, op: UpdateRun, now: float) -> Outcome | None:
        if "tags" in op.changes or not (changes := updated(op.changes, op.lease, op.release, now)):
            return None
        full, null, values = rows.given(changes, map(columns.encode_run_field, changes, changes.values()))
        fence = () if op.epoch is None else (op.epoch,)
        statuses = tuple(status.value for status in op.if_status)
        statement = sql.update_run_if(full, null, bool(fence), len(statuses))
        try:
            cursor = self._execute(statement, (*values, op.run_id, *fence, *statuses))
        except rows.UNSTORABLE as error:
            if rows.is_unstorable(error):
                return rows.unstorable(error)
            raise
        if cursor.rowcount != 1:
            return None
        if op.release:
            self._lasts.pop(op.run_id, None)
        return _DONE

    def _transact(self, now: float, work: Callable[["Transaction"], list[Outcome]]) -> list[Outcome]:
        transaction = Transaction(self.connection, now)
        self._execute(sql.BEGIN)
        try:
            outcomes = work(transaction)
            self._execute(sql.COMMIT)
        except BaseException:  # an interrupt, too, must leave no transaction open
            if self.connection.in_transaction:  # after some errors SQLite has rolled back by itself
                self._execute(sql.ROLLBACK)
            raise
        if len(self._lasts) > _REMEMBERED:
            self._lasts.clear()
        transaction.tell_lasts(self._lasts)
        return outcomes
