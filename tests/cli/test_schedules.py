"""``flowdsl schedules``: when they fire next, and what is done with them by hand."""

import pytest

from flowdsl import Runtime

from .test_json import FIELDS, fields_of

pytestmark = pytest.mark.usefixtures("imports")


@pytest.fixture
def nightly(folder, url, answer):
    """Put a schedule of a module's workflow."""
    (folder / "clerk.py").write_text(
        "from flowdsl import workflow\n\n@workflow\ndef report(kind, copies=1):\n    return kind\n"
    )
    Runtime(url).close()

    def put(*options):
        cron = ("--cron", "30 2 * * *", "--timezone", "Asia/Tokyo", "--args", '["x"]')
        return answer("schedules", "put", "nightly", "clerk.report", *cron, "--app", "clerk", *options)

    return put


def test_the_next_times_are_on_the_clock_of_the_zone(nightly, answer, invoke):
    """The list shows five times on the clock of the time zone, and the JSON keeps its fields."""
    put = nightly("--kwargs", '{"copies": 2}')
    assert FIELDS["schedules"] - fields_of(put) == set()
    (listed,) = answer("schedules")
    assert len(listed["next"]) == 5
    assert all(time.endswith("T02:30:00+09:00") for time in listed["next"])
    assert invoke("schedules").stdout.count("02:30:00 JST") == 5


def test_by_hand(nightly, answer, url):
    """A paused schedule has no next times, and can be triggered, backfilled without repeating a tick, and
    deleted."""
    nightly()
    assert answer("schedules", "pause", "nightly")["next"] == []
    assert len(answer("schedules", "resume", "nightly")["next"]) == 5
    span = ("2026-01-01T17:30:00+00:00", "2026-01-03T17:30:00+00:00", "--app", "clerk")
    days = [f"nightly@2026-01-0{day}T17:30:00Z" for day in (1, 2)]
    assert answer("schedules", "backfill", "nightly", *span) == {"enqueued": days}
    assert answer("schedules", "backfill", "nightly", *span) == {"enqueued": []}
    (triggered,) = answer("schedules", "trigger", "nightly", "--app", "clerk")["enqueued"]
    assert answer("schedules", "delete", "nightly") == {"deleted": ["nightly"]}
    with Runtime(url) as runtime:
        assert {run.id for run in runtime.runs()} == {*days, triggered}


def test_what_is_wrong(nightly, fault):
    """An unknown name gets a suggestion, a missing --app is named, and times and lists are checked."""
    nightly()
    assert "did you mean 'nightly'?" in fault("schedules", "pause", "nigthly")
    assert "--app MODULE is needed" in fault("schedules", "trigger", "nightly", code=2)
    more = ("--cron", "* * * * *", "--app", "clerk")
    assert "did you mean 'clerk.report'?" in fault("schedules", "put", "n", "clerk.reprot", *more)
    assert "cron=" in fault("schedules", "put", "n", "clerk.report", "--cron", "x", "--app", "clerk", code=2)
    assert "--args is a list" in fault("schedules", "put", "n", "x", *more, "--args", "1", code=2)
