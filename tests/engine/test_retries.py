"""Retries: attempts, delays, and what survives a crash between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Effects, Flavour, Recorder, in_memory

from flowdsl import Retry, Runtime, step, workflow
from flowdsl.storage import MemoryStorage
from flowdsl.testing import VirtualClock

EXACT = Retry(attempts=4, initial=1, multiplier=3, maximum=5, jitter=0)


def failing(flavour: Flavour, effects: Effects, times: int, **options):
    """A step that fails so often, then returns the number of the attempt; and a workflow that calls it."""

    @flavour.step(**options)
    def f():
        nth = effects("f")
        if nth <= times:
            raise OSError(f"attempt {nth}")
        return nth

    @flavour.workflow
    def w():
        return (yield f())

    return w


def test_a_step_is_attempted_until_it_succeeds(runtime, flavour: Flavour, effects, clock):
    """A step is attempted until it succeeds, with delays that grow up to the maximum."""
    before = clock.now()
    assert flavour.call(failing(flavour, effects, 3, retry=EXACT)) == 4
    assert clock.now() - before == 1 + 3 + 5
    (run,) = runtime.runs()
    assert [(s.status, s.attempts) for s in run.steps()] == [("completed", 4)]


def test_after_the_last_attempt_the_original_exception_is_raised(runtime, flavour: Flavour, effects, clock):
    """After exactly ``attempts`` executions the original exception is raised, without another wait."""
    before = clock.now()
    with pytest.raises(OSError, match="attempt 4"):
        flavour.call(failing(flavour, effects, 9, retry=EXACT))
    assert effects.count("f") == 4
    assert clock.now() - before == 9


def test_one_attempt_means_no_retry(runtime, flavour: Flavour, effects, clock):
    """``attempts=1`` means no retry."""
    with pytest.raises(OSError, match="attempt 1"):
        flavour.call(failing(flavour, effects, 9, retry=Retry(attempts=1)))
    assert effects.count("f") == 1


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "3"])
def test_attempts_are_validated(attempts):
    """``attempts=0`` is refused, because the step would never execute."""
    with pytest.raises((TypeError, ValueError), match="attempts"):
        Retry(attempts=attempts)


def test_the_runtimes_policy_holds_for_steps_that_have_none(storage, clock, flavour: Flavour, effects):
    """A step without ``retry=`` uses the runtime's policy, else ``Retry()``."""
    with Runtime(storage, clock=clock, retry=Retry(attempts=5)):
        with pytest.raises(OSError, match="attempt 5"):
            flavour.call(failing(flavour, effects, 9))


def test_the_steps_policy_beats_the_runtimes(storage, clock, flavour: Flavour, effects):
    """A step's own policy wins over the runtime's."""
    with Runtime(storage, clock=clock, retry=Retry(attempts=5)):
        with pytest.raises(OSError, match="attempt 2"):
            flavour.call(failing(flavour, effects, 9, retry=Retry(attempts=2)))


def test_options_change_the_policy_of_one_call(runtime, effects):
    """``s.options(retry=…)(…)`` is the same step with another policy."""

    @step
    def f():
        effects("f")
        raise OSError

    @workflow
    def w():
        f.options(retry=Retry(attempts=2))()

    with pytest.raises(OSError):
        w()
    assert effects.count("f") == 2
    (run,) = runtime.runs()
    assert run.steps()[0].key == f.key()


@in_memory
@pytest.mark.parametrize(
    "error",
    [TypeError, NameError, AttributeError, ImportError, SyntaxError, NotImplementedError, AssertionError],
)
def test_programming_errors_are_not_retried(runtime, flavour: Flavour, effects, error):
    """By default errors that waiting does not mend are not retried."""

    @flavour.step
    def f():
        effects("f")
        raise error("wrong")

    @flavour.workflow
    def w():
        yield f()

    with pytest.raises(error, match="wrong"):
        flavour.call(w)
    assert effects.count("f") == 1


