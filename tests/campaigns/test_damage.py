"""The campaign of damage, in its quick form, and its oracle against planted bugs."""

import pytest

from .command import campaign


def test_nothing_damaged_is_taken_for_good() -> None:
    """Flipped bits and truncations in a stored database are refused by name, and the other runs stay
    readable."""
    result = campaign("damage", "--count", "30")
    assert result["failed"] == 0, result["failures"]
    assert min(result[kind] for kind in ("payload", "flip", "cut", "log flip", "log cut")) > 0


@pytest.mark.parametrize(
    ("plant", "kind", "says"),
    [("no-checksum", "payload", "was altered and read"), ("blind-to-the-log", "log flip", "gone without")],
)
def test_a_planted_bug_is_found(plant: str, kind: str, says: str) -> None:
    """The campaign fails when payloads are not checked, and when the log is not checked."""
    result = campaign("damage", "--kind", kind, "--plant", plant, "--count", "60")
    assert says in repr(result["failures"])
