"""A year of schedules on a clock that jumps, fired by workers that die at any commit.

Two schedules fire every hour, and two each night at half past two, in two zones. The year has both time
changes. Sometimes a worker dies before or after a commit, and others go on from the storage. No pause is
longer than ``catch_up``. In the end each tick has one run, and each run has a tick.
"""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from flowdsl import Runtime, Schedule, workflow
from flowdsl.core.schedules import tick_id, ticks
from flowdsl.core.status import RunStatus
from flowdsl.engine.runs.schedules import fire_due
from flowdsl.runtime import engine_of
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import DeleteRun, Operation, Outcome, UpdateRun
from flowdsl.storage.relay import RelayStorage

from .report import Report

__all__ = ["year"]

WORKERS = 4
# Soon the clocks go forward, first in New York and then in Berlin.
BEGIN = datetime(2027, 3, 10, tzinfo=UTC).timestamp()
ZONES = ("Europe/Berlin", "America/New_York")


class Died(BaseException):
    """The worker is dead."""


class Mortal(RelayStorage):
    """A worker's way to the storage, on the clock of the campaign; it dies at a commit."""

    def __init__(self, storage: MemoryStorage, clock: list[float], rng: random.Random) -> None:
        super().__init__(storage)
        self._clock = clock
        self._rng = rng
        self.mortal = False

    def now(self) -> float:
        return self._clock[0]

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        dies = self._rng.random() < 0.05 if self.mortal else False
        if dies and self._rng.random() < 0.5:
            raise Died
        found = self.storage.commit(operations)
        if dies:
            raise Died
        return found


@workflow
def report_of(kind: str) -> str:
    """What the schedules start."""
    return kind


def _schedules() -> list[Schedule]:
    return [
        Schedule(
            f"{name} {zone}",
            report_of,
            cron=cron,
            timezone=zone,
            args=(name,),
            overlap="allow",
            catch_up="6 hours",
        )
        for zone in ZONES
        for name, cron in (("nightly", "30 2 * * *"), ("hourly", "0 * * * *"))
    ]


def _worker(storage: MemoryStorage, clock: list[float], rng: random.Random) -> tuple[Runtime, Mortal]:
    mortal = Mortal(storage, clock, rng)
    return Runtime(mortal, schedules=_schedules()), mortal


def year(report: Report, given: Any) -> None:
    """``count`` days from the tenth of March on."""
    rng, clock, opened = random.Random(given.seed), [BEGIN], Counter[str]()
    end = BEGIN + given.count * 86_400.0
    with MemoryStorage() as storage:
        workers = [_worker(storage, clock, rng) for _ in range(WORKERS)]
        while clock[0] < end:
            clock[0] = min(clock[0] + 18_000.0 * rng.random(), end)
            survived = False
            while not survived:
                place = rng.randrange(WORKERS)
                survived = _fire(storage, *workers[place])
                if not survived:
                    report.counts["deaths"] += 1
                    workers[place] = _worker(storage, clock, rng)
            _finish(storage, opened, clock[0])
        for runtime, _ in workers:
            fire_due(engine_of(runtime), storage.list_schedules(), [report_of.path], set())
            runtime.close()
        _finish(storage, opened, clock[0])
    expected = {tick_id(one.name, moment) for one in _schedules() for moment in ticks(one, BEGIN, end)}
    report.counts["ticks"] = len(expected)
    twice = [run_id for run_id, times in opened.items() if times > 1]
    if twice or set(opened) != expected:
        missing, more = sorted(expected - set(opened)), sorted(set(opened) - expected)
        report.fail("year", f"twice {twice[:5]}", f"missing {missing[:5]}", f"of no tick {more[:5]}")
    first, last = (datetime.fromtimestamp(moment, UTC) for moment in (BEGIN, end))
    report.counts["days"] = (last - first) // timedelta(days=1)


def _fire(storage: MemoryStorage, runtime: Runtime, mortal: Mortal) -> bool:
    """Let a worker fire what is due; whether it lives."""
    mortal.mortal = True
    try:
        fire_due(engine_of(runtime), storage.list_schedules(), [report_of.path], set())
    except Died:
        runtime.close()
        return False
    finally:
        mortal.mortal = False
    return True


def _finish(storage: MemoryStorage, opened: Counter[str], now: float) -> None:
    """Count the runs that are there, end them, and prune what is old: an id stays one run for ever."""
    for run in storage.list_runs():
        if run.status is RunStatus.PENDING:
            opened[run.id] += 1
            storage.commit([UpdateRun(run.id, {"status": RunStatus.COMPLETED, "finished_at": now})])
        else:
            storage.commit([DeleteRun(run.id, tombstone=True)])
