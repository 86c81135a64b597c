"""The open connections of one process to one database file: one that writes, several that read."""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from attrs import define

from flowdsl.errors import StorageError, StorageUnavailable
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.file import NEW_FILE, WRITER, connect, create, patiently, prepare
from flowdsl.storage.sqlite.locks import FileLocks
from flowdsl.storage.sqlite.wal import lost_commits
from flowdsl.storage.sqlite.writer import Writer

__all__ = ["Connections", "Reader", "ReaderPool"]

logger = logging.getLogger("flowdsl")

_KEPT = 8  # readers that wait for the next loan
_LOOK = 0.05  # seconds between two looks whether the files are still in their places


class Reader:
    """A lent connection. If an interrupt kept it from coming back, it closes when nobody holds it."""

    __slots__ = ("_connection", "_members", "execute")

    def __init__(self, connect: Callable[[], sqlite3.Connection], members: set[int]) -> None:
        self._members = members
        self._connection: sqlite3.Connection | None = None
        self._connection = connect()
        self.execute = self._connection.execute
        members.add(id(self))

    def read(self, statement: str, values: Sequence[Any], text: Callable[[bytes], Any]) -> list[Any]:
        """The rows of *statement*. If a text in them is no UTF-8, *text* makes what stands for texts."""
        try:
            return self.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if text is str or "decode" not in str(error) or self._connection is None:
                raise
        self._connection.text_factory = text
        try:
            return self.execute(statement, values).fetchall()
        finally:
            self._connection.text_factory = str

    def close(self) -> None:
        """Close it. Closing twice is no error."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._members.discard(id(self))

    __del__ = close


class ReaderPool:
    """Lends each reader a connection of its own. So no reader waits for another or for the writer.

    ``retire`` ends it: connections are closed when they come back, and the pool lends no more.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[Reader] = []  # append and pop are atomic: the usual loan takes no lock
        self._members: set[int] = set()
        self._lock = threading.Lock()
        self._retired = False

    def lend(self) -> Reader | None:
        """A connection for the caller alone, until it comes back. ``None`` if the pool is retired."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        with self._lock:
            return None if self._retired else Reader(self._connect, self._members)

    def give_back(self, reader: Reader) -> None:
        """Return a healthy connection. (A broken one is closed instead.)"""
        if len(self._idle) < _KEPT:
            self._idle.append(reader)
        else:
            reader.close()
        if self._retired:
            self._close_idle()

    def retire(self, patience: float) -> None:
        """Close all connections as they come back. Wait *patience* seconds for those that are lent."""
        with self._lock:
            self._retired = True
        limit = time.monotonic() + patience
        while True:
            self._close_idle()
            if not self._members or time.monotonic() > limit:
                return
            time.sleep(0.0005)

    def _close_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return


def _check_log(path: Path, synchronous: str) -> None:
    lost = lost_commits(path)
    if lost and synchronous == "full":
        raise StorageError(
            f"{path}-wal is damaged, and SQLite would drop {lost} commits behind the damage without a word. "
            f"Nothing was changed: copy both files to a safe place. "
            f"To go on without these commits, run: sqlite3 {path} 'PRAGMA wal_checkpoint(TRUNCATE)'"
        )
    if lost:  # a power failure may do that, if nobody waited for the disk
        logger.warning("the last %d commits in %s were not written completely, and are lost", lost, path)


@define(slots=True, eq=False, repr=False)
class Connections:
    """All connections to a file. When one fails, all are replaced together. None is repaired."""

    path: Path
    writer: Writer
    readers: ReaderPool
    _locks: FileLocks
    _database: tuple[int, int]
    _log: tuple[int, int] | None
    _data_version: int
    _looked: float = 0.0

    @classmethod
    def open(cls, path: Path, synchronous: str, patience: float) -> Self:
        """Open *path*, and create it or update its schema if needed. Raises ``StorageError``."""
        create(path)
        _check_log(path, synchronous)
        return patiently(lambda: cls._try_open(path, synchronous), path, patience)

    @classmethod
    def _try_open(cls, path: Path, synchronous: str) -> Self:
        connection = connect(path, *NEW_FILE)
        try:
            prepare(connection, path)
            for setting in (f"synchronous = {synchronous}", *WRITER):
                connection.execute(f"PRAGMA {setting}").close()
            database = _identity(path)
            (data_version,) = connection.execute(sql.DATA_VERSION).fetchone()
            log = _identity(_log_of(path))
            if database is None:
                raise StorageUnavailable(f"{path} was moved or deleted while it was opened; open it again")
            locks = FileLocks(path)
        except BaseException:  # an interrupt, too, must leave no connection open
            connection.close()
            raise
        readers = ReaderPool(lambda: connect(path, "PRAGMA query_only = 1"))
        return cls(path, Writer(connection), readers, locks, database, log, data_version)

    def complaint(self) -> str:
        """Why nobody would ever find what is written now: the database or its log is no longer in its place.
        Empty if all is in place."""
        now = time.monotonic()
        if now < self._looked + _LOOK:
            return ""
        self._looked = now
        if _identity(self.path) != self._database:
            return f"{self.path} was moved, replaced or deleted while it was in use"
        log = _identity(_log_of(self.path))
        if self._log is None:
            self._log = log  # made by the first commit
        elif log != self._log:
            return f"{self.path}-wal, the log of the database, was taken away while it was in use"
        return ""

    def changed(self) -> bool:
        """Whether others committed since the last call. (Own commits leave a connection's version alone.)"""
        (version,) = self.writer.connection.execute(sql.DATA_VERSION).fetchone()
        before, self._data_version = self._data_version, version
        return bool(version != before)

    def close(self, patience: float = 5.0) -> None:
        """Close all. Wait *patience* seconds for readers at work. Closing never raises."""
        self.readers.retire(patience)
        self._locks.yield_to_close()
        # The writer is closed last, because the last one to close moves the write-ahead log into the file.
        self.writer.connection.close()
        self._locks.close()


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
