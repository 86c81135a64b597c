"""Facts about a step's source: its digest, and where a result of another source is recorded."""

import logging
from datetime import UTC, datetime

from flowdsl.core.binding import Bound
from flowdsl.core.records import RunFilter, Step
from flowdsl.core.source import changed_source, source_of
from flowdsl.core.status import StepStatus
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.operations.memo import implied, memo_key, shared

__all__ = ["notes_on"]

logger = logging.getLogger("flowdsl")

_RECENT = 20  # runs that explain_key looks into


def notes_on(engine: Engine | None, defn: StepDef, bound: Bound) -> list[tuple[str, str]]:
    """What ``explain_key`` says of the source: its digest, and where a result of another source is
    recorded."""
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
        return [
            ("changed", f"the shared result of {_when(memo.created_at)} is older than a change of its code")
        ]
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
    return [("changed", f"{where} recorded it at {_when(step.created_at)}, before its code was changed")]


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="seconds")