def test_never_may_be_emptied(runtime, effects):
    """With an empty ``never`` they are retried if they are in ``on``."""

    @step(retry=Retry(never=()))
    def f():
        effects("f")
        raise TypeError

    @workflow
    def w():
        f()

    with pytest.raises(TypeError):
        w()
    assert effects.count("f") == 3


def test_what_is_outside_on_is_not_retried(runtime, effects):
    """Only errors in ``on=`` are retried."""

    @step(retry=Retry(on=(ConnectionError,)))
    def f(kind):
        effects(kind)
        raise {"refused": ConnectionRefusedError, "value": ValueError}[kind]("no")

    @workflow
    def w(kind):
        f(kind)

    with pytest.raises(ConnectionRefusedError):
        w("refused")
    with pytest.raises(ValueError, match="no"):
        w("value")
    assert (effects.count("refused"), effects.count("value")) == (3, 1)


def test_retry_after_of_the_exception_is_waited_for(runtime, clock, effects):
    """A ``retry_after`` of the exception is the delay, unchanged."""

    class Busy(Exception):
        retry_after = 120.0

    @step(retry=Retry(maximum=5))
    def f():
        if effects("f") == 1:
            raise Busy
        return "done"

    @workflow
    def w():
        return f()

    before = clock.now()
    assert w() == "done"
    assert clock.now() - before == 120


def test_attempts_survive_a_crash(runtime, clock, flavour: Flavour, effects, hooks: Recorder):
    """Two attempts before a crash leave two of four."""
    stop = []

    class Dies(Recorder):
        def on_step_retry(self, step, error, attempt, delay):
            if attempt == 2 and not stop:
                stop.append(True)
                raise_in_wait.append(True)

    raise_in_wait = []
    w = failing(flavour, effects, 9, retry=EXACT)

    class Interrupting(VirtualClock):
        def wait(self, waker, seconds, **more):
            if raise_in_wait and seconds is not None:
                raise_in_wait.clear()
                raise KeyboardInterrupt
            return super().wait(waker, seconds, **more)

        async def await_(self, waker, seconds):
            if raise_in_wait and seconds is not None:
                raise_in_wait.clear()
                raise KeyboardInterrupt
            return await super().await_(waker, seconds)

    with Runtime(runtime.storage, clock=Interrupting(), hooks=Dies()):
        with pytest.raises(KeyboardInterrupt):
            flavour.call(w)
        assert effects.count("f") == 2
        (run,) = runtime.runs()
        assert [(s.status, s.attempts) for s in run.steps()] == [("pending", 2)]
        with pytest.raises(OSError, match="attempt 4"):
            flavour.call(w)
    assert effects.count("f") == 4


def test_the_delay_survives_a_crash(storage, effects):
    """A wait that was interrupted by a crash lasts only for its rest."""
    w = failing(Flavour(False), effects, 1, retry=Retry(initial=30, jitter=0))
    clock = VirtualClock()

    class Interrupting(VirtualClock):
        def wait(self, waker, seconds, **more):
            raise KeyboardInterrupt

    with Runtime(storage, clock=Interrupting()), pytest.raises(KeyboardInterrupt):
        w()
    clock.advance(10)
    before = clock.now()
    with Runtime(storage, clock=clock):
        assert w() == 2
    assert clock.now() - before == pytest.approx(20)


def test_the_retry_counter_is_not_reset_by_other_steps(runtime, effects):
    """Each step counts its own attempts."""

    @step(retry=Retry(attempts=2, jitter=0))
    def f(x):
        if effects("f", x) == 1:
            raise OSError
        return x

    @workflow
    def w():
        return [f(i) for i in range(3)]

    assert w() == [0, 1, 2]
    (run,) = runtime.runs()
    assert [s.attempts for s in run.steps()] == [2, 2, 2]


