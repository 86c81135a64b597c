"""Repair by hand: fork a run, resolve a step in doubt, forget a result. Each leaves an audit record: who,
what, when."""

import json
import os
import socket
import uuid
from typing import Any

from attrs import evolve

from flowdsl.core.preview import preview
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine.services import Engine
from flowdsl.errors import RunConflict, RunFinished, RunNotFound, StepNotFound
from flowdsl.storage.base import Fenced, Found, Missing, OpenRun, PutStep, UpdateRun

__all__ = ["audit", "find_step", "fork", "resolve"]

_NOTHING: Any = object()


def _who() -> str:
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def audit(engine: Engine, run_id: str, action: str, what: str, **facts: Any) -> Step:
    """The record that says who changed what, when."""
    now = engine.clock.now()
    return Step(
        run_id,
        f"audit-{uuid.uuid4().hex}",
        f"flowdsl.{action}",
        kind="audit",
        args=what,
        preview=_who(),
        created_at=now,
        completed_at=now,
        concurrent=True,
        extra=json.dumps({"who": _who(), **facts}),
    )


def find_step(engine: Engine, run_id: str, step: Any) -> Step:
    """The record of *run_id* that *step* means: a key, the beginning of one, or a path (the first such
    step); a decorated function too."""
    name = getattr(step, "path", step)
    if not isinstance(name, str) or not name:
        raise TypeError(f"a step is meant by its key, its path or the decorated function; got {step!r}")
    records = [
        record
        for record in engine.storage.list_steps(run_id)
        if record.kind in ("step", "child", "sleep", "wait", "schedule")
    ]
    for record in records:
        if record.key == name:
            return record
    for matches in (
        [r for r in records if r.path == name],
        [r for r in records if r.path.endswith("." + name)],
    ):
        if matches:
            return matches[0]
    beginning = [r for r in records if len(name) >= 4 and r.key.startswith(name)]
    if len(beginning) == 1:
        return beginning[0]
    known = ", ".join(dict.fromkeys(f"{r.path} ({r.key[:12]})" for r in records[:20])) or "none"
    raise StepNotFound(f"run {run_id} has no step {name!r}; recorded are: {known}", run=run_id, step=name)


def fork(engine: Engine, record: Run, before: Any, run_id: str | None) -> Run:
    """A new run with the records that *record* had before step *before*; it belongs to nobody yet."""
    point = find_step(engine, record.id, before)
    steps = engine.storage.list_steps(record.id)
    copied = [s for s in steps if s.seq < point.seq and not _inside(s, point.key, steps)]
    draws: dict[str, int] = {}
    for step in copied:
        draws[step.scope] = max(draws.get(step.scope, 0), step.draws)
    draws[point.scope] = max(draws.get(point.scope, 0), point.draws)
    earlier = [json.loads(s.extra)["draws"] for s in steps if s.kind == "audit" and s.path == "flowdsl.fork"]
    now = engine.clock.now()
    wanted = evolve(
        record,
        id=run_id or record.id,
        number=None if run_id is not None or record.number is None else 0,
        status=RunStatus.RUNNING,
        created_at=now,
        finished_at=None,
        owner=engine.owner,
        epoch=0,
        result=None,
        result_preview="",
        error=None,
        error_preview="",
        open_failures=(),
        retryable=True,
        undoing="",
        cancel_requested=None,
        parent=None,
        parent_key=None,
        forked_from=record.id,
        floor=0,
        recoveries=0,
        deadline=None if record.deadline is None else now + (record.deadline - record.created_at),
    )
    if wanted.number is None and run_id is None:
        wanted = evolve(wanted, id=f"{record.id}-fork-{uuid.uuid4().hex[:8]}")
    elif wanted.number == 0:
        wanted = evolve(wanted, id=record.id.rpartition("-")[0] or record.id)
    (outcome,) = engine.commit(OpenRun(wanted, engine.lease, True, (), uuid.uuid4().hex))
    if isinstance(outcome, Found):
        raise RunConflict(f"a run {wanted.id!r} exists; a fork needs an id of its own", run=wanted.id)
    new: Run = outcome.run  # type: ignore[union-attr]
    puts = [PutStep(_moved(engine, step, new.id)) for step in copied if step.kind != "audit"]
    note = audit(
        engine,
        new.id,
        "fork",
        f"{record.id} before {point.path}",
        of=record.id,
        before=point.key,
        draws=[*(earlier[-1] if earlier else []), [record.id, draws]],
    )
    for start in range(0, len(puts), 500):
        engine.commit(*puts[start : start + 500])
    engine.commit(PutStep(note), UpdateRun(new.id, {}, epoch=new.epoch, release=True))
    return evolve(new, owner=None)


def _inside(step: Step, key: str, steps: list[Step]) -> bool:
    """Whether *step* was called in the body of step *key*."""
    scopes = {s.key: s.scope for s in steps}
    scope = step.scope
    while scope:
        scope = scope.partition("/")[0].partition("~")[0]
        if scope == key:
            return True
        scope = scopes.get(scope, "")
    return False


def _moved(engine: Engine, step: Step, run_id: str) -> Step:
    """The record for another run: nothing is loaded, only sealed anew."""
    payload = step.payload
    if payload is not None:
        kind = {"store": "store"}.get(step.kind, "error" if step.status is StepStatus.FAILED else "result")
        payload = engine.payloads.reseal(payload, (step.run_id, step.key, kind), (run_id, step.key, kind))
    return evolve(step, run_id=run_id, payload=payload, seq=0)


def resolve(
    engine: Engine, record: Run, step: Any, result: Any, error: BaseException | None, rerun: bool
) -> None:
    """Say what came of a step in doubt."""
    if record.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
        raise RunFinished(f"run {record.id} has ended: it is {record.status}", run=record.id)
    found = find_step(engine, record.id, step)
    if found.status is not StepStatus.PENDING:
        raise RunConflict(
            f"step {found.path} of run {record.id} is {found.status}, not in doubt; forget or fork "
            "change what is recorded",
            run=record.id,
            step=found.key,
        )
    now = engine.clock.now()
    if rerun:
        changed = evolve(found, seq=0, extra="")
        what = "rerun"
    elif error is not None:
        payload, _ = engine.payloads.pack_error(error, record.id, found.key, "error")
        text = f"{type(error).__name__}: {error}"
        changed = evolve(
            found,
            seq=0,
            status=StepStatus.FAILED,
            payload=payload,
            preview=text[:500],
            completed_at=now,
            extra="",
        )
        what = f"error={text}"
    else:
        payload, loaded = engine.payloads.pack(result, record.id, found.key, "result")
        changed = evolve(
            found,
            seq=0,
            status=StepStatus.COMPLETED,
            payload=payload,
            preview=preview(loaded),
            completed_at=now,
            extra="",
        )
        what = f"result={preview(loaded)}"
    note = audit(engine, record.id, "resolve", f"{found.path}: {what}", step=found.key)
    _accepted(engine, record.id, PutStep(changed), PutStep(note))


def _accepted(engine: Engine, run_id: str, *operations: PutStep) -> int:
    outcomes = engine.commit(*operations)
    if any(isinstance(outcome, Missing | Fenced) for outcome in outcomes):
        raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
    return outcomes[0].seq  # type: ignore[union-attr]
