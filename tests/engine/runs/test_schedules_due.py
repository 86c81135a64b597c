"""Firing schedules on a clock that is set: overlap, pauses, and what is made up."""

from datetime import UTC, datetime

import pytest

from flowdsl import Runtime, Schedule, workflow
from flowdsl.core.status import RunStatus
from flowdsl.engine.runs.schedules import fire_due
from flowdsl.runtime import engine_of
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import ClaimNext, UpdateRun
from flowdsl.storage.relay import RelayStorage

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC).timestamp()


class Clocked(RelayStorage):
    """A storage whose clock is set by hand."""

    moment = NOON

    def now(self):
        return self.moment


@workflow
def tick():
    """What the schedules start."""


class Office:
    """A runtime on such a storage, with what the tests ask of it."""

    def __init__(self, rt, storage):
        self.rt, self.storage = rt, storage

    def put(self, **options):
        """Declare the schedule ``s``, each minute."""
        self.rt.schedules.put(Schedule("s", tick, **{"cron": "* * * * *", **options}))

    def after(self, minutes):
        """Let so many minutes pass, and let a worker look. Returns the minutes of the runs that exist."""
        self.storage.moment += 60 * minutes
        fire_due(engine_of(self.rt), self.storage.list_schedules(), [tick.path], set())
        return self.minutes()

    def minutes(self):
        """The minutes past noon of the ticks that have a run, in order."""
        found = sorted(run.id.partition("@")[2] for run in self.rt.runs())
        moments = [datetime.fromisoformat(text) for text in found if not text.startswith("by-hand")]
        return [round((moment.timestamp() - NOON) / 60) for moment in moments]

    def end_all(self):
        """End what is pending."""
        for run in self.rt.runs(status="pending"):
            self.storage.commit([UpdateRun(run.id, {"status": RunStatus.COMPLETED})])


@pytest.fixture
def office():
    """With an empty storage, at noon."""
    storage = Clocked(MemoryStorage())
    with Runtime(storage) as rt:
        yield Office(rt, storage)


def test_a_tick_is_left_out_while_a_run_is_under_way(office):
    """With ``skip`` a tick is left out while a run executes, and is not made up later."""
    office.put(overlap="skip")
    assert office.after(1) == [1]
    assert office.after(1) == [1]
    office.end_all()
    assert office.after(1) == [1, 3]
    office.end_all()
    office.rt.schedules.trigger("s")
    assert office.after(1) == [1, 3]


def test_a_tick_waits_behind_the_run_before(office):
    """With ``queue`` each tick has its run, one after the other."""
    office.put(overlap="queue")
    assert office.after(1) == [1]
    assert office.after(2) == [1, 2, 3]

    def claim():
        (found,) = office.storage.commit([ClaimNext("me", 600.0, ((tick.path, ""),), limit=9)])
        return len(found.runs)

    assert (claim(), claim()) == (1, 0)


def test_ticks_overlap(office):
    """With ``allow`` the runs of ticks overlap."""
    office.put(overlap="allow")
    office.after(1)
    assert office.after(3) == [1, 2, 3, 4]
    (found,) = office.storage.commit([ClaimNext("me", 600.0, ((tick.path, ""),), limit=9)])
    assert len(found.runs) == 4


def test_what_was_missed_for_too_long_is_left_out(office):
    """Ticks missed within ``catch_up`` are made up once, and older ones are left out."""
    office.put(overlap="allow", catch_up="5 min")
    assert office.after(60.5) == [56, 57, 58, 59, 60]
    assert office.after(0) == [56, 57, 58, 59, 60]
    for run in office.rt.runs():
        office.rt.delete(run.id)
    assert office.after(0) == []


def test_a_pause(office):
    """A paused schedule does not fire, and afterwards ``catch_up`` decides what is made up."""
    office.put(overlap="allow", catch_up="2 min")
    office.rt.schedules.pause("s")
    assert office.after(10) == []
    office.rt.schedules.resume("s")
    assert office.after(0.5) == [9, 10]
