"""Effects, and the two thin drivers that perform them.

What happens in a step or a run is written once, as a generator that yields effects: *commit this*, *execute
that body*, *wait until then*. An effect knows how to be performed in a thread (``sync``) and in a task
(``aio``); a driver only passes results back. Generators return ``(error, value)`` instead of raising, so that
any exception of user code, ``StopIteration`` included, arrives as itself.
"""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack
from typing import Any, Never, TypeAlias, TypeVar

from attrs import define, field

from flowdsl.clock import Waker
from flowdsl.core.records import Step
from flowdsl.engine.commit import Written
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import PROCESS, Execution, Frame, current
from flowdsl.engine.heart import Heart
from flowdsl.engine.stop import StoppedTask
from flowdsl.engine.user import Args, Function, Named, Value, Work
from flowdsl.errors import FlowError, StepTimeout, Stopped
from flowdsl.hooks import BodyKind, BodyView
from flowdsl.storage.base import Operation, Outcome, Storage

__all__ = [
    "Body",
    "Commit",
    "Effect",
    "Effects",
    "Flow",
    "Forked",
    "Pause",
    "Result",
    "Unbroken",
    "Watch",
    "check_waiting",
    "drive",
    "execute_here",
    "named",
    "run_async",
    "run_sync",
    "wait_out",
    "waker_for",
]

logger = logging.getLogger("flowdsl")

Result = tuple[BaseException | None, Value]
"""What a generator of effects returns: the error to raise or ``None``, and the value."""


class Effect:
    """Something that must be done outside the generator."""

    __slots__ = ()

    def sync(self) -> Any:  # each effect has an answer of its own
        """Perform it in this thread."""
        raise NotImplementedError

    async def aio(self) -> Any:  # the same
        """Perform it in this task."""
        raise NotImplementedError


T = TypeVar("T")

Effects: TypeAlias = Generator[Effect, Any, T]  # answers differ with the effect
"""A piece of engine logic, which ends with a ``T``."""

Flow: TypeAlias = Effects[Result]
"""A piece of engine logic that ends with the outcome of a body or of a durable call."""


def drive(effects: Effects[T]) -> T:
    """Drive *effects* in this thread, and return what they end with."""
    try:
        effect = effects.send(None)
        while True:
            try:
                answer = effect.sync()
            except BaseException as error:  # it is the generator's, which asked
                effect = effects.throw(error)
            else:
                effect = effects.send(answer)
    except StopIteration as stop:
        ended: T = stop.value
    return ended


class Forked(BaseException):
    """The body was left by a forked child of the process that had entered it. The child holds no run: what it
    brings is raised or returned, and nothing is recorded."""

    def __init__(self, error: BaseException | None, value: Value) -> None:
        super().__init__(error, value)
        self.error = error
        self.value = value


def run_sync(flow: Flow) -> Value:
    """Drive *flow* in this thread; return its value or raise its error."""
    send = flow.send
    try:
        effect = send(None)
        while True:
            try:
                answer = effect.sync()
            except BaseException as error:  # it is the generator's, which asked
                effect = flow.throw(error)
            else:
                effect = send(answer)
    except StopIteration as stop:
        failure, value = stop.value
    except Forked as forked:
        failure, value = forked.error, forked.value
    if failure is not None:
        try:
            raise failure
        finally:
            del failure
    return value


async def run_async(flow: Flow) -> Value:
    """Drive *flow* in this task; return its value or raise its error.

    When the task is cancelled while a commit is under way, *flow* learns the outcomes first, and of the
    cancelling at its next effect.
    """
    send = flow.send
    cancelled: BaseException | None = None
    try:
        effect = send(None)
        while True:
            try:
                if cancelled is not None:
                    raise cancelled
                answer = await effect.aio()
            except Written as late:
                cancelled = asyncio.CancelledError()
                effect = send(late.outcomes)
            except BaseException as error:  # it is the generator's, which asked
                cancelled = None
                effect = flow.throw(error)
            else:
                effect = send(answer)
    except StopIteration as stop:
        failure, value = stop.value
    except Forked as forked:
        failure, value = forked.error, forked.value
    except asyncio.CancelledError as error:
        failure, value = error, None
    failure = cancelled or failure
    if failure is not None:
        try:
            raise _for_a_task(failure)
        finally:
            del failure, cancelled
    return value


