"""The campaign of generated programs, in its quick form, and its oracle against planted bugs."""

import pytest

from .command import campaign


def test_programs_of_all_verbs_survive() -> None:
    """Programs that are killed at every place where they can end have the same result as without a kill."""
    # two programs of usual length: what is executed ahead of a long one would be thrown away in the end
    result = campaign("laws", "--count", "40", "--seed", "28", "--kind", "sqlite")
    assert result["failed"] == 0, result["failures"]
    assert result["executions"] >= 40


@pytest.mark.parametrize("plant", ["acknowledge-before-commit", "replay-something-else"])
def test_a_planted_bug_is_found(plant: str) -> None:
    """The campaign fails with each planted bug."""
    assert campaign("laws", "--plant", plant, "--count", "500")["failed"]
