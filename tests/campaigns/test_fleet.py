"""The campaign of killed workers, in its quick form."""

from .command import campaign


def test_killed_workers_repeat_nothing_that_was_seen() -> None:
    """Four workers with clocks hours apart are killed, and each run still ends with its value."""
    result = campaign("fleet", "--count", "25")
    assert result["failed"] == 0, result["failures"]
    assert result["bodies"] >= 25 * 3
