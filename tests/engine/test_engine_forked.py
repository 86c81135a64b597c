"""Forks of a process that executes a run."""

import asyncio
import os

import pytest
from support import Effects

import flowdsl
from flowdsl import RunStatus, Runtime, step, workflow


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_ends_nothing(runtime: Runtime, effects: Effects):
    """A forked child raises at durable calls, and its parent's run goes on."""
    if runtime.storage.url is None:
        pytest.skip("a storage in memory is copied by a fork")

    @step
    def release(item):
        effects("release")

    @step(undo=release)
    def book():
        return 1

    @workflow(id="w")
    def w():
        book()
        pid = os.fork()
        if pid == 0:
            raise ValueError("the child")
        os.waitpid(pid, 0)
        return str(flowdsl.current_run().status)

    me = os.getpid()
    try:
        found = w()
    except BaseException:
        if os.getpid() != me:
            os._exit(0)
        raise
    assert found == "running"
    assert runtime.run("w").status is RunStatus.COMPLETED
    assert effects == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("where", ["step", "body"])
def test_a_forked_child_of_an_async_body_ends_nothing(runtime: Runtime, effects: Effects, where):
    """A forked child of an async body raises its own error, in a step and in the workflow."""
    if runtime.storage.url is None:
        pytest.skip("a storage in memory is copied by a fork")

    async def release(item):
        effects("release")

    @step(undo=release)
    async def book():
        return 1

    def forks():
        pid = os.fork()
        if pid == 0:
            raise ValueError("the child")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @step
    async def forked():
        return forks()

    @workflow(id="w")
    async def w():
        await book()
        return await forked() if where == "step" else forks()

    me = os.getpid()

    async def main():
        try:
            return await w()
        except BaseException as error:
            if os.getpid() != me:  # before it closes the event loop, which it shares
                os._exit(7 if isinstance(error, ValueError) else 1)
            raise

    assert asyncio.run(main()) == 7
    assert runtime.run("w").status is RunStatus.COMPLETED
    assert effects == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("where", ["thread", "pool", "loop", "awaits"])
def test_a_forked_child_in_a_thread_of_ours_ends(runtime: Runtime, capfd, where):
    """A fork in a thread of a runtime ends, so a parent that waits for it goes on."""
    if runtime.storage.url is None:
        pytest.skip("a storage in memory is copied by a fork")

    def forks():
        pid = os.fork()
        if pid == 0:
            if where == "awaits":
                return 0
            raise ValueError("the child")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    forked = step(forks, name="forked")
    other = step(lambda: 1, name="other")

    @workflow
    def sync():
        return forks() if where == "thread" else forked.submit().result()

    @workflow
    async def on_a_loop():
        found = forks()
        await other.submit()
        return found

    on_loop = where in ("loop", "awaits")
    assert (on_a_loop if on_loop else sync).start().result(timeout=60) == (0 if on_loop else 1)
    assert [run.status for run in runtime.runs()] == [RunStatus.COMPLETED]
