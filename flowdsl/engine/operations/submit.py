"""Concurrent steps: ``submit``, ``map`` and the future they give.

Identity is taken at ``submit``, in the caller's scope, so it does not depend on which worker is quicker.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Context
from functools import partial
from typing import Generic, TypeVar

from flowdsl.blocks import block
from flowdsl.codecs.previews import Previews
from flowdsl.core.durations import wait_limit
from flowdsl.engine.call import Call, identify
from flowdsl.engine.definitions import Invocation, StepDef
from flowdsl.engine.effects import Effect, run_async, run_sync
from flowdsl.engine.execution import Execution, Frame, current
from flowdsl.engine.operations.step import StepOperation
from flowdsl.engine.perform import perform
from flowdsl.engine.pools import coordinators, elsewhere
from flowdsl.engine.processes import RemoteBody
from flowdsl.engine.scope import control
from flowdsl.engine.spawn import Beside, start_sync, start_task, value_of
from flowdsl.engine.user import SomeClock, Value
from flowdsl.errors import RunCancelled, RunTimeout, Stopped

__all__ = ["Settle", "StepFuture", "Tally", "prepare", "start", "submit"]

logger = logging.getLogger("flowdsl")

T = TypeVar("T")


class _Worker(threading.local):
    executor: Executor | None = None


_worker = _Worker()
"""The executor that this thread works for at the moment."""


class StepFuture(Generic[T]):
    """The outcome of a submitted step. ``result()`` waits in sync code; in async code, await it.

    A step that has not begun when a worker of its own executor asks for its result is executed by that
    worker: a bounded pool cannot deadlock on steps that wait for steps.
    """

    def __init__(
        self,
        beside: Beside[T],
        call: Call | None = None,
        executor: Executor | None = None,
        tally: "Tally | None" = None,
        scheduled: str = "",
    ) -> None:
        self._beside = beside
        self._future = beside.future
        self._work = beside.work
        self._tally = tally
        self._call = call
        self._executor = executor
        self._callbacks: list[_Callback] = []
        self.seen = self.lost = False
        self.scheduled = scheduled

    # What ``concurrent.futures.wait`` and ``as_completed`` look at; there is no public way for a future that
    # is not theirs. The names are those of Python 3.2 to 3.14.

    @property
    def _condition(self) -> threading.Condition:
        return self._future._condition

    @property
    def _state(self) -> str:
        return self._future._state

    @property
    def _waiters(self) -> "_Waiters":
        return _Waiters(self)

    def result(self, timeout: float | None = None) -> T:
        """The step's result, waiting at most *timeout* real seconds (``None``: as long as it takes).

        Raises the step's exception, or ``TimeoutError``; ``TypeError`` in async code while the step is not
        done: await it there.
        """
        timeout = wait_limit(timeout)
        try:
            return self._result(timeout)
        finally:
            self._handed_over()

    def _repr_html_(self) -> str:
        from flowdsl.drawing.definitions import future_html

        path, run_id, key = "", "", ""
        if self._call is not None:
            path, run_id, key = self._call.operation.path, self._call.run.id, self._call.key
        return future_html(path or "a step outside any run", self._status(), run_id, key)

    @property
    def key(self) -> str:
        """The key of the step, of a branch its scope; ``""`` outside any run."""
        return self.scheduled if self._call is None else self._call.key

    def _status(self) -> str:
        """How it stands, in the words of the statuses; nothing that it holds is touched."""
        future = self._future
        if future.cancelled():
            return "cancelled"
        if not future.done():
            return "running" if future.running() else "pending"
        return "completed" if future.exception() is None else "failed"

    def is_seen(self) -> None:
        """Somebody has asked for the outcome, or will not: its failure is no surprise."""
        self.seen = True

    def is_lost(self) -> None:
        """It has lost a race: nobody waits for it, and it ends by itself."""
        self.seen = self.lost = True

    def _result(self, timeout: float | None) -> T:
        future = self._future
        self.seen = True
        if not future.done():
            self._refuse_in_loop()
            if (
                self._work is not None
                and timeout is None
                and _worker.executor is self._executor
                and future.cancel()
            ):
                return self._inline()
        with _parked(self._tally):
            return value_of(future, timeout)

    def _handed_over(self) -> None:
        """A failure now belongs to the flow of control that asked."""
        call = self._call
        if call is not None and self._future.done():
            call.run.failures.handed(call.key, control(call.frame.is_async))

    def _inline(self) -> T:
        assert self._work is not None
        fresh: Future[T] = Future()
        self._future = fresh
        call = self._call
        if call is not None and call.submitted and call.run.engine.virtual:
            call.run.engine.clock.leave()  # it is no longer one more thing beside the thread that asked
            call.is_inline()
        try:
            value = self._work()
        except BaseException as error:  # it is for whoever asks the future
            fresh.set_exception(error)
            raise
        fresh.set_result(value)
        return value

    def _refuse_in_loop(self) -> None:
        if self._task is not None:
            try:
                inside = asyncio.get_running_loop() is self._task.get_loop()
            except RuntimeError:
                inside = False
            if inside:
                raise TypeError(
                    "result() would block the event loop that executes this step; `await` the future instead"
                )

    def settled(self) -> BaseException | None:
        """Wait for the end; the error, or ``None`` (also for a cancelled one). For code that handles many
        and raises one."""
        try:
            self._result(None)
        except CancelledError:
            return None
        except BaseException as error:  # the error of the body, whatever it is
            if not self.done():
                raise
            return error
        return None

    @property
    def _task(self) -> "asyncio.Task[T] | None":
        return self._beside.task

    def task_here(self) -> "asyncio.Future[T] | None":
        """The task that executes it, if that is one of the running loop: no other can be waited for there."""
        task = self._task
        return task if task is not None and task.get_loop() is asyncio.get_running_loop() else None

    def as_asyncio(self) -> "asyncio.Future[T]":
        """The same as a future of the running loop."""
        task = self.task_here()
        return asyncio.wrap_future(self._future) if task is None else task

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The step's exception, or ``None``; waits as :meth:`result`."""
        timeout = wait_limit(timeout)
        try:
            self.result(timeout)
        except TimeoutError:
            if not self._future.done():
                raise
            return self._future.exception()
        except BaseException as error:  # the error of the body, whatever it is
            if not self._future.done():
                raise
            return error
        return None

    def done(self) -> bool:
        """Whether the step has ended."""
        return self._future.done()

    def cancel(self) -> bool:
        """Cancel the step if it has not begun (an async one also while it executes); whether that worked."""
        if self._task is not None:
            loop = self._task.get_loop()
            if self._task.done():
                return False
            loop.call_soon_threadsafe(self._task.cancel)
            return True
        return self.withdraw()

    def withdraw(self) -> bool:
        """Cancel the step unless it has begun; whether that worked."""
        if self._task is not None:
            return False
        call = self._call
        was = self._future.cancelled()
        if not self._future.cancel():
            return False
        if not was and call is not None and call.run.engine.virtual:
            # it does not keep a virtual clock from skipping any more
            self._tally.finish() if self._tally is not None else call.run.engine.clock.leave()
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._future.cancelled()

    def at_end(self, fn: Callable[[], object]) -> None:
        """Call *fn* in whatever thread ends the step."""
        tally = self._tally
        held = tally is not None and tally.hold()  # up to then no virtual clock skips

        def ended(_: object) -> None:
            fn()
            if held and tally is not None:
                tally.let_go()

        self._future.add_done_callback(ended)

    def add_done_callback(
        self, fn: Callable[["StepFuture[T]"], object], *, context: Context | None = None
    ) -> None:
        """Call *fn* with this future when the step has ended: on the event loop that executes this call, if
        there is one (in *context*), else in whatever thread ends the step."""
        callback = _Callback(self, fn, context)
        self._callbacks.append(callback)
        self._future.add_done_callback(callback.ended)

    def remove_done_callback(self, fn: Callable[["StepFuture[T]"], object]) -> int:
        """Call *fn* no more; how often it would have been called."""
        removed = [callback for callback in self._callbacks if callback.fn == fn]
        for callback in removed:
            callback.removed = True
            self._callbacks.remove(callback)
        return len(removed)

    def __await__(self) -> Generator[object, None, T]:
        self.seen = True
        task = self.task_here()
        waiting = asyncio.wrap_future(self._future) if task is None else asyncio.shield(task)
        try:
            with _parked(self._tally):
                return (yield from waiting.__await__())
        except asyncio.CancelledError:  # by a stop its task ends as a cancelled one
            call = self._call
            if call is None or call.run.stop.reason is None:
                raise
            raise call.run.stop.stopped() from None
        finally:
            self._handed_over()


