"""The campaigns of claims, of schedules and of killed workers, in their quick form."""

from .command import campaign


def test_limits_hold_while_eight_workers_claim() -> None:
    """Each run is claimed once, and no limit is exceeded at any moment."""
    result = campaign("claims", "--count", "300")
    assert result["failed"] == 0, result["failures"]
    assert result["claimed"] == 300


def test_each_tick_has_one_run_although_workers_die() -> None:
    """In twenty days with two time changes each tick has one run, although workers die."""
    result = campaign("year", "--count", "20")
    assert result["failed"] == 0, result["failures"]
    assert result["deaths"] > 10
    assert result["ticks"] == 20 * 2 * 25


def test_killed_workers_repeat_nothing_that_was_seen() -> None:
    """Four workers with clocks hours apart are killed, and each run still ends with its value."""
    result = campaign("fleet", "--count", "25")
    assert result["failed"] == 0, result["failures"]
    assert result["bodies"] >= 25 * 3
