"""Children, tasks and threads when a run stops or ends: none goes on without being waited for."""

import asyncio
import contextvars
import threading
from collections.abc import Sequence

import pytest
from support import ONCE, Declined, Effects, Flavour

import flowdsl
from flowdsl import RunStatus, Runtime, StepStatus, aio, gather, step, workflow
from flowdsl.errors import RunCancelled, RunTimeout
from flowdsl.storage.base import OpenRun, Operation, Outcome
from flowdsl.storage.relay import RelayStorage


def statuses(runtime: Runtime) -> list[RunStatus]:
    """Those of the children of run ``w``."""
    return sorted(child.status for child in runtime.run("w").children())


@pytest.mark.parametrize("how", ["call", "start"])
def test_the_time_of_a_run_is_that_of_its_children(runtime: Runtime, flavour: Flavour, verbs, how):
    """A waiting child ends at its parent's deadline, and its body catches no ``RunTimeout``."""
    caught = []

    @flavour.workflow
    def child():
        yield verbs.sleep("2 hours")

    @flavour.workflow(id="w", timeout="1 hour")
    def w():
        try:
            yield child() if how == "call" else verbs.gather(child.start())
        except Exception as error:
            caught.append(error)

    with pytest.raises(RunTimeout, match="run w passed"):
        flavour.call(w)
    assert statuses(runtime) == [RunStatus.FAILED]
    assert caught == []


def test_a_run_that_waits_for_another_one_is_cancelled_at_once(storage):
    """A sync run that waits for the result of another run is cancelled at once."""

    @workflow(id="other")
    def other():
        flowdsl.wait_for("go")

    @step
    def begin(how):
        begun.set()

    @workflow(id="w-{how}")
    def w(how):
        begin(how)
        return other.options(detached=True).start().result() if how == "result" else other()

    with Runtime(storage) as runtime:
        blocking = other.start()
        for how in ("result", "call"):
            begun = threading.Event()
            run = w.start(how)
            assert begun.wait(60)
            run.cancel()
            assert isinstance(run.exception(), RunCancelled)
        assert blocking.status is RunStatus.RUNNING
        runtime.signal("other", "go")
        blocking.result()


def test_cleaning_up_may_start_children_and_branches(
    runtime: Runtime, flavour: Flavour, verbs, effects: Effects
):
    """Clean-up code may start, submit and gather, and all of it executes and is recorded."""

    @flavour.step
    def close(what):
        effects(what)

    @flavour.workflow
    def closing(what):
        yield close(what)

    @flavour.workflow(id="w")
    def w():
        try:
            runtime.cancel("w")
            yield close("never")
        finally:
            yield verbs.gather(closing.start("started"), close.submit("submitted"))
            yield closing("called")

    with pytest.raises(RunCancelled):
        flavour.call(w)
    assert sorted(effects.log) == ["called", "started", "submitted"]
    assert statuses(runtime) == [RunStatus.COMPLETED] * 2


@pytest.mark.parametrize("how", ["call", "start"])
def test_the_undo_of_a_child_takes_no_time_from_cleaning_up(
    runtime: Runtime, flavour: Flavour, verbs, effects: Effects, how
):
    """Ten minutes of undoing a child take no time from the parent's minute for cleaning up."""

    @flavour.step
    def release(what):
        yield verbs.sleep("10 min")
        effects("release")

    @flavour.step(undo=release)
    def book():
        pass

    @flavour.step
    def close():
        effects("close")

    @flavour.workflow
    def child():
        yield book()
        yield verbs.sleep("2 hours")

    @flavour.workflow(id="w", timeout="1 hour")
    def w():
        try:
            yield child() if how == "call" else verbs.gather(child.start())
        finally:
            yield close()

    with pytest.raises(RunTimeout):
        flavour.call(w)
    assert sorted(effects.log) == ["close", "release"]


def test_branches_of_a_gather_clean_up(runtime: Runtime, effects: Effects):
    """Coroutines of ``aio.gather`` in a ``finally`` execute as part of cleaning up."""

    @step
    async def close(what):
        effects(what)

    async def branch(what):
        await asyncio.sleep(0)
        await close(what)

    @workflow(id="w")
    async def w():
        try:
            runtime.cancel("w")
            await close("never")
        finally:
            await aio.gather(branch("one"), branch("two"))

    with pytest.raises(RunCancelled):
        asyncio.run(w())
    assert effects == ["one", "two"]


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