class _Callback:
    """Something to call when *own* has ended."""

    def __init__(
        self, own: StepFuture[Value], fn: Callable[[Value], object], context: Context | None
    ) -> None:
        self.fn = fn
        self.removed = False
        self._own = own
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # there is none
            self._loop = asyncio.get_running_loop()

    def ended(self, _future: object) -> None:
        """The step has ended."""
        if self._loop is None:
            self._call()
        else:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._call, context=self._context)

    def _call(self) -> None:
        if not self.removed:
            self.fn(self._own)


class _Waiters:
    """Those who wait for a future by the functions of ``concurrent.futures``."""

    def __init__(self, future: StepFuture[Value]) -> None:
        self._own = future

    def append(self, waiter: Value) -> None:
        """Tell *waiter* of our future, not of the one inside it."""
        told: Value = _Told(self._own, waiter)
        self._own._future._waiters.append(told)

    def remove(self, waiter: Value) -> None:
        """*waiter* waits no more."""
        inside = self._own._future._waiters
        inside[:] = [told for told in inside if getattr(told, "waiter", told) is not waiter]


class _Told:
    """Tells a waiter that *own* has ended."""

    def __init__(self, own: StepFuture[Value], waiter: Value) -> None:
        self.waiter = waiter
        self._own = own

    def add_result(self, _future: Value) -> None:
        self.waiter.add_result(self._own)

    def add_exception(self, _future: Value) -> None:
        self.waiter.add_exception(self._own)

    def add_cancelled(self, _future: Value) -> None:
        self.waiter.add_cancelled(self._own)


