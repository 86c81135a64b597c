"""``continue_as_new``: end this generation of the run, and begin the next one with other arguments.

The verb checks what can go wrong and stops the body, the way a cancel does: no ``except`` keeps it. What
executes the run (:mod:`flowdsl.engine.runs.execute`) then commits the change of generations and begins anew.
"""

from typing import NoReturn

from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.execution import Frame
from flowdsl.engine.user import Args, Named
from flowdsl.errors import FlowError

__all__ = ["ContinuesAsNew", "continue_as_new"]


class ContinuesAsNew(FlowError):
    """The body of a run has asked for the next generation, with this call."""

    def __init__(self, run_id: str, called: Invocation[WorkflowDef]) -> None:
        super().__init__(f"run {run_id} begins anew; what still executes of it is over", run=run_id)
        self.called = called


def continue_as_new(frame: Frame, args: Args, kwargs: Named) -> NoReturn:
    """End this generation. Raises ``TypeError`` for arguments that do not fit the workflow, and
    :class:`~flowdsl.errors.FlowError` where it cannot be done."""
    run = frame.run
    run.stop.check()
    if frame.step is not None or frame.scope is not run.scope or run.called is None:
        raise FlowError(
            "continue_as_new() is called in the body of a workflow itself, not in a step or a branch of it",
            run=run.id,
        )
    called = run.called._replace(args=args, kwargs=kwargs)
    called.bind()
    unfinished = run.branches.unfinished()
    if unfinished or run.scope.active:
        what = f"{unfinished or 'some'} of its branches or children {'is' if unfinished == 1 else 'are'}"
        raise FlowError(
            f"run {run.id} cannot begin anew: {what} unfinished; wait for them, or start runs that should go "
            "on by themselves with options(detached=True)",
            run=run.id,
        )
    run.stop.halt(ContinuesAsNew(run.id, called))
    raise run.stop.stopped()
