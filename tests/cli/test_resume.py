"""``flowdsl resume``, with scripts in processes of their own."""

import json
import os
import signal
import sys
import textwrap

import forked
import pytest


def test_resume_a_killed_script(script, effects, folder, spawn):
    """A run whose process was killed goes on, and the output of its code does not disturb the JSON."""
    (folder / "die").touch()
    assert script(8) == -signal.SIGKILL
    (folder / "card").touch()
    process = spawn("resume", "order-8", "--app", "jobs/shop-v2.py", "--json")
    stdout, stderr = process.communicate()
    document = json.loads(stdout)
    assert (document["id"], document["status"]) == ("order-8", "completed")
    assert (document["executed"], document["replayed"]) == (1, 1)
    assert "the body prints" in stderr
    assert "and so does its child" in stderr
    assert effects() == ["main", "reserve 8", "charge", "charge"]


def test_what_cannot_be_continued(shop, invoke, folder, imports):
    """An unknown run and a run that has completed are refused, with the reason."""
    (folder / "empty_module.py").touch()
    run = shop.sell("x", id="done")
    app = ["--app", "empty_module"]
    assert invoke("resume", run.id, *app).stderr == "error: run done has ended: it is completed\n"
    assert invoke("retry", run.id, *app).stderr == "error: run done has ended: it is completed\n"
    assert "error: no run 'nothing'\n" in invoke("resume", "nothing", *app).stderr


UNDONE = """
    from flowdsl import Retry, step, workflow

    @step
    def give_back(cents):
        print("gave back", cents)

    @step(undo=give_back)
    def charge(cents):
        return cents

    @step(retry=Retry(attempts=1))
    def ship():
        raise ConnectionError("no parcel service answers")

    @workflow(name="undone.order", id="order-{cents}")
    def order(cents):
        charge(cents)
        ship()
"""


def test_an_undone_run_is_not_resumed_but_retried(url, folder, invoke):
    """``resume`` refuses a run whose steps were undone, with the command that executes it again."""
    (folder / "undone.py").write_text(textwrap.dedent(UNDONE))
    program = "import undone\ntry: undone.order(5)\nexcept ConnectionError: pass"
    forked.run([sys.executable, "-c", program], cwd=folder)
    refused = invoke("resume", "order-5", "--app", "undone")
    assert refused.stderr == (
        "error: run order-5 has failed and its steps were undone: only retry or fork execute it again\n"
        "next: flowdsl retry order-5 --app undone\n"
    )
    assert "no parcel service answers" in invoke("retry", "order-5", "--app", "undone").stderr


WAITS = """
    import asyncio, sys, threading
    from flowdsl import step, workflow

    @step
    async def forever():
        print("waiting", flush=True)
        await asyncio.Event().wait()

    begun = threading.Event()

    @step
    def stubborn():
        begun.set()
        print("waiting", flush=True)
        threading.Event().wait()

    @workflow(name="waits.checkout", id="{kind}")
    async def checkout(kind):
        if kind != "new":
            await forever()

    @workflow(name="waits.block", id="{kind}")
    def block(kind):
        stubborn()
"""


@pytest.fixture
def waits(folder, url):
    """A module whose runs never end, and interrupted runs of it."""
    (folder / "waits.py").write_text(textwrap.dedent(WAITS))
    program = "import os, waits\nwaits.{0}.start('{0}')\nos._exit(9)"
    for name in ("checkout", "block"):
        done = forked.run([sys.executable, "-c", program.format(name)], cwd=folder)
        assert done.returncode == 9


def test_ctrl_c_leaves_the_run_resumable(waits, spawn, answer):
    """Ctrl-C while an async step waits exits with 130 at once, and the run is interrupted."""
    process = spawn("resume", "checkout", "--app", "waits")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "Traceback" not in process.stderr.read()
    (found,) = [run for run in answer("runs", "--status", "interrupted") if run["id"] == "checkout"]
    assert found["owner"] is None


def test_a_second_ctrl_c_leaves_a_step_behind(waits, spawn, answer):
    """After Ctrl-C the command waits for a sync step, until Ctrl-C comes again."""
    process = spawn("resume", "block", "--app", "waits")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("interrupted; it can be resumed.")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "block" in {run["id"] for run in answer("runs", "--status", "interrupted")}


def test_waits_for_a_run_that_executes_elsewhere(waits, spawn, answer):
    """Resuming a run that a living process executes waits for it, and executes nothing twice."""
    first = spawn("resume", "checkout", "--app", "waits")
    assert first.stdout.readline() == "waiting\n"
    second = spawn("resume", "checkout", "--app", "waits")
    assert (
        second.stderr.readline()
        == f"it is executed by process {first.pid} on {os.uname().nodename}: waiting for it\n"
    )
    second.send_signal(signal.SIGINT)
    assert second.wait() == 130
    assert second.stdout.read() == ""
    assert first.poll() is None


def test_ctrl_c_before_it_waits_is_no_other(waits, folder, spawn, answer):
    """Ctrl-C while the run is being continued interrupts it in the same way."""
    early = """
        import os, signal, flowdsl.runtime
        from waits import *

        continued = flowdsl.runtime.continue_run

        def interrupted(*args):
            run_id = continued(*args)
            begun.wait()
            os.kill(os.getpid(), signal.SIGINT)
            return run_id

        flowdsl.runtime.continue_run = interrupted
    """
    (folder / "early.py").write_text(textwrap.dedent(early))
    process = spawn("resume", "block", "--app", "early")
    assert process.stdout.readline() == "waiting\n"
    assert process.stderr.readline().startswith("interrupted; it can be resumed.")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "block" in {run["id"] for run in answer("runs", "--status", "interrupted")}
