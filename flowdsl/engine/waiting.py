"""Waiting in a run: until a moment, until something happens, until the storage has changed, or until the run
is told to stop."""

import asyncio
from contextlib import AbstractContextManager, nullcontext

from flowdsl.clock import Waker
from flowdsl.engine.effects import Effect, Effects
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, current
from flowdsl.threads import wait_in_thread

__all__ = ["Pause", "Watch", "check_waiting", "wait_out", "waker_for"]


class NewWaker(Effect):
    """Answers a waker for this thread or task. The run knows the waker from now on."""

    __slots__ = ("run",)

    def __init__(self, run: Execution) -> None:
        self.run = run

    def sync(self) -> Waker:
        return self._known(self.run.engine.clock.waker())

    async def aio(self) -> Waker:
        return self._known(self.run.engine.clock.waker(asyncio.get_running_loop()))

    def _known(self, waker: Waker) -> Waker:
        self.run.stop.waits(waker, listens=True)
        return waker


def waker_for(run: Execution) -> Effects[Waker]:
    """A waker that a signal or a stop of the run sets. It works from now on, even before anybody waits for
    it."""
    waker: Waker = yield NewWaker(run)
    return waker


class Pause(Effect):
    """Wait in a run until *waker* is set, or until *seconds* have passed (``None``: no end). Answers whether
    it was woken.

    A run that is told to stop wakes all its wakers.
    """

    __slots__ = ("run", "seconds", "waker")

    def __init__(self, run: Execution, seconds: float | None, waker: Waker | None = None) -> None:
        self.run = run
        self.seconds = seconds
        self.waker = waker

    def sync(self) -> bool:
        clock = self.run.engine.clock
        waker = self.waker or clock.waker()
        self.run.stop.waits(waker)
        try:
            if self.run.stop.must_stop():
                return True
            return bool(clock.wait(waker, self.seconds))
        finally:
            self.run.stop.waited(waker)

    async def aio(self) -> bool:
        clock = self.run.engine.clock
        waker = self.waker or clock.waker(asyncio.get_running_loop())
        self.run.stop.waits(waker)
        try:
            if self.run.stop.must_stop():
                return True
            return bool(await clock.await_(waker, self.seconds))
        finally:
            self.run.stop.waited(waker)


def wait_out(run: Execution, left: float, *, begun: bool = True) -> Effects[None]:
    """Wait *left* seconds. The wait ends early if the run is told to stop or passes its deadline. Unless
    *begun*, it also ends if the run is about to end."""
    ticks = run.engine.ticks
    end = ticks() + left
    while left > 0 and (begun or not run.stop.ending):
        limit = run.stop.left()
        if limit is not None and limit < left:
            yield Pause(run, limit)
        elif not (yield Pause(run, left)):
            break
        run.stop.check()
        left = end - ticks()
    run.stop.check()


def check_waiting() -> None:
    """If a run's body is waiting here for another run, or for what that gives, raise the stop of the waiting
    run."""
    frame = current.get()
    if frame is not None:
        frame.run.stop.check()


class Watch(Effect):
    """Wait until the storage may have changed since version *seen*, *seconds* at most. Answers the version
    then. If a virtual clock has *counted* the caller as one that can run, it does not do so meanwhile."""

    __slots__ = ("counted", "engine", "seconds", "seen")

    def __init__(self, engine: Engine, seen: int, seconds: float, counted: bool = False) -> None:
        self.engine = engine
        self.seen = seen
        self.seconds = seconds
        self.counted = counted

    def sync(self) -> int:
        with self._parked():
            version = self.engine.storage.wait_for_change(self.seen, self.seconds)
        check_waiting()
        return version

    async def aio(self) -> int:
        with self._parked():
            return await wait_in_thread(self.engine.storage.wait_for_change, self.seen, self.seconds)

    def _parked(self) -> AbstractContextManager[None]:
        return self.engine.parked() if self.counted else nullcontext()
