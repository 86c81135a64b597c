"""The end of a run: nothing that its body left behind begins, and callbacks are not part of the body."""

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sagas import is_undo_record
from support import ONCE, Crash, Declined, Effects, Flavour, Mortal, Relay

import flowdsl
from flowdsl import RunStatus, Runtime, StepStatus, aio, step, workflow
from flowdsl.errors import ResultNotStorable, RunCancelled, RunTimeout
from flowdsl.storage import MemoryStorage, SQLiteStorage, Storage
from flowdsl.storage.base import Operation, Outcome, UpdateRun
from flowdsl.testing import VirtualClock

# What the body left behind ----------------------------------------------------------------------------------


class Ending(Relay):
    """Calls *ends* in front of the commit that ends a run."""

    def __init__(self, ends: Callable[[], object]) -> None:
        super().__init__(MemoryStorage())
        self.inline = self.shares = False
        self._ends = ends

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        if any(isinstance(one, UpdateRun) and "finished_at" in one.changes for one in operations):
            self._ends()
        return self.inner.commit(operations)


@pytest.mark.parametrize("how", ["fails", "fails with undo", "is cancelled", "completes"])
def test_a_task_that_was_left_behind_begins_no_step_while_the_end_is_stored(how: str, effects: Effects):
    """A task that was left behind begins no step while the end of the run is stored, because nothing would
    undo it."""
    tried = threading.Event()
    go: list[Callable[[], object]] = []

    def ends() -> None:
        go[0]()
        assert tried.wait(60)

    @step(undo=lambda token: effects("undo", token), name="left.act")
    async def act(token):
        effects("act", token)
        return token

    @workflow(id="w")
    async def w():
        begin, loop = asyncio.Event(), asyncio.get_running_loop()
        go.append(lambda: loop.call_soon_threadsafe(begin.set))

        async def late():
            try:
                await begin.wait()
                await act("late")
            finally:
                tried.set()

        effects.task = asyncio.create_task(late())
        if how != "fails":
            await act("early")
        if how == "is cancelled":
            flowdsl.current_runtime().cancel("w")
        if how != "completes":
            raise Declined

    async def main():
        with contextlib.suppress(Declined, RunCancelled):
            await w()
        await asyncio.wait([effects.task])

    with Runtime(Ending(ends)) as runtime:
        asyncio.run(main())
        left = [one for one in runtime.run("w").steps() if one.kind == "step" and one.status == "completed"]
    assert len(left) == (how == "completes")
    undone = how in ("fails with undo", "is cancelled")
    assert effects == [("act", "early")] * (how != "fails") + [("undo", "early")] * undone


def test_a_thread_that_was_left_behind_begins_no_step_while_the_end_is_stored(effects: Effects):
    """A thread that was left behind begins no step while the end of a sync run is stored."""
    begin, tried = threading.Event(), threading.Event()

    def ends() -> None:
        begin.set()
        assert tried.wait(60)

    @step(undo=lambda token: effects("undo", token), name="left.sync_act")
    def act(token):
        effects("act", token)

    def late():
        begin.wait(60)
        try:
            act("late")
        except BaseException as error:
            effects(type(error).__name__)
        tried.set()

    @workflow(id="w")
    def w():
        threading.Thread(target=contextvars.copy_context().run, args=(late,)).start()
        raise Declined

    with Runtime(Ending(ends)), pytest.raises(Declined):
        w()
    assert effects == ["Stopped"]


# Callbacks --------------------------------------------------------------------------------------------------


def test_no_record_of_a_callback_answers_the_body(
    runtime: Runtime, flavour: Flavour, effects: Effects, caplog
):
    """A record of a callback answers no call of a retried body, and is no divergence."""
    works: list[bool] = []

    @flavour.step(name="back.tell", retry=ONCE)
    def tell(what):
        effects("tell", what)

    @flavour.step(name="back.pay", retry=ONCE)
    def pay():
        if not works:
            raise Declined

    @flavour.body
    def on_error(run, error):
        yield tell("refused")

    @flavour.workflow(id="w", on_error=on_error)
    def w():
        yield pay()
        yield tell("refused" if len(works) > 1 else "paid")

    for changed in (False, True):
        works.clear()
        with pytest.raises(Declined):
            flavour.call(w)
        works.extend([True] * (1 + changed))
        with caplog.at_level(logging.WARNING, "flowdsl"):
            runtime.retry("w").result(60)
        assert [entry[1] for entry in effects.log] == ["refused", "refused" if changed else "paid"]
        assert not caplog.records
        runtime.delete("w")
        effects.log.clear()