@pytest.mark.parametrize("how", ["group", "timeout", "cancel"])
def test_the_undo_of_a_child_is_not_broken_off(runtime: Runtime, effects: Effects, how):
    """The undo of a child is not interrupted by a sibling's failure, a timeout or a cancel, and happens
    once."""

    async def release(what):
        effects("begin", what)
        releasing.set()
        await asyncio.sleep(0.05)
        effects("release", what)

    @step(undo=release)
    async def book(what):
        return what

    @step(retry=ONCE)
    async def fail(what):
        raise ValueError(what)

    @workflow
    async def child():
        await book("room")
        await fail("child")

    async def other():
        await releasing.wait()
        if how == "group":
            await fail("other")
        limits[0].reschedule(0) if how == "timeout" else runtime.cancel("w")

    @workflow(id="w")
    async def w():
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
            limits.append(limit)
            group.create_task(child())
            group.create_task(other())

    limits: list[asyncio.Timeout] = []
    releasing = asyncio.Event()
    with pytest.raises((ExceptionGroup, TimeoutError, RunCancelled)):
        asyncio.run(w())
    assert effects == [("begin", "room"), ("release", "room")]
    assert statuses(runtime) == [RunStatus.FAILED]


def test_a_run_of_gather_ends_with_its_deadline(runtime: Runtime):
    """Branches that ``gather`` waits for, at any depth, end at the run's deadline."""

    @workflow
    def inner():
        flowdsl.sleep("1 day")

    @workflow
    def outer():
        gather(inner.start(), inner.start())

    @workflow(id="w", timeout="1 min")
    def w():
        outer()

    with pytest.raises(RunTimeout, match="run w passed"):
        w()
    assert {run.status for run in runtime.runs()} == {RunStatus.FAILED}


class Telling(RelayStorage):
    """Calls *tell* when the third run is opened."""

    opened = 0

    def tell(self) -> None:
        """Nothing yet."""

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        for operation in operations:
            self.opened += isinstance(operation, OpenRun)
            if isinstance(operation, OpenRun) and self.opened == 3:
                self.tell()
        return self.storage.commit(operations)


def test_a_child_that_is_just_being_started_ends_with_its_parents(storage):
    """A grandchild that is just being started when its run is cancelled does not stay running."""

    @workflow
    async def inner(n):
        await aio.wait_for("never")

    @workflow
    async def outer():
        await aio.gather(*(inner.start(n) for n in range(2)))

    @workflow(id="w")
    async def w():
        await outer()

    telling = Telling(storage)
    with Runtime(telling) as beside, Runtime(telling) as runtime:
        telling.tell = lambda: beside.cancel("w")  # type: ignore[method-assign]
        with pytest.raises(RunCancelled):
            asyncio.run(w())
        assert {run.status for run in runtime.runs()} == {RunStatus.CANCELLED}


def test_undoing_ends_what_it_has_begun_when_its_task_is_cancelled(runtime: Runtime, effects: Effects):
    """A recorded sync undo does not execute again, however often its task is cancelled."""

    def release(what):
        effects("release", what)
        for _ in range(2):
            asyncio.get_running_loop().call_soon(tasks[-1].cancel)

    @step(undo=release)
    async def book(what):
        return what

    @step(retry=ONCE)
    async def fail():
        raise ValueError

    @workflow(id="w")
    async def w():
        for what in ("room", "table", "taxi"):
            await book(what)
        await fail()

    async def main():
        tasks.append(asyncio.create_task(w()))
        await asyncio.wait(tasks[-1:])
        assert tasks[-1].cancelled() or isinstance(tasks[-1].exception(), ValueError)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(4):
        asyncio.run(main())
    assert runtime.run("w").status is RunStatus.FAILED
    assert effects == [("release", "taxi"), ("release", "table"), ("release", "room")]


class Odd(BaseException):
    """An exception of the user's that is no ``Exception``."""


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Odd])
def test_a_child_that_was_interrupted_is_cancelled_when_its_parent_goes_on(
    runtime: Runtime, flavour: Flavour, effects: Effects, kind
):
    """An interrupted child whose parent handles the interrupt and goes on is cancelled."""
    fails = [True]

    @flavour.step(name="swallowed.act", undo=flavour.body(lambda token: effects("undo", token)))
    def act(token):
        return token

    @flavour.workflow(id="child")
    def child():
        yield act(1)
        raise kind

    @flavour.workflow(id="w")
    def w():
        try:
            yield child()
        except BaseException as error:
            effects(type(error).__name__)
        yield act(2)
        if fails:
            raise Declined

    with pytest.raises(Declined):
        flavour.call(w)
    assert runtime.run("child").status is RunStatus.CANCELLED
    fails.clear()
    runtime.retry("w").result(60)
    assert effects == [kind.__name__, ("undo", 1), ("undo", 2), "RunCancelled"]
    assert runtime.run("child").status is RunStatus.CANCELLED
