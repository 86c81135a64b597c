"""What an operator runs into: closed streams, full disks, hostile text, times without end, steps in doubt."""

import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime

import forked
import pytest

from flowdsl import Retry, Runtime, step, workflow
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage import open_storage

HOSTILE = "a\x9b31mred\u202etxt\x7f\u200b\u2028\x1b[2J"


def _shell(script, *arguments):
    command = ["sh", "-c", script, sys.executable, *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)


@pytest.mark.parametrize("closed", [">&-", "<&- > /dev/null", "<&- >&- 2>&-"])
def test_closed_standard_streams(closed, shop):
    """A command that is started without standard streams, as by some daemons, works silently."""
    shop.sell("x")
    done = _shell(f'"$0" -m flowdsl runs {closed}')
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_an_error(shop):
    """Output that cannot be written is reported once, with exit code 1."""
    shop.sell("x")
    done = _shell('"$0" -m flowdsl runs > /dev/full')
    assert done.returncode == 1
    assert done.stderr.startswith("error: OSError: [Errno 28]")
    assert "Exception ignored" not in done.stderr


@pytest.fixture
def hostile(url, folder):
    """A run whose id, arguments, error, tags and log hold what a terminal would obey."""

    @step(name="shop.fail", retry=Retry(attempts=1))
    def fail(text):
        raise ValueError(text)

    @workflow(name="shop.order", id="order-{text}", tags=(HOSTILE,))
    def order(text):
        return fail(text)

    with Runtime(url), pytest.raises(ValueError):
        order(HOSTILE)
    return "order"


