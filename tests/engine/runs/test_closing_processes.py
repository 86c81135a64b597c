"""The end of a process: it comes in time, and leaves every run resumable."""

from pathlib import Path
from typing import Any

import pytest
from support import script, spawn

from flowdsl import RunStatus, StepStatus
from flowdsl.storage import SQLiteStorage

PROGRAM = '''
import asyncio, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
import flowdsl
from flowdsl import step, wait_for, workflow
from flowdsl.engine.runs import closing

how = sys.argv[1]
flowdsl.configure("sqlite:///" + os.path.join(os.path.dirname(os.path.abspath(__file__)), "flow.db"))
own, held, begun = ThreadPoolExecutor(1), threading.Event(), threading.Event()
own.submit(int).result()


def await_the_end():
    """Wait until the main thread has ended: from then on, pools of the standard library refuse work."""
    begun.set()
    try:
        while True:
            own.submit(int).result()
    except RuntimeError:
        held.set()


@step(undo=lambda token: print("undone", flush=True))
def act(token):
    return token

@step
def hold():
    begun.set()
    held.wait()

@step(executor=own)
def on_own_pool():
    pass

@step
async def beside():
    await asyncio.to_thread(int)

@step
async def wraps():
    try:
        await asyncio.to_thread(int)
    except RuntimeError as error:
        raise ValueError from error

@workflow(id="holding")
def holding():
    hold.submit().result()

@workflow(id="w")
def w():
    act(1)
    if how == "hangs":
        hold.submit().result()
    await_the_end()
    for token in range(2, 5):
        act.submit(token).result()
    if how == "own pool":
        on_own_pool.submit().result()
    if how == "daemon":
        wait_for("nothing")
    return "done"

@workflow(id="w")
async def awaited():
    await act.submit(1)
    await_the_end()
    for token in range(2, 5):
        await act.submit(token)
    if how == "to_thread":
        await beside()
    if how == "wraps":
        await wraps()
    return "done"


def main(call):
    try:
        print(call(), flush=True)
    except Exception as error:
        print(type(error).__name__, "Python is ending" in str(error), flush=True)


if how == "daemon":
    holding.start()
    begun.wait()
if how in ("daemon", "hangs"):
    closing._PATIENCE = 0.1 if how == "hangs" else 60.0
    begun.clear()
    w.start()
else:
    call = (lambda: asyncio.run(awaited())) if how in ("async", "to_thread", "wraps") else w
    threading.Thread(target=main, args=(call,)).start()
begun.wait()
'''


def ended(tmp_path: Path, how: str) -> tuple[list[str], str, Any, list[Any]]:
    """What a process that ends in that way prints to both streams, and what it leaves of its run."""
    process = spawn(script(tmp_path / "ends.py", PROGRAM), how)
    printed, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    with SQLiteStorage(tmp_path / "flow.db") as storage:
        return printed.splitlines(), errors, storage.get_run("w"), storage.list_steps("w")


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_run_in_a_thread_of_the_user_goes_on_after_the_main_thread(tmp_path: Path, how: str):
    """A run in a user's thread goes on after the main thread, submits steps, and completes."""
    printed, _, run, _ = ended(tmp_path, how)
    assert printed == ["done"]
    assert run.status is RunStatus.COMPLETED


@pytest.mark.parametrize("how", ["own pool", "to_thread", "wraps"])
def test_a_run_that_python_refuses_work_at_its_end_stays_resumable(tmp_path: Path, how: str):
    """A run that Python refuses work at its end is resumable, and has not failed."""
    printed, _, run, steps = ended(tmp_path, how)
    assert printed == ["FlowError True"]
    assert (run.status, run.owner) == (RunStatus.RUNNING, None)
    assert {step.status for step in steps} <= {StepStatus.COMPLETED, StepStatus.PENDING}


def test_a_started_run_is_interrupted_when_the_process_ends(tmp_path: Path):
    """A started run is interrupted when the process ends, without failing or undoing anything."""
    printed, _, run, steps = ended(tmp_path, "daemon")
    assert printed == []
    assert (run.status, run.owner) == (RunStatus.RUNNING, None)
    assert {step.status for step in steps if step.path.endswith("act")} == {StepStatus.COMPLETED}


def test_a_submitted_step_that_hangs_does_not_keep_the_process_alive(tmp_path: Path):
    """A submitted step that hangs is left behind and reported once, and its run is given back."""
    _, errors, run, _ = ended(tmp_path, "hangs")
    assert (run.status, run.owner) == (RunStatus.RUNNING, None)
    assert errors.count("closing") == 1, errors
