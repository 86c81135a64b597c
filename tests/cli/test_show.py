"""``flowdsl show``."""

import pytest
from rich.cells import cell_len

from flowdsl import Runtime, StepStatus, continue_as_new, step, workflow
from flowdsl.core.records import Run, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.storage import open_storage
from flowdsl.storage.base import PutStep


def test_shows_facts_steps_and_children(shop, invoke):
    """``show`` prints the facts of a run, its steps in the order of their beginning, and its children."""
    run = shop.sell("apples")
    lines = invoke("show", run.id).stdout.splitlines()
    assert lines[0] == f"{run.id}  ✓ completed"
    facts = {line.split()[0]: line for line in lines[1:7]}
    assert list(facts) == ["workflow", "arguments", "created", "ended", "result", "tags"]
    assert "order='apples'" in facts["arguments"]
    assert "env=prod, region=eu" in facts["tags"]
    start = lines.index("steps  5 completed")
    names = [line.split("  ")[2] for line in lines[start + 2 : start + 7]]
    assert names == ["reserve", "├ check", "└ check", "charge", "ship"]
    assert "children  1 run" in lines
    assert lines[-1].lstrip().startswith("ship-apples")
    assert "parent     " + run.id in invoke("show", "ship-apples").stdout


def test_shows_the_generation(url, invoke, answer):
    """The generation of a run is in the text, the JSON and the export."""

    @workflow(id="w")
    def w(n=1):
        return n if n == 3 else continue_as_new(n + 1)

    with Runtime(url) as runtime:
        assert w() == runtime.run("w").generation == 3
    assert "generation 3" in " ".join(invoke("show", "w").stdout.split())
    assert answer("show", "w")["generation"] == answer("runs")[0]["generation"] == 3
    assert answer("export", "w")["run"]["generation"] == 3


def test_shows_what_failed_and_what_to_do(shop, invoke):
    """``show`` of a failed run has the error, the attempts of the step, and the command that continues it."""
    run = shop.fail("pears")
    stdout = invoke("show", run.id).stdout
    assert "error      CardDeclined: no money for pears" in stdout
    assert f"flowdsl retry {run.id} --app shop" in stdout
    (charge,) = [line for line in stdout.splitlines() if "  charge  " in line]
    assert "✗ failed" in charge
    assert charge.split()[4] == "2"
    assert "CardDeclined: no money for pears" in charge


def test_shows_what_an_interrupted_run_was_doing(shop, invoke, answer):
    """Steps inside a step without a record are below a placeholder."""
    run = shop.break_off("plums")
    stdout = invoke("show", run.id).stdout
    assert f"flowdsl resume {run.id} --app shop" in stdout
    lines = stdout.splitlines()
    place = next(
        number
        for number, line in enumerate(lines)
        if "(no record yet: a branch, or a body that was executing)" in line
    )
    assert "└ check" in lines[place + 1]
    assert [step["path"] for step in answer("show", run.id)["steps"]] == ["shop.check"]


def test_json_of_show(shop, answer):
    """``show --json`` has the fields of ``runs``, and steps, children, signals and logs."""
    run = shop.sell("apples")
    shown = answer("show", run.id)
    (listed,) = answer("runs", "--workflow", "shop.checkout")
    assert {name: shown[name] for name in listed} == listed
    beside = {"store", "log", "audit", "publish", "reply", "beat"}
    assert set(shown) - set(listed) == {"steps", "children", "signals", "next"} | beside
    assert [child["id"] for child in shown["children"]] == ["ship-apples"]
    child = shown["steps"][-1]
    assert (child["kind"], child["extra"]) == ("child", {"child": "ship-apples"})


def test_waiting_steps_logs_and_signals(url, folder, invoke, answer):
    """``show`` has what a run waits for, its log, and the messages to it."""
    (folder / ".flowdsl").mkdir()
    with open_storage(url) as storage:
        storage.set_run(Run(id="a", workflow="shop.wait", key="k"))
        pending = StepStatus.PENDING
        retried = '{"next": 1900000000.0, "error": "Timeout: slow"}'
        storage.set_step(Step("a", "1" * 40, "shop.fetch", status=pending, extra=retried))
        storage.set_step(Step("a", "2" * 40, "shop.pay", status=pending, extra='{"intent": true}'))
        storage.set_step(Step("a", "3" * 40, "shop.odd", status=pending, extra="not json"))
        storage.set_step(
            Step("a", "4" * 40, "log", kind="log", preview="three parcels", extra='{"fields": {"weight": 7}}')
        )
        storage.set_step(Step("a", "5" * 40, "store", kind="store"))
        storage.add_signal(Signal("s", "a", "approved", preview="'by Eve'", sender="eve"))
    stdout = invoke("show", "a").stdout
    assert "tried again at 2030-03-17 17:46:40, after Timeout: slow" in stdout
    assert "was executing; whether it took effect is not known" in stdout
    assert "three parcels weight=7" in stdout
    assert "store  1 operation" in stdout
    assert "signals  1 of 1 not taken yet" in stdout
    assert "'by Eve'" in stdout
    shown = answer("show", "a")
    assert [step["kind"] for step in shown["steps"]] == ["step"] * 3
    assert (len(shown["log"]), len(shown["store"]), shown["signals"][0]["sender"]) == (1, 1, "eve")


