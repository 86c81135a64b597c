"""``flowdsl prune``."""

import pytest

from flowdsl import Runtime
from flowdsl.errors import RunFinished


def test_prune_deletes_what_ended_long_ago(shop, invoke, answer):
    """Completed runs that are old enough are deleted; failed ones only on request, interrupted ones never."""
    shop.sell("x", id="a")
    shop.fail("y", id="b")
    shop.break_off("z", id="c")
    assert invoke("prune", "--older-than", "1 hour").stdout == "deleted 0 runs\n"
    assert invoke("prune", "--older-than", "0s").stdout == "deleted 2 runs\n"
    assert {run["id"] for run in answer("runs")} == {"b", "c"}
    assert answer("prune", "--older-than", "0s", "--status", "failed") == {
        "dry_run": False, "count": 1, "runs": ["b"],
    }  # fmt: skip
    assert {run["id"] for run in answer("runs")} == {"c"}


def test_prune_can_only_tell(shop, invoke, answer):
    """A dry run lists what would be deleted and deletes nothing."""
    shop.sell("x", id="a")
    result = invoke("prune", "--older-than", "0s", "--dry-run")
    assert result.exit_code == 0
    assert "would delete 2 runs" in result.stdout
    assert "ship-x" in result.stdout
    found = answer("prune", "--older-than", "0s", "--dry-run")
    assert found["dry_run"] is True
    assert set(found["runs"]) == {"a", "ship-x"}
    assert len(answer("runs")) == 2


@pytest.mark.parametrize("text", ["30", "1 month", "-1s", "soon"])
def test_prune_refuses_what_is_no_duration(shop, fault, text):
    """An unreadable duration is wrong usage, and the error shows readable ones."""
    shop.sell("x")
    assert "cannot read the duration" in fault("prune", "--older-than", text, code=2)


def test_prune_between_two_times(shop, invoke, answer, fault):
    """--since and --until are about the end of a run, and one of the three options is required."""
    shop.sell("x", id="a")
    assert invoke("prune", "--since", "2999-01-01").stdout == "deleted 0 runs\n"
    assert invoke("prune", "--until", "1 hour").stdout == "deleted 0 runs\n"
    assert answer("prune", "--since", "1 hour", "--until", "2999-01-01")["count"] == 2
    assert "--older-than DURATION" in fault("prune", code=2)


def test_a_pruned_id_stays_taken(shop, invoke, url):
    """The id of a pruned run is never used for another run."""
    shop.ship_only("x")
    assert invoke("prune", "--since", "1 hour").stdout == "deleted 1 run\n"
    with Runtime(url), pytest.raises(RunFinished):
        shop.ship("x")
