"""Calls that a body has left behind: tasks that it made itself, as ``asyncio.gather`` leaves them when one of
them fails, and threads of its own.

The rules
    What is under way in a body that ends badly is settled before anything is built on that end: before the
    body's next attempt, which would make the same calls once more, and before undo is planned. Tasks are
    cancelled; a body in a thread cannot be, and is waited for at the end of the run.
    A step that ends well may leave calls behind. They are settled when the run ends badly.
"""

import asyncio
import threading
import time
from collections.abc import Iterable

from flowdsl.engine.effects import Effect
from flowdsl.engine.execution import Execution
from flowdsl.engine.scope import Scope
from flowdsl.errors import FlowError

__all__ = ["Strays", "left_behind"]

_LOOK = 0.005  # seconds between two looks at a thread that executes a body


class LeftBehind(set[Scope]):
    """The bodies of steps that ended while calls in them were under way."""


def left_behind(run: Execution, scope: Scope) -> None:
    """The body of a step has ended, and calls of its *scope* are still under way."""
    run.part(LeftBehind).add(scope)


class Strays(Effect):
    """End what the body of *scope*, by default that of the run with all that steps have left behind in it,
    still has under way. A task that is cancelled meanwhile learns of that afterwards."""

    __slots__ = ("run", "scope")

    def __init__(self, run: Execution, scope: Scope | None = None) -> None:
        self.run = run
        self.scope = scope

    def _flows(self) -> set[object]:
        """Who makes the calls that are under way."""
        scopes: Iterable[Scope]
        scopes = (self.run.scope, *self.run.part(LeftBehind)) if self.scope is None else (self.scope,)
        with self.run.lock:
            return {call.flow for scope in scopes for call in scope.active}

    def sync(self) -> None:
        def threads() -> bool:
            return any(isinstance(flow, int) and flow != mine for flow in self._flows())

        mine = threading.get_ident()
        if not threads():
            return
        late = FlowError(f"run {self.run.id} is about to end; a thread that it left behind called a step")
        with self.run.stop.halted_for(late), self.run.engine.parked():
            while threads():
                time.sleep(_LOOK)

    async def aio(self) -> None:
        mine, loop = asyncio.current_task(), asyncio.get_running_loop()
        cancelled: asyncio.CancelledError | None = None
        while True:
            tasks = {flow for flow in self._flows() if isinstance(flow, asyncio.Task) and flow is not mine}
            tasks = {task for task in tasks if task.get_loop() is loop and not task.done()}
            if not tasks:
                break
            for task in tasks:
                if not task.cancelling():  # once; what it is just recording is to be recorded
                    task.cancel()
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
