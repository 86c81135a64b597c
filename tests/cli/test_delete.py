"""``flowdsl delete``."""


def test_delete_asks(shop, invoke, answer):
    """Without a yes nothing is deleted, and the question names what would be deleted."""
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
    """If one run is not found, none is deleted; a run that is named twice is deleted once."""
    for order in "ab":
        shop.sell(order, id=order)
    assert invoke("delete", "a", "b", "nothing", "--yes").exit_code == 1
    assert len(answer("runs")) == 4
    assert answer("delete", "a", "b", "ship-a", "a", "--yes") == {"deleted": ["a", "b", "ship-a"]}
    assert [run["id"] for run in answer("runs")] == ["ship-b"]
