"""Heartbeats: a body says that it lives, and one that has been silent for too long is given up.

Each beat may carry details, which the next attempt is given. Beats are stored at the first, then at most five
times in the limit, so that a body may beat as often as it likes.
"""

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Heart"]

_STORED = 5  # beats that are stored in the time of one limit


class Heart:
    """The beats of one attempt, at most *limit* seconds from one to the next.

    *ticks* is the time that passes, in seconds; *store* makes the details of a beat durable.
    """

    def __init__(
        self, limit: float, ticks: Callable[[], float], store: Callable[[Any], None], details: Any
    ) -> None:
        self.limit = limit
        self.details = details
        self._ticks = ticks
        self._store = store
        self._last = ticks()
        self._stored: float | None = None
        self._missed = False
        self._lock = threading.Lock()

    def beat(self, details: Any) -> None:
        """The body lives; *details* are for the next attempt."""
        with self._lock:
            now = self._ticks()
            self._missed = self._missed or now - self._last > self.limit
            self._last = now
            self.details = details
            if self._stored is not None and now - self._stored < self.limit / _STORED:
                return
            self._stored = now
        self._store(details)

    def left(self) -> float:
        """Seconds until it is to beat again; 0 or less: it has been silent for too long."""
        return self._last + self.limit - self._ticks()

    def missed(self) -> bool:
        """Whether it has been silent for too long, now or before."""
        return self._missed or self.left() <= 0
