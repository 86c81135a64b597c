"""Waiting for changes, by topic, within one process.

Each change gets the next version. A waiter says which version it has seen and which topics it wants. It
sleeps until one of them has a later version. A change of another topic does not wake it. No topics means: any
change.

Telling of a change takes no lock unless somebody waits. A waiter announces itself before it looks at the
versions. So that look sees the change, or the change sees the waiter.
"""

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable

__all__ = ["Changes"]

_REMEMBERED = 8192  # topics whose version is known; a forgotten one counts as perhaps changed


class _Waiter:
    __slots__ = ("seen", "topics", "wake")

    def __init__(self, seen: int, topics: frozenset[str]) -> None:
        self.seen = seen
        self.topics = topics
        self.wake = threading.Event()


class Changes:
    """The versions of the topics of one storage, and who waits for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(2)
        self._versions: dict[str, int] = {}
        self._forgotten = 1  # of topics missing in _versions, changes up to this one may be unknown
        self._waiters: set[_Waiter] = set()
        self.version = 1

    def say(self, topics: Collection[str] = ()) -> None:
        """These *topics* changed. Without topics: something that no topic tells, as every step does."""
        version = next(self._numbers)
        for topic in topics:
            self._versions[topic] = version
        self.version = version
        if topics and len(self._versions) > _REMEMBERED:
            self._forget()
        if self._waiters:
            self._wake()

    def say_all(self) -> None:
        """Anything may have changed."""
        self._forget()
        with self._lock:
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.wake.set()

    def _forget(self) -> None:
        with self._lock:
            self._versions = {}
            self._forgotten = self.version = next(self._numbers)

    def _wake(self) -> None:
        with self._lock:
            woken = [waiter for waiter in self._waiters if self.since(waiter.seen, waiter.topics)]
            self._waiters.difference_update(woken)
        for waiter in woken:
            waiter.wake.set()

    def since(self, seen: int, topics: frozenset[str]) -> bool:
        """Whether any of *topics* may have changed since version *seen*."""
        if not topics:
            return self.version != seen
        versions = self._versions
        return seen < self._forgotten or any(versions.get(topic, 0) > seen for topic in topics)

    def _latest(self, topics: frozenset[str]) -> int:
        """The present version, and not one before the last change of *topics*. Two threads that tell of
        changes at once may leave the lower number as the version; a waiter would then never sleep."""
        versions = self._versions
        return max([self.version, *(versions.get(topic, self._forgotten) for topic in topics)])

    def wait(
        self,
        seen: int,
        timeout: float,
        topics: Iterable[str] = (),
        pause: Callable[[float], float] = lambda left: left,
    ) -> int:
        """Wait until any of *topics* has changed since *seen*, at most *timeout* seconds. Returns the present
        version, or *seen* if none of them changed.

        *pause* is called before each wait with the seconds left. It says how many to wait before the next
        look.
        """
        wanted = frozenset(topics)
        end = time.monotonic() + timeout
        while True:
            waiter = _Waiter(seen, wanted)
            with self._lock:
                self._waiters.add(waiter)
            try:
                if self.since(seen, wanted):
                    return self._latest(wanted)
                if (left := end - time.monotonic()) <= 0:
                    return seen  # other changes are no news to this waiter
                waiter.wake.wait(pause(left))
            finally:
                with self._lock:
                    self._waiters.discard(waiter)

    def nudge(self) -> None:
        """Let one waiter look at once, as if it had slept enough."""
        with self._lock:
            for waiter in self._waiters:
                waiter.wake.set()
                return

    def waited_for(self) -> frozenset[str]:
        """The topics that somebody waits for now."""
        with self._lock:
            return frozenset().union(*(waiter.topics for waiter in self._waiters))

    def before_fork(self) -> None:
        """Keep other threads from working here while the process forks."""
        self._lock.acquire()

    def after_fork(self, in_child: bool) -> None:
        """Go on. The child has none of the waiting threads, and has missed the changes meanwhile."""
        self._lock.release()
        if in_child:
            self._lock, self._waiters = threading.Lock(), set()
            self._forget()
