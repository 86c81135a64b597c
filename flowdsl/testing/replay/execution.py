"""One execution of a workflow to its end, watched: the first one, or one that continues from a crash.

A crash is not raised but *made*. The first n commits of an execution are put into an empty storage. That is
exactly what a killed process leaves behind. Then the workflow is called again. Bodies that the first
execution completed are played back, so each executes once, however many crashes are tried.
"""

import asyncio
import contextvars
import threading
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from typing import Any

from attrs import evolve

from flowdsl.core.facts import Facts, InDoubt, Undoable, facts_of
from flowdsl.core.kinds import STEP
from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus, StepStatus, is_final
from flowdsl.errors import StepNotFound
from flowdsl.runtime import Runtime
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Fenced, Missing, Operation, Outcome, PutStep, UpdateRun
from flowdsl.storage.step_transactions import StepTransaction
from flowdsl.testing.clock import VirtualClock
from flowdsl.testing.crash import RelayStorage
from flowdsl.testing.replay.observed import Called, Commit, Life, Plan, body_of
from flowdsl.testing.replay.playback import Player, Strange
from flowdsl.testing.replay.side_effects import listening
from flowdsl.testing.replay.transactions import Database
from flowdsl.testing.replay.values import copy_of
from flowdsl.testing.user_code import line_of_code

__all__ = ["live", "unfinished"]


class _Recording(RelayStorage):
    """Keeps what is committed. Bodies get connections of *database*, whose transactions are committed with
    *keeps* only."""

    def __init__(
        self, storage: MemoryStorage, life: Life, clock: VirtualClock, database: Database, keeps: bool
    ) -> None:
        super().__init__(storage)
        self.transacts = self.alone = True
        self._life = life
        self._clock = clock
        self._database = database
        self._keeps = keeps
        self._order = threading.Lock()

    def transaction(self) -> AbstractContextManager[StepTransaction]:
        return self._database.storage.transaction()

    def transaction_async(self) -> AbstractAsyncContextManager[StepTransaction]:
        return self._database.storage.transaction_async()

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        if self._keeps:
            self._database.storage.commit_transaction(transaction, ())
        return self.commit(operations)

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        if self._keeps:
            await self._database.storage.commit_transaction_async(transaction, ())
        return self.commit(operations)

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        with self._order:
            outcomes = self.storage.commit(operations)
            if operations:
                done = [
                    operation for operation, outcome in zip(operations, outcomes, strict=True)
                    if not isinstance(outcome, Fenced | Missing)
                ]  # fmt: skip
                self._life.commits.append(Commit(tuple(done), self._clock.now()))
                self._life.note(done)
        return outcomes


class _Watching(Player):
    """Notes replays and what was never asked for. Sends the signals that the workflow waits for."""

    def __init__(self, plan: Plan, life: Life, first: bool, storage: MemoryStorage) -> None:
        super().__init__(plan, life, first)
        self._storage = storage

    def on_run_start(self, run: Any) -> None:
        parent = run.parent
        if parent is not None and self._plan.losers.holds_run(parent.id):
            self._plan.losers.add_run(run.id)
        if parent is None:
            for number, (name, payload) in enumerate(self._plan.signals):
                run.signal(name, payload, sender="check_replay", key=f"check_replay-{number}")

    def on_step_replay(self, step: Any, result: Any) -> None:
        record = self._storage.get_step(step.run_id, step.key)
        shown = f"{step.path.rpartition('.')[2]}({record.args if record else '…'})"
        self._life.calls.append(Called(False, self._life.place(step.run_id, step.key), shown, line_of_code()))

    def on_step_complete(self, step: Any, result: Any) -> None:
        error, value = self._plan.outcomes.get(
            (self._life.place(step.run_id, step.key), step.attempt), (None, result)
        )
        if error is None and step.mode == "do":
            self._life.loaded.append((step.path.rpartition(".")[2], value, copy_of(result)))

    def on_run_complete(self, run: Any, result: Any) -> None:
        body = self.bodies.get(run.id)
        self._plan.losers.learn(self._life.puts)
        for row in body.unused() if body is not None else ():
            if body_of(row.scope) or self._life.is_chance(self._life.place(run.id, row.key), row):
                continue  # the body of a step may call something else each time
            self._life.unused.append(f"{row.path.rpartition('.')[2]}({row.args})")

    def called_outside(self, path: str) -> None:
        self._life.lost.append(path.rpartition(".")[2])


