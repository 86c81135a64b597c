"""What a virtual clock counts for a submitted step, and for those who wait for it."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from flowdsl.blocks import block
from flowdsl.engine.execution import current
from flowdsl.engine.user import SomeClock

__all__ = ["Tally", "parked"]


class Tally:
    """A submitted step: one more thing that a virtual *clock* counts as able to run.

    A thread that waits for the step does not count until the step ends. There must be no moment in which
    neither counts. Otherwise time would pass while code is about to run.
    """

    __slots__ = ("_clock", "_done", "_held", "_lock", "_waiting")

    def __init__(self, clock: SomeClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = self._held = 0
        self._done = False
        clock.enter()

    def finish(self) -> None:
        """The step has ended; its result is about to be handed over."""
        with self._lock:
            self._done = True
            for _ in range(self._waiting + self._held):
                self._clock.enter()
        self._clock.leave()

    def hold(self) -> bool:
        """Somebody will be woken when the step ends, and wakes a little later. Until then (:meth:`let_go`)
        the clock stands still. ``False``: the step has ended already."""
        with self._lock:
            self._held += not self._done
            return not self._done

    def let_go(self) -> None:
        """Whoever called :meth:`hold` was woken."""
        with self._lock:
            if self._done:
                self._clock.leave()
            else:  # it was withdrawn
                self._held -= 1

    @block
    def parked(self) -> Iterator[None]:
        """This thread waits for the step."""
        with self._lock:
            parked = not self._done
            self._waiting += parked
        if parked:
            self._clock.leave()
        try:
            yield
        finally:
            if parked:
                with self._lock:
                    self._waiting -= 1
                    if not self._done:
                        self._clock.enter()


def parked(tally: Tally | None) -> AbstractContextManager[None]:
    """While a run waits for another thread's work, a virtual clock must not count it as busy."""
    return nullcontext() if tally is None or current.get() is None else tally.parked()
