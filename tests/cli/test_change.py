"""``flowdsl cancel``, ``flowdsl delete`` and ``flowdsl prune``."""

import pytest
from attrs import evolve

from flowdsl import Runtime
from flowdsl.core.records import Step


def test_delete_asks(shop, invoke, answer):
    """Nothing is deleted without a yes, and what would be deleted is named."""
    run = shop.sell("apples")
    for given in ("n\n", ""):
        result = invoke("delete", run.id, input=given)
        assert result.exit_code == 1
        assert run.id in result.stderr
        assert "Delete this run for ever?" in result.stderr
        assert result.stderr.splitlines()[-1] == "error: nothing was deleted"
    assert len(answer("runs")) == 2
    result = invoke("delete", run.id, input="y\n")
    assert (result.exit_code, result.stdout) == (0, f"deleted {run.id}\n")
    assert [found["id"] for found in answer("runs")] == ["ship-apples"]


def test_delete_is_all_or_nothing(shop, invoke, answer):
    """If one of the runs is not found, none is deleted; a run named twice is deleted once."""
    for order in "ab":
        shop.sell(order, id=order)
    assert invoke("delete", "a", "b", "nothing", "--yes").exit_code == 1
    assert len(answer("runs")) == 4
    assert answer("delete", "a", "b", "ship-a", "a", "--yes") == {"deleted": ["a", "b", "ship-a"]}
    assert [run["id"] for run in answer("runs")] == ["ship-b"]


def test_prune_deletes_what_ended_long_ago(shop, invoke, answer):
    """Completed runs older than asked for go; failed and interrupted ones stay, unless they are asked for."""
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
def test_prune_refuses_what_is_no_duration(shop, invoke, text):
    """A duration that cannot be read is wrong usage, and says what can."""
    shop.sell("x")
    result = invoke("prune", "--older-than", text)
    assert result.exit_code == 2
    assert "cannot read the duration" in result.stderr
    assert result.stderr.count("\n") == 1


def test_cancel_says_who_undoes_where_the_code_is_not_loaded(shop, invoke, answer):
    """The request stays with the run, which is not cancelled before its steps are undone."""
    run = shop.break_off("apples")
    with Runtime(shop.url) as runtime:
        storage = runtime.storage
        storage.set_run(evolve(runtime.record(run.id), workflow="away.w", owner=None))
        storage.set_step(Step(run.id, "k", "away.reserve", extra='{"undo": "away.release"}'))
    result = invoke("cancel", run.id)
    assert (result.exit_code, result.stdout) == (0, f"asked to stop: {run.id}\n")
    assert f"flowdsl resume {run.id} --app away" in result.stderr
    found = answer("show", run.id)
    assert found["status"] == "interrupted"
    assert found["cancel_requested_at"]


def test_cancel(shop, invoke, answer):
    """An interrupted run is cancelled at once; one that has ended cannot be."""
    run = shop.break_off("plums")
    assert invoke("cancel", run.id).stdout == f"cancelled {run.id}\n"
    (found,) = answer("runs")
    assert (found["status"], found["retryable"]) == ("cancelled", False)
    again = invoke("cancel", run.id)
    assert (again.exit_code, again.stderr) == (1, f"error: run {run.id} has ended: it is cancelled\n")
    other = shop.break_off("plums")
    assert answer("cancel", other.id) == [{"id": other.id, "status": "cancelled"}]
