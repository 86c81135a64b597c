"""The three modes of a step, in a run and outside."""

import asyncio
import threading

import pytest
from support import Effects, Flavour, Recorder

from flowdsl import Retry, Runtime, step, workflow


class Declined(Exception):
    """A business error."""

    def __init__(self, code, message):
        super().__init__(code, message)
        self.code = code


def test_do_is_the_default_and_is_recorded(runtime, flavour: Flavour):
    """A step without a mode is durable."""

    @flavour.step
    def f(x):
        return x

    @flavour.workflow
    def w():
        return (yield f(3))

    assert flavour.call(w) == 3
    (run,) = runtime.runs()
    assert [(s.status, s.attempts) for s in run.steps()] == [("completed", 1)]


def test_do_makes_three_attempts_by_default(runtime, flavour: Flavour, effects: Effects):
    """A step without ``retry=`` makes three attempts."""

    @flavour.step
    def f():
        effects("f")
        raise OSError("down")

    @flavour.workflow
    def w():
        yield f()

    with pytest.raises(OSError, match="down"):
        flavour.call(w)
    assert effects.count("f") == 3
    (run,) = runtime.runs()
    assert [(s.status, s.attempts) for s in run.steps()] == [("failed", 3)]


def test_try_is_not_recorded_and_not_retried(runtime, flavour: Flavour, effects: Effects):
    """A ``try`` step has one attempt, no record, the original exception, and ignores ``retry=``."""
    error = Declined(7, "no")

    @flavour.step(mode="try", retry=Retry(attempts=5))
    def f():
        effects("f")
        raise error

    @flavour.workflow
    def w():
        try:
            yield f()
        except Declined as caught:
            return caught is error

    assert flavour.call(w) is True
    assert effects.count("f") == 1
    (run,) = runtime.runs()
    assert run.steps() == []


def test_try_executes_again_on_a_replay(runtime, flavour: Flavour, effects: Effects):
    """A ``try`` step executes again on a replay."""
    stop = [True]

    @flavour.step(mode="try")
    def look():
        return effects("look")

    @flavour.workflow
    def w():
        seen = yield look()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return seen

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w) == 2


def test_do_steps_inside_a_try_step_are_durable(runtime, flavour: Flavour, effects: Effects):
    """Steps inside a ``try`` step are recorded in the run."""
    stop = [True]

    @flavour.step
    def inner():
        return effects("inner")

    @flavour.step(mode="try")
    def outer():
        return (yield inner())

    @flavour.workflow
    def w():
        value = yield outer()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w) == 1


def test_send_returns_none_at_once_and_close_drains(storage, clock, effects: Effects):
    """A ``send`` step returns ``None`` at once, and ``close`` waits for it."""
    gate = threading.Event()

    @step(mode="send")
    def notify(x):
        gate.wait(60)
        effects("notified", x)

    @workflow
    def w():
        return notify(1)

    with Runtime(storage, clock=clock) as runtime:
        assert w() is None
        assert effects == []
        (run,) = runtime.runs()
        assert run.steps() == []
        gate.set()
    assert effects == [("notified", 1)]


def test_an_async_send_step_may_be_awaited(runtime, storage, clock, effects: Effects):
    """Awaiting an async ``send`` step gives ``None`` at once."""

    @step(mode="send")
    async def notify(x):
        effects("notified", x)

    @workflow
    async def w():
        return await notify(1)

    with Runtime(storage, clock=clock):
        assert asyncio.run(w()) is None
    assert effects == [("notified", 1)]


def test_the_errors_of_send_go_to_hook_and_log(storage, clock, hooks: Recorder, caplog, flavour: Flavour):
    """The error of a ``send`` step goes once to hooks and the log, as attempt 1, and to nobody else."""

    @flavour.step(mode="send", retry=Retry(attempts=4))
    def notify():
        raise OSError("mail is down")

    @flavour.workflow
    def w():
        yield notify()
        return "done"

    with Runtime(storage, clock=clock, hooks=hooks):
        assert flavour.call(w) == "done"
    ((view, error, attempt),) = hooks.of("step_error")
    assert (view.mode, str(error), attempt, view.attempt) == ("send", "mail is down", 1, 1)
    assert hooks.of("step_retry") == []
    assert any("notify" in r.getMessage() and r.levelname == "ERROR" for r in caplog.records)


def test_the_body_of_a_sent_step_stands_outside_the_run(storage, clock, effects: Effects):
    """Steps that a ``send`` step calls are plain calls."""

    @step
    def inner():
        return effects("inner")

    @step(mode="send")
    def outer():
        inner()

    @workflow
    def w():
        outer()

    with Runtime(storage, clock=clock) as runtime:
        w()
        (run,) = runtime.runs()
    assert effects == ["inner"]
    assert storage.list_steps(run.id) == []


def test_send_repeats_on_resume(storage, clock, effects: Effects):
    """A ``send`` step is not recorded, so a resume sends again."""
    stop = [True]

    @step(mode="send")
    def notify():
        effects("sent")

    @workflow
    def w():
        notify()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with Runtime(storage, clock=clock):
        with pytest.raises(KeyboardInterrupt):
            w()
        w()
    assert effects.count("sent") == 2


def test_send_outside_a_run_is_a_background_call(storage, clock, effects: Effects):
    """Outside a run, a ``send`` step executes in the background."""

    @step(mode="send")
    def notify(x):
        effects("sent", x, threading.current_thread() is threading.main_thread())

    with Runtime(storage, clock=clock):
        assert notify(5) is None
    assert effects == [("sent", 5, False)]


@pytest.mark.parametrize("mode", ["doo", "", None, 3, ["do"]])
def test_an_unknown_mode_is_refused_at_decoration(mode):
    """An unknown mode is refused when the step is decorated, and the message lists the modes."""
    with pytest.raises((ValueError, TypeError), match="'do', 'try', 'send'"):
        step(mode=mode)(lambda: None)
