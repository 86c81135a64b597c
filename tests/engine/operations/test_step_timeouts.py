"""Timeouts of steps."""

import asyncio
import logging
import threading
import time

import pytest
from support import ONCE, Effects

from flowdsl import Retry, Runtime, step, workflow
from flowdsl.errors import StepTimeout


def test_an_async_step_is_cancelled_at_its_timeout(runtime, clock, effects: Effects):
    """At its timeout an async step is cancelled, and the caller gets a ``StepTimeout``, which is a
    ``TimeoutError``."""

    @step(timeout=5, retry=ONCE)
    async def slow():
        try:
            await clock.asleep(60)
        except asyncio.CancelledError:
            effects("cancelled")
            raise

    @workflow
    async def w():
        try:
            await slow()
        except TimeoutError as error:
            return type(error).__name__, error.step

    before = clock.now()
    assert asyncio.run(w()) == ("StepTimeout", slow.path)
    assert effects == ["cancelled"]
    assert clock.now() - before == 5


def test_a_sync_step_is_left_behind_at_its_timeout_and_says_so(runtime, caplog, effects: Effects):
    """At its timeout a sync step is left behind and its outcome discarded, and the log says both."""
    gate, ended = threading.Event(), threading.Event()

    @step(timeout=0.05, retry=ONCE)
    def slow():
        gate.wait(60)
        effects("late")
        ended.set()
        return "late"

    @workflow
    def w():
        slow()

    with pytest.raises(StepTimeout, match="left behind") as caught:
        w()
    assert any("cannot be stopped" in r.getMessage() for r in caplog.records)
    (run,) = runtime.runs()
    assert f"step {slow.path} of run {run.id}" in str(caught.value)
    assert [s.status for s in run.steps()] == ["failed"]
    gate.set()
    assert ended.wait(60)
    assert [s.status for s in run.steps()] == ["failed"]


def test_a_step_within_its_timeout_is_not_disturbed(runtime, effects: Effects):
    """Within its timeout a step has the same result, exceptions and nested steps as without one."""

    @step
    def inner(x):
        return x + 1

    @step(timeout="10 sec", retry=ONCE)
    def outer(x):
        if x < 0:
            raise KeyError(x)
        return inner(x) + inner(x)

    @workflow
    def w():
        try:
            outer(-1)
        except KeyError as error:
            return outer(1), error.args

    assert w() == (4, (-1,))


def test_a_timeout_is_of_one_attempt_and_is_retried(runtime, clock, effects: Effects):
    """A timeout is for one attempt, and a retry has the whole time again."""

    @step(timeout=5, retry=Retry(attempts=3, initial=1, multiplier=1, jitter=0))
    async def slow():
        if effects("slow") < 3:
            await clock.asleep(60)
        return "at last"

    @workflow
    async def w():
        return await slow()

    before = clock.now()
    assert asyncio.run(w()) == "at last"
    assert clock.now() - before == 5 + 1 + 5 + 1


def test_a_body_that_was_left_behind_records_nothing_more(runtime, effects: Effects):
    """A body that was left behind executes no later durable call."""
    gate, ended = threading.Event(), threading.Event()

    @step
    def inner():
        effects("inner")

    @step(timeout=0.05, retry=ONCE)
    def slow():
        gate.wait(60)
        try:
            inner()
        finally:
            ended.set()

    @workflow
    def w():
        try:
            slow()
        except TimeoutError:
            gate.set()
            ended.wait(60)
        return "went on"

    assert w() == "went on"
    assert effects == []
    (run,) = runtime.runs()
    assert [s.status for s in run.steps()] == ["failed"]


def test_a_timeout_error_of_the_body_is_the_bodys(runtime):
    """A ``TimeoutError`` of the body is not taken for the step's timeout."""

    @step(timeout=60, retry=ONCE)
    async def f():
        raise TimeoutError("mine")

    @workflow
    async def w():
        await f()

    with pytest.raises(TimeoutError, match="mine") as caught:
        asyncio.run(w())
    assert not isinstance(caught.value, StepTimeout)


@pytest.mark.parametrize("timeout", [0, -1, "soon", "1 month", float("nan"), float("inf"), True, [1]])
def test_timeouts_are_validated_at_decoration(timeout):
    """Zero, negative and unreadable timeouts are refused when the step is decorated."""
    with pytest.raises((TypeError, ValueError)):
        step(timeout=timeout)(lambda: None)
    with pytest.raises((TypeError, ValueError)):

        @workflow(timeout=timeout)
        def w(): ...


def test_the_timeout_of_options_holds_for_one_call(runtime, clock, effects: Effects):
    """``s.options(timeout=…)`` holds for one call and does not change the step."""

    @step(retry=ONCE)
    async def slow():
        await clock.asleep(60)
        return "done"

    @workflow
    async def w():
        try:
            await slow.options(timeout=5)()
        except TimeoutError:
            return await slow()

    assert asyncio.run(w()) == "done"


def test_a_left_behind_body_does_not_keep_the_run_from_ending(storage, caplog):
    """A body that was left behind does not keep the run from failing, in real time."""
    gate = threading.Event()

    @step(timeout=0.05, retry=ONCE)
    def slow():
        gate.wait(60)

    @workflow
    def w():
        slow()

    with Runtime(storage):
        begun = time.monotonic()
        with caplog.at_level(logging.WARNING, "flowdsl"), pytest.raises(StepTimeout):
            w()
        assert time.monotonic() - begun < 50
        gate.set()
