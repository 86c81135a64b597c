"""Queues, schedules and workers, as a runtime offers them: rows of the storage, by name."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from attrs import evolve, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.queues import Queue, queue_of, row_of
from flowdsl.core.records import QueueRow, RunFilter, ScheduleRow, WorkerRow
from flowdsl.core.records import Run as RunRow
from flowdsl.core.schedules import Schedule
from flowdsl.core.status import RunStatus
from flowdsl.core.words import nearest
from flowdsl.engine.engine import Engine
from flowdsl.engine.registry import WORKFLOWS
from flowdsl.engine.runs import schedules
from flowdsl.engine.runs.worker import ALIVE
from flowdsl.errors import CorruptPayload
from flowdsl.handle import Run
from flowdsl.storage.base import DropQueue, DropSchedule, PutQueue, PutSchedule
from flowdsl.storage.left_out import readable

__all__ = ["Queues", "Schedules", "WorkerInfo", "loaded_workflows", "workers_of"]


class Queues:
    """The declared queues of a storage. A queue that nobody declared has no limits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> list[Queue]:
        """All of them, by name."""
        return list(readable(queue_of, self._engine.storage.list_queues()))

    def put(self, queue: Queue) -> None:
        """Declare *queue*, or replace the one of its name."""
        if not isinstance(queue, Queue):
            raise TypeError(f"put() takes a Queue(…); got {queue!r}")
        self._engine.commit(PutQueue(row_of(queue)))

    def declare(self, queue: Queue) -> None:
        """Declare *queue*, unless there is one of its name."""
        self._engine.commit(PutQueue(row_of(queue), if_new=True))

    def pause(self, name: str) -> None:
        """Let workers take nothing from it."""
        self._change(name, paused=True)

    def resume(self, name: str) -> None:
        """Let workers take from it again."""
        self._change(name, paused=False)

    def delete(self, name: str) -> None:
        """Take its limits away; its runs stay. A missing one is no error."""
        self._engine.commit(DropQueue(name))

    def _change(self, name: str, paused: bool) -> None:
        rows = {row.name: row for row in self._engine.storage.list_queues()}
        row = rows.get(name) or QueueRow(name)
        self._engine.commit(PutQueue(evolve(row, paused=paused)))


class Schedules:
    """The schedules of a storage."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> list[Schedule]:
        """All of them, by name. One that is damaged is left out, and reported in the log."""
        rows = self._engine.storage.list_schedules()
        return list(readable(partial(schedules.schedule_of, self._engine), rows))

    def put(self, schedule: Schedule) -> None:
        """Add *schedule*, or replace the one of its name: it begins now."""
        if not isinstance(schedule, Schedule):
            raise TypeError(f"put() takes a Schedule(…); got {schedule!r}")
        self._engine.commit(PutSchedule(self._row(schedule)))

    def declare(self, schedule: Schedule) -> None:
        """Add *schedule*, unless there is one of its name."""
        self._engine.commit(PutSchedule(self._row(schedule), if_new=True))

    def pause(self, name: str) -> None:
        """Start nothing any more."""
        self._engine.commit(PutSchedule(evolve(self._found(name), paused=True)))

    def resume(self, name: str) -> None:
        """Start runs again; what was missed for longer than ``catch_up`` is left out."""
        self._engine.commit(PutSchedule(evolve(self._found(name), paused=False)))

    def delete(self, name: str) -> None:
        """Delete it; its runs stay. A missing one is no error."""
        self._engine.commit(DropSchedule(name))

    def trigger(self, name: str) -> Run[Any]:
        """Start one more run of it now. Its ticks go on as before."""
        schedule = schedules.schedule_of(self._engine, self._found(name))
        return Run(self._engine, schedules.trigger(self._engine, schedule))

    def backfill(self, name: str, start: datetime, end: datetime) -> Sequence[Run[Any]]:
        """Open the runs of the ticks from *start* on, before *end* (aware datetimes): those that are not
        there."""
        for moment in (start, end):
            if not isinstance(moment, datetime) or moment.tzinfo is None:
                raise TypeError(f"backfill() takes aware datetimes; got {moment!r}")
        schedule = schedules.schedule_of(self._engine, self._found(name))
        opened = schedules.backfill(self._engine, schedule, start.timestamp(), end.timestamp())
        return [Run(self._engine, run_id) for run_id in opened]

    def _row(self, schedule: Schedule) -> ScheduleRow:
        return schedules.row_of(self._engine, schedule, self._engine.storage.now())

    def _found(self, name: str) -> ScheduleRow:
        rows = {row.name: row for row in self._engine.storage.list_schedules()}
        if name not in rows:
            raise LookupError(f"no schedule {name!r}{nearest(name, rows)}")
        return rows[name]


@frozen(slots=True, eq=False, repr=False)
class WorkerInfo(ByFields):
    """A worker: its *id*, the *queues* it takes from (``None``: all), how many runs it executes at a time,
    when it began and when it gave its last sign of life (aware, in UTC), and the ids of what it executes."""

    id: str
    queues: tuple[str, ...] | None
    concurrency: int
    started_at: datetime
    seen_at: datetime
    executing: tuple[str, ...]


def loaded_workflows() -> list[str]:
    """The paths of the workflows that are imported in this process."""
    return sorted(WORKFLOWS)


def workers_of(engine: Engine) -> list[WorkerInfo]:
    """The workers that gave a sign of life lately."""
    rows = engine.storage.list_workers()
    alive = engine.storage.now() - ALIVE
    rows = [row for row in rows if row.seen_at >= alive]
    if not rows:
        return []
    owners = tuple(row.id for row in rows)
    running = engine.storage.list_runs(RunFilter(status=(RunStatus.RUNNING,), owner=owners))
    return list(readable(partial(_worker, running=running), rows))


def _worker(row: WorkerRow, running: Sequence[RunRow]) -> WorkerInfo:
    executing = tuple(run.id for run in running if run.owner == row.id)
    try:
        said = json.loads(row.spec)
        queues, concurrency = said["queues"], said["concurrency"]
        return WorkerInfo(
            row.id,
            None if queues is None else tuple(queues),
            concurrency,
            datetime.fromtimestamp(row.started_at, UTC),
            datetime.fromtimestamp(row.seen_at, UTC),
            executing,
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CorruptPayload(f"worker {row.id!r} is damaged in the database: {error!r}") from error