def test_hooks_count_errors_and_waits(runtime, flavour: Flavour, hooks: Recorder, effects):
    """``on_step_error`` is called for each failed attempt, and ``on_step_retry`` for each wait."""
    with pytest.raises(OSError):
        flavour.call(failing(flavour, effects, 9, retry=Retry(attempts=3, initial=2, multiplier=2, jitter=0)))
    assert [(str(error), attempt, step.attempt) for step, error, attempt in hooks.of("step_error")] == [
        ("attempt 1", 1, 1), ("attempt 2", 2, 2), ("attempt 3", 3, 3),
    ]  # fmt: skip
    assert [(attempt, delay) for _, _, attempt, delay in hooks.of("step_retry")] == [(1, 2.0), (2, 4.0)]
    assert [s.attempt for (s,) in hooks.of("step_start")] == [1, 2, 3]
    assert hooks.names()[-1] == "run_fail"


@given(
    attempts=st.integers(1, 6),
    fails=st.integers(0, 7),
    initial=st.floats(0, 100),
    multiplier=st.floats(0.5, 4),
    maximum=st.floats(0, 50),
    jitter=st.floats(0, 1),
)
def test_every_delay_is_within_its_bounds(attempts, fails, initial, multiplier, maximum, jitter):
    """Each delay is ``min(maximum, initial·multiplierⁿ⁻¹)`` times a factor in [1-jitter, 1]."""
    effects, hooks = Effects(), Recorder()
    retry = Retry(attempts, initial, multiplier, maximum, jitter)
    w = failing(Flavour(False), effects, fails, retry=retry)
    with Runtime(MemoryStorage(), clock=VirtualClock(), hooks=hooks):
        try:
            w()
        except OSError:
            assert fails >= attempts
    assert effects.count("f") == min(fails + 1, attempts)
    delays = [delay for _, _, _, delay in hooks.of("step_retry")]
    assert len(delays) == min(fails, attempts - 1)
    for n, delay in enumerate(delays):
        cap = min(maximum, initial * multiplier**n)
        assert cap * (1 - jitter) <= delay * (1 + 1e-12)
        assert delay <= cap


def test_delays_are_spread(runtime, hooks: Recorder, effects):
    """Jitter spreads delays, and is applied before the maximum."""

    @step(retry=Retry(attempts=2, initial=10, maximum=10, jitter=0.5))
    def f(x):
        if effects("f", x) == 1:
            raise OSError

    @workflow
    def w():
        for x in range(50):
            f(x)

    w()
    delays = [delay for *_, delay in hooks.of("step_retry")]
    assert all(5 <= delay <= 10 for delay in delays)
    assert len(set(delays)) > 25
    assert max(delays) - min(delays) > 1


def test_a_retried_async_step_does_not_block_its_siblings(runtime, clock, effects):
    """While an async step waits for its next attempt, other branches go on."""
    import asyncio

    @step(retry=Retry(attempts=2, initial=60, jitter=0))
    async def flaky():
        if effects("flaky") == 1:
            raise OSError
        return "flaky"

    @step
    async def steady(x):
        effects("steady", x)
        return x

    async def many():
        return [await steady(x) for x in range(5)]

    @workflow
    async def w():
        return await asyncio.gather(flaky(), many())

    assert asyncio.run(w()) == ["flaky", [0, 1, 2, 3, 4]]
    assert effects.log[-1] == "flaky"


def nested(flavour: Flavour, effects: Effects, **outermost):
    """A failing step in a step in a step, the outermost with these options; and a workflow that calls it."""

    @flavour.step
    def inner():
        effects("inner")
        raise OSError

    @flavour.step
    def middle():
        yield inner()

    @flavour.step(**outermost)
    def outer():
        yield middle()

    @flavour.workflow
    def w():
        yield outer()

    return w


def test_default_retries_do_not_multiply(runtime, flavour: Flavour, effects, clock):
    """Nested default retries do not multiply: three executions, not 27."""
    with pytest.raises(OSError):
        flavour.call(nested(flavour, effects))
    assert effects.count("inner") == 3


def test_a_retry_of_its_own_tries_again_what_an_inner_step_has_given_up_on(runtime, flavour, effects, clock):
    """An explicit ``retry=`` of the outer step retries what an inner step has given up on."""
    with pytest.raises(OSError):
        flavour.call(nested(flavour, effects, retry=Retry(attempts=2)))
    assert effects.count("inner") == 6
