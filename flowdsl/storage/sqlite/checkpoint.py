"""Moving the write-ahead log into the database file, in a thread of its own.

SQLite would do it inside the commit that makes the log long. That commit then takes tens of milliseconds, and
in async code the event loop stands still. So a thread of its own moves nearly all of the log beside the
commits. It moves the rest between two commits. That is needed because the log starts again from its beginning
only when it was moved whole.
"""

import sqlite3
import threading
from pathlib import Path

from flowdsl.storage.sqlite.file import connect

__all__ = ["Checkpoints"]

_COMMITS = 1500  # between two checkpoints; a step writes two or three pages of 2 KB
_MOVE = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """Counts commits, and moves the log now and then. Whoever commits holds *lock*."""

    def __init__(self, path: Path, lock: threading.Lock) -> None:
        self._path = path
        self._lock = lock
        self._commits = 0
        self._moving = threading.Lock()

    def count(self, writer: sqlite3.Connection, operations: int) -> None:
        """A commit has ended. The caller holds the lock."""
        self._commits += operations
        if self._commits >= _COMMITS and self._moving.acquire(blocking=False):
            self._commits = 0
            thread = threading.Thread(
                target=self._move, args=(writer,), name="flowdsl-checkpoint", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending: whoever closes the file moves the log
                self._moving.release()

    def _move(self, writer: sqlite3.Connection) -> None:
        try:
            connection = connect(self._path)
            try:
                connection.execute(_MOVE).fetchone()
            finally:
                connection.close()
            with self._lock:
                writer.execute(_MOVE).fetchone()
        except sqlite3.Error:
            pass  # it was closed meanwhile, or is busy; the next commit finds what is wrong with the file
        finally:
            self._moving.release()

    def acquire(self, timeout: float) -> bool:
        """Let none begin, and wait for one under way."""
        return self._moving.acquire(timeout=timeout)

    def release(self) -> None:
        """Let checkpoints begin again."""
        self._moving.release()
