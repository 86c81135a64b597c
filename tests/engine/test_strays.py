"""What a body has left behind in tasks and threads, when its run ends."""

import asyncio
import contextvars
import threading

import pytest
from support import Effects
from verbsupport import statuses

import flowdsl
from flowdsl import RunStatus, Runtime, StepStatus, aio, step, workflow
from flowdsl.errors import RunCancelled


def booking(effects: Effects):
    """A step of sync bodies that can be undone, and one of async bodies."""

    def release(what):
        effects("release", what)

    @step(undo=release)
    def book(what):
        effects("book", what)
        return what

    @step(undo=release)
    async def abook(what):
        effects("book", what)
        return what

    return book, abook


@pytest.mark.parametrize("how", ["task", "race"])
def test_a_child_left_behind_by_an_async_run_that_completes_is_cancelled(
    runtime: Runtime, effects: Effects, how
):
    """A child that an async run left behind in a task, or as the loser of a race, is cancelled and undone."""
    _, abook = booking(effects)

    @workflow
    async def child():
        await abook("room")
        begun.set()
        await aio.wait_for("never")

    async def first():
        await begun.wait()
        return "won"

    @workflow(id="w")
    async def w():
        if how == "race":
            return await aio.race(first(), child())
        left.append(asyncio.create_task(child()))
        return await first()

    left: list[asyncio.Task[None]] = []
    begun = asyncio.Event()
    assert asyncio.run(w()) == "won"
    assert runtime.run("w").status is RunStatus.COMPLETED
    assert statuses(runtime) == [RunStatus.CANCELLED]
    assert effects == [("book", "room"), ("release", "room")]


def test_a_child_left_behind_in_a_thread_is_cancelled(runtime: Runtime, effects: Effects):
    """A child that a sync run left behind in a thread is cancelled and undone."""
    book, _ = booking(effects)
    begun, ended = threading.Event(), threading.Event()

    @workflow
    def child():
        book("room")
        begun.set()
        flowdsl.wait_for("never")

    def thread():
        try:
            child()
        except RunCancelled:
            ended.set()

    @workflow(id="w")
    def w():
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(thread,)).start()
        assert begun.wait(60)

    w()
    assert ended.wait(60)
    assert statuses(runtime) == [RunStatus.CANCELLED]
    assert effects == [("book", "room"), ("release", "room")]


@pytest.mark.parametrize("end", ["fails", "cancelled"])
def test_a_step_in_a_thread_of_an_async_run_is_awaited_and_undone(storage, effects: Effects, end):
    """A sync step in ``asyncio.to_thread`` is awaited when its run ends, and undone."""
    begun, go = threading.Event(), threading.Event()

    @step(undo=lambda what: effects("release", what))
    def book(what):
        begun.set()
        assert go.wait(60)
        return what

    @workflow(id="w")
    async def w():
        task = asyncio.create_task(asyncio.to_thread(book, "room"))
        await asyncio.to_thread(begun.wait, 60)
        asyncio.get_running_loop().call_later(0.05, go.set)
        if end == "fails":
            raise ValueError
        flowdsl.current_run().cancel()
        await task

    with Runtime(storage) as runtime:
        with pytest.raises((ValueError, RunCancelled)):
            asyncio.run(w())
        assert effects == [("release", "room")]
        assert [s.status for s in runtime.run("w").steps() if s.kind == "step"] == [StepStatus.UNDONE]
