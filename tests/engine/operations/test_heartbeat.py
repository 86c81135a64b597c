"""``heartbeat=``: a step says that it lives; one that does not is given up, and the next attempt goes on."""

import asyncio

import pytest

from flowdsl import Retry, Runtime, current_step, step, workflow
from flowdsl.errors import StepTimeout
from flowdsl.testing import VirtualClock


def test_the_next_attempt_goes_on_where_the_last_one_said(runtime):
    """``details`` of the last beat are given to the next attempt."""
    seen = []

    @step(heartbeat="30 sec", retry=Retry(attempts=3, initial=0))
    def crawl():
        begin = current_step().details or 0
        seen.append(begin)
        for n in range(begin, 5):
            current_step().heartbeat(n + 1)
            if n == 2 and len(seen) == 1:
                raise OSError("line dropped")
        return "done"

    @workflow
    def w():
        return crawl()

    assert w() == "done"
    assert seen[0] == 0
    assert seen[1] >= 1  # beats are throttled: the first one is stored at once


def test_an_async_body_that_hangs_is_given_up():
    """A body that does not beat for longer than the limit is cancelled; the attempt is lost."""
    tries = []

    @step(heartbeat="30 sec", retry=Retry(attempts=2, initial=0))
    async def hangs():
        tries.append(current_step().details)
        current_step().heartbeat(f"try {len(tries)}")
        if len(tries) == 1:
            await clock.asleep(1000)
        return "done"

    @workflow
    async def w():
        return await hangs()

    clock = VirtualClock()
    with Runtime("memory://", clock=clock):
        assert asyncio.run(w()) == "done"
    assert tries == [None, "try 1"]


def test_a_submitted_sync_body_that_hangs_is_given_up():
    """On a pool the body is left behind, and what it does later is discarded."""
    clock = VirtualClock()
    tries = []

    @step(heartbeat="30 sec", retry=Retry(attempts=2, initial=0))
    def hangs():
        tries.append(1)
        current_step().heartbeat()
        if len(tries) == 1:
            clock.sleep(1000)
        return len(tries)

    @workflow
    def w():
        return hangs.submit().result()

    with Runtime("memory://", clock=clock):
        assert w() == 2


def test_an_inline_sync_body_ends_first_and_is_then_lost():
    """It cannot be stopped; when it ends late, its result is dropped."""
    clock = VirtualClock()
    late = [60.0]

    @step(heartbeat="30 sec", retry=Retry(attempts=1))
    def slow():
        current_step().heartbeat()
        if late:
            clock.advance(late.pop())
        return "too late"

    @workflow
    def w():
        return slow()

    with Runtime("memory://", clock=clock), pytest.raises(StepTimeout, match="heartbeat"):
        w()


def test_a_body_that_beats_may_take_as_long_as_it_likes():
    """The limit is between two beats, not for the whole."""

    @step(heartbeat="30 sec", retry=Retry(attempts=1))
    async def long():
        for _ in range(10):
            await clock.asleep(20)
            current_step().heartbeat()
        return True

    @workflow
    async def w():
        return await long()

    clock = VirtualClock()
    with Runtime("memory://", clock=clock):
        assert asyncio.run(w()) is True


def test_without_the_option_a_beat_is_refused(runtime):
    """``heartbeat()`` in a step that has no ``heartbeat=`` says so."""

    @step(retry=None)
    def plain():
        current_step().heartbeat()

    @workflow
    def w():
        plain()

    with pytest.raises(TypeError, match="heartbeat="):
        w()


@pytest.mark.parametrize("limit", [0, -1, "soon"])
def test_the_limit_is_a_duration(limit):
    """Above nothing, and readable."""
    with pytest.raises((TypeError, ValueError)):
        step(heartbeat=limit)(lambda: None)
