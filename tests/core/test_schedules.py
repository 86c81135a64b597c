"""Schedules: whole years of ticks, the nights of the time change, and what is made up."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from flowdsl.core.schedules import Schedule, due, tick_id, ticks

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
CHANGES = {BERLIN: ("2027-03-28", "2027-10-31"), NEW_YORK: ("2027-03-14", "2027-11-07")}


def year(cron, zone):
    """All ticks of 2027, as local times."""
    schedule = Schedule("s", "w", cron=cron, timezone=zone)
    begin = datetime(2027, 1, 1, tzinfo=ZoneInfo(zone)).timestamp() - 1
    end = datetime(2028, 1, 1, tzinfo=ZoneInfo(zone)).timestamp() - 1
    return [datetime.fromtimestamp(moment, ZoneInfo(zone)) for moment in ticks(schedule, begin, end)]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_a_nightly_job_fires_once_each_day_of_a_year(zone):
    """A nightly job fires 365 times a year; a missing time fires at the next one, a repeated time once."""
    spring, autumn = CHANGES[zone]
    found = year("30 2 * * *", zone)
    assert [moment.date() for moment in found] == [
        datetime(2027, 1, 1).date() + timedelta(days=n) for n in range(365)
    ]
    odd = {str(moment.date()): moment for moment in found if (moment.hour, moment.minute) != (2, 30)}
    assert {day: moment.strftime("%H:%M") for day, moment in odd.items()} == {spring: "03:00"}
    (double,) = [moment for moment in found if str(moment.date()) == autumn]
    assert double.fold == 0


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_an_hourly_job_fires_by_the_time_that_passes(zone):
    """An hourly job fires 8,760 times a year, one hour apart."""
    found = [moment.timestamp() for moment in year("0 * * * *", zone)]
    assert len(found) == 8760
    assert {later - earlier for earlier, later in pairwise(found)} == {3600.0}


def test_missed_ticks_are_made_up_within_catch_up():
    """Ticks older than ``catch_up``, and ticks before the schedule was made, are left out."""
    schedule = Schedule("s", "w", cron="*/10 * * * *", catch_up="1 hour")
    now = datetime(2027, 1, 1, 12, 5, tzinfo=UTC).timestamp()
    made = now - 25 * 60
    assert [(now - tick) / 60 for tick in due(schedule, made, now)] == [25 - 0, 15, 5][1:]
    assert len(due(schedule, now - 86400, now)) == 6
    assert due(schedule, now, now) == []


def test_the_id_of_a_tick_is_its_moment_in_utc():
    """The id of a tick is its time in UTC, in whole seconds, with a Z."""
    moment = datetime(2027, 10, 31, 2, 30, tzinfo=ZoneInfo(BERLIN))
    assert tick_id("nightly", moment.timestamp()) == "nightly@2027-10-31T00:30:00Z"


def test_times_are_in_the_zone_of_the_schedule():
    """The next five times are given in the zone of the schedule."""
    schedule = Schedule("s", "w", cron="0 9 * * 1-5", timezone=NEW_YORK)
    found = list(islice(schedule.times(datetime(2027, 1, 1, tzinfo=UTC)), 3))
    assert [moment.isoformat() for moment in found] == [
        "2027-01-01T09:00:00-05:00",
        "2027-01-04T09:00:00-05:00",
        "2027-01-05T09:00:00-05:00",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"cron": "61 * * * *"},
        {"cron": "x"},
        {"cron": None},
        {"cron": "* * * * *", "timezone": "Europe/Nowhere"},
        {"cron": "* * * * *", "overlap": "perhaps"},
        {"cron": "* * * * *", "catch_up": "soon"},
        {"cron": "* * * * *", "name": "a@b"},
        {"cron": "* * * * *", "workflow": 5},
    ],
)
def test_bad_options_are_refused(options):
    """A wrong option is refused, and the message names it and what it should be."""
    with pytest.raises((ValueError, TypeError)):
        Schedule(**{"name": "s", "workflow": "w", **options})
