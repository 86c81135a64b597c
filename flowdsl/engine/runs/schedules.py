"""Firing schedules: one run for each tick, whoever fires it and however often.

The id of a tick's run is made of the schedule's name and the moment, so it is opened only once, ever. The
schedule's row says up to where the ticks were handled.
"""

import json
import logging
import uuid
from collections.abc import Iterable

from attrs import evolve

from flowdsl.core.records import ScheduleRow
from flowdsl.core.schedules import Schedule, due, tick_id, ticks, without_args, workflow_of
from flowdsl.engine.definitions import WorkflowDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.registry import WORKFLOWS
from flowdsl.engine.runs.enqueue import Queueing, pending_row
from flowdsl.errors import CorruptPayload, FlowError, StepNotFound, StorageError
from flowdsl.storage.base import Opened, OpenRun, PutSchedule, raise_unstorable
from flowdsl.storage.left_out import leave_out

__all__ = ["backfill", "fire_due", "row_of", "schedule_of", "trigger"]

logger = logging.getLogger("flowdsl")


def row_of(engine: Engine, schedule: Schedule, created_at: float) -> ScheduleRow:
    """The row of a schedule."""
    names = ("workflow", "cron", "timezone", "overlap", "catch_up")
    spec = json.dumps({name: getattr(schedule, name) for name in names})
    given = (schedule.args, dict(schedule.kwargs))
    args, _ = engine.payloads.pack(given, schedule.name, "", "schedule")
    return ScheduleRow(schedule.name, spec, args, schedule.paused, created_at, created_at)


def schedule_of(engine: Engine, row: ScheduleRow) -> Schedule:
    """The schedule of a row. Raises ``CorruptPayload`` if it makes none, or its arguments do not load."""
    try:
        args, kwargs = engine.payloads.unpack(row.args, row.name, "", "schedule")
    except CorruptPayload:
        raise
    except (StorageError, TypeError, ValueError) as error:
        raise CorruptPayload(f"the arguments of schedule {row.name!r} do not load: {error}") from error
    return evolve(without_args(row), args=args, kwargs=kwargs)


def _definition(schedule: Schedule) -> WorkflowDef | None:
    return WORKFLOWS.get(schedule.workflow)


def _open(engine: Engine, schedule: Schedule, run_id: str, *, always: bool, serial: bool) -> bool:
    """Open the run *run_id* of a schedule. ``False`` if it exists, or was skipped. With *always*, a run that
    is still under way skips nothing."""
    defn = _definition(schedule)
    if defn is None:
        raise StepNotFound(
            f"workflow {schedule.workflow!r} of schedule {schedule.name!r} is not loaded here: import the "
            "module that defines it",
            step=schedule.workflow,
        )
    mark = f"schedule:{schedule.name}"
    queueing = Queueing(
        dedup=mark if schedule.overlap == "skip" and not serial else None,
        serial=mark if serial or schedule.overlap == "queue" else None,
    )
    called = defn.call(schedule.args, dict(schedule.kwargs))
    row = pending_row(engine, called, {"run_id": run_id}, queueing)
    (outcome,) = engine.commit(OpenRun(row, 0.0, nonce=engine.nonce()))
    if always and queueing.dedup is not None and not isinstance(outcome, Opened):
        (outcome,) = engine.commit(OpenRun(evolve(row, dedup=None), 0.0, nonce=engine.nonce()))
    raise_unstorable(outcome)
    return isinstance(outcome, Opened)


def fire_due(
    engine: Engine, rows: Iterable[ScheduleRow], workflows: Iterable[str], damaged: set[ScheduleRow]
) -> float | None:
    """Fire the due ticks of *workflows*. Returns when the next tick is, in seconds since the epoch. A row
    that makes no schedule is passed over; the first time, when it is not yet among the *damaged*, that is
    said."""
    known, now = set(workflows), engine.storage.now()
    soonest: float | None = None
    for row in rows:
        try:
            if row.paused or workflow_of(row) not in known:
                continue
            schedule = schedule_of(engine, row)
        except CorruptPayload as error:
            leave_out(error, known=row in damaged)
            damaged.add(row)
            continue
        fired = due(schedule, row.last, now)
        for moment in fired:
            try:
                _open(engine, schedule, tick_id(schedule.name, moment), always=False, serial=False)
            except CorruptPayload as error:  # its run is there, and was altered: the others are not held up
                leave_out(error)
            except TypeError as error:  # its arguments do not fit the workflow as it is here
                _report_once(schedule, error, row, damaged)
                fired = []  # another worker may have a version that they fit
                break
        if fired:
            # somebody may have changed it meanwhile: then whoever looks next finds these ticks' runs
            engine.commit(PutSchedule(evolve(row, last=fired[-1]), was=row))
        following = next(ticks(schedule, now, now + 86_400.0), None)
        if following is not None:
            soonest = following if soonest is None else min(soonest, following)
    return soonest


def _report_once(schedule: Schedule, error: TypeError, row: ScheduleRow, reported: set[ScheduleRow]) -> None:
    if row not in reported:
        logger.error(
            "schedule %s starts no run here: %s", schedule.name, str(error), extra={"run": None, "step": None}
        )
        reported.add(row)


def trigger(engine: Engine, schedule: Schedule) -> str:
    """Start a run of the schedule now. Returns its id, which no tick can have."""
    run_id = f"{schedule.name}@by-hand-{uuid.uuid4().hex[:12]}"
    if not _open(engine, schedule, run_id, always=True, serial=False):
        raise FlowError(f"schedule {schedule.name!r} could not be triggered", run=run_id)
    return run_id


def backfill(engine: Engine, schedule: Schedule, start: float, end: float) -> list[str]:
    """Open the runs of the ticks from *start* on, before *end*. Returns the ids of those that are new. They
    execute one after the other, unless the schedule allows overlap."""
    opened = []
    serial = schedule.overlap != "allow"
    for moment in ticks(schedule, start - 1e-3, end - 1e-3):
        run_id = tick_id(schedule.name, moment)
        if _open(engine, schedule, run_id, always=True, serial=serial):
            opened.append(run_id)
    return opened
