"""Waits that a commit may have overlooked.

A transaction notifies those whose wait it finds in the table. A wait may be entered after that, and before
the transaction is visible. Then it is not notified, and a look finds nothing yet. But just after the wait was
entered, such a transaction is still open. So whoever enters a wait remembers the transactions that are open
then. When one of them has ended, the wait is told.
"""

import math
import threading
import time
from collections.abc import Callable, Collection

__all__ = ["Overlooked"]

_SOON = 0.05  # seconds until the first look; most transactions take less


class Overlooked:
    """The open transactions that may have overlooked waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, set[str]] = {}  # transaction → the topics that it may have overlooked
        self._entered = self._look_at = 0.0

    def enter(self, topics: Collection[str], transactions: Collection[str]) -> None:
        """The *transactions* were open after waits for *topics* had been entered."""
        with self._lock:
            self._entered = time.monotonic()
            soon = self._entered + _SOON
            # Others may enter waits all the time, so this must not put a look off.
            self._look_at = min(self._look_at, soon) if self._topics else soon
            for transaction in transactions:
                self._topics.setdefault(transaction, set()).update(topics)

    def forget(self, topics: Collection[str]) -> None:
        """Nobody waits for *topics* any more."""
        with self._lock:
            for overlooked in self._topics.values():
                overlooked.difference_update(topics)

    def ended(self, read: Callable[[], Collection[str]]) -> set[str]:
        """The topics of transactions that have ended since the last look. *read* gives those that are open.
        Transactions that take long are looked at less often."""
        with self._lock:
            now, known = time.monotonic(), set(self._topics)
            if not known or now < self._look_at:
                return set()
            self._look_at = now + max(_SOON, (now - self._entered) / 10)
        gone = known.difference(read())
        with self._lock:
            return set().union(*(self._topics.pop(transaction, ()) for transaction in gone))

    def pause(self) -> float:
        """Seconds until the next look."""
        return max(self._look_at - time.monotonic(), 0.0) if self._topics else math.inf
