"""The campaign of cancels, in its quick form, and its oracle against a planted bug."""

from .command import campaign


def test_cancelled_programs_leave_nothing_standing() -> None:
    """Each completed step of a run that is cancelled from inside, from another process, or after a kill is
    undone once."""
    result = campaign("cancels", "--count", "6")
    assert result["failed"] == 0, result["failures"]
    assert result["steps undone"] > 0


def test_a_planted_bug_is_found() -> None:
    """The campaign fails when a planted bug makes undo forget a step."""
    assert campaign("cancels", "--plant", "undo-all-but-the-last", "--count", "12")["failed"]
