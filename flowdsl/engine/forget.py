"""Forget a recorded step of the run that is executing, so that the next replay executes it again."""

from typing import Any

from flowdsl.core.facts import Facts, generation_of
from flowdsl.core.kinds import AUDIT
from flowdsl.core.status import StepStatus
from flowdsl.engine.audit import audit
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.execution import Frame
from flowdsl.engine.marks import mark
from flowdsl.engine.step import crossing
from flowdsl.storage.base import PutStep, UpdateRun

__all__ = ["forget_in"]


def forget_in(frame: Frame, defn: StepDef, bound: Any) -> None:
    """Let the first recorded call of a step in this scope execute again at the next replay, with all that it
    called.

    The forgetting is itself recorded, so a replay does not forget again.
    """
    run, engine = frame.run, frame.run.engine
    call = mark(frame, f"forget.{defn.path}", AUDIT, bound.canonical, bound.preview())
    if run.journal.get(call.key) is not None:
        return
    found = run.journal.get(bound.key(frame.scope.id, defn.version))
    note = audit(engine, run.id, "forget", defn.path, step=found.key if found else "")._replace(key=call.key)
    buffered = run.writer.buffered()
    operations = list(buffered)
    if found is not None:
        extra = Facts(generation=generation_of(found) + 1).to_json()
        changed = found._replace(seq=0, status=StepStatus.UNDONE, payload=None, preview="", extra=extra)
        operations.append(PutStep(changed, run.epoch))
        run.journal.add(changed)
    operations.append(PutStep(note, run.epoch))
    run.journal.add(note)
    with crossing(run, call):
        for outcome, operation in zip(engine.commit(*operations), operations, strict=True):
            run.writer.raise_floor(run.writer.accept(outcome, operation))
        run.writer.stored(buffered)
        engine.commit(UpdateRun(run.id, {"floor": run.writer.floor}, epoch=run.epoch))
