"""Random programs that are stopped anywhere: by a cancel, by the cancelling of their task, by a failure.

The programs are those of ``grammar.STOPPED``. Each execution of a step makes a token, and its undo takes the token
back. The :class:`World`, which is outside every storage, notes both. So the law need not know how undo works.
In a run that failed or was cancelled, or that such a run called, each token is taken back once, the newest
first. In any other run no token is taken back. Tokens that nothing takes back (``options(undo=None)``, and
those of steps that an undo called) begin with a ``k``.

:class:`Moments` wraps a storage: it stops the run at a commit, and makes commits slow.
"""

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from grammar import Program
from stopped_bodies import PLAYERS, Failed, World
from worlds import meet

from flowdsl import Runtime
from flowdsl.clock import SystemClock
from flowdsl.errors import FlowError, RunCancelled, RunTimeout
from flowdsl.storage import Storage
from flowdsl.storage.base import Operation, Outcome
from flowdsl.storage.relay import RelayStorage

__all__ = [
    "RUN",
    "Moments",
    "Stop",
    "live",
    "standing",
]

RUN = "stopped"
"""The id of the run that a program is."""


@frozen
class Stop:
    """When and how the run is told to stop: at the n-th commit (before or *after* it) or *body*, by ``cancel``,
    by the cancelling of the ``task`` that called it, *twice* or once, because its ``time`` is up, or, in a body, by
    a ``KeyboardInterrupt``."""

    at: int
    how: str = "cancel"
    after: bool = False
    body: bool = False
    twice: bool = False


# Moments ----------------------------------------------------------------------------------------------------


class Moments(RelayStorage):
    """Calls *act* of the stop that is due, at a commit or a body. With *slow*, commits take up to that many
    turns of the event loop, in a thread of their own."""

    pause = 0.0  # seconds that a commit may take beside

    def __init__(
        self, inner: Storage, stops: Sequence[Stop], act: Callable[[Stop], object], slow: int, seed: Any
    ) -> None:
        super().__init__(inner)
        self.inline = inner.inline and not slow
        self.shares = self.inline and inner.shares
        self.loop: asyncio.AbstractEventLoop | None = None
        self._stops = stops
        self._act = act
        self._slow = slow
        self._rng = random.Random(f"{seed}")
        self._counts: Counter[bool] = Counter()
        self._lock = threading.Lock()
        self._acting = threading.local()

    def body(self) -> None:
        """A body begins."""
        self._moment(self._next(True), body=True)

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        if getattr(self._acting, "is", False) or threading.current_thread().name == "flowdsl-keeper":
            return self.storage.commit(operations)
        if self.pause:
            time.sleep(self._rng.random() * self.pause)
        mine = self._next(False)
        self._moment(mine, after=False)
        if self._slow:
            self._wait(self._rng.randrange(self._slow + 1))
        outcomes = self.storage.commit(operations)
        self._moment(mine, after=True)
        if self._slow:
            self._wait(self._rng.randrange(self._slow + 1))
        return outcomes

    def _next(self, body: bool) -> int:
        with self._lock:
            self._counts[body] += 1
            return self._counts[body] - 1

    def _moment(self, mine: int, *, after: bool = False, body: bool = False) -> None:
        for stop in self._stops:
            if (stop.at, stop.body) == (mine, body) and (body or stop.after == after):
                if getattr(self._acting, "is", False):
                    return
                self._acting.__dict__["is"] = True
                try:
                    self._act(stop)
                finally:
                    self._acting.__dict__["is"] = False

    def _wait(self, turns: int) -> None:
        """Wait until the event loop has made so many turns; not for long, for it may wait for this commit."""
        loop, passed = self.loop, threading.Event()
        if loop is None or not turns:
            return

        def turn(left: int) -> None:
            if left:
                loop.call_soon(turn, left - 1)
            else:
                passed.set()

        try:
            if asyncio.get_running_loop() is loop:
                return
        except RuntimeError:
            pass
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(turn, turns)
            passed.wait(0.01)


