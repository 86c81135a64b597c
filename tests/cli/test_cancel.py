"""``flowdsl cancel``."""

from attrs import evolve

from flowdsl import Runtime
from flowdsl.core.records import Step


def test_cancel_says_who_undoes_where_the_code_is_not_loaded(shop, invoke, answer):
    """If steps must be undone, the request stays with the run, and the command says who undoes them."""
    run = shop.break_off("apples")
    with Runtime(shop.url) as runtime:
        storage = runtime.storage
        storage.set_run(evolve(storage.get_run(run.id), workflow="away.w", owner=None))
        storage.set_step(Step(run.id, "k", "away.reserve", extra='{"undo": "away.release"}'))
    result = invoke("cancel", run.id)
    assert result.exit_code == 0
    assert result.stdout == f"asked to stop: {run.id}\nnext: flowdsl resume {run.id} --app away\n"
    found = answer("show", run.id)
    assert found["status"] == "interrupted"
    assert found["cancel_requested_at"]


def test_cancel(shop, invoke, answer):
    """An interrupted run is cancelled at once; a run that has ended cannot be cancelled."""
    run = shop.break_off("plums")
    assert invoke("cancel", run.id).stdout == f"cancelled {run.id}\n"
    (found,) = answer("runs")
    assert (found["status"], found["retryable"]) == ("cancelled", False)
    again = invoke("cancel", run.id)
    assert (again.exit_code, again.stderr) == (1, f"error: run {run.id} has ended: it is cancelled\n")
    other = shop.break_off("plums")
    assert answer("cancel", other.id) == [{"id": other.id, "status": "cancelled"}]