def unfinished(before: Sequence[Commit], *, released: bool = False) -> MemoryStorage | None:
    """What a process leaves behind that dies after these commits. ``None`` if it leaves no run to continue.
    With *released*, another process may continue its runs although the first process lives.
    """
    storage = MemoryStorage()
    for commit in before:
        storage.commit(commit.operations)
    runs = storage.list_runs()
    for run in runs:
        _lift_doubts(storage, run)
    if released:
        storage.commit([UpdateRun(run.id, {}, release=True) for run in runs if run.owner])
    roots = [run for run in runs if run.parent is None and run.started_by is None]
    if roots and all(run.status in (RunStatus.RUNNING, RunStatus.PENDING) for run in roots):
        return storage
    storage.close()
    return None


def _lift_doubts(storage: MemoryStorage, run: Run) -> None:
    """Say of the steps that were executing that they did not take effect, as a person does with
    ``resolve(…, rerun=True)``. A step marked ``in_doubt="raise"`` stops the run otherwise, as it should."""
    for step in storage.list_steps(run.id):
        facts = facts_of(step)
        if step.status is StepStatus.PENDING and isinstance(facts, InDoubt):
            kept = Facts() if facts.undo is None else Undoable(facts.undo)
            extra = evolve(kept, generation=facts.generation).to_json()
            storage.commit([PutStep(step._replace(seq=0, extra=extra), run.epoch)])


def live(plan: Plan, storage: MemoryStorage, before: Sequence[Commit], changes: tuple[str, ...] = ()) -> Life:
    """Execute the workflow to its end on *storage*, which holds the commits *before*. *changes* tell what has
    changed since.
    """
    life = Life(before, changes, losers=plan.losers, cut_off=plan.cut_off)
    for commit in before:
        life.note(commit.operations)
    first = not before
    clock = VirtualClock(before[-1].at) if before else VirtualClock()
    watch = _Watching(plan, life, first, storage)
    options = {"lease": 3600.0, "clock": clock, **plan.options}
    options["hooks"] = [watch, *_several(options.get("hooks", ()))]
    try:
        with (
            listening(life) if first else nullcontext(),
            Runtime(_Recording(storage, life, clock, plan.database, keeps=first), **options) as rt,
        ):
            _take_up(rt)
            try:
                life.returned(_call(plan))
            except (Exception, Strange) as error:  # it is compared, whatever it is
                life.raised(error)
            if first:
                life.loaded.extend(_errors(plan, life, rt))
        life.left_alone.update(_left_alone(storage.list_runs()))
    finally:
        storage.close()
    plan.losers.learn(life.puts)
    life.learn_what_was_cut_off()
    if first:
        plan.learn_from(life)
    return life


def _take_up(runtime: Runtime) -> None:
    """Continue the detached runs, as ``recover()`` does. The one that is checked is called again."""
    for run in runtime.runs(status=RunStatus.RUNNING):
        if run.started_by is not None:
            with suppress(StepNotFound):  # a body that has not come so far yet imports its module
                runtime.resume(run.id)


def _left_alone(runs: Sequence[Run]) -> set[str]:
    """Detached runs that have not ended, children that were cancelled, and what these called. How far they
    came is a matter of timing."""
    found = {run.id for run in runs if run.started_by is not None and not is_final(run.status)}
    found |= {run.id for run in runs if run.parent is not None and run.status is RunStatus.CANCELLED}
    known = -1
    while known != len(found):
        known = len(found)
        found |= {run.id for run in runs if run.parent in found}
    return found


def _several(hooks: Any) -> tuple[Any, ...]:
    return tuple(hooks) if isinstance(hooks, tuple | list) else (hooks,)


def _errors(plan: Plan, life: Life, runtime: Runtime) -> list[tuple[str, Any, Any]]:
    """The exceptions of steps that failed for good: as they were raised, and as their records give them."""
    found = []
    for run in runtime.runs():
        for step in run.steps():
            raised, _ = plan.outcomes.get((life.place(run.id, step.key), step.attempts), (None, None))
            if step.kind == STEP and step.status == StepStatus.FAILED and raised is not None:
                found.append((step.path.rpartition(".")[2], raised, step.error))
    return found


def _call(plan: Plan) -> Any:
    """Call the workflow in its own context, even if an event loop or a run executes here."""

    def call() -> Any:
        return plan.workflow(*copy_of(plan.args), **copy_of(plan.kwargs))

    async def main() -> Any:
        return await call()

    def call_async() -> Any:
        return asyncio.run(main())

    work = call_async if plan.is_async else call
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    return _in_thread(work)


def _in_thread(work: Any) -> Any:
    box: list[Any] = []
    context = contextvars.copy_context()

    def execute() -> None:
        try:
            box.append((None, context.run(work)))
        except BaseException as error:  # for the thread that waits
            box.append((error, None))

    thread = threading.Thread(target=execute, name="flowdsl-check-replay")
    thread.start()
    thread.join()
    error, value = box[0]
    if error is not None:
        raise error
    return value
