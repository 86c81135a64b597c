"""Connections to the server, and what their errors mean. Threads borrow one. Each event loop has one of its
own."""

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar

import psycopg

from flowdsl.blocks import block
from flowdsl.errors import StorageError, StorageFull, StorageUnavailable
from flowdsl.storage.postgres.url import Address

__all__ = [
    "KEEP_ALIVE",
    "Connections",
    "Outage",
    "PerLoop",
    "is_conflict",
    "is_outage",
    "leaked",
    "translate",
]

logger = logging.getLogger("flowdsl")

_MOST = 16  # connections that one process lends at the same time
_KEPT = 8  # connections that are kept for the next loan
_SETTINGS = (
    "SET SESSION synchronous_commit = on; SET lock_timeout = {lock}; SET statement_timeout = '60s'; "
    "SET idle_in_transaction_session_timeout = '20s'"
)
_LOCK = 1.0, 20.0  # seconds that a statement waits for a lock, between these: as long as callers are to wait
KEEP_ALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "connect_timeout": 5,
}


def is_conflict(error: psycopg.Error) -> bool:
    """Whether two transactions were in each other's way. Then the same is sent again."""
    conflicts = (
        psycopg.errors.DeadlockDetected,
        psycopg.errors.SerializationFailure,
        psycopg.errors.UniqueViolation,
        psycopg.errors.LockNotAvailable,
    )
    return isinstance(error, conflicts)


def is_outage(error: psycopg.Error) -> bool:
    """Whether the server, or the way to it, is gone for now."""
    if isinstance(error, psycopg.errors.DiskFull | psycopg.errors.ProgramLimitExceeded):
        return False
    state = error.sqlstate or ""
    if not state:  # the connection is lost or was refused
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state[:2] in ("08", "57") or state in ("53300", "25006")


def translate(error: psycopg.Error, address: Address, *, given_up: bool = False) -> StorageError:
    """What an *error* of the driver means to a user. Only this place says so. *given_up*: the time for trying
    is over, and nobody knows whether the last try took effect."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, psycopg.errors.DiskFull):
        return StorageFull(f"no space left on the database server ({text}); nothing acknowledged is lost")
    if is_outage(error) or is_conflict(error):
        return StorageUnavailable(
            f"the PostgreSQL server did not answer for {address.patience:g} s ({text}); "
            f"nothing acknowledged is lost",
            lasting=given_up,
            outcome_unknown=given_up and is_outage(error),
        )
    if error.sqlstate in ("28000", "28P01", "3D000", "42501"):
        return StorageUnavailable(f"PostgreSQL refuses us: {text}", lasting=True)
    return StorageError(f"PostgreSQL failed: {text}")


class Outage:
    """Says once that the server does not answer, and once that it answers again, for all callers."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._said = False

    def begins(self, error: psycopg.Error) -> None:
        """The server is not there. Callers wait for it."""
        with self._lock:
            said, self._said = self._said, True
        if not said:
            text = str(error).strip().partition("\n")[0]
            logger.warning(
                "the PostgreSQL server does not answer (%s); waiting for it, %g s at most",
                text,
                self._patience,
            )

    def ends(self) -> None:
        """The server has answered."""
        if self._said:
            with self._lock:
                said, self._said = self._said, False
            if said:
                logger.info("the PostgreSQL server answers again")


class Connections:
    """All connections of one storage in one process. Broken ones are closed, and never repaired.

    A forked child must not touch those of its parent. If it closed one, the parent's session would end.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._closed = False
        least, most = _LOCK
        self._settings = _SETTINGS.format(lock=int(1000 * min(max(address.patience, least), most))).encode()
        self._forget()

    def _forget(self) -> None:
        self._idle: list[psycopg.Connection[Any]] = []  # append and pop are atomic
        self._loans = threading.Semaphore(_MOST)
        self._pinned = PerLoop(_Pinned)

    def connect(self) -> "psycopg.Connection[Any]":
        """A new connection in autocommit mode."""
        connection = psycopg.connect(self._address.dsn, autocommit=True, **KEEP_ALIVE)
        self._prepare(connection)
        connection.execute(self._settings)
        return connection

    async def _connect_async(self) -> "psycopg.AsyncConnection[Any]":
        connection = await psycopg.AsyncConnection.connect(self._address.dsn, autocommit=True, **KEEP_ALIVE)
        self._prepare(connection)
        await connection.execute(self._settings)
        return connection

    def _prepare(self, connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]") -> None:
        connection.prepare_threshold = 1 if self._address.prepare else None

    @block
    def lend(self) -> "Iterator[psycopg.Connection[Any]]":
        """A connection for the caller alone."""
        with self._loans:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self.connect()
            try:
                yield connection
            finally:
                usable = not (connection.closed or connection.broken or self._closed)
                idle = psycopg.pq.TransactionStatus.IDLE
                if usable and connection.info.transaction_status == idle and len(self._idle) < _KEPT:
                    self._idle.append(connection)
                else:
                    connection.close()

    @asynccontextmanager
    async def pinned(self) -> "AsyncIterator[psycopg.AsyncConnection[Any]]":
        """The connection of the running event loop, for the caller alone."""
        pinned = self._pinned.here()
        async with pinned.lock:
            if pinned.connection is None or pinned.connection.closed or pinned.connection.broken:
                pinned.connection = await self._connect_async()
            try:
                yield pinned.connection
            except BaseException:  # an interrupt, too
                # Nobody knows what it was doing. The next call begins anew.
                connection, pinned.connection = pinned.connection, None
                if connection is not None:
                    await connection.close()
                raise

    def drop_idle(self) -> None:
        """Close the connections that nobody uses. After an outage all of them are dead."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def close(self) -> None:
        """Close what nobody uses now. The rest is closed when it comes back."""
        self._closed = True
        self.drop_idle()
        self._pinned.finish()

    def after_fork(self) -> None:
        """In the child: leave the parent's connections alone."""
        leaked.append((self._idle, self._pinned))
        self._forget()


class _Pinned:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.connection: psycopg.AsyncConnection[Any] | None = None

    def finish(self) -> None:
        if self.connection is not None:
            self.connection.pgconn.finish()
            self.connection = None


class OfLoop(Protocol):
    """What belongs to one event loop. ``finish`` closes its connections without the loop."""

    def finish(self) -> None: ...


L = TypeVar("L", bound=OfLoop)


class PerLoop(Generic[L]):
    """Calls *make* once for each event loop. What it made is finished once the loop is closed or gone."""

    def __init__(self, make: Callable[[], L]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._found: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, L] = weakref.WeakKeyDictionary()

    def here(self) -> L:
        """What belongs to the running loop."""
        loop = asyncio.get_running_loop()
        found = self._found.get(loop)
        if found is None:
            with self._lock:
                for other, ended in list(self._found.items()):
                    if other.is_closed():
                        del self._found[other]
                        ended.finish()
                found = self._found[loop] = self._make()
            weakref.finalize(loop, found.finish)
        return found

    def finish(self) -> None:
        """Close the connections of all loops."""
        with self._lock:
            for found in list(self._found.values()):
                found.finish()


leaked: list[Any] = []
"""Connections of the parent: to close them here would end its sessions."""