class Tally:
    """A submitted step as one more runnable thing on a virtual *clock*.

    A thread that waits for it is not runnable meanwhile, and is again from the moment the step ends. There
    must be no moment in which neither counts, or time would pass while code is about to run.
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
        """Somebody is to be woken when the step ends, which comes a little later: until :meth:`let_go`, the
        clock stands still. ``False``: it has ended."""
        with self._lock:
            self._held += not self._done
            return not self._done

    def let_go(self) -> None:
        """He was woken."""
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


def _parked(tally: Tally | None) -> AbstractContextManager[None]:
    """While a run waits for another thread's work, a virtual clock must not count it as busy."""
    return nullcontext() if tally is None or current.get() is None else tally.parked()


def submit(frame: Frame, called: Invocation[StepDef]) -> StepFuture[Value]:
    """Start a step of *frame*'s run beside its caller."""
    return prepare(frame, called)()


def prepare(frame: Frame, called: Invocation[StepDef]) -> Callable[[], StepFuture[Value]]:
    """Take the identity of a call now; what is returned starts it."""
    called.defn.require_inline()
    operation = StepOperation(called)
    call = identify(frame, operation)
    return lambda: start(call, operation.defn.is_async, operation.defn.executor)


def start(call: Call, is_async: bool, chosen: Executor | None = None) -> StepFuture[Value]:
    """Start *call* beside its caller: as a task, or on an executor, by default that of the engine."""
    run, operation = call.run, call.operation
    engine = run.engine
    if operation.durable:
        run.failures.begun(call.scope, control(call.frame.is_async))
    tally = None
    if engine.virtual and not is_async and not call.frame.is_async:
        tally = Tally(engine.clock)
    elif engine.virtual:
        engine.clock.enter()
    if is_async:
        call.is_queued()
        return _start_async(call)
    if call.frame.is_async:
        call.is_queued()
    else:
        call.is_submitted()
    executor: Executor = chosen or engine.pool
    if isinstance(operation, StepOperation) and elsewhere(executor):
        operation.executes_on(partial(RemoteBody, executor))
        executor = coordinators(engine, executor)

    def work() -> Value:
        before, _worker.executor = _worker.executor, executor
        try:
            return run_sync(perform(call))
        finally:
            _worker.executor = before

    def ended() -> None:
        if tally is not None and not call.inline:
            tally.finish()

    beside = start_sync(engine, work, executor=executor, ended=ended)
    found: StepFuture[Value] = StepFuture(beside, call, executor, tally)
    run.branches.add(found)
    return found


