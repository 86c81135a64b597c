"""Clocks. Everything in flowdsl that reads the time or waits is given a clock."""

import asyncio
import threading
import time
from typing import Protocol

__all__ = ["Clock", "ForeignClock", "SystemClock", "Waker"]

_LONGEST = 86_400.0  # of one wait of a lock; longer waits are repeated


class Clock(Protocol):
    """What a clock has to do; subclassing is not needed."""

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for *seconds*."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Suspend the calling task for *seconds*."""
        ...


class Waker:
    """Ends a wait early: ``set()`` may be called from any thread, any number of times."""

    __slots__ = ("_event", "_future", "_loop", "is_set")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.is_set = False
        self._loop = loop
        self._event = threading.Event() if loop is None else None
        self._future: asyncio.Future[None] | None = None if loop is None else loop.create_future()

    def set(self) -> None:
        """Wake the waiter, now or as soon as it waits."""
        if self.is_set:
            return
        self.is_set = True
        if self._event is not None:
            self._event.set()
        elif self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._resolve)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

    def _resolve(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def block(self, seconds: float | None) -> bool:
        """Wait in a thread. Return ``True`` if woken, ``False`` after *seconds* (``None``: no limit)."""
        assert self._event is not None
        end = None if seconds is None else time.monotonic() + seconds
        while not self.is_set:
            left = _LONGEST if end is None else end - time.monotonic()
            if left <= 0:
                return False
            self._event.wait(min(left, _LONGEST))
        return True

    async def suspend(self, seconds: float | None) -> bool:
        """Wait in a task. Otherwise the same as :meth:`block`."""
        assert self._future is not None
        if self.is_set:
            return True
        end = None if seconds is None else time.monotonic() + seconds
        while not self._future.done():
            left = _LONGEST if end is None else end - time.monotonic()
            if left <= 0:
                return False
            await asyncio.wait((self._future,), timeout=min(left, _LONGEST))
        return True


class SystemClock:
    """The machine's clock. It waits by the monotonic clock, so nothing fires early or twice when somebody
    sets the time."""

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment in this process. Setting the machine's time does not change them."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for *seconds*."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Suspend the calling task for *seconds*."""
        await asyncio.sleep(seconds)

    def waker(self, loop: asyncio.AbstractEventLoop | None = None) -> Waker:
        """A waker for one wait: of a thread, or of a task on *loop*."""
        return Waker(loop)

    def wait(self, waker: Waker, seconds: float | None) -> bool:
        """Block until woken (``True``) or *seconds* have passed (``False``)."""
        return waker.block(seconds)

    async def await_(self, waker: Waker, seconds: float | None) -> bool:
        """Suspend until woken (``True``) or *seconds* have passed (``False``)."""
        return await waker.suspend(seconds)


class ForeignClock:
    """Makes a clock interruptible that has only ``now``, ``sleep`` and ``asleep``. The clock sleeps in
    another thread or task, and the caller waits for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.now = clock.now
        self.sleep = clock.sleep
        self.asleep = clock.asleep

    def waker(self, loop: asyncio.AbstractEventLoop | None = None) -> Waker:
        """A waker for one wait."""
        return Waker(loop)

    def wait(self, waker: Waker, seconds: float | None) -> bool:
        """Block until woken (``True``) or the clock's ``sleep(seconds)`` has returned (``False``)."""
        if seconds is None:
            return waker.block(None)
        if waker.is_set:
            return True
        rang = threading.Event()
        raised: list[BaseException] = []

        def ring() -> None:
            try:
                self._clock.sleep(seconds)
            except BaseException as error:  # raised in the waiter, as if it had slept itself
                raised.append(error)
            rang.set()
            waker.set()

        threading.Thread(target=ring, name="flowdsl-clock", daemon=True).start()
        waker.block(None)
        if raised:
            raise raised[0]
        return not rang.is_set()

    async def await_(self, waker: Waker, seconds: float | None) -> bool:
        """Suspend until woken (``True``) or the clock's ``asleep(seconds)`` has returned (``False``)."""
        if seconds is None:
            return await waker.suspend(None)
        bell = asyncio.ensure_future(self._clock.asleep(seconds))
        call = asyncio.ensure_future(waker.suspend(None))
        try:
            await asyncio.wait((bell, call), return_when=asyncio.FIRST_COMPLETED)
            if bell.done():
                bell.result()  # raises what the clock raised
            return call.done()
        finally:
            bell.cancel()
            call.cancel()
