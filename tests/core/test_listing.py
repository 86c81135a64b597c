"""Which runs a list shows, and in what order."""

import pytest

from flowdsl.core.listing import matches, place_of
from flowdsl.core.records import RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.testing.storage.samples import a_run

RUN = a_run("Order-Ä7", tags={"Region": "EU"}, created_at=5.0, parent="p")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (RunFilter(), True),
        (RunFilter(status=(RunStatus.RUNNING, RunStatus.FAILED)), True),
        (RunFilter(status=(RunStatus.FAILED,)), False),
        (RunFilter(workflow="shop.checkout", key="k", parent="p", owner=("me", "you")), True),
        (RunFilter(workflow="shop"), False),
        (RunFilter(tags=("Region",)), True),
        (RunFilter(tags={"Region": "EU"}), True),
        (RunFilter(tags={"Region": "US"}), False),
        (RunFilter(created_after=5.0, created_before=5.5), True),
        (RunFilter(created_before=5.0), False),
        (RunFilter(text="oRDER"), True),
        (RunFilter(text="eu"), True),
        (RunFilter(text="ä7"), False),
    ],
)
def test_conditions(where, expected):
    """A run matches if all conditions hold; a text is found in either case of the letters of ASCII."""
    assert matches(RUN, where) is expected


def test_order():
    """Runs stand by their moment, and those of one moment by their ids."""
    runs = [a_run("b", created_at=1.0), a_run("a", created_at=1.0), a_run("c", created_at=0.5)]
    assert [run.id for run in sorted(runs, key=place_of)] == ["c", "a", "b"]