def _start_async(call: Call) -> StepFuture[Value]:
    run = call.run
    found: StepFuture[Value] = StepFuture(start_task(run.engine, lambda: run_async(perform(call))), call)
    run.branches.add(found)
    return found


class Settle(Effect):
    """Wait until all branches of a run have ended; answers the errors of scheduled ones.

    With *failed*, branches that have not begun are cancelled, and async ones if the run was told to stop;
    with *interrupted*, async ones are cancelled and nobody waits for threads: what they still write is
    refused or lands in the journal, and both are right.
    """

    __slots__ = ("_cancelled", "failed", "interrupted", "run")

    def __init__(self, run: Execution, *, failed: bool, interrupted: bool = False) -> None:
        self._cancelled: asyncio.CancelledError | None = None
        self.run = run
        self.failed = failed
        self.interrupted = interrupted

    def _take(self) -> list[StepFuture[Value]]:
        branches = self.run.branches.take()
        if self.failed or self.interrupted:
            self.run.stop.end_branches()
            told = self.interrupted or isinstance(self.run.stop.reason, RunCancelled | RunTimeout)
            for branch in branches:
                if branch._task is None or told:
                    branch.cancel()
        return [branch for branch in branches if not branch.cancelled()]

    def sync(self) -> list[BaseException]:
        errors: list[BaseException] = []
        while branches := self._take():
            if self.interrupted:
                continue
            for branch in branches:
                try:
                    with branch._tally.parked() if branch._tally else self.run.engine.parked():
                        error = branch._future.exception()
                except CancelledError:
                    continue
                _collect(branch, error, errors)
        return errors

    async def aio(self) -> list[BaseException]:
        errors: list[BaseException] = []
        while branches := self._take():
            here = [(branch, task) for branch in branches if (task := branch.task_here()) is not None]
            await self._wait([task for branch, task in here if not branch.scheduled], branches)
            with self.run.engine.parked():
                await self._wait([task for _, task in here], branches)
            if self.interrupted:
                continue
            for branch in branches:
                waiting = branch.as_asyncio()
                with self.run.engine.parked():
                    await self._wait([waiting], branches)
                if not waiting.cancelled():
                    _collect(branch, waiting.exception(), errors)
        if self._cancelled is not None:
            raise self._cancelled
        return errors

    async def _wait(
        self, futures: "Sequence[asyncio.Future[Value]]", branches: list[StepFuture[Value]]
    ) -> None:
        """Wait for *futures*. If this task is cancelled meanwhile it learns of that afterwards, and the
        branches are cancelled at once."""
        tasks = [branch for branch in branches if branch._task in futures]
        while True:
            pending = [future for future in futures if not future.done()]
            if not pending and all(branch.done() for branch in tasks):
                return
            try:  # a task that has just ended hands its outcome over in the next turn of the loop
                await (asyncio.wait(pending) if pending else asyncio.sleep(0))
            except asyncio.CancelledError as error:
                self._cancelled = error
                for branch in branches:
                    if branch._task is not None and not branch._task.cancelling():
                        branch.cancel()


def _collect(branch: StepFuture[Value], error: BaseException | None, errors: list[BaseException]) -> None:
    if error is None:
        return
    if branch.scheduled:
        errors.append(error)
    elif not branch.seen and not isinstance(error, Stopped):
        call = branch._call
        previews = Previews() if call is None else call.run.engine.payloads.previews
        logger.error(
            "step %s was submitted and failed, and nobody asked for its result",
            call.operation.path if call else "?",
            exc_info=previews.exc_info(error),
            extra={"run": call.run.id if call else None, "step": call.key if call else None},
        )
