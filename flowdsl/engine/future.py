"""The future of a step that executes beside its caller.

It works in ``concurrent.futures.wait`` and ``as_completed``, and in ``asyncio.wait``, ``gather`` and
``as_completed``.
"""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import nullcontext, suppress
from contextvars import Context
from typing import Generic, TypeVar

from flowdsl.blocks import block
from flowdsl.core.durations import wait_limit
from flowdsl.engine.call import Call
from flowdsl.engine.engine import Engine
from flowdsl.engine.scope import control
from flowdsl.engine.spawn import Beside, value_of
from flowdsl.engine.tally import Tally, parked
from flowdsl.engine.user import Value

__all__ = ["StepFuture", "working_for"]

T = TypeVar("T")


class _Worker(threading.local):
    executor: Executor | None = None


_worker = _Worker()


@block
def working_for(executor: Executor) -> Iterator[None]:
    """In the block, this thread is a worker of *executor*."""
    before, _worker.executor = _worker.executor, executor
    try:
        yield
    finally:
        _worker.executor = before


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
        tally: Tally | None = None,
        scheduled: str = "",
    ) -> None:
        self._beside = beside
        self._future = beside.future
        self._work = beside.work
        self._tally = tally
        self.call = call
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
        if self.call is not None:
            path, run_id, key = self.call.operation.path, self.call.run.id, self.call.key
        return future_html(path or "a step outside any run", self._status(), run_id, key)

    @property
    def key(self) -> str:
        """The key of the step, of a branch its scope; ``""`` outside any run."""
        return self.scheduled if self.call is None else self.call.key

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
        with parked(self._tally):
            return value_of(future, timeout)

    def _handed_over(self) -> None:
        """A failure now belongs to the flow of control that asked."""
        call, task = self.call, self.task
        # A task that has ended tells the future a turn of its loop later.
        ended = self._future.done() or (task is not None and task.done())
        if call is not None and ended:
            call.run.failures.handed(call.key, control(call.frame.is_async))

    def _inline(self) -> T:
        assert self._work is not None
        fresh: Future[T] = Future()
        self._future = fresh
        call = self.call
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
        if self.task is not None:
            try:
                inside = asyncio.get_running_loop() is self.task.get_loop()
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
    def task(self) -> "asyncio.Task[T] | None":
        """The task that executes it, if one does."""
        return self._beside.task

    def task_here(self) -> "asyncio.Future[T] | None":
        """The task that executes it, if that is one of the running loop: no other can be waited for there."""
        task = self.task
        return task if task is not None and task.get_loop() is asyncio.get_running_loop() else None

    def failure(self, engine: Engine) -> BaseException | None:
        """Wait in this thread until it has ended; its error, or ``None``. That does not count as asking for
        its outcome. Raises ``CancelledError``."""
        with engine.parked() if self._tally is None else self._tally.parked():
            return self._future.exception()

    @block
    def awaited(self, engine: Engine) -> Iterator[None]:
        """In the block a task waits for its end, so a virtual clock may skip ahead. After its end, the clock
        stands still until the task goes on."""
        tally = self._tally
        held = tally is not None and tally.hold()
        try:
            with engine.parked() if held or (tally is None and not self.done()) else nullcontext():
                yield
        finally:
            if held and tally is not None:
                tally.let_go()

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
        if self.task is not None:
            loop = self.task.get_loop()
            if self.task.done():
                return False
            loop.call_soon_threadsafe(self.task.cancel)
            return True
        return self.withdraw()

    def withdraw(self) -> bool:
        """Cancel the step unless it has begun; whether that worked."""
        if self.task is not None:
            return False
        call = self.call
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
            with parked(self._tally):
                return (yield from waiting.__await__())
        except asyncio.CancelledError:  # by a stop its task ends as a cancelled one
            call = self.call
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
        told: Value = _WaiterRelay(self._own, waiter)
        self._own._future._waiters.append(told)

    def remove(self, waiter: Value) -> None:
        """*waiter* waits no more."""
        inside = self._own._future._waiters
        inside[:] = [told for told in inside if getattr(told, "waiter", told) is not waiter]


class _WaiterRelay:
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
