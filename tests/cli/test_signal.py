"""``flowdsl signal``."""

import pytest

from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus


def test_signal(waiting, invoke, answer):
    """A signal is stored with payload, sender and key; a second one with the key is dropped, and the command
    says so."""
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
    """``wait_for`` returns the payload of the command, even if nobody executed the run when it was sent."""
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
        (["a", " "], 2, "a signal's name must not be empty"),
        (["a", "go", "--payload", "text"], 2, "'text' is not JSON"),
        (["a", "go", "--payload", "Infinity"], 2, "Infinity is not a JSON number"),
        (["a", "go\udc80"], 1, "cannot be stored"),
    ],
)
def test_signals_that_cannot_be_sent(arguments, code, said, waiting, fault):
    """An unknown run, a finished run, an empty name and invalid JSON are refused in one line."""
    waiting.set_run(Run("done", "shop.wait", "k2", status=RunStatus.COMPLETED))
    assert said in fault("signal", *arguments, code=code)


def test_what_was_typed_is_printed_harmless(waiting, invoke):
    """Terminal escapes in a name or message are printed escaped."""
    waiting.set_step(Step("a", "1" * 40, "shop.pay", status=StepStatus.PENDING))
    for arguments in (["signal", "a", "go\x1b[31m"], ["resolve", "a", "pay", "--error", "no\x1b[31m\nway"]):
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert "\\x1b[31m" in result.stdout
        assert "\x1b" not in result.output


def test_another_name_than_the_awaited_one_is_pointed_out(waiting, invoke):
    """A signal with another name than the awaited one is sent, with a note, because the run may wait for it
    later."""
    waiting.set_step(
        Step(
            "a",
            "1" * 40,
            "flowdsl.wait",
            kind="wait",
            status=StepStatus.PENDING,
            extra='{"signal": "approved"}',
        )
    )
    assert (
        "the run does not wait for 'aproved' now, but for 'approved'"
        in invoke("signal", "a", "aproved").stderr
    )
    assert "does not wait" not in invoke("signal", "a", "approved").stderr