def test_the_callback_of_a_run_whose_time_is_up_calls_steps(
    runtime: Runtime, flavour, verbs, effects: Effects
):
    """The callback of a run past its deadline may call steps, and they are not undone."""

    @flavour.step(name="up.act", undo=flavour.body(lambda token: effects("undo", token)))
    def act(token):
        return token

    @flavour.body
    def on_error(run, error):
        effects(type(error).__name__)
        yield act("callback")
        effects("told")

    @flavour.workflow(timeout=10, on_error=on_error)
    def w(acts):
        if acts:
            yield act("body")
        yield verbs.sleep("1 day")

    for acts in (False, True):
        effects.log.clear()
        with pytest.raises(RunTimeout):
            flavour.call(w, acts)
        assert effects == [("undo", "body")] * acts + ["RunTimeout", "told"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_callback_has_submitted_ends_before_its_run(runtime: Runtime, effects: Effects, fails: bool):
    """What a callback submits without waiting is recorded before the run ends."""

    @step(name="submitted.tell", retry=ONCE)
    async def tell():
        await aio.sleep(5)
        effects("told")

    async def ended(run, *error):
        tell.submit()

    @workflow(id="w", on_complete=ended, on_error=ended)
    async def w():
        if fails:
            raise Declined

    async def main():
        with contextlib.suppress(Declined):
            await w()
        return list(effects.log)

    assert asyncio.run(main()) == ["told"]
    assert [one.status for one in runtime.run("w").steps() if one.kind == "step"] == [StepStatus.COMPLETED]


def test_what_an_undo_has_submitted_ends_before_its_run(runtime: Runtime, effects: Effects):
    """What an undo submits without waiting is recorded before the run ends."""

    @step(name="submitted.later")
    async def later():
        await aio.sleep(5)
        effects("later")

    async def undo(token):
        later.submit()
        effects("undo")

    @step(name="submitted.act", undo=undo)
    async def act():
        return 1

    @workflow(id="w")
    async def w():
        await act()
        raise Declined

    async def main():
        with contextlib.suppress(Declined):
            await w()
        return list(effects.log)

    assert asyncio.run(main()) == ["undo", "later"]


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_run_may_be_stopped_in_its_callback(
    runtime: Runtime, flavour: Flavour, verbs, effects: Effects, how: str
):
    """A run that is cancelled while ``on_complete`` waits is undone and ends as cancelled."""

    @flavour.step(name="told.act", undo=flavour.body(lambda token: effects("undo", token)))
    def act(token):
        return token

    @flavour.body
    def on_complete(run):
        yield act("callback")
        if how == "cancel":
            flowdsl.current_runtime().cancel("w")
        yield verbs.sleep("1 day")

    @flavour.workflow(id="w", timeout=10 if how == "timeout" else None, on_complete=on_complete)
    def w():
        yield act("body")

    with pytest.raises(RunCancelled if how == "cancel" else RunTimeout):
        flavour.call(w)
    assert runtime.run("w").status == ("cancelled" if how == "cancel" else "failed")
    assert effects == [("undo", "callback"), ("undo", "body")]


class Odd(BaseException):
    """No ``Exception``."""


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_no_exception_interrupts_a_run_in_its_callback(
    runtime: Runtime, flavour: Flavour, effects: Effects, fails: bool
):
    """An exception that is no ``Exception`` in a callback leaves the run resumable, and its end is
    repeated."""
    odd = [True]

    def ended(run, *error):
        effects("ended")
        if odd:
            odd.clear()
            raise Odd

    @flavour.workflow(id="w", on_complete=flavour.body(ended), on_error=flavour.body(ended))
    def w():
        if fails:
            raise Declined

    with pytest.raises(Odd):
        flavour.call(w)
    assert runtime.run("w").status == "running"
    with contextlib.suppress(Declined):
        flavour.call(w)
    assert runtime.run("w").status == ("failed" if fails else "completed")
    assert effects == ["ended", "ended"]


def test_a_run_that_is_given_back_lets_a_transaction_on_its_event_loop_end(tmp_path: Path):
    """A run that gives its lease back waits for no transaction that needs the same event loop."""
    begun, returned = asyncio.Event(), asyncio.Event()

    @step(transaction=True)
    async def books(*, connection: Any) -> str:
        begun.set()
        await returned.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        return "booked"

    @workflow
    async def trip() -> str:
        return await books()

    @workflow
    async def unstorable() -> object:
        await begun.wait()
        returned.set()
        return threading.Lock()

    with SQLiteStorage(tmp_path / "flow.db") as storage, Runtime(storage):
        unstored = unstorable.start()  # first: no run can be stored while the transaction is open
        assert trip.start().result(60) == "booked"
        with pytest.raises(ResultNotStorable):
            unstored.result(60)
        assert [run.owner for run in storage.list_runs()] == [None, None]


# An undo that a killed process has left --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["resume", "cancel", "call"])
def test_a_completed_child_that_a_killed_process_was_undoing_is_completed_again(
    storage: Storage, clock: VirtualClock, flavour: Flavour, effects: Effects, how: str
):
    """A child that is resumed, cancelled or called where a killed process was undoing it ends its undo, and is
    completed as before. Its parent goes on from there."""

    @flavour.step(name="half.release")
    def release(n):
        effects("release", n)

    @flavour.step(undo=release)
    def reserve(n):
        return n

    @flavour.workflow(id="child")
    def child():
        yield reserve(1)
        yield reserve(2)
        return "fine"

    @flavour.workflow(id="w")
    def w():
        yield child()
        raise Declined

    dies = Mortal(storage, is_undo_record("half.release", StepStatus.COMPLETED), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock) as rt:
        if how == "call":
            assert flavour.call(child) == "fine"
        elif how == "resume":
            assert rt.resume("child").result(60) == "fine"
        else:
            rt.cancel("child")
        assert rt.run("child").status is RunStatus.COMPLETED
        assert rt.run("child").result() == "fine"
        with pytest.raises(Declined):
            flavour.call(w)
        assert [one.status for one in rt.run("w").steps()] == ["undone"]
    assert sorted(set(effects.log)) == [("release", 1), ("release", 2)]
    assert effects.count("release", 1) == 1
