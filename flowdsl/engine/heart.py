"""Heartbeats: a body says that it lives. A body that is silent for too long is given up.

Each beat may carry details for the next attempt. The first beat is stored. After that, at most five are
stored in the time of one limit. So a body may beat as often as it likes.
"""

import threading
from collections.abc import Callable

from flowdsl.engine.user import Value

__all__ = ["STORED", "Heart"]

STORED = 5
"""Beats that are stored in the time of one limit."""


class Heart:
    """The beats of one attempt, at most *limit* seconds apart.

    *ticks* gives the passing time, in seconds. *store* makes the details of a beat durable. *details* are
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
        """The body lives, and leaves *details* for the next attempt. Answers whether the beat still
        counts."""
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
        """The body begins. Store that, with the details of the attempt before. The first beat is yet to
        come."""
        self._store(self.details)

    def hear(self, details: Value) -> None:
        """The body executes in another process, and has beaten there with *details*."""
        self.details = details

    def close(self) -> None:
        """The attempt has ended. Beats of its body do not count from now on."""
        with self._lock:
            self._closed = True

    def left(self) -> float:
        """Seconds until the next beat is due. 0 or less means that it has been silent for too long."""
        return self._last + self.limit - self._ticks()

    def missed(self) -> bool:
        """Whether it is or was silent for too long."""
        return self._missed or self.left() <= 0
