"""The storage for many machines: a PostgreSQL database.

How it is put together:

* Steps are one fenced statement (``writer.py``), whether there is one step or a group. An async commit sends
  it on the loop, on the loop's own connection. Several statements are a transaction in a thread. Such a
  transaction holds locks, and a body may block the loop, so it must not need the loop.
* All leases and durable times are on the server's clock. We ask it now and then, and keep its offset to this
  host's monotonic time.
* If a connection is lost, even in the middle of a COMMIT, the same operations are sent again, until the
  server has been gone for *patience* seconds.
* Whoever waits hears of changes by LISTEN if that works, and otherwise by looking (``listen.py``).
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from hashlib import blake2b
from typing import Any, Self, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from flowdsl.errors import StorageUnavailable
from flowdsl.storage.forking import rest_before_fork
from flowdsl.storage.operations import Operation, require_operations
from flowdsl.storage.outcomes import Outcome
from flowdsl.storage.postgres.apply import apply
from flowdsl.storage.postgres.connections import Connections, Outage, is_conflict, is_outage, translate
from flowdsl.storage.postgres.drive import Threads, drive, drive_async
from flowdsl.storage.postgres.fragments import Sql
from flowdsl.storage.postgres.listen import Listener
from flowdsl.storage.postgres.reading import PostgresReading
from flowdsl.storage.postgres.rows import REFUSED, NotTaken, Row, is_text, unstorable
from flowdsl.storage.postgres.schema import prepare
from flowdsl.storage.postgres.statements import Statements
from flowdsl.storage.postgres.step_transactions import AsyncTransaction, BodyConnections
from flowdsl.storage.postgres.transaction import Transaction
from flowdsl.storage.postgres.url import postgres_address
from flowdsl.storage.postgres.writer import Single, Told, single
from flowdsl.storage.step_transactions import StepTransaction

__all__ = ["PostgresStorage"]

T = TypeVar("T")

_PAUSE = 0.05  # seconds before the same is sent again
_CLOCK = 60.0  # seconds between two looks at the server's clock
_LOOK = 0.5  # seconds between two looks for changes of no topic


class PostgresStorage(PostgresReading):
    """Keeps runs in the PostgreSQL database of *url*, such as ``postgresql://ann@db/shop?schema=flow&patience=30``.

    * ``schema``: where the tables are. It is ``flowdsl`` if it is not given, and made if it is missing.
    * ``patience``: seconds to wait for a server that does not answer, before ``StorageUnavailable``.
    * ``prepare=no``: for a pooler that does not support prepared statements.
    * All other options are the driver's.

    Any number of hosts share it. Raises :class:`~flowdsl.errors.StorageUnavailable` if the server cannot be
    reached or refuses us, and :class:`~flowdsl.errors.SchemaMismatch` if a newer flowdsl made the tables.
    """

    transacts = awaits = merges_tags = True

    def __init__(self, url: str) -> None:
        address = self._address = postgres_address(url)
        super().__init__(Statements(address.schema))
        self.url = address.url
        self.patience = address.patience
        self._channel = "flowdsl_" + blake2b(address.schema.encode(), digest_size=8).hexdigest()
        self._connections = Connections(address)
        self._outage = Outage(address.patience)
        self._threads = Threads()
        self._bodies = BodyConnections(
            address, self._new_transaction, self._patiently, self._patiently_async, self._threads
        )
        self._closed = False
        self._clock = (0.0, float("-inf"))  # the server's time minus ours, and when that was measured
        self._clock_lock = threading.Lock()
        self._listener = self._new_listener()
        self._persist(lambda connection: prepare(connection, address.schema, self._sql.schema))
        rest_before_fork(self)

    @classmethod
    def from_url(cls, url: str, /) -> Self:
        """The storage for a ``postgresql://`` URL. Raises ``ValueError`` for a malformed one."""
        return cls(url)

    def __repr__(self) -> str:
        return f"PostgresStorage(schema={self._address.schema!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_url, (self.url,)

    def now(self) -> float:
        offset, found = self._clock
        mono = time.monotonic()
        if mono - found > _CLOCK:
            with self._clock_lock:
                begun = time.monotonic()
                ((there,),) = self._read(self._sql.now, ())
                ended = time.monotonic()
                offset = there - (begun + ended) / 2
                self._clock = (offset, ended)
                mono = time.monotonic()
        return mono + offset

    # Writing -----------------------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        require_operations(operations)
        self._require_open()
        if not operations:
            return []
        outcomes = self._persist(lambda connection: self._commit(connection, operations))
        self.announce(operations)
        return outcomes

    def _commit(
        self, connection: "psycopg.Connection[Any]", operations: Sequence[Operation]
    ) -> list[Outcome]:
        told = self._at_once(operations)
        if isinstance(told, Single):
            try:
                told = told.outcomes(connection.execute(told.sql, told.values, binary=True).fetchall())
            except REFUSED as error:
                told = _refused(error, operations)
        return _filled(told, operations, lambda rest: self._in_transaction(connection, rest))

    def _at_once(self, operations: Sequence[Operation]) -> Single | Told:
        """How to commit *operations* in one statement, or the outcomes that are known without the server."""
        try:
            if (statement := single(self._sql, operations)) is not None:
                return statement
        except NotTaken as error:
            return [unstorable(error)]
        return [None for _ in operations]

    def _in_transaction(
        self, connection: "psycopg.Connection[Any]", operations: Sequence[Operation]
    ) -> list[Outcome]:
        for careful in (False, True):
            try:
                with connection.transaction():
                    return drive(connection, apply(self._new_transaction(), operations, careful))
            except REFUSED as error:
                if is_conflict(error) or careful:
                    raise
        raise AssertionError("unreachable")

    def commit_within(self, connection: Any, operations: Sequence[Operation], /) -> list[Outcome]:
        if isinstance(connection, psycopg.AsyncConnection):
            raise TypeError("connection= is an AsyncConnection: write await rt.aio.enqueue(…, connection=…)")
        if not isinstance(connection, psycopg.Connection):
            return super().commit_within(connection, operations)
        _require_transaction(connection)
        require_operations(operations)
        return drive(connection, apply(self._new_transaction(), operations))

    async def commit_within_async(self, connection: Any, operations: Sequence[Operation], /) -> list[Outcome]:
        if not isinstance(connection, psycopg.AsyncConnection):
            return self.commit_within(connection, operations)
        _require_transaction(connection)
        require_operations(operations)
        return await drive_async(connection, apply(self._new_transaction(), operations))

    async def commit_async(self, operations: Sequence[Operation], /) -> list[Outcome]:
        """``commit`` without blocking the event loop. One statement is sent on the loop, without a thread.

        A transaction of several statements holds locks between them. Meanwhile a body may block the loop with
        a call that waits for just these locks. So a thread sends them, which does not need the loop.
        """
        require_operations(operations)
        self._require_open()
        if not operations:
            return []
        told = self._at_once(operations)
        if isinstance(told, Single):
            told = await self._told_async(told, operations)
        if None in told:
            rest = [operation for operation, outcome in zip(operations, told, strict=True) if outcome is None]
            found = await self._threads.call(
                lambda: self._persist(lambda connection: self._in_transaction(connection, rest))
            )
            outcomes = _filled(told, operations, lambda _: found)
        else:
            outcomes = _filled(told, operations, lambda _: [])
        self.announce(operations)
        return outcomes

    async def _told_async(self, statement: Single, operations: Sequence[Operation]) -> Told:
        async def work() -> Told:
            async with self._connections.pinned() as connection:
                try:
                    cursor = await connection.execute(statement.sql, statement.values, binary=True)
                    return statement.outcomes(await cursor.fetchall())
                except REFUSED as error:
                    return _refused(error, operations)

        return await self._patiently_async(work)

    def transaction(self) -> AbstractContextManager[StepTransaction]:
        self._require_open()
        return self._bodies.transaction()

    def transaction_async(self) -> AbstractAsyncContextManager[StepTransaction]:
        self._require_open()
        return self._bodies.transaction_async()

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        assert isinstance(transaction, AsyncTransaction)
        outcomes = await transaction.commit_async(operations)
        if transaction.committed:
            self.announce(operations)
        return outcomes

    def _new_transaction(self) -> Transaction:
        return Transaction(self._sql, self._channel)

    def clear(self) -> None:
        def work(connection: "psycopg.Connection[Any]") -> None:
            with connection.transaction():
                drive(connection, self._new_transaction().clear())

        self._require_open()
        self._persist(work)
        self.notify()

    def _persist(self, work: Callable[["psycopg.Connection[Any]"], T]) -> T:
        """Do *work* with a connection."""

        def lent() -> T:
            with self._connections.lend() as connection:
                return work(connection)

        return self._patiently(lent)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Call *attempt*. Call it again while the server is away, or another transaction is in the way."""
        end = time.monotonic() + self.patience
        while True:
            try:
                found = attempt()
            except psycopg.Error as error:
                outage = is_outage(error)
                if outage:
                    self._connections.drop_idle()
                if not (outage or is_conflict(error)) or time.monotonic() > end:
                    raise self._meaning(error) from error
                if outage:
                    self._outage.begins(error)
            else:
                self._outage.ends()
                return found
            if outage:
                time.sleep(_PAUSE)

    async def _patiently_async(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The same on an event loop."""
        end = time.monotonic() + self.patience
        while True:
            try:
                found = await attempt()
            except psycopg.Error as error:
                outage = is_outage(error)
                if not (is_conflict(error) or outage) or time.monotonic() > end:
                    raise self._meaning(error) from error
                if outage:
                    self._outage.begins(error)
            else:
                self._outage.ends()
                return found
            await asyncio.sleep(_PAUSE)

    def _meaning(self, error: psycopg.Error) -> Exception:
        return translate(error, self._address, given_up=True)

    # Reading -----------------------------------------------------------------------------------------------

    def _read(self, statement: Sql, values: Sequence[Any], of: str = "") -> list[Row]:
        self._require_open()
        if not all(is_text(value) for value in values if isinstance(value, str)):
            return []  # no row holds such a text, because writing it is refused
        try:
            return self._persist(
                lambda connection: connection.execute(statement, values, binary=True).fetchall()
            )
        except UnicodeEncodeError:
            return []

    # Changes -----------------------------------------------------------------------------------------------

    def wait_for_change(self, seen: int, timeout: float, /, topics: Iterable[str] = ()) -> int:
        """As in the base class. Without topics it returns twice a second, whether something changed or
        not."""
        self._require_open()
        wanted = frozenset(topics)
        if wanted:
            if self._listener.learn(wanted, self._execute):
                self._changes.say(wanted)  # another thread may have looked before the wait was entered
                return self._changes.version
            return self._changes.wait(seen, timeout, wanted, self._settle)
        if timeout < _LOOK:
            return self._changes.wait(seen, timeout)
        version = self._changes.wait(seen, _LOOK)
        if version == seen:
            self._changes.say()  # others may have committed
        return self._changes.version

    def _settle(self, left: float) -> float:
        return self._listener.settle(left, self._execute)

    def _execute(self, statement: Sql, values: Sequence[Any]) -> "psycopg.Cursor[Any]":
        self._require_open()
        return self._persist(lambda connection: connection.execute(statement, values))

    def _read_pulses(self, run_ids: list[str]) -> list[tuple[str, int]]:
        ids = [run_id for run_id in run_ids if is_text(run_id)]
        return [(row[0], row[1]) for row in self._read(self._sql.reads.pulses, (ids,))]

    def _new_listener(self) -> Listener:
        connect = self._connections.connect
        return Listener(self._changes, self._sql, self._channel, connect, self._read_pulses)

    @property
    def listens(self) -> bool | None:
        """Whether notifications of the server arrive. ``None`` as long as nobody has waited for one."""
        return self._listener.works

    # Life --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._closed = True
        self._listener.close()
        self._connections.close()
        self._bodies.close()
        self._threads.close()
        self.notify()

    def _require_open(self) -> None:
        if self._closed:
            raise StorageUnavailable(
                f"the storage in schema {self._address.schema!r} was closed; open it again", lasting=True
            )

    def before_fork(self) -> None:
        self._changes.before_fork()

    def after_fork(self, in_child: bool) -> None:
        self._changes.after_fork(in_child)
        if in_child:
            self._connections.after_fork()
            self._bodies.after_fork()
            self._threads.after_fork()
            self._clock_lock = threading.Lock()
            self._listener = self._new_listener()


def _refused(error: psycopg.Error, operations: Sequence[Operation]) -> Told:
    """What it means that one statement for all *operations* was refused. Of a group, nothing is known."""
    if is_conflict(error):
        raise error
    return [unstorable(error)] if len(operations) == 1 else [None] * len(operations)


def _filled(
    told: Told, operations: Sequence[Operation], ask: Callable[[list[Operation]], list[Outcome]]
) -> list[Outcome]:
    """All outcomes: those that are *told*, and those that *ask* gives for the others."""
    rest = [operation for operation, outcome in zip(operations, told, strict=True) if outcome is None]
    more = iter(ask(rest) if rest else ())
    return [next(more) if outcome is None else outcome for outcome in told]


def _require_transaction(connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]") -> None:
    """Raise for a connection that would commit each statement by itself."""
    if connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
        raise ValueError(
            "connection= commits by itself (autocommit) and has no transaction open: write "
            "with connection.transaction(): …"
        )
