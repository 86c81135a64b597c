"""A detached run. Another run starts it, exactly one for each call, and does not wait for it.

Its id derives from the caller's run and call. So a caller that dies and is resumed finds it. It has no
parent: its starter neither cancels nor undoes it.
"""

import contextvars

from flowdsl.core.facts import ChildRun
from flowdsl.core.kinds import START
from flowdsl.core.records import Step
from flowdsl.engine.call import Call
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.effects import Flow
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame, current
from flowdsl.engine.perform import at_once
from flowdsl.engine.record import complete, crossing, fail, flush
from flowdsl.engine.runs.acquire import Acquired, open_now
from flowdsl.engine.runs.request import Request, WorkflowOperation, request_in
from flowdsl.engine.runs.start import launch
from flowdsl.engine.user import Named
from flowdsl.errors import RunConflict

__all__ = ["start_detached"]


class StartDetached(WorkflowOperation):
    """Start the workflow that is *called*."""

    __slots__ = ()

    kind = START

    def request(self, call: Call) -> Request:
        """The run that *call* asks for."""
        also = {"started_by": call.run.id}
        return request_in(call, self.called, self.bound, self.options, also, ancestors=False)

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run, engine = call.run, call.run.engine
        yield from flush(run)
        asked = self.request(call)
        try:
            with crossing(run, call):
                acquired = open_now(engine, asked.wanted)
        except RunConflict as error:
            return (yield from fail(call, error))
        if acquired is not None and acquired.owned:
            _launch(engine, asked, acquired)
        return (yield from complete(call, asked.wanted.id, ChildRun(asked.wanted.id)))


def _launch(engine: Engine, asked: Request, acquired: Acquired) -> None:
    """Begin it outside the run that executes here."""
    context = contextvars.copy_context()
    context.run(current.set, None)
    context.run(launch, engine, asked, acquired)


def start_detached(frame: Frame, called: Invocation[WorkflowDef], options: Named) -> str:
    """Start the run, once. Returns its id. The start is recorded by then."""
    run_id: str = at_once(frame, StartDetached(called, options))
    return run_id
