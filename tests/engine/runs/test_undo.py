"""Undo: completed steps of a failed or cancelled run are reversed."""

import asyncio
import threading

import pytest
from sagas import is_undo_record, saga
from support import ONCE, Crash, Declined, Effects, Mortal

import flowdsl
from flowdsl import Retry, RunStatus, Runtime, StepStatus, step, workflow
from flowdsl.errors import RunCancelled, RunTimeout


def test_the_undo_of_every_completed_step_runs_newest_first(runtime, flavour, effects: Effects):
    """Each undo gets the step's result, newest first, and then the run fails with its own error."""
    w, _ = saga(flavour, effects, [True])
    with pytest.raises(Declined):
        flavour.call(w)
    assert effects.log[4:] == [("release", "r2"), ("release", "r1"), ("release", "r0")]
    run = runtime.run("w")
    assert run.status is RunStatus.FAILED
    undone = [s.status for s in run.steps() if s.path == "saga.reserve"]
    assert undone == [StepStatus.UNDONE] * 3


def test_undone_steps_execute_again_when_the_run_is_retried(runtime, flavour, effects: Effects):
    """A retry executes undone steps again, and completes."""
    broken = [True]
    w, _ = saga(flavour, effects, broken)
    with pytest.raises(Declined):
        flavour.call(w)
    broken.clear()
    with pytest.raises(Declined):  # delivered again, it does not charge again
        flavour.call(w)
    assert len(effects.log) == 7
    assert runtime.retry("w").result() == "paid"
    assert [e for e in effects.log[7:]] == [("reserve", 0), ("reserve", 1), ("reserve", 2), "charge"]
    assert {s.status for s in runtime.run("w").steps() if s.path == "saga.reserve"} == {StepStatus.COMPLETED}


def test_a_kill_during_undoing_continues_undoing(storage, clock, flavour):
    """A kill during undoing goes on undoing: no body executes again, and each undo is recorded once."""
    for at in range(1, 12):
        for after in (False, True):
            effects = Effects()
            w, keep = saga(flavour, effects, [True])
            mortal = Mortal(storage, at, after=after)
            try:
                with Runtime(mortal, clock=clock):
                    flavour.call(w)
            except (Crash, Declined):
                pass
            undoing = any(entry[0] == "release" for entry in effects.log if entry != "charge")
            charges = effects.count("charge")
            with Runtime(storage, clock=clock) as rt:
                record = rt.storage.get_run("w")
                if record.status is RunStatus.RUNNING:
                    with pytest.raises(Declined):
                        flavour.call(w)
                if undoing:
                    assert effects.count("charge") == charges
                for n in range(3):
                    assert 1 <= effects.count("release", f"r{n}") <= 2
                assert rt.run("w").status is RunStatus.FAILED
                rt.delete("w")
            del keep


def test_a_failing_undo_is_retried_then_reported_without_stopping_the_others(
    runtime, effects: Effects, caplog
):
    """A failing undo is retried by its policy and then logged; the run fails with its own error."""

    @step(retry=Retry(attempts=3, jitter=0), name="undo.bad")
    def bad(result):
        effects("bad")
        raise OSError("stuck")

    @step(name="undo.good")
    def good(result):
        effects("good", result)

    @step(undo=good)
    def a():
        return 1

    @step(undo=bad)
    def b():
        return 2

    @workflow(id="w")
    def w():
        a()
        b()
        a()
        raise Declined

    with pytest.raises(Declined):
        w()
    assert effects == [("good", 1), "bad", "bad", "bad", ("good", 1)]
    assert "undo.bad" in caplog.text
    failed = [
        s for s in runtime.storage.list_steps("w") if s.kind == "undo" and s.status is StepStatus.FAILED
    ]
    assert [(s.path, s.attempts) for s in failed] == [("undo.bad", 3)]


def test_a_cancelled_run_undoes_and_is_then_cancelled(runtime, flavour, verbs, effects: Effects):
    """A cancelled run undoes its steps first, and then hooks and waiters see it cancelled."""
    seen = []

    @flavour.step(name="cancelled.release")
    def release(result):
        seen.append(runtime.run("w").status)
        effects("release", result)

    @flavour.step(undo=release, name="cancelled.reserve")
    def reserve():
        return 5

    @flavour.step(name="cancelled.cancel")
    def cancel():
        runtime.cancel("w")

    @flavour.workflow(id="w")
    def w():
        yield reserve()
        yield cancel()
        yield verbs.sleep("1 day")

    with pytest.raises(RunCancelled):
        flavour.call(w)
    assert effects == [("release", 5)]
    assert seen == [RunStatus.RUNNING]
    assert runtime.run("w").status is RunStatus.CANCELLED


