"""Repair by hand: find the step that is meant, and say what became of a step in doubt."""

from attrs import evolve

from flowdsl.core.facts import Facts, InDoubt, Undoable, facts_of
from flowdsl.core.kinds import CALLS
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine.audit import audit
from flowdsl.engine.engine import Engine
from flowdsl.engine.owner import is_interrupted
from flowdsl.engine.user import Value
from flowdsl.errors import RunConflict, RunFinished, RunNotFound, StepNotFound
from flowdsl.storage.base import Fenced, Missing, PutStep, raise_not_storable

__all__ = ["find_step", "resolve"]

_NOTHING: object = object()


def find_step(engine: Engine, run_id: str, step: Value, *, pending: bool = False) -> Step:
    """The record of *run_id* that *step* means. *step* is a key, the beginning of one, a path, or a decorated
    function. A path means the first such step; with *pending*, the first without an outcome."""
    name = getattr(step, "path", step)
    if not isinstance(name, str) or not name:
        raise TypeError(f"a step is meant by its key, its path or the decorated function; got {step!r}")
    records = [record for record in engine.storage.list_steps(run_id) if record.kind in CALLS]
    for record in records:
        if record.key == name:
            return record
    for matches in (
        [r for r in records if r.path == name],
        [r for r in records if r.path.endswith("." + name)],
    ):
        if matches:
            unfinished = [r for r in matches if r.status is StepStatus.PENDING] if pending else []
            return (unfinished or matches)[0]
    beginning = [r for r in records if len(name) >= 4 and r.key.startswith(name)]
    if len(beginning) == 1:
        return beginning[0]
    known = ", ".join(dict.fromkeys(f"{r.path} ({r.key[:12]})" for r in records[:20])) or "none"
    raise StepNotFound(f"run {run_id} has no step {name!r}; recorded are: {known}", run=run_id, step=name)


def resolve(
    engine: Engine, record: Run, step: Value, result: Value, error: BaseException | None, rerun: bool
) -> None:
    """Say what became of a step in doubt."""
    if record.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
        raise RunFinished(f"run {record.id} has ended: it is {record.status}", run=record.id)
    if not is_interrupted(engine.storage, record) and record.status is not RunStatus.FAILED:
        raise _executing(record)
    found = find_step(engine, record.id, step, pending=True)
    if found.status is not StepStatus.PENDING:
        raise RunConflict(
            f"step {found.path} of run {record.id} is {found.status}, not in doubt; forget or fork "
            "change what is recorded",
            run=record.id,
            step=found.key,
        )
    now = engine.clock.now()
    facts = facts_of(found)
    undo = facts.undo if isinstance(facts, InDoubt | Undoable) else None
    kept = Facts() if undo is None else Undoable(undo)
    found = found._replace(seq=0, extra=evolve(kept, generation=facts.generation).to_json())
    if rerun:
        what = "rerun"
    else:
        if error is not None:
            status = StepStatus.FAILED
            payload, _ = engine.payloads.pack_error(error, record.id, found.key, "error")
            text = engine.payloads.previews.error_line(error)
            what = f"error={text}"
        else:
            status = StepStatus.COMPLETED
            payload, loaded = engine.payloads.pack(result, record.id, found.key, "result")
            text = engine.payloads.previews.value(loaded)
            what = f"result={text}"
        found = found._replace(
            status=status, attempts=found.attempts + 1, payload=payload, preview=text, completed_at=now
        )
    note = audit(engine, record.id, "resolve", f"{found.path}: {what}", step=found.key)
    outcome, _ = engine.commit(PutStep(found, record.epoch), PutStep(note, record.epoch))
    if isinstance(outcome, Missing):
        raise RunNotFound(f"no run {record.id!r} in this storage", run=record.id)
    raise_not_storable(outcome)
    if isinstance(outcome, Fenced):  # somebody has taken it up since we looked
        raise _executing(record)


def _executing(record: Run) -> RunConflict:
    return RunConflict(
        f"run {record.id} is executing, so no step of it is in doubt: what its process records counts",
        run=record.id,
    )
