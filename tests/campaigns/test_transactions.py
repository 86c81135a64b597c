"""The campaign of transactional steps, in its quick form."""

from .command import campaign


def test_no_kill_parts_a_row_from_its_record() -> None:
    """Bodies that are killed at any moment, on each database, leave both or neither."""
    result = campaign("transactions", "--count", "4")
    assert result["failed"] == 0, result["failures"]
    assert result["kills"] >= 4
