"""Transactions of SQLite that the body of a step shares with its record.

Each has its own connection. So what a body sets on it does not outlive the body. ``BEGIN IMMEDIATE`` takes
the lock of the one writer at once. So a body that has read is not outdated when it writes.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flowdsl.blocks import block
from flowdsl.storage.operations import Operation
from flowdsl.storage.outcomes import Done, Outcome
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.apply import apply
from flowdsl.storage.sqlite.file import WRITER, connect, patiently, translate
from flowdsl.storage.sqlite.transaction import Transaction
from flowdsl.storage.step_transactions import NotCommitted, StepTransaction, Unending, ended_by_itself

__all__ = ["SQLiteTransaction", "StepConnection", "begun"]


class StepConnection(Unending, sqlite3.Connection):
    """What a body gets. It cannot end its transaction, by method or by statement."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.refused = False

    def judge(self, action: int, *_: str | None) -> int:
        """SQLite asks this about each part of a statement. No part may begin or end a transaction."""
        if action == sqlite3.SQLITE_TRANSACTION:
            self.refused = True
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK


class SQLiteTransaction(StepTransaction):
    """A transaction in the file *path*. *now* tells the storage's time."""

    def __init__(self, connection: StepConnection, path: Path, now: Callable[[], float]) -> None:
        self.connection: StepConnection = connection
        self._path = path
        self._now = now

    def fault(self, error: BaseException | None) -> BaseException | None:
        if not self.connection.refused and self.connection.in_transaction:
            return error
        if error is None or isinstance(error, sqlite3.DatabaseError):
            told = ended_by_itself()
            told.__cause__ = error
            return told
        return error

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        connection = self.connection
        connection.set_authorizer(None)
        connection.row_factory, connection.text_factory = None, str  # a body may have changed them
        try:
            outcomes = apply(Transaction(connection, self._now()), operations)
            if all(isinstance(outcome, Done) for outcome in outcomes):
                connection.execute(sql.COMMIT)
                self.committed = True
        except sqlite3.IntegrityError as error:  # a constraint that is checked at the end
            raise NotCommitted(error) from error
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        return outcomes


@block
def begun(
    path: Path, synchronous: str, patience: float, now: Callable[[], float]
) -> Iterator[SQLiteTransaction]:
    """A transaction that has begun. It is rolled back if it is not committed."""
    connection = patiently(lambda: _begin(path, synchronous), path, patience)
    process = os.getpid()
    try:
        connection.set_authorizer(connection.judge)
        yield SQLiteTransaction(connection, path, now)
    finally:
        if os.getpid() == process:
            _end(connection)
        else:
            _leaked.append(connection)


def _end(connection: StepConnection) -> None:
    connection.set_authorizer(None)
    if connection.in_transaction:
        connection.execute(sql.ROLLBACK)
    # If a timeout has left the body behind, all that it does with the connection from now on is an error.
    sqlite3.Connection.close(connection)


_leaked: list[StepConnection] = []
"""In a forked child, connections of the parent: to close them would end the parent's locks."""


def _begin(path: Path, synchronous: str) -> StepConnection:
    connection = connect(
        path,
        *(f"PRAGMA {setting}" for setting in (f"synchronous = {synchronous}", *WRITER)),
        factory=StepConnection,
    )
    try:
        connection.execute(sql.BEGIN)
    except BaseException:  # an interrupt, too, must leave no connection open
        sqlite3.Connection.close(connection)
        raise
    assert isinstance(connection, StepConnection)
    return connection
