"""Forget a recorded step of the executing run. The next replay executes it again."""

from flowdsl.core.binding import Bound
from flowdsl.core.facts import Facts, generation_of
from flowdsl.core.kinds import AUDIT
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.audit import audit
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.effects import Flow
from flowdsl.engine.execution import Frame
from flowdsl.engine.perform import at_once
from flowdsl.engine.record import crossing
from flowdsl.storage.base import PutStep, UpdateRun

__all__ = ["forget_in"]


class Forget(Operation):
    """Forget the first recorded call of a step in this scope, with all that it called. The next replay
    executes it again. The forgetting is recorded too, so a replay does not forget again."""

    __slots__ = ("_bound", "_defn", "canonical", "path")

    kind = AUDIT
    durable = False
    sequential = False

    def __init__(self, defn: StepDef, bound: Bound) -> None:
        self._defn = defn
        self._bound = bound
        self.path = f"flowdsl.forget.{defn.path}"
        self.canonical = bound.canonical

    def preview(self, limit: int = 200) -> str:
        return self._bound.preview(limit)

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run, engine = call.run, call.run.engine
        found = run.journal.get(self._bound.key(call.scope.id, self._defn.version))
        what = audit(engine, run.id, "forget", self._defn.path, step=found.key if found else "")
        records = [what._replace(key=call.key)]
        if found is not None:
            facts = Facts(generation=generation_of(found) + 1).to_json()
            changed = found._replace(seq=0, status=StepStatus.UNDONE, payload=None, preview="", extra=facts)
            records.insert(0, changed)
        buffered = run.writer.buffered()
        operations = [*buffered, *(PutStep(record, run.epoch) for record in records)]
        for record in records:
            run.writer.add(record)
        with crossing(run, call):
            for outcome, operation in zip(engine.commit(*operations), operations, strict=True):
                run.writer.raise_floor(run.writer.accept(outcome, operation))
            run.writer.stored(buffered)
            engine.commit(UpdateRun(run.id, {"floor": run.writer.floor}, epoch=run.epoch))
        return None, None
        yield  # a generator like the others, although it blocks: forget() is a plain call in async bodies too

    def answer(self, call: Call, record: Step) -> Flow:
        return None, None
        yield


def forget_in(frame: Frame, defn: StepDef, bound: Bound) -> None:
    """Forget the first recorded call of a step in this scope."""
    at_once(frame, Forget(defn, bound))
