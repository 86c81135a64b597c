"""Calls that a body has left behind: in tasks that it made itself, or in threads of its own.
``asyncio.gather`` leaves such tasks when one of them fails.

The rules
    When a body ends badly, the calls under way in it are settled before anything follows: before the body's
    next attempt, which would make the same calls again, and before undo is planned. Tasks are cancelled. A
    body in a thread cannot be cancelled, and is waited for at the end of the run.
    A step that ends well may leave calls behind. They are settled if the run ends badly.
    If a run ends well, the steps that its body has left behind go on. Children do not: they are cancelled.
    They are awaited, and so is everything that was withdrawn.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

from flowdsl.blocks import block
from flowdsl.core.kinds import CHILD
from flowdsl.engine.call import Call
from flowdsl.engine.effects import Effect
from flowdsl.engine.execution import Execution
from flowdsl.engine.scope import Scope, UnderWay, control
from flowdsl.errors import FlowError, RunCancelled

__all__ = ["Strays", "branch_of", "left_behind", "let_go"]

_LOOK = 0.005  # seconds between two looks at a thread that executes a body


class Scopes(set[Scope]):
    """Scopes in which calls may be under way beside the body of the run: bodies of steps that ended before
    their calls did, and branches of ``gather`` and ``race``."""


def left_behind(run: Execution, scope: Scope) -> None:
    """The body of a step has ended, and calls of its *scope* are still under way."""
    run.part(Scopes).add(scope)


def branch_of(run: Execution, scope: Scope, task: "asyncio.Task[Any]") -> None:
    """*task* executes a branch, whose calls are counted in *scope*."""
    scopes = run.part(Scopes)
    scopes.add(scope)
    task.add_done_callback(lambda _: None if scope.active else scopes.discard(scope))


class Starting(set[UnderWay]):
    """Children that are just being started. They are not branches yet."""


@block
def starting(call: Call) -> Iterator[None]:
    """*call* starts a child. A run that is about to end waits until the child is a branch. Raises if the call
    is too late."""
    beginning = call.run.part(Starting)
    call.is_made_by(control(call.scope.is_async))
    beginning.add(call)
    try:
        if call.run.stop.over:
            call.run.stop.check_late(call.scope)
        yield
    finally:
        beginning.discard(call)


def _calls(run: Execution) -> list[UnderWay]:
    """The calls under way in the body of the run, or beside it."""
    beginning, scopes = run.known(Starting), run.known(Scopes)
    # As in most runs. A call adds itself first, and then looks whether it is too late: no lock is needed.
    if not (beginning or scopes or run.scope.active):
        return []
    calls: list[UnderWay] = list(beginning or ())
    with run.lock:
        for scope in (run.scope, *(scopes or ())):
            calls.extend(tuple(scope.active))
    return calls


def let_go(run: Execution) -> Effect | None:
    """The body has ended well, and no new calls begin. Returns what is to be done about those that are under
    way (the rules above say what), ``None`` if there are none."""
    run.stop.close()
    return _LetGo(run) if _calls(run) else None


class Strays(Effect):
    """End the calls that are still under way in the body of *scope*. By default that is the body of the run,
    with all that steps have left behind in it. This ends tasks, and with *threads* also waits for threads,
    where undo follows. If this task is cancelled meanwhile, it learns of that afterwards."""

    __slots__ = ("run", "scope", "threads")

    def __init__(self, run: Execution, scope: Scope | None = None, *, threads: bool = False) -> None:
        self.run = run
        self.scope = scope
        self.threads = threads

    def _flows(self) -> set[object]:
        """The flows of control that make the calls under way."""
        if self.scope is None:
            return {call.flow for call in _calls(self.run)}
        return {call.flow for call in tuple(self.scope.active)}  # they may end meanwhile

    def _in_threads(self) -> bool:
        mine = threading.get_ident()
        return self.threads and any(isinstance(flow, int) and flow != mine for flow in self._flows())

    def _late(self) -> FlowError:
        return FlowError(f"run {self.run.id} is about to end; a thread that it left behind called a step")

    def sync(self) -> None:
        if not self._in_threads():
            return
        with self.run.stop.halted_for(self._late()), self.run.engine.parked():
            while self._in_threads():
                time.sleep(_LOOK)

    async def aio(self) -> None:
        await self._tasks()
        if self._in_threads():
            with self.run.stop.halted_for(self._late()), self.run.engine.parked():
                while self._in_threads():
                    await asyncio.sleep(_LOOK)

    async def _tasks(self) -> None:
        mine, loop = asyncio.current_task(), asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        while True:
            tasks = {flow for flow in self._flows() if isinstance(flow, asyncio.Task) and flow is not mine}
            tasks = {task for task in tasks if task.get_loop() is loop and not task.done()}
            if not tasks:
                break
            for task in tasks:
                if not task.cancelling():  # only once, so that what it is recording gets recorded
                    task.cancel()
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


class _LetGo(Effect):
    """Cancel the children that nobody waits for. Wait for them, and for everything that was withdrawn."""

    __slots__ = ("run",)

    def __init__(self, run: Execution) -> None:
        self.run = run

    def _any_left(self) -> bool:
        """Whether any children are left. They are told to end."""
        left = False
        for call in _calls(self.run):
            if isinstance(call.flow, asyncio.Task | int):  # a submitted call is a branch, and awaited as one
                is_child = isinstance(call, Call) and call.operation.kind == CHILD
                left |= is_child or (isinstance(call.flow, asyncio.Task) and call.flow.cancelling() > 0)
        if left:
            why = f"run {self.run.id} has ended and waits for this child no more"
            self.run.stop.end_children(RunCancelled(why, run=self.run.id))
        return left

    def sync(self) -> None:
        if self._any_left():
            with self.run.engine.parked():
                while self._any_left():
                    time.sleep(_LOOK)

    async def aio(self) -> None:
        if self._any_left():
            with self.run.engine.parked():
                while self._any_left():
                    await asyncio.sleep(_LOOK)
