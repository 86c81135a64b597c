"""Undo (saga): take back what a failed or cancelled run has completed, newest first.

The rules
    1. Undo begins when all branches have ended, and its start is recorded together with the outcome that the
       run will have; a kill during undoing continues undoing, and the body is not executed again.
    2. Each undo is a durable step, called with the result of the step that it takes back, under its own retry
       policy. The step's record becomes ``undone`` in the commit that records the undo.
    3. An undo that fails for good is reported and does not keep the others from being undone.
    4. A completed child run is undone by its own steps' undo.
"""

import json
import logging
from typing import Any

from attrs import evolve

from flowdsl.core.journal import Journal
from flowdsl.core.records import Run, RunFilter, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine.context import Frame, RunState, Scope, current, here
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.drive import Body, Call, Commit, Flow, Pause, Result
from flowdsl.engine.lease import claim
from flowdsl.engine.owner import Liveness, liveness
from flowdsl.engine.registry import STEPS
from flowdsl.engine.step import commit_for, error_preview, jitter
from flowdsl.storage.base import PutStep, UpdateRun

__all__ = ["cancel_children", "to_undo", "undo_all"]

logger = logging.getLogger("flowdsl")


def to_undo(state: RunState) -> list[Step]:
    """The completed records that have something to undo, newest first."""
    found = [
        step
        for step in state.journal
        if step.status is StepStatus.COMPLETED
        and (_undo_of(state, step) is not None or _child_of(step) is not None)
    ]
    return found[::-1]  # a journal is in the order of completion


def _undo_of(state: RunState, step: Step) -> Any:
    if step.kind != "step":
        return None
    undo = state.undos.get(step.key)
    if undo is None:
        source = STEPS.get(step.path)
        undo = source.definition.undo if source is not None else None
    return undo


def _child_of(step: Step) -> str | None:
    if step.kind != "child" or not step.extra:
        return None
    found: str | None = json.loads(step.extra).get("child")
    return found


def undo_all(state: RunState, begin: dict[str, Any]) -> Flow:
    """Undo what has to be undone; *begin* is stored with the start of it. Errors of undos are logged,
    those of the storage are returned."""
    steps = to_undo(state)
    if not steps:
        return None, None
    yield from commit_for(state, None, UpdateRun(state.id, begin, epoch=state.epoch))
    state.undoing = True
    state.stop = state.deadline = None
    state.ending = False
    for step in steps:
        child = _child_of(step)
        if child is not None:
            yield from _undo_child(state, step, child)
        else:
            yield from _undo_step(state, step, _undo_of(state, step))
    return None, None


def _undo_step(state: RunState, step: Step, undo: Any) -> Flow:
    """One undo with retries, then its record."""
    engine = state.engine
    source = getattr(undo, "definition", None)
    defn = source if isinstance(source, StepDef) else StepDef.build(undo, name=_name_of(undo))
    fn = getattr(undo, "__wrapped__", undo) if source is not None else undo
    retry = defn.retry or engine.retry
    value = engine.payloads.unpack(step.payload or b"", state.id, step.key, "result")
    attempt = 0
    while True:
        attempt += 1
        started = engine.clock.now()
        scope = Scope(f"{step.key}/undo/{attempt}", state.scope, defn.is_async, of_step=True)
        scope.home = here(defn.is_async)
        error, _ = yield from _call(state, defn, fn, value, scope)
        if error is None:
            break
        if not isinstance(error, Exception):
            raise error
        if attempt >= retry.attempts or not retry.should_retry(error, attempt):
            logger.error(
                "undo %s of step %s in run %s failed after %d attempts; the others go on",
                *(defn.path, step.path, state.id, attempt),
                exc_info=error,
                extra={"run": state.id, "step": step.key},
            )
            break
        token = current.set(Frame(state, state.scope, None, state.is_async))  # it is the run that waits
        try:
            yield Pause(state, retry.delay(attempt, jitter(), error))
        finally:
            current.reset(token)
    record = Step(
        state.id,
        f"{step.key}/undo",
        defn.path,
        kind="undo",
        scope=step.scope,
        status=StepStatus.COMPLETED if error is None else StepStatus.FAILED,
        attempts=attempt,
        args=step.preview,
        preview="" if error is None else error_preview(error),
        created_at=started,
        completed_at=engine.clock.now(),
        concurrent=True,
    )
    return (yield from _store(state, step, record))


