"""``flowdsl signal`` and ``flowdsl resolve``."""

import subprocess
import sys
import textwrap

import pytest

from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage import open_storage

BANK = """
    import os, sys
    from pathlib import Path
    from flowdsl import step, wait_for, workflow
    from flowdsl.errors import StepFailed

    @step(in_doubt="raise")
    def charge(order):
        with open("effects.txt", "a") as file:
            file.write(order + "\\n")
        if Path("die").exists():
            Path("die").unlink()
            os._exit(9)
        return "paid " + order

    @step
    def note(text):
        return text

    @workflow(id="order-{order}")
    def checkout(order):
        note("begin")
        try:
            paid = charge(order)
        except StepFailed as error:
            return note(str(error))
        return [paid, wait_for("approved", timeout=0)] if order == "signalled" else paid

    if __name__ == "__main__":
        checkout(sys.argv[1])
"""


@pytest.fixture
def doubtful(folder):
    """Make a run whose step is in doubt."""
    (folder / "bank.py").write_text(textwrap.dedent(BANK))

    def run(order):
        (folder / "die").touch()
        done = subprocess.run([sys.executable, "bank.py", order], capture_output=True)
        assert done.returncode == 9
        return f"order-{order}"

    return run


@pytest.fixture
def waiting(url, folder):
    """A storage with one interrupted run, ``a``, in it."""
    (folder / ".flowdsl").mkdir()
    with open_storage(url) as storage:
        storage.set_run(Run("a", "shop.wait", "k", status=RunStatus.RUNNING))
        yield storage


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
    """What a person says of a step in doubt is what the resumed run goes on with."""
    run = doubtful("7")
    stopped = spawn("resume", run, "--app", "bank")
    assert "Runtime.resolve" in stopped.communicate()[1]
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
    """The command that continues the run is printed, and the audit line is shown with the run."""
    run = doubtful("8")
    result = invoke("resolve", run, "bank.charge", "--result", '"paid"')
    assert result.stdout.splitlines() == [
        "resolved bank.charge of order-8: result 'paid'",
        "  next  flowdsl resume order-8 --app bank",
    ]
    assert "resolve bank.charge: result='paid'  by " in invoke("show", run).stdout


def test_resolve_finds_the_one_in_doubt(waiting, invoke):
    """Of several calls of a step, the one without an outcome is meant; several of them need a key."""
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
        ("", "run a has no step ''"),
    ],
)
def test_resolve_refuses(step, said, waiting, invoke):
    """A step that has an outcome, or is not there, is refused in one line."""
    waiting.set_step(Step("a", "1" * 40, "shop.pay"))
    result = invoke("resolve", "a", step, "--rerun")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert said in result.stderr


@pytest.mark.parametrize(
    "options",
    [[], ["--rerun", "--error", "x"], ["--result", "{"], ["--result", "NaN"], ["--result", "[" * 99999]],
)
def test_resolve_wants_one_outcome(options, waiting, invoke):
    """No outcome, two of them, or what is no JSON is wrong usage, explained in one line."""
    result = invoke("resolve", "a", "pay", *options)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "--help" in result.stderr


def test_signal(waiting, invoke, answer):
    """A signal is stored with its payload, sender and key; one of the same key is dropped, and says so."""
    result = invoke("signal", "a", "approved", "--payload", '{"by": "Eve"}', "--sender", "eve", "--key", "1")
    assert (result.exit_code, result.stdout) == (0, "sent approved to a\n")
    assert "the run is interrupted; it can take the signal when it is continued" in result.stderr
    again = invoke("signal", "a", "approved", "--key", "1")
    assert (again.exit_code, again.stdout) == (0, "a had this signal before: nothing was sent\n")
    assert answer("signal", "a", "approved", "--key", "1") == {
        "run": "a", "name": "approved", "id": None, "sent": False, "status": "interrupted",
    }  # fmt: skip
    assert answer("signal", "a", "more")["sent"] is True
    first, second = answer("show", "a")["signals"]
    assert (first["payload"], first["sender"], first["key"]) == ("{'by': 'Eve'}", "eve", "1")
    assert (second["name"], second["payload"]) == ("more", "None")


def test_a_signal_reaches_the_code(folder, doubtful, invoke, spawn):
    """What wait_for returns is what the command line was given, even for a run that nobody executed."""
    run = doubtful("signalled")
    invoke("signal", run, "approved", "--payload", '["日本", 1.5]')
    invoke("resolve", run, "charge", "--result", "1")
    resumed = spawn("resume", run, "--app", "bank")
    assert "[1, ['日本', 1.5]]" in resumed.communicate()[0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["b", "go"], 1, "no run 'b'"),
        (["done", "go"], 1, "run done has ended: it is completed"),
        (["a", " "], 2, "a signal's name is not empty"),
        (["a", "go", "--payload", "text"], 2, "'text' is not JSON"),
        (["a", "go", "--payload", "Infinity"], 2, "Infinity is no number of JSON"),
        (["a", "go\udc80"], 1, "cannot be stored"),
    ],
)
def test_signals_that_cannot_be_sent(arguments, code, said, waiting, invoke):
    """An unknown or finished run, an empty name, and what is no JSON are refused in one line."""
    waiting.set_run(Run("done", "shop.wait", "k2", status=RunStatus.COMPLETED))
    result = invoke("signal", *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert said in result.stderr


def test_what_was_typed_is_printed_harmless(waiting, invoke):
    """Terminal escapes in a name or a message are shown, not obeyed."""
    waiting.set_step(Step("a", "1" * 40, "shop.pay", status=StepStatus.PENDING))
    for arguments in (["signal", "a", "go\x1b[31m"], ["resolve", "a", "pay", "--error", "no\x1b[31m\nway"]):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert "\\x1b[31m" in result.stdout
        assert "\x1b" not in result.output
