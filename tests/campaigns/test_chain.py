"""The campaign of chains of detached runs, in its quick form."""

from .command import campaign


def test_a_chain_of_runs_leaves_nothing_behind() -> None:
    """A chain of runs that is killed leaves each run once, ended, and no thread."""
    result = campaign("chain", "--count", "60")
    assert result["failed"] == 0, result["failures"]
    assert result["sync: executed"] >= 60
    assert result["async: executed"] >= 60
