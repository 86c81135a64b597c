"""Start work beside its caller: on an executor, in a thread, as a task. Nothing else does that.

The rules
    The work has the context of its caller. *ended* is called when it has ended, in whatever way, and before
    anybody learns its outcome. So a virtual clock can stop counting the work and count the waiting caller
    instead. A task belongs to the loop that executes here, otherwise to that of the engine.
"""

import asyncio
import contextvars
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError
from typing import Generic, TypeVar

from flowdsl.engine.engine import Engine, end_of_child
from flowdsl.engine.user import Function, Value, Work

__all__ = ["Beside", "Threads", "nothing", "start_sync", "start_task", "value_of"]

T = TypeVar("T")


def nothing() -> None:
    """For work whose end nobody wants to know."""


class Beside(Generic[T]):
    """Work that executes beside its caller: its outcome as a *future*, and the ``task`` that executes it, if
    one does. The thread that asks for the outcome may execute *work* itself, if it has not begun."""

    __slots__ = ("future", "task", "work")

    def __init__(self, future: "Future[T]", work: Callable[[], T] | None = None) -> None:
        self.future = future
        self.task: asyncio.Task[T] | None = None
        self.work = work

    def follow(self, task: "asyncio.Task[T]") -> None:
        """*task* executes it. The future gets its outcome."""
        self.task = task
        task.add_done_callback(lambda done: _hand_over(done, self.future))


def start_sync(
    engine: Engine,
    work: Callable[[], T],
    *,
    executor: Executor | None = None,
    name: str = "",
    ended: Callable[[], None] = nothing,
) -> Beside[T]:
    """Execute *work* on *executor*, or in a thread of its own called *name*."""
    context = contextvars.copy_context()
    awaited = asyncio._get_running_loop() is not None
    process = os.getpid()

    def executes() -> T:
        try:
            return context.copy().run(work)
        except StopIteration as error:
            if not awaited:
                raise
            # asyncio would take it for the end of the wait, so this is raised, as from a coroutine.
            raise RuntimeError("a StopIteration cannot be raised where its result is awaited") from error
        finally:
            if os.getpid() != process:
                end_of_child(sys.exception())
            ended()

    if executor is None:
        return Beside(engine.thread(executes, name))
    return Beside(executor.submit(executes), executes)


def start_task(
    engine: Engine,
    make: Callable[[], Work[T]],
    *,
    ended: Callable[[], None] = nothing,
    future: "Future[T] | None" = None,
) -> Beside[T]:
    """Execute the coroutine of *make* as a task. Its outcome goes to *future*, or to a new one."""
    found: Beside[T] = Beside(Future() if future is None else future)
    context = contextvars.copy_context()

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(make(), context=context)
        engine.keep(task)
        task.add_done_callback(lambda _: ended())
        found.follow(task)
        if found.future.cancelled():  # before it could begin
            task.cancel()

    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        loop = engine.loop()
        engine.awaits(found.future)
        loop.call_soon_threadsafe(begin, loop)
    else:
        begin(here)
    return found


def _hand_over(task: "asyncio.Future[T]", future: "Future[T]") -> None:
    try:
        if task.cancelled():
            future.cancel()
            future.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())
    except InvalidStateError:  # it was cancelled meanwhile
        pass


def value_of(future: "Future[T]", timeout: float | None = None) -> T:
    """What *future* gives. Waits at most *timeout* seconds for it.

    The future's own ``result`` tests whether its exception is true. It ignores an exception that is false.
    """
    error = future.exception(timeout)
    if error is not None:
        try:
            raise error
        finally:
            del error
    return future.result()


class Threads(Executor):
    """Executes each call in its own thread. A bounded pool would deadlock on runs that wait for runs."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def submit(self, fn: Function, /, *args: Value, **kwargs: Value) -> "Future[Value]":
        """Execute at once."""
        return self._engine.thread(lambda: fn(*args, **kwargs), self._name)
