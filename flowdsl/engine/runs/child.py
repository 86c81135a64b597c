"""A workflow called in a workflow: a run of its own, recorded in the parent like a step.

The child's id derives from the parent's step key, so one call has one child, whatever crashes; the parent's
record is a copy of the child's outcome.
"""

from typing import Any

from attrs import evolve

from flowdsl.core.facts import generation_of
from flowdsl.core.journal import Decision
from flowdsl.core.kinds import CHILD
from flowdsl.core.records import Run
from flowdsl.engine.definitions import Invocation, StepDef, WorkflowDef
from flowdsl.engine.effects import Flow, run_sync
from flowdsl.engine.execution import Frame
from flowdsl.engine.futures import Threads, start
from flowdsl.engine.runs.acquire import Acquired, open_now
from flowdsl.engine.runs.ending import release
from flowdsl.engine.runs.execute import execute, whole
from flowdsl.engine.runs.request import Request, request
from flowdsl.engine.step import StepCall, conclude, crossing, decide, flush, identify, perform, view_of
from flowdsl.errors import RunCancelled, Stopped

__all__ = ["call_child", "start_child"]


def child_call(frame: Frame, called: Invocation[WorkflowDef]) -> StepCall:
    """Take the identity of a child's call."""
    defn, fn, receiver, args, kwargs = called
    as_step = StepDef(defn.fn, defn.path, defn.is_async, ignore=defn.ignore, version=defn.version)
    call = identify(frame, Invocation(as_step, fn, receiver, args, kwargs), "do")
    call.kind = CHILD
    call.generation = generation_of(frame.run.journal.get(call.key))
    return call


def child_request(call: StepCall, called: Invocation[WorkflowDef], options: dict[str, Any]) -> Request:
    """The run that *call* asks for."""
    run = call.run
    given = options.get("run_id")
    asked = request(run.engine, called, **options)
    if given is None and asked.wanted.number is not None:
        again = f"~{call.generation}" if call.generation else ""
        asked.wanted = evolve(asked.wanted, id=f"{run.id}/{call.key[:16]}{again}", number=None)
    asked.wanted = evolve(asked.wanted, parent=run.id, parent_key=call.key)
    asked.fresh = False
    asked.again = run.journal.get(call.key) is not None  # as an open failure: the parent is being retried
    return asked


def call_child(frame: Frame, called: Invocation[WorkflowDef], options: dict[str, Any]) -> Flow:
    """Run the child to its end and record its outcome in the parent."""
    call = child_call(frame, called)
    return perform(call, lambda call: _child(call, called, options))


def start_child(frame: Frame, called: Invocation[WorkflowDef], options: dict[str, Any]) -> Run:
    """Begin the child beside its parent; the row of it, which is recorded by then."""
    call = child_call(frame, called)
    run, engine = call.run, call.run.engine
    asked = child_request(call, called, options)
    acquired = None
    if not run.journal.answers(call.key):
        run_sync(flush(run))
        with crossing(run, call):
            acquired = open_now(engine, asked.wanted, ancestors=asked.ancestors, again=asked.again)
    mine = acquired if acquired is not None and acquired.owned else None

    def left() -> None:
        if mine is not None and engine.owned.reserved(asked.wanted.id):  # it never began
            release(engine, mine.run)

    def flow() -> Flow:
        return perform(call, lambda call: _child(call, called, options, mine))

    own = None if called.defn.is_async else Threads(engine, f"flowdsl-{asked.wanted.id}")
    future = start(call, flow, own)
    future.add_done_callback(lambda _: left())
    run.branches.remember(asked.wanted.id, future)
    return asked.wanted


def _child(
    call: StepCall,
    called: Invocation[WorkflowDef],
    options: dict[str, Any],
    acquired: Acquired | None = None,
) -> Flow:
    decision = yield from decide(call)
    if not isinstance(decision, Decision):
        return decision
    run = call.run
    asked = child_request(call, called, options)
    view = view_of(call, 1)
    if run.writer.buffer:
        yield from flush(run)
    if acquired is not None:
        error, value = yield from execute(run.engine, asked, acquired)
    else:
        error, value = yield from whole(run.engine, asked)
    if isinstance(error, Stopped):
        run.stop.halt(error.error)
    if run.stop.reason is not None and isinstance(error, RunCancelled):
        return Stopped(run.stop.reason), None
    return (yield from conclude(call, view, error, value, asked.wanted.id))
