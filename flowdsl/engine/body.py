"""One execution of a body of the user's in its frame. It may raise anything and take any time."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable
from contextlib import ExitStack
from functools import partial
from typing import Never

from attrs import define, field

from flowdsl.core.records import Step
from flowdsl.engine.effects import Effect, Forked, Result
from flowdsl.engine.execution import PROCESS, Execution, Frame, current, enters, leaves, restore
from flowdsl.engine.heart import Heart
from flowdsl.engine.user import Args, Function, Named, Value
from flowdsl.engine.waiting import Pause
from flowdsl.errors import FlowError, StepTimeout, Stopped
from flowdsl.hooks import BodyKind, BodyView

__all__ = ["Body", "Stoppable", "execute_here"]

logger = logging.getLogger("flowdsl")


def execute_here(frame: Frame, fn: Function, args: Args, kwargs: Named, callback: bool = False) -> Result:
    """Execute a sync body in its frame and in this thread, for as long as it takes. Returns
    ``(error, value)``, whatever it raised."""
    frame.entered()
    process = PROCESS[0]
    outcome: Result
    token = enters(frame)
    try:
        around = frame.run.engine.hooks.around
        if around is None:
            outcome = None, fn(*args, **kwargs) if kwargs else fn(*args)
        else:
            outcome = None, around(_view_of(frame, fn, args, kwargs, callback), lambda: fn(*args, **kwargs))
    except BaseException as error:  # whatever the user's body raises
        outcome = error, None
    finally:
        leaves(token)
    if process is not PROCESS[0]:
        raise Forked(*outcome)
    return outcome


class Body(Effect):
    """Execute a body in its frame. Answers ``(error, value)``, whatever it raised.

    With *timeout* (seconds), an async body is cancelled when it takes longer. A sync body executes in a
    thread of its own, and is left behind there. The same happens to a body whose *heart* is silent for too
    long. An *inline* body is different: it ends first, and then its outcome is dropped.
    """

    __slots__ = ("args", "callback", "fn", "frame", "heart", "inline", "kwargs", "timeout")

    def __init__(
        self,
        fn: Function,
        args: Args,
        kwargs: Named,
        frame: Frame,
        timeout: float | None = None,
        callback: bool = False,
        heart: Heart | None = None,
        inline: bool = True,
    ) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.frame = frame
        self.timeout = timeout
        self.callback = callback
        self.heart = heart
        self.inline = inline

    def shares_transaction(self, args: Args, kwargs: Named) -> None:
        """Execute the body with these arguments, among them a connection in whose transaction it executes."""
        self.args, self.kwargs = args, kwargs
        self.frame.enters_transaction()

    def sync(self) -> Result:
        heart = self.heart
        if self.timeout is None and heart is None:
            return self._sync()
        if self.timeout is not None or not self.inline:
            return self._sync_with_limits()
        outcome = self._sync()
        return (self._silent(heart), None) if heart is not None and heart.missed() else outcome

    def _sync(self) -> Result:
        return execute_here(self.frame, self.fn, self.args, self.kwargs, self.callback)

    def _seconds_left(self, begun: float) -> float:
        """Seconds that the body has left. *begun* is when it began, on the engine's ticks."""
        left = [] if self.heart is None or self.inline else [self.heart.left()]
        if self.timeout is not None:
            left.append(begun + self.timeout - self.frame.run.engine.ticks())
        return min(left)

    def _sync_with_limits(self) -> Result:
        engine = self.frame.run.engine
        waker = engine.clock.waker()
        box: list[Result] = []
        lock = threading.Lock()
        counted = ExitStack()

        def work() -> None:
            with counted:
                outcome = self._sync()
                with lock:
                    box.append(outcome)
                    if self.frame.abandoned:
                        self.frame.run.bodies.abandon(-1)
                        logger.info(
                            "a body of %s that a timeout had left behind has ended; its outcome is discarded",
                            self.frame.step.path if self.frame.step else self.frame.run.id,
                            extra={"run": self.frame.run.id},
                        )
                waker.set()

        context = contextvars.copy_context()
        begun = engine.ticks()
        counted.enter_context(engine.busy())  # else a virtual clock skips to the limit
        threading.Thread(target=context.run, args=(work,), name="flowdsl-timeout", daemon=True).start()
        while not box and (left := self._seconds_left(begun)) > 0:
            engine.clock_wait(waker, left, real=True)
            if self.heart is None or self.inline:
                break
        with lock:
            if box:
                return box[0]
            self.frame.abandon()
            self.frame.run.bodies.abandon(1)
        error = self._over("; its body cannot be stopped and was left behind in a thread")
        logger.warning("%s; its outcome is discarded", str(error), extra={"run": self.frame.run.id})
        return error, None

    def _over(self, more: str = "") -> StepTimeout:
        """The error of a body that has taken too long."""
        heart = self.heart
        if heart is not None and heart.left() <= 0:
            return self._silent(heart, more)
        return self._given_up(f"took longer than its timeout of {self.timeout:g} s{more}")

    def _silent(self, heart: Heart, more: str = "") -> StepTimeout:
        return self._given_up(f"gave no heartbeat for more than {heart.limit:g} s{more}")

    def _given_up(self, why: str) -> StepTimeout:
        step = self.frame.step
        path = step.path if step is not None else "?"
        run_id = self.frame.run.id
        return StepTimeout(f"step {path} of run {run_id} {why}", run=run_id, step=path)

    async def aio(self) -> Result:
        frame = self.frame
        frame.entered()
        process = PROCESS[0]
        outcome: Result
        token = current.set(frame)
        try:
            if self.timeout is None and self.heart is None:
                outcome = None, await self._awaited()
            else:
                outcome = await self._aio_with_limits()
        except BaseException as error:  # whatever the user's body raises
            outcome = error, None
        finally:
            restore(token)
        if process is not PROCESS[0]:
            raise Forked(*outcome)
        return outcome

    def _awaited(self) -> Awaitable[Value]:
        around = self.frame.run.engine.hooks.around_async
        if around is None:
            named = self.kwargs
            coroutine: Awaitable[Value] = self.fn(*self.args, **named) if named else self.fn(*self.args)
            return coroutine
        seen = _view_of(self.frame, self.fn, self.args, self.kwargs, self.callback)
        return around(seen, lambda: self.fn(*self.args, **self.kwargs))

    async def _aio_with_limits(self) -> Result:
        limit = asyncio.timeout(None)
        try:
            async with limit:
                with ExitStack() as alarms:
                    self._watch(limit, alarms)
                    return None, await self._awaited()
        except TimeoutError as error:
            if not limit.expired():
                return error, None
            self.frame.abandon()
            return self._over(), None

    def _watch(self, limit: asyncio.Timeout, alarms: ExitStack) -> None:
        """Let *limit* fire when the body has taken too long, or has been silent for too long."""
        engine, heart = self.frame.run.engine, self.heart

        def fire() -> None:
            limit.reschedule(0)

        def look() -> None:
            assert heart is not None
            if heart.left() > 0:
                alarms.enter_context(engine.alarm_in(heart.left(), look))
            else:
                fire()

        if self.timeout is not None:
            alarms.enter_context(engine.alarm_in(self.timeout, fire))
        if heart is not None:
            alarms.enter_context(engine.alarm_in(heart.left(), look))


