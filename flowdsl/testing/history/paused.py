"""Continues a recorded run with today's code, up to the first call without a record, and holds it there.

The rules
    Recorded steps answer from the history. Nothing else executes. A body without a record, a sleep, a wait
    and a child run hold the code where it calls them. Nothing is sent or undone, and no callback is called.

The implementation
    The history goes into a storage in memory, as an interrupted run. That run is continued on a clock that
    stands still. The body of the workflow is held at its end, too. Then the run is interrupted like any
    other.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from flowdsl.blocks import block
from flowdsl.core.history import History
from flowdsl.core.status import RunStatus
from flowdsl.errors import Stopped
from flowdsl.handle import Run
from flowdsl.hooks import BodyView, Hooks
from flowdsl.runtime import Runtime, engine_of
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import AddSignal, OpenRun, PutStep, UpdateRun
from flowdsl.testing.clock import VirtualClock
from flowdsl.testing.seam import fake_body
from flowdsl.testing.user_code import line_of_code

__all__ = ["Held", "Stop"]


@frozen(slots=True)
class Stop:
    """A call that no record answers. *recorded*: whether it would have been recorded."""

    key: str
    path: str
    shown: str
    line: str = ""
    recorded: bool = True


class _Holding(Hooks):
    """Notes the run's state, and holds what would execute."""

    def __init__(self, held: "Held") -> None:
        self._held = held
        self._lines: dict[str, str] = {}

    def on_step_start(self, step: Any) -> None:
        self._lines[step.key] = line_of_code()  # the body may execute in another thread

    def execute_body(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        held = self._held
        if body.kind == "workflow" and body.run_id == held.id:
            with held.continuing(body):
                try:
                    held.ends(None, proceed())
                except Exception as error:  # whatever the user's body raises
                    held.ends(error)
                return body.hold()
        if (fake := self._fake(body)) is not None:
            return fake(*body.args, **body.kwargs)
        self._note(body)
        return body.hold()

    async def execute_body_async(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        held = self._held
        held.executes_on(asyncio.get_running_loop())
        if body.kind == "workflow" and body.run_id == held.id:
            with held.continuing(body):
                try:
                    held.ends(None, await proceed())
                except Exception as error:  # whatever the user's body raises
                    held.ends(error)
                return await body.ahold()
        if (fake := self._fake(body)) is not None:
            return await fake_body(fake, True)(*body.args, **body.kwargs)
        self._note(body)
        return await body.ahold()

    def _fake(self, body: BodyView) -> Callable[..., Any] | None:
        """What executes instead of a body, if anything does."""
        if body.step is not None and body.step.mode == "send":
            return lambda *_, **__: None
        return self._held.fakes.get(body.path) if body.step is not None else None

    def _note(self, body: BodyView) -> None:
        """Note a call that no record answers."""
        held, step = self._held, body.step
        shown = f"{body.path.rpartition('.')[2]}({body.shown})"
        if step is not None and body.run_id == held.id:
            line = self._lines.get(step.key) or line_of_code()
            held.stops.append(Stop(step.key, body.path, shown, line, step.mode == "do"))
        elif step is None:
            record = held.storage.get_run(body.run_id)
            if record is not None and record.parent == held.id:
                held.stops.append(Stop(record.parent_key or "", body.path, shown, line_of_code()))


class Held:
    """The run of *history*, and what was found when it was continued: its *body*, the calls at which it
    *stops*, and the *outcome* of the body.
    """

    def __init__(
        self,
        history: History,
        fakes: Mapping[str, Callable[..., Any]],
        options: Mapping[str, Any],
        timeout: float,
    ) -> None:
        self.id = history.run.id
        self.body: BodyView | None = None
        self.stops: list[Stop] = []
        self.outcome: tuple[BaseException | None, Any] | None = None
        self._stopped: BaseException | None = None
        self._loops: set[asyncio.AbstractEventLoop] = set()
        self.storage = _stored(history)
        self.clock = VirtualClock(_last_moment(history), autoskip=False)
        self.fakes = fakes
        self._timeout = timeout
        self._history = history
        self._options = {"lease": 3600.0, **options}
        holding = {**self._options, "hooks": [_Holding(self)]}
        self.runtime = Runtime(self.storage, clock=self.clock, **holding)

    @block
    def continuing(self, body: BodyView) -> Iterator[None]:
        """Within the block, *body*, that of the workflow, executes, and what stops the run is noted."""
        self.body = body
        try:
            yield
        except Stopped as stopped:
            self._stopped = stopped.error
            raise

    def ends(self, error: BaseException | None, value: Any = None) -> None:
        """The code of the workflow has come to its end."""
        self.outcome = error, value

    def executes_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """An async body executes on *loop*."""
        self._loops.add(loop)

    @block
    def continued(self) -> Iterator[BaseException | None]:
        """Continue it, and yield what stopped it, if anything did. It is held until the block ends.

        Raises what ``resume`` raises, and ``TimeoutError``.
        """
        with self.runtime:
            run = self.runtime.resume(self.id)
            self._come_to_rest()
            yield self._stopped if self.body is not None else _failure(run, self._timeout)
        self.storage.close()

    @block
    def as_recorded(self) -> Iterator[Run[Any]]:
        """The run as the history has it: with all its steps, and with its failure if it has failed."""
        storage, run = _stored(self._history), self._history.run
        if run.status is RunStatus.FAILED:
            storage.commit([UpdateRun(self.id, {"status": run.status, "error": run.error})])
        silent = {name: option for name, option in self._options.items() if name != "hooks"}
        with Runtime(storage, **silent) as rt:
            found = rt.run(self.id)
            assert found is not None
            yield found
        storage.close()

    def _come_to_rest(self) -> None:
        """Return once all code of the run is held, or the run was stopped."""
        end = time.monotonic() + self._timeout
        while True:
            before = self.clock.rests(max(end - time.monotonic(), 0.01))
            for loop in self._loops:
                asyncio.run_coroutine_threadsafe(_drained(loop), loop).result()
            if before is None:  # nobody can stop such code, so nobody waits for it
                engine_of(self.runtime).abandon()
                raise TimeoutError(f"its code did not come to an end within {self._timeout:g} seconds")
            if self.clock.rests(0.0) == before:
                return


def _failure(run: Run[Any], timeout: float) -> BaseException | None:
    """Why a run has ended that has not come to its body."""
    try:
        return run.exception(timeout)
    except Exception as error:  # of a run that was stopped
        return error


async def _drained(loop: Any) -> None:
    """Return once no callback is ready."""
    for _ in range(1000):
        await asyncio.sleep(0)
        if not getattr(loop, "_ready", True):
            return


def _stored(history: History) -> MemoryStorage:
    """A storage that holds the run as it would be if its process had died."""
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
    storage.commit([PutStep(step._replace(seq=0)) for step in history.steps])
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
