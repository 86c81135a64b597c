"""The campaign of transactional steps, in its quick form."""

from .command import campaign


def test_no_kill_parts_a_row_from_its_record() -> None:
    """A kill at any moment leaves both the user's row and the record, or neither, on each database."""
    result = campaign("transactions", "--count", "4")
    assert result["failed"] == 0, result["failures"]
    assert result["kills"] >= 4
