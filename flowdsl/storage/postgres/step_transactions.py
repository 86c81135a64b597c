"""Transactions of PostgreSQL that the body of a step shares with its record.

The body gets a connection in an open transaction. The transaction begins with a savepoint. At the end, the
savepoint is released and the transaction committed in one message. If the body has sent ``COMMIT`` and
``BEGIN`` by itself, the savepoint is gone, and no record is committed.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import tuple_row

from flowdsl.blocks import block
from flowdsl.errors import StorageFull, StorageUnavailable
from flowdsl.storage.operations import Operation
from flowdsl.storage.outcomes import Done, Outcome
from flowdsl.storage.postgres.apply import apply
from flowdsl.storage.postgres.connections import KEEP_ALIVE, PerLoop, is_conflict, is_outage, leaked
from flowdsl.storage.postgres.drive import Threads, drive
from flowdsl.storage.postgres.rows import REFUSED, unstorable
from flowdsl.storage.postgres.transaction import Transaction
from flowdsl.storage.postgres.url import Address
from flowdsl.storage.step_transactions import NotCommitted, StepTransaction, Unending, ended_by_itself, refuse

__all__ = ["AsyncStepConnection", "AsyncTransaction", "BodyConnections", "StepConnection", "SyncTransaction"]

_MOST = 8  # transactions of bodies that one process has open at a time, and as many for each event loop
_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_BEGIN = (
    "RESET ALL; BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = '20s'; "
    "SET LOCAL statement_timeout = '60s'; SET LOCAL idle_in_transaction_session_timeout = '5min'; "
    "SAVEPOINT flowdsl_step"
)
"""Settings of a body end with its transaction, or here. The connection of a process that hangs in a body is
cut after some minutes, so that its locks do not stay."""

_COMMIT = "RELEASE SAVEPOINT flowdsl_step; COMMIT"


class StepConnection(Unending, psycopg.Connection[Any]):
    """What a sync body gets. It cannot end its transaction. ``transaction()`` on it makes a savepoint."""


class AsyncStepConnection(psycopg.AsyncConnection[Any]):
    """The same for an async body."""

    async def commit(self) -> NoReturn:
        refuse("commit()")

    async def rollback(self) -> NoReturn:
        refuse("rollback()")

    async def close(self) -> NoReturn:
        refuse("close()")

    async def __aenter__(self) -> NoReturn:
        refuse("`async with connection:`, which commits,")


class _Transaction(StepTransaction):
    """What sync and async transactions have in common."""

    connection: Any

    def __init__(self, writer: Transaction) -> None:
        self._writer = writer

    def fault(self, error: BaseException | None) -> BaseException | None:
        status = self.connection.info.transaction_status
        if status == TransactionStatus.IDLE and (error is None or isinstance(error, psycopg.Error)):
            told = ended_by_itself()
            told.__cause__ = error
            return told
        if status == TransactionStatus.INERROR and error is None:
            return psycopg.errors.InFailedSqlTransaction(
                "a statement of the body failed and the body went on, so nothing of its transaction can be "
                "committed: let the error pass, or put the statement into `with connection.transaction():`"
            )
        return error

    def _refusals(self, error: psycopg.Error, operations: Sequence[Operation]) -> list[Outcome]:
        """The outcomes if the record could not be added."""
        if isinstance(error, REFUSED) and not is_conflict(error):
            return [unstorable(error) for _ in operations]
        raise self._failed(error) from error

    def _failed(self, error: psycopg.Error) -> Exception:
        if is_outage(error):
            return StorageUnavailable(
                f"the connection to PostgreSQL was lost while a transactional step was committed ({error})",
                outcome_unknown=True,
                lasting=True,
            )
        if isinstance(error, psycopg.errors.DiskFull):
            return StorageFull(
                f"no space left on the database server ({error}); nothing acknowledged is lost"
            )
        if isinstance(error, psycopg.errors.InvalidSavepointSpecification):
            return NotCommitted(ended_by_itself())
        return NotCommitted(error)  # a deferred constraint, or a conflict with another transaction


def _all_done(outcomes: list[Outcome]) -> bool:
    return all(isinstance(outcome, Done) for outcome in outcomes)


class SyncTransaction(_Transaction):
    """The transaction of a sync body."""

    def __init__(self, connection: StepConnection, writer: Transaction) -> None:
        super().__init__(writer)
        self.connection = connection

    def commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        connection: StepConnection = self.connection
        connection.row_factory, connection.cursor_factory = tuple_row, psycopg.Cursor
        try:
            outcomes = drive(connection, apply(self._writer, operations))
        except psycopg.Error as error:
            return self._refusals(error, operations)
        if _all_done(outcomes):
            try:
                connection.execute(_COMMIT, prepare=False)
            except psycopg.Error as error:
                raise self._failed(error) from error
            self.committed = True
        return outcomes


class AsyncTransaction(_Transaction):
    """The transaction of an async body."""

    def __init__(self, connection: AsyncStepConnection, writer: Transaction, threads: Threads) -> None:
        super().__init__(writer)
        self.connection = connection
        self._threads = threads

    def commit(self, operations: Sequence[Operation]) -> NoReturn:
        raise AssertionError("an async transaction is committed by commit_async")

    async def commit_async(self, operations: Sequence[Operation]) -> list[Outcome]:
        """The same as ``commit``, in a thread. From here to the end the run is locked, and a call that waits
        for it may block the loop."""
        same = SyncTransaction(_SameSession(self.connection.pgconn), self._writer)
        try:
            return await self._threads.call(lambda: same.commit(operations))
        finally:
            self.committed = same.committed


class _SameSession(StepConnection):
    """The session of an async connection, for statements that block. It does not own it."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self.prepare_threshold = None  # the async one has given names to its own statements

    def __del__(self, __warn: Any = None) -> None:
        """Leave the session open."""


