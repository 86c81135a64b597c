"""One execution of a workflow up to its end, watched: the first one, or one that continues from a crash.

A crash is not raised but *made*: the first n commits of an execution are put into an empty storage, which
is exactly what a killed process leaves behind, and the workflow is called again. Bodies that the first
execution completed are played back, so that each executes once however many crashes are tried."""

import asyncio
import contextvars
import threading
from collections.abc import Sequence
from typing import Any

from flowdsl.core.kinds import STEP
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine.execution import current
from flowdsl.handle import StepRecord
from flowdsl.hooks import Hooks, installed
from flowdsl.runtime import Runtime, engine_of
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Operation, Outcome
from flowdsl.testing.clock import VirtualClock
from flowdsl.testing.crash import RelayStorage
from flowdsl.testing.replay.observed import Called, Commit, Life, Plan
from flowdsl.testing.replay.playback import line_of_code, player
from flowdsl.testing.replay.side_effects import listening
from flowdsl.testing.replay.surroundings import elsewhere
from flowdsl.testing.replay.values import copy_of
from flowdsl.testing.seam import substituting

__all__ = ["live", "unfinished"]


class _Recording(RelayStorage):
    """Keeps what is committed."""

    def __init__(self, storage: MemoryStorage, life: Life, clock: VirtualClock) -> None:
        super().__init__(storage)
        self._life = life
        self._clock = clock
        self._order = threading.Lock()

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        with self._order:
            outcomes = self.storage.commit(operations)
            if operations:
                self._life.commits.append(Commit(tuple(operations), self._clock.now()))
                self._life.note(operations)
        return outcomes


class _Watch(Hooks):
    """Notes replays and what was never asked for; sends the signals that the workflow waits for."""

    def __init__(self, life: Life, plan: Plan, storage: MemoryStorage) -> None:
        self._life = life
        self._plan = plan
        self._storage = storage
        self.runtime: Any = None

    def on_run_start(self, run: Any) -> None:
        if run.record.parent is None:
            for number, (name, payload) in enumerate(self._plan.signals):
                run.signal(name, payload, sender="check_replay", key=f"check_replay-{number}")

    def on_step_start(self, step: Any) -> None:
        # here, since the body may execute in another thread
        self._life.lines[step.run_id, step.key, step.attempt] = line_of_code()

    def on_step_replay(self, step: Any, result: Any) -> None:
        record = self._storage.get_step(step.run_id, step.key)
        shown = f"{step.path.rpartition('.')[2]}({record.args if record else '…'})"
        self._life.calls.append(Called(False, step.run_id, step.key, shown, line_of_code()))

    def on_step_complete(self, step: Any, result: Any) -> None:
        error, value = self._plan.outcomes.get((step.run_id, step.key, step.attempt), (None, result))
        if error is None and step.mode == "do":
            self._life.loaded.append((step.path.rpartition(".")[2], value, copy_of(result)))

    def on_run_complete(self, run: Any, result: Any) -> None:
        state = engine_of(self.runtime).owned.get(run.id)
        if state is not None:
            unused = state.journal.unused()
            self._life.unused += [f"{s.path.rpartition('.')[2]}({s.args})" for s in unused]


class _Steady(Hooks):
    """Jitter that is the same each time."""

    def jitter(self) -> float:
        return 0.0


# ------------------------------------------------------------ an execution


def unfinished(before: Sequence[Commit]) -> MemoryStorage | None:
    """What a process leaves behind that dies after these commits; ``None`` if no run of it is left to be
    continued.
    """
    storage = MemoryStorage()
    for commit in before:
        storage.commit(commit.operations)
    roots = [run for run in storage.list_runs() if run.parent is None]
    if roots and all(run.status in (RunStatus.RUNNING, RunStatus.PENDING) for run in roots):
        return storage
    storage.close()
    return None


def live(plan: Plan, storage: MemoryStorage, before: tuple[Commit, ...], changes: tuple[str, ...]) -> Life:
    """Execute the workflow to its end on *storage*, which holds the commits *before*, where *changes* have
    happened.
    """
    life = Life(before, changes)
    for commit in before:
        life.note(commit.operations)
    clock = VirtualClock(before[-1].at) if before else VirtualClock()
    watch = _Watch(life, plan, storage)
    runtime = Runtime(
        _Recording(storage, life, clock),
        **{"clock": clock, "hooks": [watch], "lease": 3600.0, **plan.options},
    )
    watch.runtime = runtime
    outside = current.set(None)
    try:
        with (
            installed(_Steady()),
            substituting(player(plan, life, not before)),
            elsewhere(plan.fn, plan.memory, changes),
            listening(life),
            runtime,
        ):
            try:
                life.value = _call(plan)
            except Exception as error:
                life.error = error
            life.loaded += _errors(plan, life, runtime)
    finally:
        current.reset(outside)
        storage.close()
    if not before:
        steps = life.journal().items()
        plan.inner = {(run_id, _body_of(step.scope)) for (run_id, _), step in steps if step.scope}
    return life


def _body_of(scope: str) -> str:
    """The key of the body in which *scope* lies."""
    body, _, rest = scope.partition("/")
    return f"{body}/undo" if rest.startswith("undo/") else body.partition("~")[0]


def _errors(plan: Plan, life: Life, runtime: Runtime) -> list[tuple[str, Any, Any]]:
    """The exceptions of steps that failed for good: as they were raised, and as their records give them."""
    found = []
    for (run_id, key), step in life.puts.items():
        raised, _ = plan.outcomes.get((run_id, key, step.attempts), (None, None))
        if step.kind == STEP and step.status is StepStatus.FAILED and raised is not None:
            found.append((step.path.rpartition(".")[2], raised, StepRecord(engine_of(runtime), step).error))
    return found


def _call(plan: Plan) -> Any:
    if not plan.is_async:
        return plan.call()

    async def main() -> Any:
        return await plan.call()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    box: list[Any] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.append((None, context.run(asyncio.run, main())))
        except BaseException as error:
            box.append((error, None))

    thread = threading.Thread(target=work, name="flowdsl-check-replay")
    thread.start()
    thread.join()
    error, value = box[0]
    if error is not None:
        raise error
    return value
