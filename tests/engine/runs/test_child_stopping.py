"""How children end when nobody waits for them any more, or when a run above them stops."""

import asyncio
from collections.abc import Sequence

import pytest
from support import ONCE, Crash, Declined, Effects, Flavour, Mortal
from verbsupport import statuses

from flowdsl import RunStatus, Runtime, aio, step, workflow
from flowdsl.errors import RunCancelled
from flowdsl.storage.base import OpenRun, Operation, Outcome, UpdateRun
from flowdsl.storage.relay import RelayStorage


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


def test_a_child_that_nobody_waits_for_any_more_is_cancelled(runtime: Runtime, effects: Effects):
    """A child that nobody waits for after a timeout is cancelled, and its steps are undone."""

    @step
    async def release(item):
        effects("release")

    @step(undo=release)
    async def reserve():
        return effects("reserve")

    limits: list[asyncio.Timeout] = []

    @workflow
    async def child():
        await reserve()
        limits[0].reschedule(0)
        await asyncio.sleep(30)

    @workflow(id="w")
    async def parent():
        try:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                await child()
        except TimeoutError:
            return "went on"

    assert asyncio.run(parent()) == "went on"
    (inner,) = runtime.run("w").children()
    assert inner.status is RunStatus.CANCELLED
    assert effects == ["reserve", "release"]


def giving_up(effects: Effects, fails: list[bool]):
    """A workflow that stops waiting for a child, and then does something else."""

    @step
    async def release(_item):
        effects("release")

    @step(undo=release)
    async def reserve():
        effects("reserve")

    reserved = asyncio.Event()

    @workflow
    async def child():
        await reserve()
        reserved.set()
        await asyncio.Event().wait()

    @step(retry=ONCE)
    async def after():
        if fails:
            raise LookupError("after")
        return "ended"

    @workflow(id="w")
    async def parent():
        called = asyncio.ensure_future(child())
        await reserved.wait()
        called.cancel()
        with pytest.raises(asyncio.CancelledError):
            await called
        effects("went on")
        return await after()

    return parent


def test_a_child_that_was_given_up_is_cancelled_although_its_parent_fails(runtime, effects: Effects):
    """A child that was given up is cancelled although its parent fails, and a retry gives it up again."""
    fails = [True]
    parent = giving_up(effects, fails)
    with pytest.raises(LookupError):
        asyncio.run(parent())
    (inner,) = runtime.run("w").children()
    assert inner.status is RunStatus.CANCELLED
    assert effects == ["reserve", "went on", "release"]
    fails.clear()
    assert asyncio.run(parent()) == "ended"
    assert effects == ["reserve", "went on", "release", "went on"]
    assert inner.status is RunStatus.CANCELLED


def test_a_child_that_was_given_up_stays_so_when_its_parent_dies(storage, clock, effects: Effects):
    """A child that was given up stays so if the process dies before the end of the parent."""
    parent = giving_up(effects, [])

    def is_the_end(operations):
        changes = [operation.changes for operation in operations if isinstance(operation, UpdateRun)]
        return any(change.get("status") is RunStatus.COMPLETED for change in changes)

    with Runtime(Mortal(storage, is_the_end), clock=clock), pytest.raises(Crash):
        asyncio.run(parent())
    with Runtime(storage, clock=clock) as rt:
        assert asyncio.run(parent()) == "ended"
        (inner,) = rt.run("w").children()
        assert inner.status is RunStatus.CANCELLED
    assert effects == ["reserve", "went on", "release", "went on"]