def _for_a_task(failure: BaseException) -> BaseException:
    """*failure* as it reaches an async body. What tells that its run is to stop, a cancelling by which it
    learns of that included, is a :class:`StoppedTask`: ``Stopped``, and a ``CancelledError`` too."""
    frame = current.get()
    if frame is None or isinstance(failure, StoppedTask):
        return failure
    if isinstance(failure, Stopped):
        return StoppedTask(failure.error).with_traceback(failure.__traceback__)
    if isinstance(failure, asyncio.CancelledError) and frame.run.stop.reason is not None:
        return frame.run.stop.stopped()
    return failure


def named(coroutine: Work[Value], path: str) -> Work[Value]:
    """The same coroutine by the name of a step or workflow: Python's warning of a forgotten ``await`` says
    it."""
    named_one: Any = coroutine  # the type of coroutines has no such name
    named_one.__qualname__ = path.rpartition(".")[2]
    return coroutine


class Unbroken(Effect):
    """Drive *flow* to its end, even if the task is cancelled meanwhile: it learns of that afterwards. A
    second cancelling breaks it off."""

    __slots__ = ("flow",)

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def sync(self) -> Result:
        return drive(self.flow)

    async def aio(self) -> Result:
        cancelled: asyncio.CancelledError | None = None
        task = asyncio.ensure_future(run_async(self.flow))
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                if cancelled is not None:
                    task.cancel()
                cancelled = error
        if cancelled is not None:
            task.cancelled() or task.exception()  # it is seen
            raise cancelled
        return None, task.result()


class Commit(Effect):
    """Make operations durable; answers their outcomes."""

    __slots__ = ("engine", "operations")

    def __init__(self, engine: Engine, operations: Sequence[Operation]) -> None:
        self.engine = engine
        self.operations = operations

    def sync(self) -> list[Outcome]:
        return self.engine.committer.commit(self.operations)

    async def aio(self) -> list[Outcome]:
        return await self.engine.committer.commit_async(self.operations)


class Read(Effect):
    """Read *storage* by calling *fn*. An async run does it in a thread, so that no server is read on its
    event loop, unless the storage answers at once (``inline``)."""

    __slots__ = ("fn", "storage")

    def __init__(self, storage: Storage, fn: Callable[[], Value]) -> None:
        self.storage = storage
        self.fn = fn

    def sync(self) -> Value:
        return self.fn()

    async def aio(self) -> Value:
        return self.fn() if self.storage.inline else await asyncio.to_thread(self.fn)


def execute_here(frame: Frame, fn: Function, args: Args, kwargs: Named, callback: bool = False) -> Result:
    """Execute a sync body in its frame, in this thread, for as long as it takes; gives ``(error, value)``,
    whatever it raised."""
    frame.scope.entered()
    process = PROCESS[0]
    outcome: Result
    token = current.set(frame)
    try:
        around = frame.run.engine.hooks.around
        if around is None:
            outcome = None, fn(*args, **kwargs)
        else:
            outcome = None, around(_seen(frame, fn, args, kwargs, callback), lambda: fn(*args, **kwargs))
    except BaseException as error:  # whatever the user's body raises
        outcome = error, None
    finally:
        current.reset(token)
    if process is not PROCESS[0]:
        raise Forked(*outcome)
    return outcome


class Body(Effect):
    """Execute a body in its frame; answers ``(error, value)``, whatever it raised.

    With *timeout* (seconds) an async body is cancelled when it takes longer; a sync one executes in a thread
    of its own, where it is left behind. The same happens to a body whose *heart* is silent for too long, but
    for one that is *inline*: it ends first, and its outcome is dropped.
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

    def _left(self, begun: float) -> float:
        """Seconds that the body has left; *begun*: when it began, on the engine's ticks."""
        left = [] if self.heart is None or self.inline else [self.heart.left()]
        if self.timeout is not None:
            left.append(begun + self.timeout - self.frame.run.engine.ticks())
        return min(left)

    def _sync_with_limits(self) -> Result:
        engine = self.frame.run.engine
        waker = engine.clock.waker()
        box: list[Result] = []
        lock = threading.Lock()

        def work() -> None:
            with engine.busy():
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
        threading.Thread(target=context.run, args=(work,), name="flowdsl-timeout", daemon=True).start()
        while not box and (left := self._left(begun)) > 0:
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
        """The error of a body that is given up."""
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
        frame.scope.entered()
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
            current.reset(token)
        if process is not PROCESS[0]:
            raise Forked(*outcome)
        return outcome

    def _awaited(self) -> Awaitable[Value]:
        around = self.frame.run.engine.hooks.around_async
        if around is None:
            coroutine: Awaitable[Value] = self.fn(*self.args, **self.kwargs)
            return coroutine
        seen = _seen(self.frame, self.fn, self.args, self.kwargs, self.callback)
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
class _Seen(BodyView):
    """What hooks see of a body in a run; it can be held there."""

    run: Execution = field(kw_only=True)

    def hold(self) -> Never:
        """Wait until the run is to stop, and raise that."""
        while self.run.stop.reason is None and not self.run.stop.ending:
            Pause(self.run, None).sync()
        raise self._over()

    async def ahold(self) -> Never:
        """The same, awaited."""
        while self.run.stop.reason is None and not self.run.stop.ending:
            await Pause(self.run, None).aio()
        raise self._over()

    def unused(self) -> list[Step]:
        """What of the journal no call has asked for up to now."""
        with self.run.lock:
            return self.run.journal.unused()

    def _over(self) -> Stopped:
        run_id = self.run_id
        return Stopped(self.run.stop.reason or FlowError(f"run {run_id} is about to end", run=run_id))