@define(slots=True, eq=False)
class _RunBodyView(BodyView):
    """What hooks see of a body in a run. A hook can also hold the body there."""

    run: Execution = field(kw_only=True)

    def hold(self) -> Never:
        """Wait until the run is told to stop, and raise that."""
        while self.run.stop.reason is None and not self.run.stop.ending:
            Pause(self.run, None).sync()
        raise self._over()

    async def ahold(self) -> Never:
        """The same, awaited."""
        while self.run.stop.reason is None and not self.run.stop.ending:
            await Pause(self.run, None).aio()
        raise self._over()

    def unused(self) -> list[Step]:
        """Records of the journal that no call has asked for so far."""
        with self.run.lock:
            return self.run.journal.unused()

    def _over(self) -> Stopped:
        run_id = self.run_id
        return Stopped(self.run.stop.reason or FlowError(f"run {run_id} is about to end", run=run_id))


def _view_of(frame: Frame, fn: Function, args: Args, kwargs: Named, callback: bool) -> BodyView:
    run, step = frame.run, frame.step
    shown = scope = ""
    kind: BodyKind = "step"
    if step is None:
        path, kind = run.record.workflow, "callback" if callback else "workflow"
        shown = "" if callback else run.record.args_preview
    else:
        path = step.path
        call = run.bodies.call(step.key)
        if step.mode == "undo":
            kind, shown = "undo", run.engine.payloads.previews.value(args[0])
        elif call is not None:
            fn, shown, scope = call.operation.fn, call.shown, call.scope.id
    return _RunBodyView(kind, path, run.id, step, fn, args, kwargs, shown, frame.is_async, scope, run=run)


class _Cancelling:
    """Cancels the body of *run*, which *task* executes on *loop*, and counts how often."""

    __slots__ = ("_limit", "_loop", "_over", "_run", "_task", "cancels")

    def __init__(self, run: Execution, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Value]") -> None:
        self._run = run
        self._loop = loop
        self._task = task
        self.cancels = 0
        self._over = False
        self._limit: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Cancel the body, and once more when its time for cleaning up is over. What follows the body (undo,
        the end) must not be cancelled."""
        run, limit = self._run, self._limit
        if self._over or self.cancels > 1:
            return
        told = self.cancels > 0 or limit is not None
        early = told and not run.stop.past_deadline()  # it is told again, or its time was extended
        if not early and (limit is not None or not run.stop.was_told(self._task)):
            self.cancels += 1
            self._task.cancel()
        left = run.stop.left()
        if left is not None and not run.engine.virtual and (early or limit is None):
            if limit is not None:
                limit.cancel()
            self._limit = self._loop.call_later(left, self.stop)

    def end(self) -> None:
        """The body has ended."""
        self._over = True
        if self._limit is not None:
            self._limit.cancel()


class Stoppable(Effect):
    """Execute the body of a run. An async body is cancelled as soon as the run is told to stop, or passes
    its deadline."""

    __slots__ = ("args", "fn", "frame", "kwargs")

    def __init__(self, fn: Function, args: Args, kwargs: Named, frame: Frame) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.frame = frame

    def sync(self) -> Result:
        return execute_here(self.frame, self.fn, self.args, self.kwargs)

    async def aio(self) -> Result:
        run = self.frame.run
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        cancelling = _Cancelling(run, loop, task)
        run.stop.cancelled_by(partial(loop.call_soon_threadsafe, cancelling.stop))
        timer = None
        engine = run.engine
        left = run.stop.left()
        if left is not None and not engine.virtual:
            timer = loop.call_later(left, run.stop.expire)
        try:
            with engine.alarm(left, run.stop.expire):
                error, value = await Body(self.fn, self.args, self.kwargs, self.frame).aio()
        finally:
            run.stop.cancelled_by(None)
            cancelling.end()
            if timer is not None:
                timer.cancel()
        for _ in range(cancelling.cancels):
            task.uncancel()
        if (
            isinstance(error, asyncio.CancelledError)
            and run.stop.reason is not None
            and not task.cancelling()
        ):
            return Stopped(run.stop.reason), None
        return error, value
