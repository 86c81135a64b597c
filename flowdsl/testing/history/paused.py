"""A recorded run, continued by today's code up to where nothing is recorded, and held there.

The rules
    Recorded steps answer from the history. Nothing else executes: a body without a record, a sleep, a wait
    and a child run hold the code where it calls them. Nothing is sent, undone or called back.

The implementation
    The history goes into a storage in memory as an interrupted run, which is continued on a clock that stands
    still. The body of the workflow is held at its end too; then the run is interrupted like any other.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import evolve, frozen

from flowdsl.core.status import RunStatus
from flowdsl.engine import run as run_module
from flowdsl.engine.context import Crossing, Frame, RunState, StepView, current
from flowdsl.engine.drive import Body, Pause
from flowdsl.engine.export import History
from flowdsl.engine.places import source_line
from flowdsl.errors import FlowError
from flowdsl.hooks import Hooks
from flowdsl.runtime import Runtime
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import AddSignal, OpenRun, PutStep, UpdateRun
from flowdsl.testing.clock import VirtualClock
from flowdsl.testing.seam import fake_body, substituting

__all__ = ["Held", "Stop"]


@frozen(slots=True)
class Stop:
    """A call that no record answers; *recorded*, if it would have been recorded."""

    key: str
    path: str
    shown: str
    line: str = ""
    recorded: bool = True


class _Watch(Hooks):
    """Notes what is replayed, and the run's state in memory."""

    def __init__(self, held: "Held") -> None:
        self._held = held

    def on_run_start(self, run: Any) -> None:
        if run.id == self._held.id:
            self._held.state = self._held.runtime.engine.active[run.id]