def _store(state: RunState, step: Step, record: Step) -> Flow:
    """The record of an undo, and the step's change to ``undone`` if it succeeded, in one commit."""
    operations = [PutStep(record, state.epoch)]
    if record.status is StepStatus.COMPLETED:
        generation = json.loads(step.extra or "{}").get("generation", 0) + 1
        extra = json.dumps({"generation": generation})
        operations.append(PutStep(evolve(step, seq=0, status=StepStatus.UNDONE, extra=extra), state.epoch))
    outcomes = yield Commit(state.engine, operations)
    for outcome, operation in zip(outcomes, operations, strict=True):
        state.floor = max(state.floor, state.accept(outcome, operation))
        with state.lock:
            state.journal.add(operation.step)
    return None, None


def _call(state: RunState, defn: StepDef, fn: Any, value: Any, scope: Scope) -> Flow:
    body = Body(fn, (value,), {}, Frame(state, scope, None, defn.is_async), defn.timeout)
    if defn.is_async and not state.is_async:
        engine = state.engine
        found: Result = yield Call(lambda: engine.background_async(body.aio).result(), False)
        return found
    if not defn.is_async:
        return body.sync()
    answer: Result = yield body
    return answer


def _name_of(undo: Any) -> str:
    name: str = getattr(undo, "__qualname__", None) or type(undo).__qualname__
    module = getattr(undo, "__module__", "")
    return f"{module}.{name}" if module else name


def _undo_child(state: RunState, step: Step, child_id: str) -> Flow:
    """Undo a completed child by its own steps; the parent's record of it becomes ``undone``."""
    engine = state.engine
    yield from _end_child(state, child_id, cancel=False)
    generation = json.loads(step.extra or "{}").get("generation", 0) + 1
    undone = evolve(
        step, seq=0, status=StepStatus.UNDONE, extra=json.dumps({"child": child_id, "generation": generation})
    )
    put = PutStep(undone, state.epoch)
    (outcome,) = yield Commit(engine, (put,))
    state.floor = max(state.floor, state.accept(outcome, put))
    with state.lock:
        state.journal.add(undone)
    return None, None


def cancel_children(state: RunState) -> Flow:
    """Cancel the children that a killed process has left unfinished."""
    engine = state.engine
    where = RunFilter(parent=state.id, status=(RunStatus.PENDING, RunStatus.RUNNING), newest_first=True)
    children: list[Run] = yield Call(lambda: engine.storage.list_runs(where), False)
    for child in children:
        if child.owner is None or liveness(child.owner, child.id) is Liveness.DEAD:
            yield from _end_child(state, child.id, cancel=True)
        else:
            yield Commit(engine, (UpdateRun(child.id, {"cancel_requested": engine.clock.now()}),))
    return None, None


def _end_child(state: RunState, child_id: str, *, cancel: bool) -> Flow:
    """Undo the steps of a child that nobody executes; it keeps its status, or is cancelled."""
    engine = state.engine
    record: Run | None = yield Call(lambda: engine.storage.get_run(child_id), False)
    if record is None:
        return None, None
    final = record.undoing or str(RunStatus.CANCELLED if cancel else record.status)
    claimed = yield from claim(engine, record, force=True, also={"undoing": final})
    if claimed is None:
        return None, None
    steps = yield Call(lambda: engine.storage.list_steps(child_id), False)
    child = RunState(engine, claimed, Journal(steps), state.definition)
    child.parent = state
    if cancel:
        yield from cancel_children(child)
    yield from undo_all(child, {"undoing": final})
    changes = {
        "status": RunStatus(final),
        "undoing": "",
        "floor": child.floor,
        "finished_at": record.finished_at or engine.clock.now(),
    }
    yield Commit(engine, (UpdateRun(child_id, changes, epoch=claimed.epoch, release=True),))
    return None, None
