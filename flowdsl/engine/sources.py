"""Notice that a step's source has changed since its result was recorded. The result counts all the same;
``version=`` makes the change count."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from flowdsl.core.binding import Bound
from flowdsl.core.kinds import STEP
from flowdsl.core.records import RunFilter, Step
from flowdsl.core.source import changed_source, source_of
from flowdsl.core.status import StepStatus
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, current
from flowdsl.engine.memo import implied, memo_key, shared
from flowdsl.engine.registry import STEPS

__all__ = ["notes_on", "notice", "notice_of"]

logger = logging.getLogger("flowdsl")

_RECENT = 20  # runs that explain_key looks into


class _Once:
    """Lets something happen once in a run."""

    def __init__(self) -> None:
        self._done = False

    def first(self) -> bool:
        """Whether this is the first call."""
        done, self._done = self._done, True
        return not done


def notice(run: Execution, path: str, recorded: str, now: str) -> None:
    """Say, once in a run, that *path* was recorded with another source, and which other steps were."""
    if not changed_source(recorded, now) or not run.part(_Once).first():
        return
    paths = {path}
    with run.lock:
        for step in run.journal:
            defn = STEPS.get(step.path) if step.kind == STEP and step.path not in paths else None
            if defn is not None and changed_source(step.defaults, f"@={defn.source}"):
                paths.add(step.path)
    notice_of(run.id, paths)


def notice_of(run_id: str, paths: Iterable[str]) -> None:
    """Log that the sources of these steps have changed."""
    logger.warning(
        "run %s takes recorded results of steps whose source has changed since: %s. For a change that is to "
        "count, give the step a version=",
        run_id,
        ", ".join(sorted(paths)),
        extra={"run": run_id, "step": None},
    )


def notes_on(engine: Engine | None, defn: StepDef, bound: Bound) -> list[tuple[str, str]]:
    """What ``explain_key`` says of the source: its digest, and where a result of another one is recorded."""
    found = source_of(bound.defaults)
    if not found:
        return []
    notes = [("source", f"{found} (not counted; version= is)")]
    if engine is not None:
        notes += _recorded(engine, defn, bound)
    return notes


def _recorded(engine: Engine, defn: StepDef, bound: Bound) -> list[tuple[str, str]]:
    key = memo_key(defn, bound)
    frame = current.get()
    if frame is not None:
        mine = frame.run.journal.get(bound.key(frame.scope.id, defn.version))
        return [] if mine is None else _changed(f"run {mine.run_id}", mine, bound)
    memo = shared(engine, defn, bound)[1] if defn.memo else None
    if memo is not None and changed_source(memo.defaults, bound.defaults):
        return [("changed", f"the shared result of {_when(memo.created_at)} is of another source")]
    runs = [implied(engine, defn, bound)[0]]
    runs += [run.id for run in engine.storage.list_runs(RunFilter(limit=_RECENT))]
    for run_id in runs:
        step = engine.storage.get_step(run_id, key)
        if step is not None and step.status is StepStatus.COMPLETED:
            return _changed(f"run {run_id}", step, bound)
    return []


def _changed(where: str, step: Step, bound: Bound) -> list[tuple[str, str]]:
    if not changed_source(step.defaults, bound.defaults):
        return []
    return [("changed", f"{where} has recorded it at {_when(step.created_at)} with another source")]


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="seconds")
