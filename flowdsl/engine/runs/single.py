"""A step that is executed by hand (``Runtime.do`` and its like), and what a step does outside any run.

Mode ``do`` makes a run that consists of this one step. There is one run for each path and arguments, or one
with an id that the caller gives.
"""

from functools import partial

from flowdsl.core.binding import Bound
from flowdsl.core.source import changed_source
from flowdsl.core.status import StepStatus
from flowdsl.engine.definitions import Invocation, StepDef, WorkflowDef
from flowdsl.engine.divergence import notice_of
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.future import StepFuture
from flowdsl.engine.operations.memo import implied, require_identity
from flowdsl.engine.operations.mode import call_in_run
from flowdsl.engine.operations.send import send_off
from flowdsl.engine.runs.execute import run_to_end
from flowdsl.engine.runs.request import Request, request
from flowdsl.engine.scope import StepView
from flowdsl.engine.spawn import Beside, start_task
from flowdsl.engine.user import Value

__all__ = ["execute_step", "single_run", "submit_outside"]


def execute_step(engine: Engine, called: Invocation[StepDef], mode: str, step_id: str | None = None) -> Value:
    """Execute a step on *engine* in *mode*: in the engine's run that executes here, or outside any.

    A given *step_id* says which execution is meant, in place of the arguments.
    """
    frame = current.get()
    if frame is not None and frame.run.engine is engine:
        if step_id is not None:
            called = called._replace(defn=called.defn.evolve(key=lambda *_args, **_kwargs: step_id))
        return call_in_run(frame, called, mode)
    token = current.set(None)  # a run of another runtime that executes here does not concern it
    try:
        if mode == "do":
            return _do(engine, called, step_id)
        defn = called.defn
        view = StepView("", called.bind().key(), defn.path, mode, 1, engine.clock.now())
        if mode == "send":
            return send_off(engine, defn, called.fn, called.args, called.kwargs, view)
        return _try(engine, called, view)
    finally:
        current.reset(token)


def _do(engine: Engine, called: Invocation[StepDef], step_id: str | None) -> Value:
    """Mode ``do`` outside a run."""
    if step_id is None:
        receiver = called.receiver
        require_identity(called.defn.binder(receiver is not None), receiver, "Runtime.do")
        step_id = _known(engine, called.defn, called.bind())
    return run_to_end(engine, single_run(engine, called, step_id))


def _known(engine: Engine, defn: StepDef, bound: Bound) -> str:
    """The id of the run of this call. Reports once in a process that its result is of another source."""
    run_id, record = implied(engine, defn, bound)
    answers = record is not None and record.status is StepStatus.COMPLETED and run_id not in engine.warned
    if answers and record is not None and changed_source(record.defaults, bound.defaults):
        engine.warned.add(run_id)
        notice_of(run_id, [defn.path])
    return run_id


def single_run(engine: Engine, called: Invocation[StepDef], run_id: str) -> Request:
    """A run that consists of one step."""
    defn = called.defn

    def body(*args: Value, **kwargs: Value) -> Value:
        frame = current.get()
        assert frame is not None
        return call_in_run(frame, called._replace(args=args, kwargs=kwargs), "do")

    as_workflow = WorkflowDef(
        defn.fn,
        defn.path,
        defn.is_async,
        ignore=defn.ignore,
        version=defn.version,
        transacts=defn.transaction,
    )
    invocation: Invocation[WorkflowDef] = Invocation(
        as_workflow, body, called.receiver, called.args, called.kwargs
    )
    return request(engine, invocation, run_id=run_id)


def _try(engine: Engine, called: Invocation[StepDef], view: StepView) -> Value:
    """Mode ``try`` outside a run: a plain call with its hooks."""
    hooks, clock = engine.hooks, engine.clock

    def ended(error: Exception | None, value: Value) -> None:
        view.ended(clock.now())
        if error is None:
            hooks.fire("on_step_complete", view, value)
        else:
            hooks.fire("on_step_error", view, error, 1)

    async def call() -> Value:
        try:
            value = await called.fn(*called.args, **called.kwargs)
        except Exception as error:  # a user's body may raise anything
            ended(error, None)
            raise
        ended(None, value)
        return value

    hooks.fire("on_step_start", view)
    if called.defn.is_async:
        return call()
    try:
        value = called.fn(*called.args, **called.kwargs)
    except Exception as error:  # a user's body may raise anything
        ended(error, None)
        raise
    ended(None, value)
    return value


def submit_outside(engine: Engine, called: Invocation[StepDef]) -> StepFuture[Value]:
    """``submit`` outside a run."""
    called.defn.require_inline()
    call = partial(called.fn, *called.args, **called.kwargs)
    if called.defn.is_async:
        return StepFuture(start_task(engine, call))
    return StepFuture(Beside((called.defn.executor or engine.pool).submit(call)))  # it may have to be pickled
