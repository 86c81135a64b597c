"""The campaign of disks, in its quick form, and its oracle against planted bugs."""

import pytest

from .command import campaign


def test_no_fault_of_the_disk_loses_anything() -> None:
    """A full, failing or read-only disk gives a typed error, and afterwards the run goes on."""
    result = campaign("disk", "--count", "12")
    assert result["failed"] == 0, result["failures"]
    assert result["trials"] == 12
    assert result["limit: StorageFull"] > 0


@pytest.mark.parametrize(
    ("plant", "says"), [("acknowledge-what-failed", "executed again"), ("raw-errors", "sqlite3")]
)
def test_a_planted_bug_is_found(plant: str, says: str) -> None:
    """The campaign fails when a lost commit is acknowledged, and when errors of the disk are not typed."""
    result = campaign("disk", "--kind", "limit", "--plant", plant, "--count", "40")
    assert says in repr(result["failures"])
