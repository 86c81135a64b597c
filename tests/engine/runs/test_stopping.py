"""Stopping a run: cleaning up, settling, undoing, closing, forking."""

import asyncio
import contextlib
import os
import traceback

import pytest
from support import ONCE, Crash, Effects, Flavour, Mortal

import flowdsl
from flowdsl import Hooks, RunStatus, Runtime, StepStatus, step, workflow
from flowdsl.errors import ResultNotStorable, RunCancelled, RunTimeout, Stopped
from flowdsl.storage.base import UpdateRun


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


def test_a_run_that_begins_while_its_runtime_closes_stays_resumable(storage, clock):
    """A run that begins while its runtime closes ends at once, and goes on in the next runtime."""

    @workflow(id="w")
    def w():
        return flowdsl.wait_for("go")

    for _ in range(3):
        with Runtime(storage, clock=clock):
            w.start()
    with Runtime(storage, clock=clock):
        run = w.start()
        run.signal("go", 7)
        assert run.result(60) == 7


def test_a_run_started_in_a_callback_is_independent(runtime: Runtime):
    """A run that a callback starts is no child of the run."""

    @workflow(id="other")
    def other():
        return 1

    @workflow(id="w", on_complete=lambda run: other.start())
    def w():
        return 2

    assert w() == 2
    assert runtime.run("other").result(60) == 1
    assert runtime.run("other").parent is None


def test_a_workflow_called_inside_a_runtime_of_the_body_is_no_child(runtime: Runtime):
    """A workflow that is called inside ``with Runtime()`` in a body is no child."""

    @workflow
    def inner():
        return len(flowdsl.current_runtime().runs())

    @workflow(id="w")
    def outer():
        with Runtime("memory://") as scratch:
            inner()
            return len(scratch.runs())

    assert outer() == 1
    assert [run.id for run in runtime.runs()] == ["w"]


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


def test_default_retries_do_not_multiply(runtime: Runtime, effects: Effects):
    """A failure that an inner step has given up on is retried only by an explicit ``retry=``."""

    @step
    def inner():
        effects("inner")
        raise OSError

    @step
    def outer():
        inner()

    @workflow
    def w():
        outer()

    with pytest.raises(OSError):
        w()
    assert effects.count("inner") == 3


def test_a_traceback_holds_the_frames_of_the_user(runtime: Runtime):
    """A traceback has the user's frames and at most two of flowdsl."""

    @step(retry=ONCE)
    def charge():
        raise ValueError("no")

    @workflow
    def buy():
        charge()

    with pytest.raises(ValueError) as caught:
        buy()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-2:] == ["buy", "charge"]
    assert len(names) <= 5


class CancelsAtTheFirstReplay(Hooks):
    """A cancel that comes while a continued run has yet to ask for records."""

    def on_step_replay(self, step, result):
        flowdsl.current_runtime().cancel(step.run_id)


def test_a_cancel_during_a_replay_comes_where_the_journal_ends(
    storage, clock, flavour: Flavour, effects: Effects
):
    """A cancel during a replay takes effect after the recorded steps, so clean-up code sees all that was
    done."""
    dies = [True]

    @flavour.step
    def work(n):
        effects("work", n)

    @flavour.step
    def give_back(done):
        effects("give back", done)

    @flavour.workflow(id="w")
    def w():
        done = 0
        try:
            for n in range(4):
                yield work(n)
                done += 1
                if dies and n == 2:
                    dies.clear()
                    raise KeyboardInterrupt
        finally:
            yield give_back(done)

    with Runtime(storage, clock=clock), pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    with Runtime(storage, clock=clock, hooks=[CancelsAtTheFirstReplay()]) as rt:
        with pytest.raises(RunCancelled):
            flavour.call(w)
        assert rt.run("w").status is RunStatus.CANCELLED
    assert effects == [("work", 0), ("work", 1), ("work", 2), ("give back", 3)]
