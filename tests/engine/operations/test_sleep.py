"""Durable time: sleeps, deadlines, and clocks that are set."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from support import Crash, Effects, Mortal, in_memory
from verbsupport import until

import flowdsl
from flowdsl import RunStatus, Runtime, aio, step, workflow
from flowdsl.errors import FlowError, RunTimeout
from flowdsl.testing import VirtualClock

YEARS = 10 * 365 * 86_400.0


@in_memory
@pytest.mark.parametrize(
    ("duration", "seconds"),
    [(5, 5), (0.5, 0.5), (0, 0), (timedelta(hours=1), 3600), ("30 sec", 30), ("5 min", 300), ("2 hours", 7200),
     ("1 day", 86_400), ("2 weeks", 1_209_600), ("15m", 900), ("1h30m", 5400)],
)  # fmt: skip
def test_sleep_lasts_as_long_as_it_says(runtime, clock, flavour, verbs, duration, seconds):
    """Each form of a duration sleeps for its seconds."""

    @flavour.workflow
    def w():
        yield verbs.sleep(duration)

    before = clock.now()
    flavour.call(w)
    assert clock.now() - before == seconds


@in_memory
@pytest.mark.parametrize("duration", ["1 month", "2 years", -1, "-5 min", "soon", "", float("nan")])
def test_nonsense_is_no_duration(runtime, flavour, verbs, duration):
    """Months, years, negative and unreadable durations raise ``ValueError``, and nothing is recorded."""

    @flavour.workflow
    def w():
        yield verbs.sleep(duration)

    with pytest.raises(ValueError):
        flavour.call(w)
    assert runtime.runs()[0].steps() == []


def test_sleep_until_a_moment(runtime, clock, flavour, verbs):
    """``sleep_until`` takes an aware time, refuses a naive one, and returns at once for a past one."""
    moment = datetime.fromtimestamp(clock.now(), UTC) + timedelta(days=3)

    @flavour.workflow
    def w():
        yield verbs.sleep_until(moment)
        yield verbs.sleep_until(moment - timedelta(days=9))

    @flavour.workflow
    def naive():
        yield verbs.sleep_until(datetime(2030, 1, 1))

    @flavour.workflow
    def number():
        yield verbs.sleep_until(17)

    flavour.call(w)
    assert clock.now() == moment.timestamp()
    with pytest.raises(ValueError, match="naive"):
        flavour.call(naive)
    with pytest.raises(TypeError, match="aware"):
        flavour.call(number)


def test_an_elapsed_sleep_is_not_slept_again(storage, clock, flavour, verbs, effects: Effects):
    """A sleep that has ended is replayed at once."""

    @flavour.step
    def after():
        effects("after")

    @flavour.workflow
    def w():
        yield verbs.sleep("7 days")
        yield after()

    with Runtime(Mortal(storage, 3), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    slept = clock.now()
    with Runtime(storage, clock=clock):
        flavour.call(w)
    assert clock.now() == slept
    assert effects == ["after", "after"]


def test_a_resume_sleeps_what_is_left_by_the_wall_clock(storage, flavour, verbs):
    """A resume sleeps only for the rest of the time, by the wall clock."""
    first = VirtualClock(0.0)

    @flavour.workflow
    def w():
        yield verbs.sleep(1000)

    with Runtime(Mortal(storage, 2), clock=first), pytest.raises(Crash):
        flavour.call(w)
    second = VirtualClock(600.0)
    with Runtime(storage, clock=second):
        flavour.call(w)
    assert second.now() == 1000.0


def test_a_longer_sleep_in_the_code_does_not_change_one_that_has_begun(storage, clock, effects: Effects):
    """A changed duration in the code does not change a sleep that has begun."""
    long = ["1 hour"]

    @workflow
    def w():
        flowdsl.sleep(long[0])

    start = clock.now()
    with Runtime(Mortal(storage, 2), clock=clock), pytest.raises(Crash):
        w()
    long[0] = "9 hours"
    with Runtime(storage, clock=clock):
        w()
    assert clock.now() - start == 3600


@pytest.mark.parametrize("jump", [YEARS, -YEARS])
def test_a_clock_that_is_set_fires_no_sleep_early_or_twice(storage, wall, flavour, verbs, effects, jump):
    """A wall clock that is set by years changes no sleep."""

    @flavour.step
    def woke():
        effects("woke")

    @flavour.workflow(id="w")
    def w():
        yield verbs.sleep("1 day")
        yield woke()

    with Runtime(storage, clock=wall) as rt:
        run = w.start()
        until(lambda: rt.storage.list_steps("w"))
        before = wall.monotonic()
        wall.offset = jump
        rt.signal("w", "wakes nobody")
        run.result()
    assert wall.monotonic() - before == 86_400
    assert effects == ["woke"]


@pytest.mark.parametrize("jump", [YEARS, -YEARS])
def test_a_clock_that_is_set_does_not_move_a_runs_deadline(storage, wall, flavour, verbs, jump):
    """The deadline of a run does not move when the clock is set."""

    @flavour.step
    def sets():
        wall.offset = jump

    @flavour.workflow(timeout="2 days")
    def w():
        yield sets()
        yield verbs.sleep("1 day")
        yield verbs.sleep("3 days")

    before = wall.monotonic()
    with Runtime(storage, clock=wall):
        with pytest.raises(RunTimeout):
            flavour.call(w)
    assert wall.monotonic() - before == 2 * 86_400


@pytest.mark.parametrize("jump", [YEARS, -YEARS])
def test_a_clock_that_is_set_does_not_move_the_timeout_of_a_wait(storage, wall, jump):
    """A wait that another signal wakes goes on for the rest of its time, although the clock is set."""

    @workflow(id="w")
    def w():
        flowdsl.wait_for("answer", timeout="1 day")

    with Runtime(storage, clock=wall) as rt:
        run = w.start()
        until(lambda: rt.storage.list_steps("w"))
        before = wall.monotonic()
        wall.offset = jump
        rt.signal("w", "another")
        with pytest.raises(TimeoutError):
            run.result()
    assert wall.monotonic() - before == 86_400


def test_a_signal_does_not_end_a_sleep(runtime, clock, flavour, verbs):
    """A signal to a sleeping run is kept, and the sleep goes on."""

    @flavour.step
    def tell():
        runtime.signal("w", "hello")

    @flavour.workflow(id="w")
    def w():
        yield tell()
        yield verbs.sleep("1 day")
        return (yield verbs.wait_for("hello"))

    before = clock.now()
    flavour.call(w)
    assert clock.now() - before == 86_400


def test_a_signal_does_not_cut_short_the_wait_between_attempts(runtime, clock):
    """A signal does not shorten the wait between attempts."""
    from flowdsl import Retry

    tries = []

    @step(retry=Retry(attempts=2, initial=100, maximum=100, jitter=0))
    async def flaky():
        tries.append(clock.now())
        if len(tries) == 1:
            raise OSError("once")

    @step
    async def tell():
        runtime.signal("w", "go")

    @workflow(id="w")
    async def w():
        async def other():
            await aio.wait_for("go")

        async def later():
            await aio.sleep(50)
            await tell()

        await aio.gather(flaky(), other(), later())

    asyncio.run(w())
    assert tries[1] - tries[0] == 100


def test_a_thousand_sleeping_async_runs_cost_no_thread_each(storage):
    """A thousand sleeping runs need one event loop and a few threads."""
    count = 1000 if storage.inline else 100
    most = []

    @workflow
    async def nap(n):
        await aio.sleep("30 days")
        if n == 7:
            most.append(threading.active_count())
        return n

    async def main():
        async with Runtime(storage, clock=VirtualClock()):
            return await asyncio.gather(*(nap(n) for n in range(count)))

    assert asyncio.run(main()) == list(range(count))
    assert max(most) < 30


def test_a_run_deadline_survives_a_restart(storage, flavour, verbs, effects: Effects):
    """A resumed run has only the rest of its deadline, and then fails with ``RunTimeout``."""

    @flavour.workflow(timeout=1000)
    def w():
        yield verbs.sleep(5000)

    with Runtime(Mortal(storage, 2), clock=VirtualClock(0.0)), pytest.raises((Crash, RunTimeout)):
        flavour.call(w)
    clock = VirtualClock(400.0)
    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(RunTimeout):
            flavour.call(w)
        assert rt.runs()[0].status is RunStatus.FAILED
    assert clock.now() == 1000.0


def test_retrying_a_timed_out_run_starts_a_new_deadline_of_the_same_length(runtime, clock, flavour, verbs):
    """A retry of a timed-out run starts a new deadline of the same length, and no more."""

    @flavour.workflow(timeout=100, id="w")
    def w():
        for _ in range(5):
            yield verbs.sleep(99)

    for _ in range(4):
        before = clock.now()
        with pytest.raises(RunTimeout):
            flavour.call(w)
        assert clock.now() - before == 100
    before = clock.now()
    flavour.call(w)
    assert clock.now() - before < 100


def test_verbs_of_the_other_kind_are_refused(runtime, flavour):
    """A sync verb in an async body, or the reverse, raises a ``TypeError`` that names the right verb."""
    wrong = flowdsl if flavour.is_async else aio

    @flavour.workflow
    def w():
        wrong.sleep(1)
        yield

    with pytest.raises(TypeError, match="use `"):
        flavour.call(w)


def test_sleep_outside_a_run_says_where_it_belongs():
    """``sleep`` outside a run is refused, and the message says where it belongs."""
    with pytest.raises(FlowError, match="inside a run"):
        flowdsl.sleep(1)
