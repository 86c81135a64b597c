"""A pool of reading connections that can be emptied while others use it."""

import sqlite3
import threading
import time
from collections.abc import Callable

__all__ = ["ReaderPool"]

_KEPT = 8


class ReaderPool:
    """Lends each reader a connection of its own, so that no reader waits for another or for the writer.

    ``retire`` ends it: connections are closed as they come back, and the pool lends no more.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []  # append and pop are atomic: the usual loan takes no lock
        self._lock = threading.Lock()
        self._open = 0
        self._retired = False

    def lend(self) -> sqlite3.Connection | None:
        """A connection for the caller alone until it comes back; ``None`` once the pool is retired."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        with self._lock:
            if self._retired:
                return None
            connection = self._connect()
            self._open += 1
            return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Return a healthy connection."""
        if self._retired or len(self._idle) >= _KEPT:
            self.discard(connection)
        else:
            self._idle.append(connection)
            if self._retired:  # it came in between: nobody else may look into the list again
                self._close_idle()

    def discard(self, connection: sqlite3.Connection) -> None:
        """Return a connection that is not to be used again."""
        connection.close()
        with self._lock:
            self._open -= 1

    def retire(self, patience: float) -> None:
        """Close all connections; wait *patience* seconds for those that are lent. They close as they come."""
        with self._lock:
            self._retired = True
        limit = time.monotonic() + patience
        while True:
            self._close_idle()
            if not self._open or time.monotonic() > limit:
                return
            time.sleep(0.0005)

    def _close_idle(self) -> None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            self.discard(connection)
