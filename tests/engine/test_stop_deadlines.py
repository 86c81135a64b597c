"""Time limits of runs: ``timeout=`` of a workflow."""

import asyncio

import pytest
from support import Effects, Flavour, Recorder
from verbsupport import statuses

import flowdsl
from flowdsl import Retry, RunStatus, Runtime, gather, step, workflow
from flowdsl.errors import RunTimeout


def test_an_async_run_is_stopped_at_its_deadline(runtime, clock, hooks: Recorder, effects: Effects):
    """``RunTimeout`` passes through the body, whatever it catches, and the run has failed."""

    @step
    async def slow():
        await clock.asleep(60)

    @workflow(timeout=10)
    async def w():
        try:
            await slow()
        except Exception:
            effects("caught")

    before = clock.now()
    with pytest.raises(RunTimeout):
        asyncio.run(w())
    assert clock.now() - before == 10
    assert effects == []
    (run,) = runtime.runs()
    assert run.status is RunStatus.FAILED
    assert isinstance(run.exception(), RunTimeout)
    assert "run_fail" in hooks.names()


def test_a_run_that_waits_for_a_retry_is_stopped_at_its_deadline(runtime, clock):
    """The wait between attempts ends at the run's deadline."""

    @step(retry=Retry(attempts=9, initial=30, maximum=30, jitter=0))
    def f():
        raise OSError

    @workflow(timeout=45)
    def w():
        f()

    before = clock.now()
    with pytest.raises(RunTimeout):
        w()
    assert clock.now() - before <= 60


def test_a_sync_run_past_its_deadline_makes_no_further_step(runtime, clock, effects: Effects):
    """After the deadline a sync run ends its present step, and begins no other."""

    @step
    def slow():
        clock.sleep(60)
        effects("slow")

    @workflow(timeout=10)
    def w():
        slow()
        effects("between")
        slow()

    with pytest.raises(RunTimeout):
        w()
    assert effects == ["slow", "between"]


def test_a_sync_run_whose_last_step_passed_the_deadline_has_timed_out(runtime, clock):
    """A sync run whose last step passed the deadline has timed out, as an async run has."""

    @step
    def slow():
        clock.sleep(60)

    @workflow(timeout=10)
    def w():
        slow()

    with pytest.raises(RunTimeout):
        w()


def test_retrying_a_timed_out_run_starts_a_new_deadline(runtime, clock, effects: Effects):
    """A retry replays the records, and starts a new deadline."""

    @step
    async def fast():
        return effects("fast")

    @step
    async def slow():
        if effects("slow") == 1:
            await clock.asleep(60)
        return "done"

    @workflow(timeout=10)
    async def w():
        await fast()
        return await slow()

    with pytest.raises(RunTimeout):
        asyncio.run(w())
    clock.advance(100)
    assert asyncio.run(w()) == "done"
    assert effects == ["fast", "slow", "slow"]
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED


def test_an_interrupted_run_keeps_its_deadline(runtime, clock):
    """An interrupted run keeps its deadline."""
    stop = [True]

    @step
    def f(): ...

    @workflow(timeout=10)
    def w():
        f()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        w()
    clock.advance(11)
    with pytest.raises(RunTimeout):
        w()


def test_options_give_one_call_its_timeout(runtime, clock):
    """``w.options(timeout=…)`` wins over the decorator."""

    @step
    async def slow():
        await clock.asleep(60)

    @workflow(timeout="1 day")
    async def w():
        await slow()

    with pytest.raises(RunTimeout):
        asyncio.run(w.options(timeout="5 sec")())


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
