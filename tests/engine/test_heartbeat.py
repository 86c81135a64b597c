"""``heartbeat=``: a silent step is given up, and the next attempt goes on from the last details."""

import asyncio
import threading

import pytest
from support import Crash, Relay

from flowdsl import Retry, Runtime, current_step, step, workflow
from flowdsl.errors import StepOutcomeUnknown, StepTimeout, Stopped
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import PutStep
from flowdsl.testing import VirtualClock


def test_the_next_attempt_goes_on_where_the_last_one_said(runtime):
    """The next attempt gets the ``details`` of the last heartbeat."""
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
    """An async body that is silent longer than the limit is cancelled, and the attempt fails."""
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
    """A silent sync body on a pool is left behind, and its later outcome is discarded."""
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
    """A silent sync body that the workflow calls directly runs to its end, and its result is discarded."""
    clock = VirtualClock()
    late = [60.0]

    @step(heartbeat="30 sec", retry=Retry(attempts=1))
    def slow():
        current_step().heartbeat()
        if late:
            clock.sleep(late.pop())
        return "too late"

    @workflow
    def w():
        return slow()

    with Runtime("memory://", clock=clock), pytest.raises(StepTimeout, match="heartbeat"):
        w()


def test_a_body_that_beats_may_take_as_long_as_it_likes():
    """A body may take any time if the pauses between its heartbeats are short enough."""

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


class Counting(Relay):
    """Counts the beats that are stored."""

    beats = 0

    def commit(self, operations, /):
        self.beats += sum(isinstance(op, PutStep) and op.step.kind == "beat" for op in operations)
        return self.inner.commit(operations)


def test_beats_are_throttled(flavour):
    """At most five heartbeats are stored within one limit."""

    @flavour.step(heartbeat="30 sec")
    def busy():
        for n in range(600):
            yield clock.asleep(0.5) if flavour.is_async else clock.sleep(0.5)
            current_step().heartbeat(n)
        return n

    @flavour.workflow
    def w():
        return (yield busy())

    clock = VirtualClock()
    counting = Counting(MemoryStorage())
    with Runtime(counting, clock=clock):
        assert flavour.call(w) == 599
    assert 40 <= counting.beats <= 51  # of 600 in ten times the limit


def test_the_next_process_goes_on_where_the_last_one_said(storage):
    """The details survive the process, and the retry of a failed run gets them too."""
    begun = []

    @step(heartbeat="30 sec", retry=Retry(attempts=1))
    def load():
        begun.append(current_step().details)
        current_step().heartbeat(len(begun))
        if len(begun) == 1:
            raise Crash
        if len(begun) == 2:
            raise OSError

    @workflow(id="loading")
    def loading():
        load()

    for error in (Crash, OSError):
        with Runtime(storage), pytest.raises(error):
            loading()
    with Runtime(storage) as runtime:
        runtime.retry("loading").result()
    assert begun == [None, 1, 2]


def test_the_last_words_before_a_failure_reach_the_next_process(storage):
    """The last heartbeat before a failure is stored with the failed attempt."""
    seen = []

    @step(heartbeat="30 sec", retry=Retry(attempts=5, initial=0))
    def crawl():
        seen.append(current_step().details)
        if len(seen) == 1:
            current_step().heartbeat("first")
            current_step().heartbeat("last")
            raise OSError("line dropped")
        if len(seen) == 2:
            raise Crash
        return "done"

    @workflow(id="w")
    def w():
        return crawl()

    clock = VirtualClock()
    with Runtime(storage, clock=clock), pytest.raises(Crash):
        w()
    with Runtime(storage, clock=clock):
        assert w() == "done"
    assert seen == [None, "last", "last"]


def test_a_step_in_doubt_stays_in_doubt(storage):
    """A heartbeat does not replace the intent: a step in doubt stays in doubt."""
    begun = []

    @step(heartbeat="30 sec", in_doubt="raise")
    def pay():
        begun.append(1)
        current_step().heartbeat("sent")
        raise Crash

    @workflow(id="paying")
    def paying():
        pay()

    for error in (Crash, StepOutcomeUnknown):
        with Runtime(storage), pytest.raises(error):
            paying()
    assert begun == [1]


def test_a_body_that_was_given_up_beats_in_vain():
    """Heartbeats of a body that was given up change nothing."""
    tries, late, go_on, ended = [], [], threading.Event(), threading.Event()

    @step(heartbeat=0.05, retry=Retry(attempts=None, initial=0))
    def hangs():
        tries.append(1)
        view = current_step()
        if len(tries) == 1:
            go_on.wait(60)
            try:
                view.heartbeat("late")
            except Stopped as error:
                late.append(error)
            ended.set()
        return "done"

    @step
    def after():
        go_on.set()
        return ended.wait(60)

    @workflow(id="w")
    def w():
        return hangs.submit().result(), after()

    with Runtime("memory://") as runtime:
        assert w() == ("done", True)
        assert [str(found.status) for found in runtime.run("w").steps()] == ["completed", "completed"]
    assert len(late) == 1


def test_without_the_option_a_beat_is_refused(runtime):
    """``heartbeat()`` in a step without ``heartbeat=`` is an error that says so."""

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
    """The limit is a positive, readable duration."""
    with pytest.raises((TypeError, ValueError)):
        step(heartbeat=limit)(lambda: None)
