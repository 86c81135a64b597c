"""``continue_as_new``: end this generation of the run, and begin the next one with other arguments.

The verb checks what can go wrong and stops the body as a cancel does, so no ``except`` can hold it. Then
:mod:`flowdsl.engine.runs.execute` commits the change of generations and begins anew.
"""

from typing import NoReturn

from flowdsl.core.status import StepStatus
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.scope import SCHEDULED
from flowdsl.engine.user import Args, Named
from flowdsl.errors import FlowError

__all__ = ["ContinuesAsNew", "continue_as_new"]


class ContinuesAsNew(FlowError):
    """The body of a run has asked for the next generation, with this call."""

    def __init__(self, run_id: str, called: Invocation[WorkflowDef]) -> None:
        super().__init__(f"run {run_id} begins anew; what still executes of it is over", run=run_id)
        self.called = called


def continue_as_new(frame: Frame, args: Args, kwargs: Named) -> NoReturn:
    """End this generation. Raises ``TypeError`` for arguments that do not fit the workflow. Raises
    :class:`~flowdsl.errors.FlowError` if the generation cannot end now."""
    run = frame.run
    run.stop.check()
    if frame.step is not None or frame.scope is not run.scope or run.called is None:
        raise FlowError(
            "continue_as_new() is called in the body of a workflow itself, not in a step or a branch of it",
            run=run.id,
        )
    called = run.called._replace(args=args, kwargs=kwargs)
    called.bind()
    _require_no_failed_branch(run)
    unfinished, more = _under_way(run)
    if unfinished or more:
        what = f"{unfinished or 'some'} of its branches or children {'is' if unfinished == 1 else 'are'}"
        raise FlowError(
            f"run {run.id} cannot begin anew: {what} unfinished; wait for them, or start runs that should go "
            "on by themselves with options(detached=True)",
            run=run.id,
        )
    run.stop.halt(ContinuesAsNew(run.id, called))
    raise run.stop.stopped()


def _require_no_failed_branch(run: Execution) -> None:
    """Raise the error of a scheduled branch that has failed. It fails the run here, as it does at the end."""
    with run.lock:
        failed = [
            step
            for step in run.journal
            if step.scope.endswith(SCHEDULED) and step.status is StepStatus.FAILED
        ]
    for step in failed:
        raise run.engine.payloads.unpack_error(step.payload or b"", run.id, step.key, "error")


def _under_way(run: Execution) -> tuple[int, bool]:
    """How many branches and children go on, and whether other calls do. A loser of a race does not count: it
    is about to end. Neither does a branch that its record will answer: after a crash it may not have run
    yet."""
    futures = run.branches.unfinished()
    with run.lock:
        recorded = {step.scope for step in run.journal if step.status is not StepStatus.PENDING}
        ending = {
            future.key
            for future in futures
            if future.lost or future.key in recorded or run.journal.answers(future.key)
        }
        more = any(call.key not in ending for call in tuple(run.scope.active))
    return sum(future.key not in ending for future in futures), more
