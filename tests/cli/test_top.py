"""``flowdsl top``: all runs that are not settled."""

import os
import signal
import time

import pytest
from rich.cells import cell_len

from flowdsl import Queue
from flowdsl.cli.top import Watcher
from flowdsl.core.records import Run, RunFilter, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.runtime import Runtime
from flowdsl.storage import open_storage

NAP = Step(
    "nap", "2" * 40, "flowdsl.sleep", kind="sleep", status=StepStatus.PENDING, extra='{"until": 1900000000.0}'
)


@pytest.fixture
def mixed(shop, url):
    """A run of each kind: settled ones, a failed and an interrupted one, one that sleeps, one that is pending."""
    shop.sell("x", id="sold")
    shop.fail("y", id="declined")
    shop.break_off("z", id="left")
    with open_storage(url) as storage:
        storage.set_run(Run("nap", "shop.nap", "k1", status=RunStatus.RUNNING, created_at=time.time()))
        storage.set_step(NAP)
        storage.set_run(Run("later", "shop.later", "k2", status=RunStatus.PENDING, created_at=time.time()))
        storage.set_run(
            Run("built", "shop.x", "k3", status=RunStatus.FAILED, retryable=False, created_at=time.time())
        )


def test_piped_it_is_one_table(mixed, invoke):
    """``top`` lists each unfinished run once; runs that need a person come first."""
    result = invoke("top")
    assert (result.exit_code, result.stderr) == (0, "")
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["id", "workflow", "status", "age", "took", "done", "failed", "now"]
    assert [row.split()[0] for row in rows] == ["nap", "left", "declined", "later"]
    assert "CardDeclined: no money for y" in rows[2]


def test_json_is_one_document(mixed, answer):
    """With --json each run has the fields of ``runs``, and its progress."""
    found = answer("top")
    (listed,) = [run for run in answer("runs") if run["id"] == "left"]
    left = found[1]
    assert {name: left[name] for name in listed} == listed
    assert left["progress"] == {"done": 1, "failed": 0, "known": 1}
    assert found[2]["progress"] is None


def test_period_and_nothing(mixed, answer, invoke):
    """--since and --until leave runs out, and a note says if none is left."""
    assert answer("top", "--until", "1 hour") == []
    assert len(answer("top", "--since", "1 hour")) == 4
    assert invoke("top", "--since", "2999-01-01").stderr == "every run is finished\n"


def test_a_run_whose_steps_all_wait_is_shown_as_waiting(url, folder):
    """A run of a living process whose steps all wait is shown as waiting, with the time until when."""
    (folder / ".flowdsl").mkdir()
    with Runtime(url) as runtime:
        owner = "elsewhere|boot|namespace|1|1|token"
        run = Run("nap", "shop.nap", "k1", status=RunStatus.RUNNING, owner=owner, lease_until=4e9)
        runtime.storage.set_run(run)
        runtime.storage.set_step(NAP)
        (line,), counts = Watcher(runtime, RunFilter(status=(RunStatus.RUNNING,))).look()
    assert line.now == "sleep(): until 2030-03-17 17:46:40" or line.status == "interrupted"
    assert counts.total() == 1


@pytest.mark.parametrize("width", [60, 80, 140])
def test_in_a_terminal_it_is_live_until_ctrl_c(mixed, width, terminal, url):
    """The table is updated when something changes, fits the terminal, and Ctrl-C exits with 130."""
    acts = ["settle", "stop"]

    def follow(text, process):
        if acts == ["settle", "stop"] and "1 pending" in text:
            acts.pop(0)
            with open_storage(url) as storage:
                storage.delete_run("later")
        elif (
            acts == ["stop"]
            and "1 pending" not in text[text.rindex("failed") :]
            and text.count("declined") > 1
        ):
            acts.pop(0)
            os.kill(process, signal.SIGINT)

    seen = terminal("top", width=width, follow=follow)
    assert seen.code == 130
    assert max(map(cell_len, seen.text.replace("\r", "\n").splitlines())) <= width
    assert "✗ 1 failed" in seen.text


def test_queues_and_workers_stand_above_the_runs(terminal, url, folder):
    """The lines above the table show queues with runs, paused queues, and that no worker is alive."""
    (folder / ".flowdsl").mkdir()
    with Runtime(url, queues=[Queue("mail"), Queue("night"), Queue("idle")]) as runtime:
        runtime.queues.pause("night")
        for number in range(2):
            run = Run(f"m{number}", "shop.mail", f"k{number}", status=RunStatus.PENDING, queue="mail")
            runtime.storage.set_run(run)

    told = []

    def follow(text, process):
        if "m1" in text and "m0" in text and not told:
            told.append(process)
            os.kill(process, signal.SIGINT)

    seen = terminal("top", width=60, follow=follow)
    assert "queues    mail ○2 ●0" in seen.text
    assert "night ○0 ●0 paused" in seen.text
    assert "idle" not in seen.text
    assert "workers   none is alive, and runs wait in a queue" in seen.text
    assert max(map(cell_len, seen.text.replace("\r", "\n").splitlines())) <= 60