class BodyConnections:
    """Connections for bodies, beside those of the storage itself.

    If its transaction was committed, a connection is kept for the next step. Otherwise it is closed, because
    a body that a timeout has left behind, or a task of it, may still hold it. *patiently* calls what may have
    to wait for the server. *writer* makes what adds the record. *threads* commit for async code.
    """

    def __init__(
        self,
        address: Address,
        writer: Callable[[], Transaction],
        patiently: Callable[[Callable[[], StepConnection]], StepConnection],
        patiently_async: Callable[
            [Callable[[], Awaitable[AsyncStepConnection]]], Awaitable[AsyncStepConnection]
        ],
        threads: Threads,
    ) -> None:
        self._threads = threads
        self._address = address
        self._writer = writer
        self._patiently = patiently
        self._patiently_async = patiently_async
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._free: list[StepConnection] = []  # append and pop are atomic
        self._loans = threading.Semaphore(_MOST)
        self._loops = PerLoop(_LoopConnections)

    @block
    def transaction(self) -> Iterator[SyncTransaction]:
        """A transaction that has begun."""
        with self._loans:
            connection = self._patiently(self._begin)
            transaction, process = SyncTransaction(connection, self._writer()), os.getpid()
            try:
                yield transaction
            finally:
                if process != os.getpid():
                    leaked.append(connection)  # it belongs to the parent of this forked child
                elif transaction.committed and not self._closed:
                    self._free.append(connection)
                else:
                    _roll_back(connection)

    def _begin(self) -> StepConnection:
        try:
            connection = self._free.pop()
        except IndexError:
            connection = StepConnection.connect(self._address.dsn, autocommit=True, **KEEP_ALIVE)
            connection.prepare_threshold = 1 if self._address.prepare else None
        try:
            connection.execute(_BEGIN, prepare=False)
        except BaseException:  # an interrupt too leaves no connection
            psycopg.Connection.close(connection)
            raise
        return connection

    @asynccontextmanager
    async def transaction_async(self) -> AsyncIterator[AsyncTransaction]:
        """The same on an event loop."""
        here = self._loops.here()
        async with here.loans:
            connection = await self._patiently_async(partial(self._begin_async, here))
            transaction = AsyncTransaction(connection, self._writer(), self._threads)
            try:
                yield transaction
            finally:
                if transaction.committed and not self._closed:
                    here.free.append(connection)
                else:
                    await _roll_back_async(connection)

    async def _begin_async(self, here: "_LoopConnections") -> AsyncStepConnection:
        if here.free:
            connection = here.free.pop()
        else:
            connection = await AsyncStepConnection.connect(self._address.dsn, autocommit=True, **KEEP_ALIVE)
            connection.prepare_threshold = 1 if self._address.prepare else None
        try:
            await connection.execute(_BEGIN, prepare=False)
        except BaseException:  # an interrupt too leaves no connection
            await psycopg.AsyncConnection.close(connection)
            raise
        return connection

    def close(self) -> None:
        """Close what no body uses now. The rest is closed when its body ends."""
        self._closed = True
        while self._free:
            psycopg.Connection.close(self._free.pop())
        self._loops.finish()

    def after_fork(self) -> None:
        """In the child: leave the parent's connections alone."""
        leaked.append((self._free, self._loops))
        self._forget()


class _LoopConnections:
    """The connections for bodies of one event loop."""

    def __init__(self) -> None:
        self.loans = asyncio.Semaphore(_MOST)
        self.free: list[AsyncStepConnection] = []

    def finish(self) -> None:
        for connection in self.free:
            connection.pgconn.finish()
        self.free.clear()


def _roll_back(connection: StepConnection) -> None:
    """Roll back, so that its locks are free for the next attempt, and close it."""
    try:
        if connection.info.transaction_status in _OPEN:
            connection.execute("ROLLBACK", prepare=False)
    except psycopg.Error:
        pass  # the server rolls back what is lost
    finally:
        psycopg.Connection.close(connection)


async def _roll_back_async(connection: AsyncStepConnection) -> None:
    try:
        if connection.info.transaction_status in _OPEN:
            await connection.execute("ROLLBACK", prepare=False)
    except psycopg.Error:
        pass
    finally:
        await psycopg.AsyncConnection.close(connection)