def _seen(frame: Frame, fn: Function, args: Args, kwargs: Named, callback: bool) -> BodyView:
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
    return _Seen(kind, path, run.id, step, fn, args, kwargs, shown, frame.is_async, scope, run=run)


class Stoppable(Effect):
    """Execute the body of a run; an async one is cancelled as soon as the run is told to stop, or passes
    its deadline."""

    __slots__ = ("body", "run")

    def __init__(self, run: Execution, body: Body) -> None:
        self.run = run
        self.body = body

    def sync(self) -> Result:
        return self.body.sync()

    async def aio(self) -> Result:
        run = self.run
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        cancels = 0
        over = False
        limit: asyncio.TimerHandle | None = None

        def stop() -> None:
            """Cancel the body, and once more when its time for cleaning up is over. What comes behind it
            (undo, the end) is not to be cancelled."""
            nonlocal cancels, limit
            if over or cancels > 1 or (cancels and not run.stop.past_deadline()):
                return
            if limit is not None or not run.stop.was_told(task):
                cancels += 1
                task.cancel()
            left = run.stop.left()
            if limit is None and left is not None and not run.engine.virtual:
                limit = loop.call_later(left, stop)

        run.stop.cancelled_by(lambda: loop.call_soon_threadsafe(stop))
        timer = None
        engine = run.engine
        left = run.stop.left()
        if left is not None and not engine.virtual:
            timer = loop.call_later(left, run.stop.expire)
        try:
            with engine.alarm(left, run.stop.expire):
                error, value = await self.body.aio()
        finally:
            over = True
            run.stop.cancelled_by(None)
            for handle in (timer, limit):
                if handle is not None:
                    handle.cancel()
        for _ in range(cancels):
            task.uncancel()
        if (
            isinstance(error, asyncio.CancelledError)
            and run.stop.reason is not None
            and not task.cancelling()
        ):
            return Stopped(run.stop.reason), None
        return error, value


class NewWaker(Effect):
    """Answers a waker for this thread or task that the run knows of from now on."""

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
    """A waker that is set by a signal, or when the run should stop, from now on: even before it is waited
    for."""
    waker: Waker = yield NewWaker(run)
    return waker


class Pause(Effect):
    """Wait in a run until *waker* is set or *seconds* (``None``: no end) have passed; answers whether it was
    woken.

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
    """Wait *left* seconds, unless the run is told to stop, passes its deadline, or (unless *begun*) is
    about to end."""
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
    """Raise what stops the run whose body is waiting here, if one is: for another run, or for what that
    gives."""
    frame = current.get()
    if frame is not None:
        frame.run.stop.check()


class Watch(Effect):
    """Wait until the storage may have changed since version *seen*, *seconds* at most; answers the version
    now."""

    __slots__ = ("engine", "seconds", "seen")

    def __init__(self, engine: Engine, seen: int, seconds: float) -> None:
        self.engine = engine
        self.seen = seen
        self.seconds = seconds

    def sync(self) -> int:
        version = self.engine.storage.wait_for_change(self.seen, self.seconds)
        check_waiting()
        return version

    async def aio(self) -> int:
        return await asyncio.to_thread(self.engine.storage.wait_for_change, self.seen, self.seconds)
