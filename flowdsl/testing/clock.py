"""VirtualClock: time that passes only when nothing else can happen.

The rules
    The clock stands still while anything can run: a body, a step queued on an executor, the code that started
    a run. When all runs wait, and somebody waits for them, it jumps to the earliest timer and fires it. It
    lets everything settle before it looks again. So sleeps end at once and in the right order, and the speed
    of a machine makes no difference to a test.

The implementation
    The engine counts what can run with ``enter`` and ``leave``. ``watching`` says that somebody waits for a
    run's end. If nobody does (a test has started a run and will signal it later), the clock waits *grace*
    real seconds before it jumps. On an event loop it also lets every ready callback run first.
"""

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from flowdsl.blocks import block
from flowdsl.clock import Waker
from flowdsl.core.durations import seconds as as_seconds
from flowdsl.errors import FlowError
from flowdsl.verbs import current_run

__all__ = ["VirtualClock"]

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_HOPS = 1000  # callbacks of an event loop that may run before a jump


class _Timer:
    __slots__ = ("at", "cancelled", "fired", "ring", "seq")

    def __init__(self, at: float, seq: int, ring: Callable[[], Any]) -> None:
        self.at = at
        self.seq = seq
        self.ring = ring
        self.fired = False
        self.cancelled = False

    def __lt__(self, other: "_Timer") -> bool:
        return (self.at, self.seq) < (other.at, other.seq)


