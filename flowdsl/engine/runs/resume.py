"""Continue runs from what is stored of them: resume, retry and recover."""

import logging

from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus, is_final
from flowdsl.engine.definitions import StepDef, WorkflowDef
from flowdsl.engine.effects import Effects, Flow, drive, run_sync
from flowdsl.engine.engine import Engine
from flowdsl.engine.owner import Liveness, is_interrupted, liveness
from flowdsl.engine.registry import STEPS, WORKFLOWS
from flowdsl.engine.runs.acquire import Acquired, take
from flowdsl.engine.runs.request import Request, arguments_of
from flowdsl.engine.runs.single import single_run
from flowdsl.engine.runs.start import launch
from flowdsl.engine.runs.undo import end_abandoned
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, RecoveryLimit, RunConflict, RunFinished, StepNotFound

__all__ = ["as_flow", "continue_run", "loaded", "recover", "request_of"]

logger = logging.getLogger("flowdsl")

RECOVERY_LIMIT = 50
"""How often ``recover`` takes one run over. After that it reports that something kills the run's
processes."""


class _Misfit(FlowError, TypeError):
    """What is stored of a run is not enough to call its function: an argument is missing or not taken any
    more, or the function is a method."""


def loaded(path: str) -> WorkflowDef | StepDef | None:
    """The workflow of this path, or the step that ``Runtime.do`` made a run of. ``None`` if its module is not
    imported."""
    return WORKFLOWS.get(path) or STEPS.get(path)


def continue_run(engine: Engine, record: Run, action: str = "") -> str:
    """Continue *record* in the background and return its id. If a process executes it already, leave it
    there. A given *action* is noted in the run's audit."""
    if record.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
        raise RunFinished(f"run {record.id} has ended: it is {record.status}", run=record.id)
    if record.status is RunStatus.FAILED and not record.retryable and action != "retry":
        raise RunConflict(
            f"run {record.id} has failed, and what it had done was taken back; it is not continued. To "
            f"execute it all the same: Runtime.retry({record.id!r}), or "
            f"Runtime.fork({record.id!r}, before=<step>)",
            run=record.id,
        )
    asked = request_of(engine, record)
    if record.status is RunStatus.FAILED or is_interrupted(engine.storage, record):
        force = record.owner is not None and liveness(record.owner, record.id) is Liveness.DEAD
        claimed = run_sync(as_flow(take(engine, record, force=force, limit=asked.defn.timeout)))
        if claimed is not None:
            return launch(engine, asked, Acquired(claimed, True, True, action=action or "continue"))
    return record.id


def recover(engine: Engine) -> list[str]:
    """Continue all interrupted runs whose workflow is imported here, oldest first. Returns their ids.

    Children go on with their parents. One whose parent has ended is cancelled, and undone. A run that cannot
    be continued does not stop the others. Its error is raised at the end.
    """
    found: list[str] = []
    failed: FlowError | None = None
    where = RunFilter(status=(RunStatus.PENDING, RunStatus.RUNNING), newest_first=False)
    for record in engine.storage.list_runs(where, payloads=True):
        if loaded(record.workflow) is None or not is_interrupted(engine.storage, record):
            continue
        if record.status is RunStatus.PENDING and record.queue is not None:
            continue  # it waits for a worker
        try:
            if record.parent is not None:
                _end_orphan(engine, record, record.parent)
                continue
            if record.recoveries >= RECOVERY_LIMIT:
                raise RecoveryLimit(
                    f"run {record.id} was recovered {record.recoveries} times and its process died each "
                    f"time; look at what its next step does, then call it or Runtime.resume({record.id!r})",
                    run=record.id,
                )
            found.append(continue_run(engine, record))
        except FlowError as error:
            error.run = error.run or record.id
            logger.error(
                "run %s cannot be recovered: %s",
                record.id,
                str(error),
                extra={"run": record.id, "step": None},
            )
            failed = failed or error
    if failed is not None:
        if found:
            failed.add_note(f"{len(found)} other runs were recovered: {', '.join(found[:20])}")
        raise failed
    return found


def _end_orphan(engine: Engine, record: Run, parent_id: str) -> None:
    """Cancel an interrupted child whose parent has ended: nobody else would continue it. A failed parent does
    so when it is retried, unless the child is to be cancelled."""
    parent = engine.storage.get_run(parent_id)
    if parent is None or not is_final(parent.status):
        return
    if parent.status is not RunStatus.FAILED or record.cancel_requested is not None:
        drive(end_abandoned(engine, record, RunStatus(record.undoing or RunStatus.CANCELLED)))


def request_of(engine: Engine, record: Run) -> Request:
    source = loaded(record.workflow)
    if source is None:
        raise StepNotFound(
            f"workflow {record.workflow!r} of run {record.id} is not loaded here: import the module "
            "that defines it first",
            run=record.id,
            step=record.workflow,
        )
    arguments = arguments_of(engine, record)
    try:
        if isinstance(source, WorkflowDef):
            return Request(source.call_with(arguments), record)
        called = source.call_with(arguments)
    except TypeError as error:
        raise _Misfit(f"run {record.id}: {error}", run=record.id, step=record.workflow) from None
    return single_run(engine, called, record.id)._replace(wanted=record)


def as_flow(flow: Effects[Value]) -> Flow:
    return None, (yield from flow)
