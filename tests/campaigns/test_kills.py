"""The campaign of kills, in its quick form, and its oracle against planted bugs."""

import re

import pytest

from .command import campaign
from .kills import judge


def test_no_kill_loses_or_doubles_anything() -> None:
    """Programs that are killed at commits, at system calls and at random moments end as if they had not been
    killed."""
    result = campaign("kills", "--count", "15")
    assert result["failed"] == 0, result["failures"]
    assert result["kills"] >= 15
    assert result["kills at a commit"]
    assert result["kills in recovery"]


@pytest.mark.parametrize("kind", ["migration", "beside", "stale"])
def test_no_kill_in_company(kind: str) -> None:
    """Kills during a migration, kills beside a second process, and an owner that wakes after its lease lose
    nothing."""
    result = campaign("kills", "--kind", kind, "--count", "2")
    assert result["failed"] == 0, result["failures"]
    assert result["trials"] >= 1


@pytest.mark.parametrize(
    ("plant", "kind", "says"),
    [
        ("acknowledge-before-commit", "commit", "executed again"),
        ("replay-something-else", "commit", "altered"),
        ("take-over-the-living", "beside", "alive|two owners|executed again"),
        (
            "no-epoch-check",
            "stale",
            "was seen as|is pending",
        ),  # whichever write of the stale owner comes last
    ],
)
def test_a_planted_bug_is_found(plant: str, kind: str, says: str) -> None:
    """The campaign fails with each planted bug, and says what went wrong."""
    result = campaign("kills", "--plant", plant, "--kind", kind, "--count", "60")
    assert re.search(says, repr(result["failures"]))


def test_what_the_oracle_holds_for_wrong() -> None:
    """The oracle reports a repeated step, a step seen with another result, mixed owners, and another final
    result."""
    good = [["begin", 1, [0], "a"], ["saw", 1, [0], "a"], ["saw", 2, [0], "a"], ["result", 2, 5]]
    assert judge(good, 5) == []
    assert "not 6" in judge(good, 6)[0]
    assert judge(good[:3], 5) == ["there is no result"]
    assert "executed again by life 2" in judge([*good, ["begin", 2, [0], "b"]], 5)[0]
    assert "and then as b" in judge([*good, ["saw", 2, [0], "b"]], 5)[0]
    assert "two owners" in judge([*good, ["saw", 1, [0], "a"]], 5)[0]
    assert "lost its run" in judge([*good, ["lost", 1]], 5)[0]
    assert judge([*good, ["lost", 1], ["begin", 1, [1], "c"]], 5, stale=1) == []