@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["show", "order"],
        ["steps", "order"],
        ["logs", "order"],
        ["watch", "order"],
        ["export", "order"],
        ["resume", "order"],
        ["steps", "order", "fial"],
        ["show", f"x{HOSTILE}"],
        ["resolve", "order", "fail", "--rerun"],
        ["delete", "order", "--yes"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--traceback"]], ids=" ".join)
def test_nothing_that_a_terminal_obeys_is_printed(command, options, hostile, invoke):
    """Escapes, DEL, C1 controls and bidi marks are shown escaped in text, JSON, errors and hints."""
    output = invoke(*command, *options).output
    assert output
    assert all(line.isprintable() for line in output.split("\n"))


def test_json_of_hostile_text_is_what_was_stored(hostile, answer):
    """JSON with hostile text loads as exactly what was stored."""
    (found,) = answer("runs")
    assert found["id"] == f"order-{HOSTILE}"
    assert found["tags"] == [HOSTILE]
    assert answer("export", "order")["run"]["id"] == f"order-{HOSTILE}"


def test_a_sleep_until_the_last_date(url, folder, invoke, answer):
    """``sleep_until(datetime.max)`` never ends, and is shown with the last possible time."""
    (folder / ".flowdsl").mkdir()
    last = datetime.max.replace(tzinfo=UTC).timestamp()
    with open_storage(url) as storage:
        storage.set_run(Run("vigil", "shop.wait", "k", status=RunStatus.RUNNING, deadline=last))
        extra = json.dumps({"until": last})
        nap = Step("vigil", "1" * 40, "flowdsl.sleep", kind="sleep", status=StepStatus.PENDING, extra=extra)
        storage.set_step(nap)
    shown = invoke("show", "vigil")
    assert shown.exit_code == 0
    assert "until 9999-12-31" in shown.stdout
    assert answer("show", "vigil")["deadline"].startswith("9999-12-31")
    assert "until 9999-12-31" in invoke("steps", "vigil").stdout or invoke("steps", "vigil").exit_code == 0


def test_a_step_in_doubt_is_resolved_not_resumed(doubtful, invoke, answer, spawn):
    """For a step in doubt the advice is to resolve it, both before a resume and after it fails."""
    run = doubtful("7")
    for _ in range(2):
        end = invoke("show", run).stdout.splitlines()[-3:]
        assert end[0] == f"next: flowdsl resolve {run} charge --result null"
        assert end[2] == f"      flowdsl resolve {run} charge --rerun"
        assert answer("show", run)["next"][2] == ["flowdsl", "resolve", run, "charge", "--rerun"]
        stopped = spawn("resume", run, "--app", "bank")
        assert f"next: flowdsl resolve {run} charge --rerun\n" in stopped.communicate()[1]
        assert stopped.returncode == 1
    pasted = spawn(*answer("show", run)["next"][0][1:])
    assert pasted.wait() == 0
    assert answer("show", run)["next"] == [["flowdsl", "resume", run, "--app", "bank"]]


def test_what_is_advised_can_be_pasted(doubtful, folder, answer):
    """Commands to paste quote ids with spaces and quotes, and repeat a named storage."""
    where = f"sqlite:///{folder}/.flowdsl/flow.db"
    (folder / ".flowdsl").mkdir(exist_ok=True)
    with open_storage(where) as storage:
        storage.set_run(Run("a 'b' $c", "shop.wait", "k", status=RunStatus.RUNNING))
    command = [sys.executable, "-m", "flowdsl", "show", "a 'b' $c", "--storage", where]
    shown = forked.run(command, capture_output=True, text=True, cwd="/").stdout.splitlines()[-1]
    line = shown.removeprefix("next: ").replace("flowdsl", f"{sys.executable} -m flowdsl", 1)
    done = subprocess.run(
        ["sh", "-c", line.replace("--app shop", "--app json")], capture_output=True, text=True
    )
    assert "shop.wait" in done.stderr


def _hints(printed):
    """The commands of the lines ``next: …``, as a shell takes them."""
    lines = printed.partition("next: ")[2].splitlines()
    return [line.replace("next: ", "").strip() for line in lines]


def _pasted(line):
    """Execute a hint, taken apart as a shell does."""
    command = [sys.executable, "-m", *shlex.split(line)]
    return forked.run(command, capture_output=True, text=True)


def test_following_the_hints_leads_to_the_end(doubtful, folder, invoke):
    """Each hint, pasted as printed, leads to the next one, from a step in doubt to the end."""
    run = doubtful("signalled")
    settle, *others = _hints(invoke("show", run).stdout)
    assert len(others) == 2
    settled = _pasted(settle)
    assert settled.returncode == 0, settled.stderr
    (resume,) = _hints(settled.stdout)
    failed = _pasted(resume)  # it waits for no time at all, and nobody has sent a message
    assert (failed.returncode, "no signal 'approved' came" in failed.stderr) == (1, True)
    (retry,) = _hints(failed.stderr)
    assert invoke("signal", run, "approved").exit_code == 0
    completed = _pasted(retry)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert _hints(invoke("show", run).stdout) == []


def test_the_hint_of_a_waiting_run_sends_the_message(waiting, invoke):
    """The hint for a waiting run names the message that it waits for."""
    waits = '{"signal": "it\'s approved"}'
    waiting.set_step(Step("a", "1" * 40, "flowdsl.wait", kind="wait", status=StepStatus.PENDING, extra=waits))
    _, send = _hints(invoke("show", "a").stdout)
    assert _pasted(send).stdout == "sent it's approved to a\n"


def test_no_colour_and_dumb_terminals(shop, terminal):
    """NO_COLOR turns colours off; TERM=dumb turns all escape sequences off."""
    shop.fail("x")
    for command in (["runs"], ["show", "checkout"], ["doctor"]):
        assert "\x1b[3" not in terminal(*command, width=100, NO_COLOR="1").raw
        assert "\x1b" not in terminal(*command, width=100, TERM="dumb").raw
    assert os.environ.get("NO_COLOR") is None


@pytest.mark.parametrize("command", ["runs", "doctor", "top"])
def test_a_server_that_is_waited_for_is_named_at_once(command, tmp_path, spawn):
    """A message says at once, and not only after the patience, which server is waited for."""
    pytest.importorskip("psycopg")
    process = spawn(command, "--storage", f"postgresql:///x?host={tmp_path}&patience=600")
    assert "waiting for it, 600 s at most" in process.stderr.readline()
    assert process.poll() is None
