"""Heartbeats: a body says that it lives, and one that has been silent for too long is given up.

Each beat may carry details, which the next attempt is given. Beats are stored at the first, then at most five
times in the limit, so that a body may beat as often as it likes.
"""

import threading
from collections.abc import Callable

from flowdsl.engine.user import Value

__all__ = ["STORED", "Heart"]

STORED = 5
"""Beats that are stored in the time of one limit."""


class Heart:
    """The beats of one attempt, at most *limit* seconds from one to the next.

    *ticks* is the time that passes, in seconds; *store* makes the details of a beat durable; *details* are
    those of the attempt before.
    """

    def __init__(
        self, limit: float, ticks: Callable[[], float], store: Callable[[Value], None], details: Value
    ) -> None:
        self.limit = limit
        self.details = details
        self._ticks = ticks
        self._store = store
        self._last = ticks()
        self._stored: float | None = None
        self._missed = False
        self._closed = False
        self._lock = threading.Lock()

    def beat(self, details: Value) -> bool:
        """The body lives; *details* are for the next attempt. Answers whether that still counts."""
        with self._lock:
            if self._closed:
                return False
            now = self._ticks()
            self._missed = self._missed or now - self._last > self.limit
            self._last = now
            self.details = details
            if self._stored is None or now - self._stored >= self.limit / STORED:
                self._stored = now
                self._store(details)
        return True

    def begin(self) -> None:
        """The body begins: say so, with what the attempt before has left. The first beat is yet to come."""
        self._store(self.details)

    def hear(self, details: Value) -> None:
        """The body executes in another process, and has said that there."""
        self.details = details

    def close(self) -> None:
        """The attempt has ended: what its body says from now on does not count."""
        with self._lock:
            self._closed = True

    def left(self) -> float:
        """Seconds until it is to beat again; 0 or less: it has been silent for too long."""
        return self._last + self.limit - self._ticks()

    def missed(self) -> bool:
        """Whether it has been silent for too long, now or before."""
        return self._missed or self.left() <= 0
