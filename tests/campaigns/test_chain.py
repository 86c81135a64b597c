"""The campaign of chains of detached runs, in its quick form."""

from .command import campaign


def test_a_chain_of_runs_leaves_nothing_behind() -> None:
    """Killed while it goes on, each link is there once, has ended, and leaves no thread."""
    result = campaign("chain", "--count", "60")
    assert result["failed"] == 0, result["failures"]
    assert result["sync: executed"] >= 60
    assert result["async: executed"] >= 60
