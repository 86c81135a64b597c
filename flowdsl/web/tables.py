"""The tables of queues, schedules and workers, and the actions on a row."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from attrs import frozen

from flowdsl.core.queues import Queue
from flowdsl.core.records import QueueCounts
from flowdsl.core.schedules import Schedule, without_args
from flowdsl.core.words import age, owner_text, span
from flowdsl.declared import WorkerInfo, loaded_workflows
from flowdsl.errors import StepNotFound
from flowdsl.runtime import Runtime
from flowdsl.storage.left_out import readable

__all__ = ["KINDS", "Row", "change", "rows_of"]

KINDS = ("queues", "schedules", "workers")

_LIMITS = {
    "concurrency": "at once",
    "per_worker": "per worker",
    "per_partition": "per partition",
    "rate": "rate",
}


@frozen
class Row:
    """One queue, schedule or worker.

    *name* is its name, and *shown* the text for people. *facts* are its other columns, by heading. *runs* are
    the ids of the runs that it executes.
    """

    name: str
    paused: bool
    facts: Mapping[str, str]
    shown: str = ""
    runs: tuple[str, ...] = ()


def rows_of(runtime: Runtime, kind: str) -> list[Row]:
    """The rows of a page. No stored value is loaded."""
    now = runtime.storage.now()
    if kind == "workers":
        return [_worker(one, now) for one in runtime.workers()]
    if kind == "queues":
        return list(_queues(runtime))
    return list(readable(lambda row: _schedule(without_args(row), now), runtime.storage.list_schedules()))


def change(runtime: Runtime, kind: str, name: str, action: str) -> None:
    """Pause, resume or trigger one.

    Raises ``LookupError`` if there is none of this name, and its subclass ``StepNotFound`` if the code of a
    triggered workflow is not loaded. Then its arguments are not loaded either.
    """
    row = next((row for row in rows_of(runtime, kind) if row.name == name), None)
    if row is None:
        raise LookupError(f"there is no such {kind.removesuffix('s')}")
    if action == "trigger" and row.facts["workflow"] not in loaded_workflows():
        raise StepNotFound(f"workflow {row.facts['workflow']!r} is not loaded here")
    getattr(runtime.queues if kind == "queues" else runtime.schedules, action)(name)


def _queues(runtime: Runtime) -> Iterator[Row]:
    """The queues that were declared or have runs, by name."""
    counts = runtime.storage.queue_counts()
    declared = {queue.name: queue for queue in runtime.queues.list()}
    for name in sorted({*declared, *counts}):
        queue = declared.get(name) or Queue(name)
        limits = {heading: getattr(queue, field) for field, heading in _LIMITS.items()}
        of_this = counts.get(name) or QueueCounts()
        facts = {"waiting": str(of_this.pending), "executing": str(of_this.running)}
        facts |= {heading: str(limit) for heading, limit in limits.items() if limit is not None}
        yield Row(name, queue.paused, facts)


def _schedule(schedule: Schedule, now: float) -> Row:
    next_time = None if schedule.paused else next(schedule.times(datetime.fromtimestamp(now, UTC)), None)
    facts = {
        "workflow": schedule.workflow,
        "cron": f"{schedule.cron}  {schedule.timezone}",
        "next": "–" if next_time is None else f"{next_time:%Y-%m-%d %H:%M %Z}",
        "overlap": f"{schedule.overlap}, catches up {span(schedule.catch_up)}",
    }
    return Row(schedule.name, schedule.paused, facts)


def _worker(one: WorkerInfo, now: float) -> Row:
    facts = {
        "queues": "all" if one.queues is None else ", ".join(one.queues),
        "runs": f"{len(one.executing)} of {one.concurrency}",
        "began": f"{age(max(now - one.started_at.timestamp(), 0.0))} ago",
        "seen": f"{age(max(now - one.seen_at.timestamp(), 0.0))} ago",
    }
    return Row(one.id, False, facts, owner_text(one.id), one.executing)
