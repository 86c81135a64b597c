"""What one process has open of one database file."""

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Self

from attrs import define

from flowdsl.errors import StorageError
from flowdsl.storage import sqlite_rows as sql
from flowdsl.storage.sqlite_file import NEW_FILE, WRITER, connect, create, patiently, prepare
from flowdsl.storage.sqlite_log import lost_commits
from flowdsl.storage.sqlite_pool import ReaderPool

__all__ = ["Handles"]

logger = logging.getLogger("flowdsl")

_LOOK = 0.05  # seconds between two looks whether the file is still in its place


def _check_log(path: Path, synchronous: str) -> None:
    lost = lost_commits(path)
    if lost and synchronous == "full":
        raise StorageError(
            f"{path}-wal is damaged, and SQLite would drop {lost} commits behind the damage without a word. "
            f"Nothing was changed: copy both files to a safe place. "
            f"To go on without these commits, run: sqlite3 {path} 'PRAGMA wal_checkpoint(TRUNCATE)'"
        )
    if lost:  # a power failure may do that, where nobody waited for the disk
        logger.warning("the last %d commits in %s were not written completely, and are lost", lost, path)


@define(slots=True)
class Handles:
    """One connection that writes, several that read. All are replaced when one fails, none is repaired."""

    path: Path
    writer: sqlite3.Connection
    readers: ReaderPool
    _file: tuple[int, int]
    _data_version: int
    _looked: float = 0.0

    @classmethod
    def open(cls, path: Path, synchronous: str, patience: float) -> Self:
        """Open *path*, and create it or update its schema if need be. Raises ``StorageError``."""
        create(path)
        _check_log(path, synchronous)
        return patiently(lambda: cls._try_open(path, synchronous), path, patience)

    @classmethod
    def _try_open(cls, path: Path, synchronous: str) -> Self:
        writer = connect(path, *NEW_FILE)
        try:
            prepare(writer, path)
            for setting in (f"synchronous = {synchronous}", *WRITER):
                writer.execute(f"PRAGMA {setting}").close()
            status = os.stat(path)
            (data_version,) = writer.execute(sql.DATA_VERSION).fetchone()
        except BaseException:
            writer.close()
            raise
        readers = ReaderPool(lambda: connect(path, "PRAGMA query_only = 1"))
        return cls(path, writer, readers, (status.st_dev, status.st_ino), data_version)

    def moved(self) -> bool:
        """Whether the file was moved or deleted meanwhile: nobody would ever find what is written now."""
        now = time.monotonic()
        if now < self._looked + _LOOK:
            return False
        self._looked = now
        try:
            status = os.stat(self.path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._file

    def changed(self) -> bool:
        """Whether others committed since the last call. (Own commits leave a connection's version alone.)"""
        (version,) = self.writer.execute(sql.DATA_VERSION).fetchone()
        before, self._data_version = self._data_version, version
        return bool(version != before)

    def close(self, patience: float = 5.0) -> None:
        """Close all; wait *patience* seconds for readers at work. Closing never raises."""
        self.readers.retire(patience)
        # The writer goes last: whoever closes last moves the write-ahead log into the file.
        self.writer.close()
