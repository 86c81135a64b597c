"""The campaign of two processes that want one run, in its quick form."""

from .command import campaign


def test_of_two_processes_one_has_the_run() -> None:
    """One duel of each kind; the one that stood still is refused, and nothing that was seen is done again."""
    result = campaign("duels", "--count", "5")
    assert result["failed"] == 0, result["failures"]
    assert result["late owners that were refused"] == 1
    assert result["bodies"] >= 5 * 4
