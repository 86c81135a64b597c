"""Progress of a run, from outside: what is recorded, and what is executing."""

from datetime import UTC, datetime

from flowdsl.core.kinds import CALLS
from flowdsl.core.records import Run
from flowdsl.core.status import StepStatus, is_final
from flowdsl.engine.engine import Engine, engines_on
from flowdsl.engine.owner import is_interrupted
from flowdsl.engine.user import Named

__all__ = ["progress_of"]


def progress_of(engine: Engine, record: Run) -> Named:
    """``{"done": n, "failed": n, "known": n, "running": [{"path", "key", "attempt", "started_at"}, …]}``.

    ``known`` counts every step that was recorded or executes. Times are aware datetimes in UTC. A step of
    another process shows up within a second of its start. A run that nobody executes has nothing running.
    """
    steps = [step for step in engine.storage.list_steps(record.id) if step.kind in CALLS]
    running: dict[str, Named] = {}
    executing = not is_final(record.status) and not is_interrupted(engine.storage, record)
    for step in steps:
        if executing and step.status is StepStatus.PENDING:
            running[step.key] = _entry(step.path, step.key, step.attempts + 1, step.created_at)
    for other in engines_on(engine.storage):
        state = other.owned.get(record.id)
        if state is not None:
            for attempt in state.bodies:
                view = attempt.step
                running[view.key] = _entry(view.path, view.key, view.attempt, view.started_at)
    known = {step.key for step in steps if step.status is not StepStatus.UNDONE} | running.keys()
    return {
        "done": sum(step.status is StepStatus.COMPLETED for step in steps),
        "failed": sum(step.status is StepStatus.FAILED for step in steps),
        "known": len(known),
        "running": list(running.values()),
    }


def _entry(path: str, key: str, attempt: int, started: float) -> Named:
    return {"path": path, "key": key, "attempt": attempt, "started_at": datetime.fromtimestamp(started, UTC)}
