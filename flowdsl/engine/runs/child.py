"""A workflow called in a workflow: a run of its own, recorded in the parent like a step.

The child's id derives from the parent's step key. So one call has one child, whatever crashes. The parent's
record is a copy of the child's outcome.
"""

import asyncio
from contextlib import suppress

from flowdsl.core.facts import ChildRun
from flowdsl.core.kinds import CHILD
from flowdsl.core.records import Run, Step
from flowdsl.engine.call import Call, identify
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.effects import Effects, Flow, Read, drive
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.operations.continue_as_new import ContinuesAsNew
from flowdsl.engine.operations.submit import start
from flowdsl.engine.perform import durable
from flowdsl.engine.record import complete, crossing, fail, flush
from flowdsl.engine.runs.acquire import Acquired, open_now
from flowdsl.engine.runs.ending import release
from flowdsl.engine.runs.execute import acquire_and_execute, execute
from flowdsl.engine.runs.request import Request, WorkflowOperation, request_in
from flowdsl.engine.runs.undo import GivenUp
from flowdsl.engine.spawn import Threads
from flowdsl.engine.strays import starting
from flowdsl.engine.user import Named
from flowdsl.engine.waiting import Pause
from flowdsl.errors import RunCancelled, Stopped

__all__ = ["call_child", "start_child"]


class Child(WorkflowOperation):
    """Run the workflow that is *called* to its end, and record its outcome in the parent."""

    __slots__ = ("_ours",)

    kind = CHILD

    def __init__(self, called: Invocation[WorkflowDef], options: Named) -> None:
        super().__init__(called, options)
        self._ours: list[Acquired] = []

    def request(self, call: Call) -> Request:
        """The run that *call* asks for."""
        run = call.run
        also = {"parent": run.id, "parent_key": call.key}
        again = run.journal.get(call.key) is not None  # an open failure: the parent is being retried
        return request_in(call, self.called, self.bound, self.options, also, again=again)

    def begins_with(self, acquired: Acquired) -> None:
        """The run is ours already."""
        self._ours.append(acquired)

    def taken(self) -> Acquired | None:
        """The run that is ours already. Only who asks first gets it: to execute it, or to give it back."""
        if self._ours:
            with suppress(IndexError):  # another one was quicker
                return self._ours.pop()
        return None

    @property
    def begun(self) -> bool:
        return bool(self._ours)

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run = call.run
        asked = self.request(call)
        call.begins(run.engine.clock.now())
        yield from flush(run)
        error: BaseException | None
        found: list[bool] = []
        try:
            if (ours := self.taken()) is not None:
                error, value = yield from execute(run.engine, asked, ours)
            else:
                error, value = yield from acquire_and_execute(run.engine, asked, lambda: found.append(True))
        except asyncio.CancelledError as interrupt:  # before its body began, or after it ended
            error, value = interrupt, None
        interrupted = error is not None and not isinstance(error, Exception | Stopped)
        if interrupted:
            _gives_up(run, asked.wanted.id, isinstance(error, asyncio.CancelledError))
        if isinstance(error, Stopped):
            run.stop.halt(error.error)
        reason = run.stop.reason
        told = isinstance(error, RunCancelled) and not call.cleans_up
        if reason is not None and (told or error is reason):  # its parent was told, and told it
            if not call.cleans_up:
                run.stop.cleans_up_from_now()
            return Stopped(reason), None
        if told and found and call.scope.is_async:
            yield from self._given_up(call, asked.wanted.id)
        facts = ChildRun(asked.wanted.id, run.stop.being_undone)
        if error is None:
            return (yield from complete(call, value, facts))
        if not isinstance(error, Exception):
            return error, None
        return (yield from fail(call, error, facts, itself=True))

    def _given_up(self, call: Call, child_id: str) -> Effects[None]:
        """If nobody asked to cancel the child, the body has given it up before. The child ended then. So the
        call waits as it did the first time, until it is given up again."""
        run = call.run
        child: Run | None = yield Read(run.engine.storage, lambda: run.engine.storage.get_run(child_id))
        while child is not None and child.cancel_requested is None:
            yield Pause(run, run.stop.left())
            run.stop.check()


def _gives_up(run: Execution, child_id: str, by_body: bool) -> None:
    """If *run* goes on although the child has not ended, it has given the child up: its body has cancelled a
    task, or has handled an interrupt, or the child lost a race and the next generation begins."""
    reason = run.stop.reason
    if (reason is None and not run.stop.ending) or isinstance(reason, ContinuesAsNew):
        run.part(GivenUp)[child_id] = by_body


def call_child(frame: Frame, called: Invocation[WorkflowDef], options: Named) -> Flow:
    """Run the child to its end and record its outcome in the parent."""
    return durable(frame, Child(called, options))


def start_child(frame: Frame, called: Invocation[WorkflowDef], options: Named) -> Run:
    """Begin the child beside its parent. Returns its row, which is recorded by then."""
    operation = Child(called, options)
    call = identify(frame, operation)
    call.executes(None)
    asked = operation.request(call)
    with starting(call):
        _start(call, operation, asked, called.defn.is_async)
    return asked.wanted


def _start(call: Call, operation: Child, asked: Request, is_async: bool) -> None:
    run, engine = call.run, call.run.engine
    acquired = None
    if not run.journal.answers(call.key):
        drive(flush(run))
        with crossing(run, call):
            acquired = open_now(engine, asked.wanted, ancestors=asked.ancestors, again=asked.again)
    if acquired is not None and acquired.owned:
        operation.begins_with(acquired)

    def left() -> None:
        if (unbegun := operation.taken()) is not None:
            _gives_up(run, asked.wanted.id, False)
            release(engine, unbegun.run)

    executor = None if is_async else Threads(engine, f"flowdsl-{asked.wanted.id}")
    future = start(call, is_async, executor, left)
    future.at_end(left)  # one that was withdrawn
    run.branches.remember(asked.wanted.id, future)
