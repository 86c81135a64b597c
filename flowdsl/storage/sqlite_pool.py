"""A pool of reading connections that can be emptied while others use it."""

import sqlite3
import threading
import time
from collections.abc import Callable

__all__ = ["Reader", "ReaderPool"]

_KEPT = 8


class Reader:
    """A lent connection. Where an interrupt kept it from being given back, it closes when nobody holds it."""

    __slots__ = ("_connection", "_members", "execute")

    def __init__(self, connect: Callable[[], sqlite3.Connection], members: set[int]) -> None:
        self._members = members
        self._connection: sqlite3.Connection | None = None
        self._connection = connect()
        self.execute = self._connection.execute
        members.add(id(self))

    def close(self) -> None:
        """Close it; twice is no error."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._members.discard(id(self))

    __del__ = close


class ReaderPool:
    """Lends each reader a connection of its own, so that no reader waits for another or for the writer.

    ``retire`` ends it: connections are closed as they come back, and the pool lends no more.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: list[Reader] = []  # append and pop are atomic: the usual loan takes no lock
        self._members: set[int] = set()
        self._lock = threading.Lock()
        self._retired = False

    def lend(self) -> Reader | None:
        """A connection for the caller alone until it comes back; ``None`` once the pool is retired."""
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
        """Close all connections; wait *patience* seconds for those that are lent. They close as they come."""
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
