"""Concurrent steps: ``submit``, and what ``map`` begins.

Identity is taken at ``submit``, in the caller's scope, so it does not depend on which worker is quicker.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from flowdsl.engine.call import Call, identify
from flowdsl.engine.definitions import Invocation, StepDef
from flowdsl.engine.effects import run_async, run_sync
from flowdsl.engine.execution import Frame
from flowdsl.engine.future import StepFuture, working_for
from flowdsl.engine.interruption import python_ends, refused_at_exit
from flowdsl.engine.operations.step import StepOperation
from flowdsl.engine.perform import perform
from flowdsl.engine.pools import coordinators, elsewhere
from flowdsl.engine.scope import control
from flowdsl.engine.spawn import nothing, start_sync, start_task
from flowdsl.engine.tally import Tally
from flowdsl.engine.user import Value

__all__ = ["prepare", "start", "submit"]


def submit(frame: Frame, called: Invocation[StepDef]) -> StepFuture[Value]:
    """Start a step of *frame*'s run beside its caller."""
    return prepare(frame, called)()


def prepare(frame: Frame, called: Invocation[StepDef]) -> Callable[[], StepFuture[Value]]:
    """Take the identity of a call now; what is returned starts it."""
    called.defn.require_inline()
    operation = StepOperation().bind(called, called.defn.mode)
    call = identify(frame, operation)
    return lambda: start(call, operation.defn.is_async, operation.defn.executor)


def start(
    call: Call, is_async: bool, chosen: Executor | None = None, ended: Callable[[], None] = nothing
) -> StepFuture[Value]:
    """Start *call* beside its caller: as a task, or on an executor, by default that of the engine. *ended* is
    called when it has ended, before anybody learns its outcome."""
    run, operation = call.run, call.operation
    engine = run.engine
    if operation.durable:
        run.failures.begun(call.scope, control(call.frame.is_async))
    tally = None
    if engine.virtual and not is_async and not call.frame.is_async:
        tally = Tally(engine.clock)
    elif engine.virtual:
        engine.clock.enter()
    if is_async:
        call.is_queued()
        return _start_async(call, ended)
    if call.frame.is_async:
        call.is_queued()
    else:
        call.is_submitted()
    executor: Executor = chosen or engine.pool
    if isinstance(operation, StepOperation) and elsewhere(executor):
        from flowdsl.engine.processes import RemoteBody

        operation.executes_on(partial(RemoteBody, executor))
        executor = coordinators(engine, executor)

    def work() -> Value:
        with working_for(executor):
            return run_sync(perform(call))

    def finished() -> None:
        ended()
        if tally is not None and not call.inline:
            tally.finish()

    try:
        beside = start_sync(engine, work, executor=executor, ended=finished)
    except RuntimeError as error:
        if not refused_at_exit(error):
            raise
        run.stop.halt(python_ends(run.id))
        raise run.stop.stopped() from error
    found: StepFuture[Value] = StepFuture(beside, call, executor, tally)
    run.branches.add(found)
    return found


def _start_async(call: Call, ended: Callable[[], None]) -> StepFuture[Value]:
    run = call.run
    beside = start_task(run.engine, lambda: run_async(perform(call)), ended=ended)
    found: StepFuture[Value] = StepFuture(beside, call)
    run.branches.add(found)
    return found