class _Waker(Waker):
    """A waker that tells its clock, when it is set, that its waiter can run again."""

    __slots__ = ("_clock", "counted", "parked")

    def __init__(self, clock: "VirtualClock", loop: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(loop)
        self._clock = clock
        self.parked = False
        self.counted = False

    def set(self) -> None:
        with self._clock._lock:
            self._clock._unpark(self)
            super().set()


class VirtualClock:
    """A clock for tests: ``Runtime(clock=VirtualClock())``.

    Parameters: *start*, an aware datetime or seconds since the epoch; *autoskip*, whether it jumps by itself
    when every run waits; *grace*, the real seconds that it waits before a jump if nobody waits for a run's
    end.

    >>> clock = VirtualClock()
    >>> before = clock.now()
    >>> clock.sleep(3600)
    >>> clock.now() - before
    3600.0
    """

    virtual = True

    def __init__(
        self, start: datetime | float = _EPOCH, *, autoskip: bool = True, grace: float = 1.0
    ) -> None:
        if isinstance(start, datetime):
            if start.tzinfo is None:
                raise ValueError(f"start is an aware datetime; got the naive {start!r}")
            start = start.timestamp()
        self._now = float(start)
        self._autoskip = autoskip
        self._grace = grace
        self._lock = threading.RLock()
        self._settled = threading.Condition(self._lock)
        self._timers: list[_Timer] = []
        self._seq = itertools.count()
        self._busy = 0
        self._watchers = 0
        self._moves = 0
        self._advancing = False
        self._loops: dict[asyncio.AbstractEventLoop, int] = {}
        self._looking: set[asyncio.AbstractEventLoop] = set()
        self._bell: threading.Timer | None = None

    # What everybody may call -------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Return once *seconds* of virtual time have passed."""
        self.wait(self.waker(), seconds)

    async def asleep(self, seconds: float) -> None:
        """Return once *seconds* of virtual time have passed."""
        await self.await_(self.waker(asyncio.get_running_loop()), seconds)

    def advance(self, duration: Any) -> None:
        """Let *duration* (seconds, timedelta, ``"3 days"``) pass. Timers in between fire in order, each after
        the ones before have settled.

        On an event loop use ``await clock.aadvance(…)``, which lets tasks run in between. This call raises
        ``RuntimeError`` there, because it would wait for code that cannot go on meanwhile. For the same
        reason it raises :class:`~flowdsl.errors.FlowError` in the body of a run. Use ``flowdsl.sleep`` there.
        """
        _require_no_body("advance", duration)
        if _on_a_loop():
            raise RuntimeError(
                "advance() blocks the event loop, and what it waits for executes there: write "
                f"`await clock.aadvance({duration!r})`"
            )
        target = self._now + as_seconds(duration)
        self._advancing = True
        try:
            self._settle()
            while self._step(target):
                self._settle()
        finally:
            self._advancing = False
        self._arrive(target)
        self._settle()

    async def aadvance(self, duration: Any) -> None:
        """As :meth:`advance`, on an event loop."""
        _require_no_body("aadvance", duration)
        target = self._now + as_seconds(duration)
        self._advancing = True
        try:
            await self._asettle()
            while self._step(target):
                await self._asettle()
        finally:
            self._advancing = False
        self._arrive(target)
        await self._asettle()

    def rests(self, timeout: float) -> int | None:
        """Wait until nothing can run, *timeout* real seconds at most. ``None``: something still can.

        The number that is returned grows with everything that begins or ends to run. So if it is the same at
        a second look, nothing has run in between.
        """
        with self._lock:
            rests = self._settled.wait_for(lambda: self._busy <= 0, timeout)
            return self._moves if rests else None

    # What the engine calls ---------------------------------------------------------------------------------

    def enter(self) -> None:
        """One more thing can run."""
        with self._lock:
            self._busy += 1
            self._moves += 1

    def leave(self) -> None:
        """One thing less can run."""
        with self._lock:
            self._busy -= 1
            self._moves += 1
            self._idle()

    @block
    def watching(self, *, inside: bool) -> Iterator[None]:
        """The caller waits for a run's end. With *inside*, the caller is itself a run."""
        with self._lock:
            if inside:
                self._busy -= 1
            else:
                self._watchers += 1
            self._moves += 1
            self._idle()
        try:
            yield
        finally:
            with self._lock:
                if inside:
                    self._busy += 1
                else:
                    self._watchers -= 1

    def waker(self, loop: asyncio.AbstractEventLoop | None = None) -> Waker:
        """A waker for one wait."""
        return _Waker(self, loop)

    def call_later(self, seconds: float, ring: Callable[[], Any]) -> Callable[[], None]:
        """Call *ring* after *seconds* of virtual time. Returns what cancels that."""
        with self._lock:
            timer = self._add(seconds, ring)

        def cancel() -> None:
            timer.cancelled = True

        return cancel

    def wait(self, waker: Waker, seconds: float | None, *, real: float | None = None) -> bool:
        """Block until woken (``True``), or *seconds* of virtual or *real* seconds have passed (``False``)."""
        assert isinstance(waker, _Waker)
        with self._lock:
            if waker.is_set:
                return True
            timer = None if seconds is None else self._add(seconds, waker.set)
            self._park(waker)
            self._idle()
        waker.block(real)
        return self._woken(waker, timer)

    async def await_(self, waker: Waker, seconds: float | None) -> bool:
        """Suspend until woken (``True``), or *seconds* of virtual time have passed (``False``)."""
        assert isinstance(waker, _Waker)
        loop = asyncio.get_running_loop()
        with self._lock:
            if waker.is_set:
                return True
            timer = None if seconds is None else self._add(seconds, waker.set)
            self._loops[loop] = self._loops.get(loop, 0) + 1
            self._park(waker)
            self._idle()
        try:
            await waker.suspend(None)
        finally:
            with self._lock:
                self._loops[loop] -= 1
                if not self._loops[loop]:
                    del self._loops[loop]
                woken = self._woken(waker, timer)
        return woken

    # Inside ------------------------------------------------------------------------------------------------

    def _add(self, seconds: float, ring: Callable[[], Any]) -> _Timer:
        timer = _Timer(self._now + max(seconds, 0.0), next(self._seq), ring)
        heapq.heappush(self._timers, timer)
        return timer

    def _park(self, waker: _Waker) -> None:
        waker.parked = True
        waker.counted = current_run() is not None
        if waker.counted:
            self._busy -= 1
        else:
            self._watchers += 1
        self._moves += 1

    def _unpark(self, waker: _Waker) -> None:
        if not waker.parked:
            return
        waker.parked = False
        if waker.counted:
            self._busy += 1
        else:
            self._watchers -= 1
        self._moves += 1

    def _woken(self, waker: _Waker, timer: _Timer | None) -> bool:
        with self._lock:
            self._unpark(waker)
            if timer is None:
                return waker.is_set
            timer.cancelled = True
            return waker.is_set and not timer.fired

    def _earliest(self) -> _Timer | None:
        while self._timers and (self._timers[0].cancelled or self._timers[0].fired):
            heapq.heappop(self._timers)
        return self._timers[0] if self._timers else None

    def _fire(self, timer: _Timer) -> None:
        heapq.heappop(self._timers)
        self._now = max(self._now, timer.at)
        self._moves += 1
        timer.fired = True
        timer.ring()

    def _idle(self) -> None:
        """Something became less busy. Wake those who wait for that, and jump if nothing can run."""
        if self._busy > 0:
            return
        self._settled.notify_all()
        if not self._autoskip or self._advancing or self._earliest() is None:
            return
        if not self._watchers:
            self._ring_later()
            return
        if self._loops:
            loop = next(iter(self._loops))
            if loop in self._looking and not loop.is_closed():
                return  # two that look for an idle moment would keep each other busy
            try:
                loop.call_soon_threadsafe(self._jump_on_loop, loop, 0)
                self._looking.add(loop)
                return
            except RuntimeError:  # that loop was closed while something waited on it
                del self._loops[loop]
                self._looking.discard(loop)
        self._jump()

    def _jump(self) -> None:
        timer = self._earliest()
        if self._busy <= 0 and not self._advancing and timer is not None:
            self._fire(timer)
            if self._busy <= 0:  # it woke nobody who is counted
                self._idle()

    def _jump_on_loop(self, loop: asyncio.AbstractEventLoop, hops: int) -> None:
        if hops < _HOPS and getattr(loop, "_ready", None):
            loop.call_soon(self._jump_on_loop, loop, hops + 1)
        elif hops == 0:
            loop.call_soon(self._jump_on_loop, loop, 1)
        else:
            with self._lock:
                self._looking.discard(loop)
                if self._watchers:
                    self._jump()

    def _ring_later(self) -> None:
        if self._bell is not None:
            return
        moves = self._moves

        def ring() -> None:
            with self._lock:
                self._bell = None
                if self._moves == moves:
                    self._jump()
                elif self._busy <= 0:
                    self._idle()

        self._bell = threading.Timer(self._grace, ring)
        self._bell.daemon = True
        self._bell.start()

    def _step(self, target: float) -> bool:
        with self._lock:
            timer = self._earliest()
            if timer is None or timer.at > target:
                return False
            self._fire(timer)
            return True

    def _arrive(self, target: float) -> None:
        with self._lock:
            self._now = max(self._now, target)
            self._moves += 1
            self._idle()

    def _settle(self) -> None:
        self.rests(10)

    async def _asettle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        end = time.monotonic() + 10
        while self._busy > 0 and time.monotonic() < end:  # a commit may be under way in a thread
            await asyncio.sleep(0)


def _require_no_body(method: str, duration: Any) -> None:
    run = current_run()
    if run is not None:
        raise FlowError(
            f"clock.{method}({duration!r}) is called in a body of run {run.id}, and the clock stands still "
            f"while a body executes: write flowdsl.sleep({duration!r}) there, awaited from flowdsl.aio in "
            "async code, or in the body of a step clock.sleep(seconds). advance() belongs in the test, "
            "outside of runs",
            run=run.id,
        )


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
