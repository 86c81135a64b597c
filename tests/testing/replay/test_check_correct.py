"""check_replay against a corpus of correct workflows: no false alarm."""

import pytest
from correct import CORRECT

from flowdsl.testing import check_replay


@pytest.mark.parametrize("name", CORRECT)
def test_no_false_alarm(name: str) -> None:
    """A correct workflow is accepted, in other processes too."""
    made, options = CORRECT[name]
    report = check_replay(made, **options)
    assert report.crashes >= 1
    assert report.only_here == ""
