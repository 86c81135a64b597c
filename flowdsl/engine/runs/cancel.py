"""Ask a run to stop. The request is durable. A run that nobody executes is taken over, to undo what it has
completed."""

import logging
from concurrent.futures import Future, wait

from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus, is_final
from flowdsl.engine.effects import drive, run_sync
from flowdsl.engine.engine import Engine, engines_on
from flowdsl.engine.execution import current
from flowdsl.engine.owner import is_interrupted
from flowdsl.engine.runs.acquire import Acquired, take
from flowdsl.engine.runs.outcome import on_a_loop, watching
from flowdsl.engine.runs.resume import as_flow, loaded, request_of
from flowdsl.engine.runs.start import launch
from flowdsl.engine.runs.undo import end_abandoned, has_undo
from flowdsl.engine.user import Value
from flowdsl.errors import RunCancelled, RunFinished
from flowdsl.storage.base import Fenced, Missing, UpdateRun

__all__ = ["cancel", "cancel_and_wait"]

logger = logging.getLogger("flowdsl")


def cancel_and_wait(engine: Engine, record: Run) -> None:
    """As :func:`cancel`. If that takes the run over, wait for its end."""
    begun = cancel(engine, record)
    if begun is not None and not _inside(record.id):
        with watching(engine):
            wait([begun])


def _inside(run_id: str) -> bool:
    """Whether the caller belongs to that run or to a child of it, which has to end first."""
    frame = current.get()
    run = None if frame is None else frame.run
    while run is not None and run.id != run_id:
        run = run.parent
    return run is not None


def cancel(engine: Engine, record: Run) -> "Future[Value] | None":
    """Ask a run to stop, durably. A run that nobody executes is taken over, to undo what it has completed.

    In that case, returns the future to wait for. Raises :class:`~flowdsl.errors.RunFinished`.
    """
    if not is_final(record.status):
        changes = {"cancel_requested": engine.clock.now()}
        (outcome,) = engine.commit(
            UpdateRun(record.id, changes, if_status=(RunStatus.PENDING, RunStatus.RUNNING))
        )
        if not isinstance(outcome, Fenced | Missing):
            for other in engines_on(engine.storage):
                state = other.owned.cancels(record.id)
                if state is not None and not state.stop.undoing:
                    stop = RunCancelled(f"run {record.id} was cancelled", run=record.id)
                    state.stop.halt(stop, outside=True)
            return _cancel_interrupted(engine, record) if is_interrupted(engine.storage, record) else None
        record = engine.storage.get_run(record.id) or record
    raise RunFinished(f"run {record.id} has ended: it is {record.status}", run=record.id)


def _cancel_interrupted(engine: Engine, record: Run) -> "Future[Value] | None":
    """Take the run over, undo what it has completed, and cancel it. If the undo code is not loaded, the
    request stays with the run. Whoever continues the run then undoes and cancels."""
    known = loaded(record.workflow)
    if known is not None and record.args:
        asked = request_of(engine, record)  # before the run is ours, because its arguments may not load
        claimed = run_sync(as_flow(take(engine, record, force=True)))
        if claimed is None:
            return None
        launch(engine, asked, Acquired(claimed, True, True))
        return None if asked.defn.is_async and on_a_loop() else engine.futures.get(record.id)
    if known is None and has_undo(engine, record.id):
        logger.warning(
            "run %s is to be cancelled, but its steps have to be undone first, and their code (%s) is not "
            "loaded here: whoever resumes or recovers the run where it is undoes them and cancels it",
            record.id,
            record.workflow,
            extra={"run": record.id, "step": None},
        )
        return None
    drive(end_abandoned(engine, record, RunStatus.CANCELLED))
    return None
