"""Fork: a new run that has the records of another one before a step.

A process may die while it copies. Until everything is copied, the new run is ``failed`` and cannot be
continued, so nobody executes part of a copy. Forking again under its id makes it anew.
"""

import uuid

from attrs import evolve

from flowdsl.core.facts import Forked, facts_of
from flowdsl.core.kinds import AUDIT, BEAT, LOG, STORE
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine.audit import audit
from flowdsl.engine.engine import Engine
from flowdsl.engine.owner import is_abandoned
from flowdsl.engine.runs.repair import find_step
from flowdsl.engine.user import Named, Value
from flowdsl.errors import RunConflict
from flowdsl.storage.base import DeleteRun, Found, OpenRun, PutStep, UpdateRun, raise_unstorable

__all__ = ["fork"]

_CUT_OFF = "FlowError: the process that made this fork died while it copied; fork again"


def fork(engine: Engine, record: Run, before: Value, run_id: str | None) -> Run:
    """A new run with the records that *record* had before step *before*. Nobody owns it yet."""
    point = find_step(engine, record.id, before)
    steps = engine.storage.list_steps(record.id)
    copied = [s for s in steps if s.seq < point.seq and not _inside(s, point.key, steps)]
    draws: dict[str, int] = {}
    for step in (*copied, point):
        draws[step.scope] = max(draws.get(step.scope, 0), step.draws)
    earlier = [facts.draws for s in steps if s.kind == AUDIT and isinstance(facts := facts_of(s), Forked)]
    new = _opened(engine, _wanted(engine, record, run_id))
    puts = [PutStep(_moved(engine, step, new.id), new.epoch) for step in copied if step.kind != AUDIT]
    note = audit(engine, new.id, "fork", f"{record.id} before {point.path}")
    line = [*(earlier[-1] if earlier else ()), (record.id, draws)]
    note = note._replace(extra=Forked(line, note.preview, record.id, point.key).to_json())
    begin: Named = {
        "status": RunStatus.RUNNING,
        "finished_at": None,
        "retryable": True,
        "error_preview": "",
    }
    engine.owned.reserve(new.id, new.epoch)  # it is ours, but does not execute
    try:
        for start in range(0, len(puts), 500):
            engine.commit(*puts[start : start + 500])
        engine.commit(PutStep(note), UpdateRun(new.id, begin, epoch=new.epoch, release=True))
    finally:
        engine.owned.release(new.id, new.epoch)
    return evolve(new, owner=None, **begin)


def _wanted(engine: Engine, record: Run, run_id: str | None) -> Run:
    """The row of the new run while it is copied."""
    now = engine.clock.now()
    numbered = run_id is None and record.number is not None
    if run_id is None:
        run_id = record.id.rpartition("-")[0] if numbered else f"{record.id}-fork-{uuid.uuid4().hex[:8]}"
    return evolve(
        record,
        id=run_id or record.id,
        number=0 if numbered else None,
        status=RunStatus.FAILED,
        created_at=now,
        finished_at=now,
        owner=engine.owned.owner,
        epoch=0,
        result=None,
        result_preview="",
        error=None,
        error_preview=_CUT_OFF,
        open_failures=(),
        retryable=False,
        undoing="",
        cancel_requested=None,
        parent=None,
        parent_key=None,
        forked_from=record.id,
        floor=0,
        recoveries=0,
        deadline=None if record.deadline is None else now + (record.deadline - record.created_at),
    )


def _opened(engine: Engine, wanted: Run) -> Run:
    """Insert the run. If a process died while it copied, its remains are replaced."""
    opening = OpenRun(wanted, engine.lease, True, (), uuid.uuid4().hex)
    (outcome,) = engine.commit(opening)
    if isinstance(outcome, Found):
        found = outcome.runs[0]
        now = engine.storage.now()
        cut_off = found.status is RunStatus.FAILED and found.error_preview == _CUT_OFF
        if not cut_off or (found.owner and not is_abandoned(found.owner, found.id, found.lease_until, now)):
            raise RunConflict(f"a run {wanted.id!r} exists; a fork needs an id of its own", run=wanted.id)
        _, outcome = engine.commit(DeleteRun(found.id), opening)
    raise_unstorable(outcome)
    return outcome.run  # type: ignore[union-attr]


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
    """The record for another run. Nothing is loaded; it is only sealed anew."""
    payload = step.payload
    if payload is not None:
        kind = {STORE: "store", BEAT: "details", LOG: "log"}.get(
            step.kind, "error" if step.status is StepStatus.FAILED else "result"
        )
        payload = engine.payloads.reseal(payload, (step.run_id, step.key, kind), (run_id, step.key, kind))
    return step._replace(run_id=run_id, payload=payload, seq=0)