class Held:
    """The run of *history*, with what was found when it was continued: the *state* of it in memory, the calls
    that it *stops* at, and the *outcome* of its body.
    """

    def __init__(
        self,
        history: History,
        fakes: Mapping[str, Callable[..., Any]],
        options: Mapping[str, Any],
        timeout: float,
    ) -> None:
        self.id = history.run.id
        self.state: RunState | None = None
        self.stops: list[Stop] = []
        self.outcome: tuple[BaseException | None, Any] | None = None
        self.storage = _stored(history)
        self.clock = VirtualClock(_last_moment(history), autoskip=False)
        self._fakes = fakes
        self._timeout = timeout
        options = {"lease": 3600.0, **options, "hooks": [_Watch(self)]}
        self.runtime = Runtime(self.storage, clock=self.clock, **options)

    @contextmanager
    def continued(self) -> Iterator[BaseException | None]:
        """Continue it; yields what stopped it, if something did. It is held until the block ends.

        Raises what ``resume`` raises, and ``TimeoutError``.
        """
        with substituting(self._instead_of), self._holding(), self.runtime:
            run = self.runtime.resume(self.id)
            future = self.runtime.engine.futures.get(run.id)
            self._come_to_rest(future)
            yield future.exception() if future is not None and future.done() else None
        self.storage.close()

    # What executes ----------------------------------------------------------------------------------------

    def _instead_of(
        self, view: StepView, is_async: bool, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., Any]:
        """What executes in place of a body."""
        if view.mode == "send":
            return fake_body(lambda *_, **__: None, is_async)
        if view.path in self._fakes:
            return fake_body(self._fakes[view.path], is_async)
        frame = current.get()
        state = frame.run if frame is not None else None
        running = None if state is None else state.running.get(view.key)
        shown = running[1].shown if running is not None else ""
        if view.run_id == self.id:
            name = view.path.rpartition(".")[2]
            self.stops.append(Stop(view.key, view.path, f"{name}({shown})", source_line(), view.mode == "do"))
        return _aheld if is_async else _held

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Hold the body of the workflow at its end, and that of each child at its beginning."""
        held = self

        class Holding(Body):
            __slots__ = ()

            def __init__(self, fn: Any, args: Any, kwargs: Any, frame: Frame) -> None:
                run = frame.run
                if run.id == held.id and run.engine is held.runtime.engine:
                    fn = held._held_at_its_end(fn, frame.is_async)
                elif run.record.parent == held.id:
                    record = run.record
                    shown = f"{record.workflow.rpartition('.')[2]}({record.args_preview})"
                    key = record.parent_key or ""
                    held.stops.append(Stop(key, record.workflow, shown, source_line()))
                    fn = _aheld if frame.is_async else _held
                super().__init__(fn, args, kwargs, frame)

        module: Any = run_module
        module.Body = Holding
        try:
            yield
        finally:
            module.Body = Body

    def _held_at_its_end(self, fn: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
        def body(*args: Any, **kwargs: Any) -> Any:
            try:
                self.outcome = None, fn(*args, **kwargs)
            except Exception as error:
                self.outcome = error, None
            return _held()

        async def abody(*args: Any, **kwargs: Any) -> Any:
            try:
                self.outcome = None, await fn(*args, **kwargs)
            except Exception as error:
                self.outcome = error, None
            return await _aheld()

        return abody if is_async else body

    def _come_to_rest(self, future: Any) -> None:
        """Return once all code of the run is held, or the run was stopped."""
        clock = self.clock
        end = time.monotonic() + self._timeout
        while future is not None and not future.done():
            before = clock._moves
            with clock._lock:
                rests = clock._settled.wait_for(
                    lambda: clock._busy <= 0 or future.done(), timeout=max(end - time.monotonic(), 0.01)
                )
            loop = self.runtime.engine._loop
            if loop is not None:
                asyncio.run_coroutine_threadsafe(_drained(loop), loop).result()
            if not rests:  # nobody can stop such code, so nobody waits for it either
                self.runtime.engine.futures.clear()
                self.runtime.engine._background.clear()
                raise TimeoutError(f"its code did not come to an end within {self._timeout:g} seconds")
            if self.state is not None and clock._busy <= 0 and clock._moves == before:
                return


def _held(*_: Any, **__: Any) -> Any:
    run = _here()
    while run.stop is None and not run.ending:
        Pause(run, None).sync()
    raise Crossing(run.stop or FlowError("the history ends here", run=run.id))


async def _aheld(*_: Any, **__: Any) -> Any:
    run = _here()
    while run.stop is None and not run.ending:
        await Pause(run, None).aio()
    raise Crossing(run.stop or FlowError("the history ends here", run=run.id))


def _here() -> RunState:
    frame = current.get()
    assert frame is not None
    return frame.run


async def _drained(loop: Any) -> None:
    """Return once no callback is ready."""
    for _ in range(1000):
        await asyncio.sleep(0)
        if not getattr(loop, "_ready", True):
            return


def _stored(history: History) -> MemoryStorage:
    """A storage that holds the run as if its process had died."""
    storage = MemoryStorage()
    run = evolve(
        history.run,
        number=None,
        status=RunStatus.RUNNING,
        owner="history",
        finished_at=None,
        deadline=None,
        result=None,
        error=None,
        undoing="",
        retryable=True,
        cancel_requested=None,
        floor=0,
    )
    storage.commit([OpenRun(run, 3600.0)])
    storage.commit([PutStep(evolve(step, seq=0)) for step in history.steps])
    storage.commit([AddSignal(signal) for signal in history.signals if signal.taken_by is None])
    changes: dict[str, Any] = {}
    if history.run.floor:
        seqs = [step.seq for step in storage.list_steps(run.id)]
        changes["floor"] = seqs[min(history.run.floor - 1, len(seqs)) - 1] + 1 if seqs else 0
    storage.commit([UpdateRun(run.id, changes, release=True)])
    return storage


def _last_moment(history: History) -> float:
    times = [history.run.created_at, *(s.completed_at or s.created_at for s in history.steps)]
    return max(times)