@pytest.mark.parametrize("width", [60, 80, 119, 120, 160])
def test_fits_the_terminal(shop, terminal, width):
    """No line is too wide; in a narrow terminal arguments and outcome share a column."""
    run = shop.fail(
        "a long order, 日本語 included, that does not fit into any column, whatever is done about it"
    )
    seen = terminal("show", run.id, width=width)
    assert max(map(cell_len, seen.lines)) <= width
    header = next(line for line in seen.lines if line.startswith("  ") and " step " in line)
    assert ("arguments" in header) is (width >= 100)
    assert ("key" in header) is (width >= 76)
    assert f"next: flowdsl retry {run.id} --app shop" in seen.text


def test_an_error_is_shown_with_the_users_line(url, folder, invoke):
    """Lists show the type of an error; the run and the step also show where the user's code raised it."""
    (folder / ".flowdsl").mkdir()
    shown = "OSError: gone\nshop.py:17 in charge\npay(order)"
    with open_storage(url) as storage:
        storage.set_run(Run("a", "shop.sell", "k", status=RunStatus.FAILED, error_preview=shown))
        storage.set_step(Step("a", "1" * 40, "shop.charge", status=StepStatus.FAILED, preview=shown))
    lines = invoke("show", "a").stdout.splitlines()
    assert "  error      OSError: gone" in lines
    assert "  at         shop.py:17 in charge: pay(order)" in lines
    assert [line for line in lines if "charge" in line][1].endswith("OSError: gone")
    assert "shop.py:17 in charge: pay(order)" in invoke("steps", "a").stdout
    assert "shop.py" not in invoke("watch", "a").output
    assert "shop.py" not in invoke("top").stdout


def test_a_long_run_is_shown_in_part(url, folder, invoke, answer):
    """A long run shows failed and unfinished steps first, then the last ones and their enclosing steps."""
    (folder / ".flowdsl").mkdir()
    with open_storage(url) as storage:
        storage.set_run(Run("a", "shop.sell", "k", status=RunStatus.RUNNING))
        steps = [Step("a", f"{n:040}", f"shop.s{n}", created_at=float(n)) for n in range(1, 601)]
        steps[100] = steps[100]._replace(status=StepStatus.FAILED)
        steps[200] = steps[200]._replace(status=StepStatus.PENDING, scope=f"{7:040}")
        storage.commit([PutStep(step) for step in steps])
    result = invoke("show", "a")
    assert result.stderr == "these are 201 of 600 steps; --limit N or --all shows more\n"
    names = {word for line in result.stdout.splitlines() for word in line.split() if word.startswith("s")}
    assert {"s101", "s201", "s7", "s600", "s403"} <= names
    assert "s402" not in names
    assert "s500" not in invoke("show", "a", "--limit", "5").stdout
    assert len(answer("show", "a", "--limit", "5")["steps"]) == 6
    assert len(answer("show", "a")["steps"]) == 600
    assert "s402" in invoke("show", "a", "--all").stdout


def test_a_settled_run_needs_nothing(shop, invoke, answer):
    """A completed run has no advice, in text and in JSON."""
    run = shop.sell("x")
    assert "next: " not in invoke("show", run.id).stdout
    assert answer("show", run.id)["next"] == []


@pytest.mark.parametrize(
    "command", [["show", "quiet"], ["runs"], ["steps", "quiet"], ["watch", "quiet"], ["top"]]
)
def test_values_without_previews(command, url, folder, invoke):
    """Without stored previews each value is a dash."""

    @step(name="shop.hide")
    def hide(secret):
        return secret

    @workflow(name="shop.quiet", id="quiet")
    def quiet(secret):
        return hide(secret)

    with Runtime(url, previews=False):
        quiet("hunter2")
    output = invoke(*command).output
    assert "hunter2" not in output
    assert "–" in output or command[0] in ("steps", "watch", "top")