def test_a_step_that_cancels_its_own_run_does_not_cancel_the_undo(runtime, flavour, effects: Effects):
    """A step that cancels its own run, or its task, does not cancel the undo."""

    @flavour.step(name="own.release", retry=Retry(attempts=2, initial=1, jitter=0))
    def release(result):
        if effects("release", result) == 1:
            raise OSError("once more")

    @flavour.step(name="own.reserve", undo=release)
    def reserve(n):
        if n == 1:
            runtime.cancel("w")
        return n

    @flavour.workflow(name="own.w", id="w")
    def w():
        for n in range(3):
            yield reserve(n)

    with pytest.raises(RunCancelled):
        flavour.call(w)
    assert effects == [("release", 1)] * 2 + [("release", 0)] * 2
    assert runtime.run("w").status is RunStatus.CANCELLED


def test_a_timed_out_run_undoes(runtime, flavour, verbs, effects: Effects):
    """A run past its deadline fails and is undone."""

    @flavour.step(name="late.release")
    def release(result):
        effects("release")

    @flavour.step(undo=release, name="late.reserve")
    def reserve():
        return 1

    @flavour.workflow(timeout=10)
    def w():
        yield reserve()
        yield verbs.sleep(60)

    with pytest.raises(RunTimeout):
        flavour.call(w)
    assert effects == ["release"]


def test_bodies_in_flight_are_awaited_and_covered(runtime, effects: Effects):
    """A submitted step that completes after the failure is undone too."""
    failing = threading.Event()

    @step(name="flight.release")
    def release(result):
        effects("release", result)

    @step(undo=release, name="flight.reserve")
    def reserve():
        failing.wait(60)
        return "late"

    @step(retry=ONCE)
    def fails():
        failing.set()
        raise Declined

    @workflow
    def w():
        reserve.submit()
        fails()

    with pytest.raises(Declined):
        w()
    assert effects == [("release", "late")]


def test_what_a_plain_gather_leaves_behind_ends_before_the_undo(storage, clock, effects: Effects):
    """Tasks and children that a plain ``asyncio.gather`` left behind end, and their completed steps are
    undone."""

    @step(name="stray.release")
    async def release(result):
        effects("release", result)

    @step(undo=release, name="stray.reserve")
    async def reserve(n):
        effects("reserve", n)
        return n

    @step(undo=release, name="stray.slow")
    async def slow(begun):
        begun.set()
        await asyncio.Event().wait()

    @step(retry=ONCE, name="stray.fails")
    async def fails():
        raise Declined

    @workflow(name="stray.child")
    async def child():
        await reserve("child")
        await flowdsl.aio.wait_for("never")

    @workflow(name="stray.w", id="w")
    async def w():
        begun = asyncio.Event()

        async def two():
            await reserve("task")
            await slow.options(ignore=("begun",))(begun)

        async def last():
            await begun.wait()
            await asyncio.sleep(0.01)
            await fails()

        await asyncio.gather(two(), child(), last())

    async def main():
        with pytest.raises(Declined):
            await w()
        (inner,) = flowdsl.current_runtime().run("w").children()
        assert inner.status is RunStatus.FAILED
        kinds = [
            str(s.status) for s in flowdsl.current_runtime().run("w").steps() if s.path == "stray.reserve"
        ]
        assert kinds == ["undone"]

    with Runtime(storage, clock=clock):
        asyncio.run(main())
    assert sorted(effects.log[2:]) == [("release", "child"), ("release", "task")]


def test_the_undo_is_the_one_that_the_call_was_given(runtime, effects: Effects):
    """``options(undo=…)`` and plain functions are undos, sync in async runs and the reverse too."""

    def plain(result):
        effects("plain", result)

    async def gentle(result):
        effects("gentle", result)

    @step
    def a(n):
        return n

    @step
    async def b(n):
        return n

    @workflow
    def w():
        a.options(undo=plain)(1)
        a.options(undo=gentle)(2)
        raise Declined

    @workflow
    async def aw():
        await b.options(undo=plain)(3)
        await b.options(undo=gentle)(4)
        raise Declined

    with pytest.raises(Declined):
        w()
    with pytest.raises(Declined):
        asyncio.run(aw())
    assert effects == [("gentle", 2), ("plain", 1), ("gentle", 4), ("plain", 3)]


def test_an_undo_may_call_steps_and_the_store(runtime, effects: Effects):
    """An undo executes inside the run, and may call steps and the store."""

    @step(name="deep.note")
    def note(what):
        effects(what)

    @step(name="deep.release")
    def release(result):
        note("inner")
        effects("n", flowdsl.store.increment("undone"))

    @step(undo=release, name="deep.reserve")
    def reserve():
        return 1

    @workflow(id="w")
    def w():
        reserve()
        raise Declined

    with pytest.raises(Declined):
        w()
    assert effects == ["inner", ("n", 1)]
    assert runtime.query("w", "state") == {"undone": 1}


def stuck(flavour, effects, retry):
    """A run whose second step cannot be undone."""

    @flavour.step(retry=retry, name="stuck.bad")
    def bad(result):
        effects("bad")
        raise OSError("stuck")

    @flavour.step(name="stuck.good")
    def good(result):
        effects("good", result)

    @flavour.step(undo=good, name="stuck.a")
    def a(n):
        return n

    @flavour.step(undo=bad, name="stuck.b")
    def b():
        return 2

    @flavour.step(retry=ONCE, name="stuck.fails")
    def fails():
        raise Declined

    @flavour.workflow(id="w", name="stuck.w")
    def w():
        yield a(1)
        yield b()
        yield a(3)
        yield fails()

    return w, (bad, good)


