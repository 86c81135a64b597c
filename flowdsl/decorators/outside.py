"""What a step does outside any run: durably as a run of its own, once without a record, or beside the
caller."""

import asyncio
from concurrent.futures import Future
from typing import Any

from flowdsl.core.source import changed_source
from flowdsl.core.status import StepStatus
from flowdsl.engine.calls import call_in_run
from flowdsl.engine.context import StepView, current
from flowdsl.engine.definitions import StepDef, WorkflowDef
from flowdsl.engine.futures import StepFuture
from flowdsl.engine.memo import implied, require_identity
from flowdsl.engine.run import Request, request, run_to_end
from flowdsl.engine.services import Engine
from flowdsl.engine.sources import notice_of

__all__ = ["do_outside", "implied_run", "submit_outside", "try_outside"]


def do_outside(
    engine: Engine,
    defn: StepDef,
    fn: Any,
    receiver: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    step_id: str | None,
) -> Any:
    """Mode ``do`` outside a run: a run that consists of this step, one for each path and arguments, or of the
    id *step_id*."""
    if step_id is None:
        require_identity(defn.binder(receiver is not None), receiver, "Runtime.do")
        step_id = _known(engine, defn, defn.bind(receiver, args, kwargs))
    return run_to_end(engine, implied_run(engine, defn, fn, receiver, args, kwargs, step_id))


def _known(engine: Engine, defn: StepDef, bound: Any) -> str:
    """The id of the run of this call; says once in the process that its result is of another source."""
    run_id, record = implied(engine, defn, bound)
    answers = record is not None and record.status is StepStatus.COMPLETED and run_id not in engine.warned
    if answers and record is not None and changed_source(record.defaults, bound.defaults):
        engine.warned.add(run_id)
        notice_of(run_id, [defn.path])
    return run_id


def implied_run(
    engine: Engine,
    defn: StepDef,
    fn: Any,
    receiver: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    run_id: str,
) -> Request:
    """A run that consists of one step."""

    def body(*args: Any, **kwargs: Any) -> Any:
        frame = current.get()
        assert frame is not None
        return call_in_run(frame, defn, fn, receiver, args, kwargs, "do")

    as_workflow = WorkflowDef(defn.fn, defn.path, defn.is_async, ignore=defn.ignore, version=defn.version)
    return request(engine, as_workflow, body, receiver, args, kwargs, run_id=run_id)


def try_outside(
    engine: Engine, defn: StepDef, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], view: StepView
) -> Any:
    """Mode ``try`` outside a run: a plain call, with its hooks."""
    hooks, clock = engine.hooks, engine.clock

    def ended(error: Exception | None, value: Any) -> None:
        view.duration = clock.now() - view.started_at
        if error is None:
            hooks.fire("on_step_complete", view, value)
        else:
            hooks.fire("on_step_error", view, error, 1)

    async def call() -> Any:
        try:
            value = await fn(*args, **kwargs)
        except Exception as error:
            ended(error, None)
            raise
        ended(None, value)
        return value

    hooks.fire("on_step_start", view)
    if defn.is_async:
        return call()
    try:
        value = fn(*args, **kwargs)
    except Exception as error:
        ended(error, None)
        raise
    ended(None, value)
    return value


def submit_outside(
    engine: Engine, defn: StepDef, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> StepFuture[Any]:
    """``submit`` outside a run."""
    if not defn.is_async:
        return StepFuture((defn.executor or engine.pool).submit(fn, *args, **kwargs), None, None)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return StepFuture(engine.background_async(lambda: fn(*args, **kwargs)), None, None)
    found: StepFuture[Any] = StepFuture(Future(), None, None)
    found.follow(loop.create_task(fn(*args, **kwargs)))
    return found