# Executions -------------------------------------------------------------------------------------------------

_LIMIT = 1000.0  # seconds that a run may take


class _Clock(SystemClock):
    """Time that can jump *ahead*, by so many seconds."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def live(
    program: Program,
    is_async: bool,
    storage: Storage,
    stops: Sequence[Stop] = (),
    *,
    slow: int = 0,
    seed: Any = 0,
    world: World | None = None,
    how: Callable[[Stop], bool] | None = None,
) -> World:
    """Execute *program* once, while it is told to stop, and then to its end; what happened. *how* may know other
    ways of stopping; it says whether this was one."""
    task: list[asyncio.Task[Any]] = []
    clock = _Clock()

    def tell(stop: Stop) -> None:
        if how is not None and how(stop):
            return
        if stop.how == "time":
            clock.ahead += 2 * _LIMIT
        elif stop.how == "interrupt" and stop.body:
            raise KeyboardInterrupt
        elif stop.how == "task" and task:
            for _ in range(1 + stop.twice):
                with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                    task[0].get_loop().call_soon_threadsafe(task[0].cancel)
        else:
            with contextlib.suppress(FlowError):  # it has ended, or has yet to begin
                beside.cancel(RUN)

    moments = Moments(storage, stops, tell, slow, seed)
    world = meet(world or World())
    world.on_body = moments.body
    call = partial(PLAYERS[is_async].child.options(id=RUN, timeout=_LIMIT), (), program)

    async def main() -> None:
        moments.loop = asyncio.get_running_loop()
        task.append(asyncio.create_task(call()))
        await asyncio.wait(task)
        task[0].cancelled() or task[0].exception()

    with Runtime(moments, clock=clock) as runtime, Runtime(moments, clock=clock) as beside, runtime:
        with contextlib.suppress(Failed, RunCancelled, RunTimeout, KeyboardInterrupt):
            asyncio.run(main()) if is_async else call()
        for _ in range(1 + len(stops)):  # an interrupt may come while it is being undone
            # it has ended, or it was interrupted and is ended now
            with contextlib.suppress(FlowError, KeyboardInterrupt):
                runtime.cancel(RUN)
        for thread in world.threads:
            thread.join(60)
    return world


def standing(storage: Storage, world: World, again: int = 0, *, ordered: bool = False) -> list[str]:
    """What is wrong in the end, in words. So many undos may have begun *again*, because they were killed. With
    *ordered*, the program did one thing at a time, so that it is known what was newest."""
    runs = {run.id: run for run in storage.list_runs()}
    wrong = [
        f"{run.id} of {run.parent} is {run.status}"
        for run in runs.values()
        if run.status in ("pending", "running")
    ]

    def is_bad(run_id: str | None) -> bool:
        if run_id is None:
            return False
        return runs[run_id].status in ("failed", "cancelled") or is_bad(runs[run_id].parent)

    for run_id, token in world.did:
        times, expected = world.undid[token], int(is_bad(run_id) and not str(token).startswith("k"))
        if not expected <= times <= expected * (1 + again):
            wrong.append(
                f"{token} of {run_id} ({runs[run_id].status}) was undone {times} times, not {expected}"
            )
    for run_id in runs if ordered else ():
        undone = [token for token in world.undid if (run_id, token) in world.did]
        if undone != sorted(undone, reverse=True):
            wrong.append(f"{run_id} was undone in the order {undone}")
    for run_id in runs:
        for record in storage.list_steps(run_id):
            undoable = record.path.endswith(("act", "nested")) and record.kind == "step"
            undoable &= not record.preview.startswith("'k")
            if undoable and record.status == "completed" and is_bad(run_id):
                wrong.append(f"{record.path}({record.args}) of {run_id} was left standing")
    if wrong:
        wrong.append(f"the run is {runs[RUN].status}")
    return wrong
