"""The campaign of a year of schedules, in its quick form."""

from .command import campaign


def test_each_tick_has_one_run_although_workers_die() -> None:
    """In twenty days with two time changes each tick has one run, although workers die."""
    result = campaign("year", "--count", "20")
    assert result["failed"] == 0, result["failures"]
    assert result["deaths"] > 10
    assert result["ticks"] == 20 * 2 * 25
