"""What a run may still do when it has been stopped: it cleans up, for a time."""

import asyncio
import contextlib

import pytest
from support import Effects, Flavour
from verbsupport import statuses

import flowdsl
from flowdsl import RunStatus, Runtime, StepStatus, aio, step, workflow
from flowdsl.errors import ResultNotStorable, RunCancelled, RunTimeout, Stopped


def test_cleaning_up_executes_and_is_recorded_while_a_cancel_is_handled(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """While a cancel is handled, steps in ``finally`` and ``except`` execute and are recorded, and then the
    stop goes on."""

    @flavour.step
    def work(n):
        effects("work", n)

    @flavour.workflow(id="w")
    def w():
        try:
            try:
                yield work(1)
                runtime.cancel("w")
                yield work(2)
            finally:
                yield work(3)
        except Stopped as stop:
            effects(type(stop.error).__name__)
            yield work(4)
        yield work(5)

    with pytest.raises(RunCancelled):
        flavour.call(w)
    assert effects == [("work", 1), ("work", 3), "RunCancelled", ("work", 4)]
    assert runtime.run("w").status is RunStatus.CANCELLED
    assert [s.status for s in runtime.run("w").steps()] == [StepStatus.COMPLETED] * 3
    assert "cleanup" in [entry.action for entry in runtime.run("w").audit()]


def test_the_first_reason_to_stop_wins(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A cancelled run goes on cleaning up, and is cancelled, although a result meanwhile cannot be stored."""

    @flavour.step
    def work():
        effects("work")

    @flavour.step
    def unstorable():
        return (n for n in range(3))

    @flavour.workflow(id="w")
    def w():
        try:
            runtime.cancel("w")
            yield work()
        finally:
            with contextlib.suppress(Stopped):
                yield unstorable()
            yield work()

    with pytest.raises(RunCancelled):
        flavour.call(w)
    assert effects == ["work"]
    assert runtime.run("w").status is RunStatus.CANCELLED


def test_cleaning_up_ends_when_its_time_is_over(runtime: Runtime, effects: Effects):
    """After the time of ``cleanup=`` durable calls stop again."""

    @step
    def close():
        effects("close")

    @workflow(id="w", timeout=10, cleanup=5)
    def w():
        try:
            flowdsl.sleep(60)
        finally:
            close()
            flowdsl.sleep(60)
            effects("too late")

    with pytest.raises(RunTimeout):
        w()
    assert effects == ["close"]


def test_a_crash_while_cleaning_up_goes_on_with_it(storage, clock, effects: Effects):
    """After a crash while cleaning up, the next process goes on cleaning up."""
    dies = [True]

    @step
    def work(n):
        effects("work", n)

    @workflow(id="w")
    def w():
        try:
            work(1)
            if effects.count("work", 3) == 0:
                flowdsl.current_run().cancel()
            work(2)
        finally:
            work(3)
            if dies:
                dies.clear()
                raise KeyboardInterrupt
            work(4)

    with Runtime(storage, clock=clock) as rt:
        with pytest.raises((KeyboardInterrupt, RunCancelled)):
            w()
        if rt.run("w").status is RunStatus.RUNNING:
            with pytest.raises(RunCancelled):
                w()
        assert rt.run("w").status is RunStatus.CANCELLED
    assert effects == [("work", 1), ("work", 3), ("work", 4)]


def test_a_stop_leaves_groups_as_itself(runtime: Runtime):
    """A stop leaves a ``TaskGroup`` as itself, and the run stays resumable."""

    @step
    async def connect():
        return (n for n in [1])

    @workflow(id="w")
    async def w():
        async with asyncio.TaskGroup() as group:
            group.create_task(connect())

    with pytest.raises(ResultNotStorable):
        asyncio.run(w())
    assert runtime.run("w").status is RunStatus.RUNNING


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
