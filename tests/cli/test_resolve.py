"""``flowdsl resolve``."""

import pytest

from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus


@pytest.mark.parametrize(
    ("option", "result", "effects"),
    [
        (["--result", '{"by": "hand"}'], "{'by': 'hand'}", 1),
        (["--result", "null"], "None", 1),
        (["--error", "no such payment"], "'no such payment'", 1),
        (["--rerun"], "'paid 7'", 2),
    ],
)
def test_resolve(option, result, effects, doubtful, folder, spawn, answer):
    """The resumed run goes on with the outcome that a person gave."""
    run = doubtful("7")
    stopped = spawn("resume", run, "--app", "bank")
    assert "\nnext: flowdsl resolve order-7 charge --result null\n" in stopped.communicate()[1]
    said = answer("resolve", run, "charge", *option)
    assert (said["run"], said["path"], said["outcome"]) == (run, "bank.charge", option[0].lstrip("-"))
    resumed = spawn("resume", run, "--app", "bank")
    stdout, stderr = resumed.communicate()
    assert (resumed.returncode, stderr) == (0, "")
    assert stdout.splitlines()[-1] == f"  result  {result}"
    assert len((folder / "effects.txt").read_text().split()) == effects
    (audit,) = [one for one in answer("show", run)["audit"] if one["path"] == "flowdsl.resolve"]
    assert audit["args"].startswith("bank.charge: ")


def test_resolve_says_what_is_next(doubtful, invoke):
    """The command that continues the run is printed, and ``show`` has the audit entry."""
    run = doubtful("8")
    result = invoke("resolve", run, "bank.charge", "--result", '"paid"')
    assert result.stdout.splitlines() == [
        "resolved bank.charge of order-8: result 'paid'",
        "next: flowdsl resume order-8 --app bank",
    ]
    assert "resolve bank.charge: result='paid'  by " in invoke("show", run).stdout


def test_resolve_finds_the_one_in_doubt(waiting, invoke):
    """Of several calls of a step the one without an outcome is chosen; if there are several, a key is
    needed."""
    for digit, status in ("1", StepStatus.COMPLETED), ("2", StepStatus.PENDING):
        waiting.set_step(Step("a", digit * 40, "shop.pay", status=status, args=f"n={digit}"))
    assert invoke("resolve", "a", "pay", "--rerun").stdout.startswith("resolved shop.pay of a: rerun")
    waiting.set_step(Step("a", "3" * 40, "shop.pay", status=StepStatus.PENDING, args="n=3"))
    result = invoke("resolve", "a", "pay", "--rerun")
    assert result.exit_code == 1
    assert "'pay' could be any of 222222222222 (n=2), 333333333333 (n=3)" in result.stderr
    assert invoke("resolve", "a", "3333", "--error", "no").exit_code == 0


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("pay", "step shop.pay of run a is completed, not in doubt"),
        ("ship", "run a has no step 'ship'; in doubt are: none"),
        ("pya", "run a has no step 'pya' (did you mean 'pay'?)"),
        ("", "run a has no step ''"),
    ],
)
def test_resolve_refuses(step, said, waiting, fault):
    """A step with an outcome, or an unknown step, is refused in one line."""
    waiting.set_step(Step("a", "1" * 40, "shop.pay"))
    assert said in fault("resolve", "a", step, "--rerun")


@pytest.mark.parametrize(
    "options",
    [[], ["--rerun", "--error", "x"], ["--result", "{"], ["--result", "NaN"], ["--result", "[" * 99999]],
)
def test_resolve_wants_one_outcome(options, waiting, fault):
    """No outcome, two outcomes, and invalid JSON are wrong usage, explained in one line."""
    assert "--help" in fault("resolve", "a", "pay", *options, code=2)
