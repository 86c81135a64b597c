"""``flowdsl steps``."""

from flowdsl.core.records import Run
from flowdsl.storage import open_storage


def test_steps_shows_everything(shop, invoke, answer):
    """``steps`` prints every field of every record, in recorded order."""
    run = shop.sell("apples")
    blocks = invoke("steps", run.id).stdout.strip().split("\n\n")
    assert [block.split()[0] for block in blocks] == [
        "shop.check", "shop.check", "shop.reserve", "shop.charge", "shop.ship",
    ]  # fmt: skip
    names = [line.split("  ")[1] for line in blocks[0].splitlines()[1:]]
    assert names == [
        "seq", "key", "kind", "scope", "occurrence", "ordinal", "attempts", "args", "result", "created at",
        "completed at", "duration", "concurrent",
    ]  # fmt: skip
    found = answer("steps", run.id)
    assert sorted(found[0]) == [
        "args", "attempts", "completed_at", "concurrent", "created_at", "duration", "error", "extra", "key",
        "kind", "occurrence", "ordinal", "path", "result", "scope", "seq", "status", "version",
    ]  # fmt: skip
    assert found[0]["scope"] == found[2]["key"]


def test_steps_of_a_key_or_a_name(shop, fault, answer):
    """The beginning of a key or the name of a step selects steps; an unknown one is an error."""
    run = shop.sell("apples")
    key = answer("steps", run.id, "charge")[0]["key"]
    assert [step["path"] for step in answer("steps", run.id, key[:8])] == ["shop.charge"]
    assert len(answer("steps", run.id, "shop.check")) == 2
    assert fault("steps", run.id, "chrge").startswith("error: no step 'chrge' is recorded of")
    assert "(did you mean 'charge'?)" in fault("steps", run.id, "chrge")


def test_steps_of_a_run_without_any(url, folder, invoke, answer):
    """A run that recorded nothing has an empty list."""
    (folder / ".flowdsl").mkdir()
    with open_storage(url) as storage:
        storage.set_run(Run(id="a", workflow="shop.wait", key="k"))
    assert invoke("steps", "a").stdout == ""
    assert answer("steps", "a") == []
    assert "steps  none recorded" in invoke("show", "a").stdout