def test_an_undo_that_failed_for_good_is_reported_once(storage, clock, flavour, effects: Effects, caplog):
    """An undo that failed for good is reported once and not tried again after a crash, and the others go
    on."""
    w, _keep = stuck(flavour, effects, Retry(attempts=2, jitter=0))
    dies = Mortal(storage, is_undo_record("stuck.bad", StepStatus.FAILED), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock), pytest.raises(Declined):
        flavour.call(w)
    assert effects == [("good", 3), "bad", "bad", ("good", 1)]
    assert caplog.text.count("undo stuck.bad of step") == 1


def test_attempts_of_an_undo_survive_a_crash(storage, clock, flavour, effects: Effects):
    """The attempts of an undo, and the rest of its wait, survive a crash."""
    w, _keep = stuck(flavour, effects, Retry(attempts=3, initial=600, maximum=600, jitter=0))
    dies = Mortal(storage, is_undo_record("stuck.bad", StepStatus.PENDING), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(w)
    clock.advance(200)
    before = clock.now()
    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(Declined):
            flavour.call(w)
        failed = [s for s in rt.storage.list_steps("w") if s.path == "stuck.bad"]
    assert [s.attempts for s in failed] == [3]
    assert effects.count("bad") == 3
    assert clock.now() - before == 400 + 600


def test_an_undo_that_failed_is_tried_again_when_the_retried_run_fails_again(
    runtime, flavour, effects: Effects
):
    """An undo that failed is tried again when the retried run fails again."""
    w, _keep = stuck(flavour, effects, ONCE)
    for times in (1, 2):
        with pytest.raises(Declined):
            flavour.call(w) if times == 1 else runtime.retry("w").result()
        assert effects.count("bad") == times


def test_what_an_undo_had_done_is_not_done_again_by_its_retry(storage, clock, flavour, effects: Effects):
    """Steps that an undo called are replayed in its next attempt and after a crash."""

    @flavour.step(name="partly.refund")
    def refund(n):
        return effects("refund", n)

    @flavour.step(name="partly.note", retry=ONCE)
    def note(n):
        if effects("note", n) < 3:
            raise OSError

    @flavour.step(name="partly.release", retry=Retry(attempts=5, jitter=0))
    def release(n):
        yield refund(n)
        yield note(n)

    @flavour.step(undo=release, name="partly.reserve")
    def reserve(n):
        return n

    @flavour.workflow(id="w")
    def w():
        yield reserve(1)
        yield reserve(2)
        raise Declined

    dies = Mortal(storage, is_undo_record("partly.release", StepStatus.PENDING), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock), pytest.raises(Declined):
        flavour.call(w)
    assert [effects.count("refund", n) for n in (1, 2)] == [1, 1]
    assert [effects.count("note", n) for n in (1, 2)] == [3, 3]


def test_an_undo_that_a_call_was_given_is_found_after_a_kill(
    storage, clock, flavour, effects: Effects, caplog
):
    """After a kill an undo that is a step is found by its name, and a local function is reported as lost."""

    @flavour.step(name="given.release")
    def release(result):
        effects("release", result)

    @flavour.body
    def local(result):
        effects("local", result)

    @flavour.step(name="given.a")
    def a(n):
        return n

    @flavour.workflow(id="w")
    def w():
        yield a.options(undo=release)(1)
        yield a.options(undo=local)(2)
        yield a.options(undo=release)(3)
        raise Declined

    dies = Mortal(storage, is_undo_record("given.release", StepStatus.COMPLETED), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock), pytest.raises(Declined):
        flavour.call(w)
    assert effects == [("release", 3), ("release", 1)]
    assert "given.a" in caplog.text


def test_an_undo_knows_its_step_and_what_is_undone_gets_another_idempotency_key(runtime, flavour):
    """An undo has an idempotency key of its own, and an undone step gets a new one."""
    keys, broken = {"charge": [], "refund": []}, [True]

    def note(what):
        running = flowdsl.current_step()
        assert running.path == f"keys.{what}"
        keys[what].append((running.idempotency_key, running.attempt))

    @flavour.step(name="keys.refund", retry=Retry(attempts=2))
    def refund(payment):
        note("refund")
        if len(keys["refund"]) == 1:
            raise OSError

    @flavour.step(undo=refund, name="keys.charge")
    def charge():
        note("charge")

    @flavour.step(retry=ONCE)
    def ship():
        if broken:
            raise Declined

    @flavour.workflow(id="w")
    def w():
        yield charge()
        yield ship()

    with pytest.raises(Declined):
        flavour.call(w)
    with pytest.raises(Declined):
        runtime.retry("w").result()
    broken.clear()
    runtime.retry("w").result()
    charges, refunds = ([key for key, _ in keys[what]] for what in ("charge", "refund"))
    assert [attempt for _, attempt in keys["refund"]] == [1, 2, 1]
    assert refunds[0] == refunds[1] != refunds[2]
    assert len({*charges, *refunds}) == 5


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
