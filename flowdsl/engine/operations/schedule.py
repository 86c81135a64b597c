"""``schedule``: a step as a branch of the run, after a delay. The run ends when all branches have ended.

The record holds when the branch begins and what it calls. On resume, branches are armed from the journal.
That is needed because the step that scheduled a branch may be answered by its record, and then never
schedules again.
"""

from collections.abc import Callable

from flowdsl.core.durations import seconds
from flowdsl.core.facts import Scheduled, facts_of
from flowdsl.core.kinds import SCHEDULE
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call, Operation, identify
from flowdsl.engine.definitions import Invocation, StepDef, step_definition
from flowdsl.engine.effects import Effects, Flow, run_async, run_sync
from flowdsl.engine.execution import Execution, Frame, current, frame_of
from flowdsl.engine.future import StepFuture
from flowdsl.engine.operations.step import StepOperation
from flowdsl.engine.perform import durable, perform
from flowdsl.engine.record import put, row
from flowdsl.engine.registry import STEPS, step_called
from flowdsl.engine.scope import SCHEDULED, Scope
from flowdsl.engine.spawn import start_sync, start_task
from flowdsl.engine.tally import Tally
from flowdsl.engine.user import Args, Named, Value
from flowdsl.engine.waiting import wait_out
from flowdsl.errors import FlowError, StepNotFound, Stopped

__all__ = ["arm_all", "schedule"]


class Schedule(Operation):
    """Begin a branch that calls a step, *wait* seconds from now. Gives its future."""

    __slots__ = ("_bound", "_defn", "_wait", "canonical", "path")

    kind = SCHEDULE

    def __init__(self, called: Invocation[StepDef], wait: float) -> None:
        self._defn = called.defn
        self._bound = called.bind()
        self._wait = wait
        self.path = f"flowdsl.schedule.{called.defn.path}"
        self.canonical = self._bound.canonical

    def preview(self, limit: int = 200) -> str:
        return self._bound.preview(limit)

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run = call.run
        payload, _ = run.engine.payloads.pack(self._bound.arguments, run.id, call.key, "result")
        facts = Scheduled(run.engine.clock.now() + self._wait, self._defn.path)
        record = row(call, StepStatus.COMPLETED, payload, "", 1, facts)
        yield from put(call, record)
        return None, _arm(run, record, self._defn, self._wait)

    def answer(self, call: Call, record: Step) -> Flow:
        return None, _arm(call.run, record, self._defn, None)
        yield  # a generator like the others, although it waits for nothing


def schedule(frame: Frame, step: Value, args: Args, kwargs: Named, delay: Value) -> Flow:
    """Record that *step* will execute as a branch of the run after *delay*, and arm it. Answers its
    future."""
    if not isinstance(step, str) and step_definition(step) is None:
        raise TypeError(f"schedule() takes a function decorated with @step, or the name of one; got {step!r}")
    called = step_called(step, args, kwargs)
    path = called.defn.path
    known = STEPS.get(path)
    if known is None:
        raise StepNotFound(f"step {path} is not registered in this application", step=path)
    known.require_by_name(called, "schedule()")
    return durable(frame, Schedule(called, seconds(delay, "delay")))


def arm_all(run: Execution) -> None:
    """Arm the branches in the journal."""
    for record in list(run.journal):
        facts = facts_of(record) if record.kind == SCHEDULE else None
        if isinstance(facts, Scheduled) and record.status is StepStatus.COMPLETED:
            path = facts.step
            defn = STEPS.get(path)
            if defn is None:
                raise StepNotFound(
                    f"run {run.id} has scheduled step {path!r}, which is not loaded here: import the "
                    "module that defines it",
                    run=run.id,
                    step=path,
                )
            _arm(run, record, defn, None)


def _arm(run: Execution, record: Step, defn: StepDef, left: float | None) -> StepFuture[Value]:
    """Start the branch of a schedule record, once. It begins in *left* seconds, or when its record says."""
    wait = left or 0.0
    facts = facts_of(record)
    if left is None and isinstance(facts, Scheduled):
        wait = facts.at - run.engine.clock.now()
    arguments = run.engine.payloads.unpack(record.payload or b"", run.id, record.key, "result")
    called = defn.call_with(arguments)
    scope = Scope(record.key + SCHEDULED, run.scope, defn.is_async)
    frame = frame_of(run, scope, None, defn.is_async)
    with run.lock:
        found: StepFuture[Value] | None = run.branches.known(record.key)
        if found is None:
            found = _launch(run, defn, lambda: _branch(frame, called, wait), scope.id)
            run.branches.remember(record.key, found)
            run.branches.add(found)
    return found


def _branch(frame: Frame, called: Invocation[StepDef], left: float) -> Flow:
    """Wait until the branch is to begin, then call its step."""
    current.set(frame)
    frame.scope.entered()
    try:
        yield from _wait(frame.run, left)
    except Stopped as stopped:
        return stopped, None
    call = identify(frame, StepOperation().bind(called, "do"))
    call.is_submitted()  # what the body does next does not handle its failure
    return (yield from perform(call))


def _wait(run: Execution, left: float) -> Effects[None]:
    if left > 0 or run.stop.ending:
        yield from wait_out(run, left, begun=False)
        if run.stop.ending:
            raise Stopped(FlowError(f"run {run.id} has failed; this branch did not begin", run=run.id))


def _launch(run: Execution, defn: StepDef, make: Callable[[], Flow], scope: str) -> StepFuture[Value]:
    engine = run.engine
    tally = Tally(engine.clock) if engine.virtual else None

    def ended() -> None:
        if tally is not None:
            tally.finish()

    if defn.is_async:
        beside = start_task(engine, lambda: run_async(make()), ended=ended)
    else:
        beside = start_sync(engine, lambda: run_sync(make()), name=f"flowdsl-{run.id}-branch", ended=ended)
    return StepFuture(beside, tally=tally, scheduled=scope)
