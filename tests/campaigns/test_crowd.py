"""The campaign of the crowd, in its quick form, and its oracle against planted bugs."""

import pytest

from .command import campaign


def test_eight_processes_share_a_file() -> None:
    """No process sees an error, and no step of their runs is executed twice."""
    result = campaign("crowd", "--count", "6")
    assert result["failed"] == 0, result["failures"]
    assert result["steps"] == (8 * 6 + 6 + 8) * 5


@pytest.mark.parametrize(
    ("plant", "says"), [("no-patience", "locked"), ("take-over-the-living", "LeaseLost")]
)
def test_a_planted_bug_is_found(plant: str, says: str) -> None:
    """The campaign fails when a lock counts as an error, and when living owners count as dead."""
    result = campaign("crowd", "--kind", "shared", "--plant", plant, "--count", "90")  # it ends at the first
    assert says in repr(result["failures"])
