"""Code that makes another call than the recorded one."""

import asyncio

import pytest
from diverging import World, interrupted
from support import ONCE, Effects, Flavour

from flowdsl import RunStatus, Runtime, step, workflow
from flowdsl.errors import NondeterminismError


def test_a_changed_argument_is_caught_before_the_body(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A changed argument raises before the body, and the error shows both argument lists and the line."""
    world = World(10)

    @flavour.step
    def charge(order, amount):
        return effects("charge", order, amount)

    @flavour.workflow
    def w():
        yield charge("o-1", amount=world.values[0])
        world.maybe_stop()

    interrupted(flavour, w)
    world.values = (11,)
    with pytest.raises(NondeterminismError) as caught:
        flavour.call(w)
    text = str(caught.value)
    assert "- amount=10" in text
    assert "+ amount=11" in text
    assert flavour.is_async or "test_divergence.py:" in text
    assert flavour.is_async or 'charge("o-1", amount=world.values[0])' in text
    assert "rerun" in text
    assert (caught.value.recorded, caught.value.asked) == ("order='o-1', amount=10", "order='o-1', amount=11")
    assert effects == [("charge", "o-1", 10)]
    (run,) = runtime.runs()
    assert run.status is RunStatus.RUNNING
    assert run.interrupted


def test_the_source_line_is_shown_in_async_code_too(runtime: Runtime):
    """In async code the error shows the user's line of the ``await``."""
    world = World(10)

    @step
    async def charge(amount): ...

    @workflow
    async def w():
        await charge(world.values[0])
        world.maybe_stop()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(w())
    world.values = (11,)
    with pytest.raises(NondeterminismError, match=r"test_divergence\.py:\d+: await charge\(world"):
        asyncio.run(w())


def test_it_cannot_be_swallowed_and_compensates_nothing(runtime: Runtime, flavour: Flavour, effects: Effects):
    """``except Exception`` does not catch the divergence, nothing compensates, and mended code continues the
    run."""
    world = World(10)

    @flavour.step
    def charge(amount):
        return effects("charge", amount)

    @flavour.step
    def refund():
        effects("refund")

    def on_error(run, error):
        effects("on_error")

    @flavour.workflow(on_error=on_error)
    def w():
        try:
            yield charge(world.values[0])
        except Exception:
            yield refund()
            raise
        world.maybe_stop()
        return "done"

    interrupted(flavour, w)
    world.values = (11,)
    with pytest.raises(NondeterminismError):
        flavour.call(w)
    world.values = (10,)
    assert flavour.call(w) == "done"
    assert effects == [("charge", 10)]


def test_after_it_later_durable_calls_re_raise(runtime: Runtime, flavour: Flavour, effects: Effects):
    """After a divergence later durable calls raise it again, even after a bare ``except``."""
    world = World(1)

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.step
    def g():
        return effects("g")

    @flavour.workflow
    def w():
        try:
            yield f(world.values[0])
        except BaseException:
            yield g()
        world.maybe_stop()

    interrupted(flavour, w)
    world.values = (2,)
    with pytest.raises(NondeterminismError):
        flavour.call(w)
    assert effects == [("f", 1)]


@pytest.mark.parametrize("where", ["runtime", "step", "options"])
def test_rerun_executes_the_changed_call(storage, clock, flavour: Flavour, effects: Effects, where):
    """``on_divergence="rerun"`` of the runtime, the step or the call executes the changed call."""
    world = World(1)
    options = {"on_divergence": "rerun"}

    @flavour.step(**(options if where == "step" else {}))
    def f(x):
        return effects("f", x)

    call = f.options(**options) if where == "options" else f

    @flavour.workflow
    def w():
        value = yield call(world.values[0])
        world.maybe_stop()
        return value, world.values

    with Runtime(storage, clock=clock, **(options if where == "runtime" else {})):
        interrupted(flavour, w)
        world.values = (2,)
        assert flavour.call(w) == (1, (2,))
    assert effects == [("f", 1), ("f", 2)]


def test_reuse_takes_the_recorded_result(runtime: Runtime, flavour: Flavour, effects: Effects, caplog):
    """``on_divergence="reuse"`` gives the recorded result, with a warning each time."""
    world = World(1)

    @flavour.step(on_divergence="reuse")
    def f(x):
        return effects("f", x), x

    @flavour.workflow
    def w(n):
        value = yield f(world.values[0])
        other = yield f(99)
        world.maybe_stop()
        return value, other

    interrupted(flavour, w, 1)
    world.values = (2,)
    assert flavour.call(w, 1) == ((1, 1), (1, 99))
    assert effects == [("f", 1), ("f", 99)]
    assert any("other arguments" in r.getMessage() for r in caplog.records)
    assert not any("without asking" in r.getMessage() for r in caplog.records)


def test_reuse_of_a_recorded_failure(runtime: Runtime, effects: Effects):
    """``on_divergence="reuse"`` raises the recorded exception."""
    world = World(1)

    @step(on_divergence="reuse", retry=ONCE)
    def f(x):
        effects("f", x)
        raise LookupError(x)

    @workflow
    def w():
        try:
            f(world.values[0])
        except LookupError as error:
            seen = error.args
        world.maybe_stop()
        return seen

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = (2,)
    assert w() == (1,)
    assert effects == [("f", 1)]


@pytest.mark.parametrize("bad", ["ignore", "", None, 1])
def test_policies_are_validated(bad):
    """An unknown policy is refused where it is given, and the message lists the policies."""
    if bad is not None:
        with pytest.raises((TypeError, ValueError), match="'raise', 'rerun', 'reuse'"):
            step(on_divergence=bad)(lambda: None)
    with pytest.raises((TypeError, ValueError), match="'raise', 'rerun', 'reuse'"):
        Runtime("memory://", on_divergence=bad)


def test_calls_may_be_removed(runtime: Runtime, effects: Effects, caplog):
    """If calls are removed, the others still match."""
    world = World(0, 1, 2, 3)

    @step
    def f(x):
        return effects("f", x)

    @workflow
    def w():
        found = [f(x) for x in world.values]
        world.maybe_stop()
        return found

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = (1, 3)
    assert w() == [1, 1]
    assert len(effects) == 4
    assert any("2 recorded steps" in r.getMessage() for r in caplog.records)


def test_calls_may_be_reordered(runtime: Runtime, effects: Effects):
    """If calls are reordered, they match by content."""
    world = World(0, 1, 2, 3)

    @step
    def f(x):
        return effects("f", x) and x

    @workflow
    def w():
        found = [f(x) for x in world.values]
        world.maybe_stop()
        return found

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = (3, 1, 0, 2)
    assert w() == [3, 1, 0, 2]
    assert len(effects) == 4


def test_calls_may_be_added_behind_the_recorded_ones(runtime: Runtime, effects: Effects):
    """Calls may be added after the recorded ones, and calls of another path anywhere."""
    world = World(0, 1)

    @step
    def f(x):
        return effects("f", x) and x

    @step
    def g(x):
        return effects("g", x) and x

    @workflow
    def w():
        found = [] if world.stop else [g(7)]
        found += [f(x) for x in world.values]
        world.maybe_stop()
        return found

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = (0, 1, 2)
    assert w() == [7, 0, 1, 2]
    assert len(effects) == 4


def test_a_call_added_in_front_raises_and_says_that_rerun_lets_it_pass(runtime: Runtime, effects: Effects):
    """A call added before the recorded ones diverges, and the message says that ``rerun`` accepts it."""
    world = World(1, 2)
    policy = [None]

    @step
    def f(x):
        return effects("f", x) and x

    @workflow
    def w():
        found = [f.options(on_divergence=policy[0])(x) for x in world.values]
        world.maybe_stop()
        return found

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = (0, 1, 2)
    with pytest.raises(NondeterminismError, match='"rerun"'):
        w()
    policy[0] = "rerun"
    assert w() == [0, 1, 2]
    assert [effects.count("f", x) for x in range(3)] == [1, 1, 1]


def test_a_changed_version_is_no_divergence(runtime: Runtime, effects: Effects):
    """A call with another version executes, without a divergence."""
    world = World()
    version = [1]

    @step
    def f(x):
        return effects("f", version[0])

    @workflow
    def w():
        f.options(version=version[0])(1)
        world.maybe_stop()

    with pytest.raises(KeyboardInterrupt):
        w()
    version[0] = 2
    w()
    assert effects == [("f", 1), ("f", 2)]


def test_an_added_optional_parameter_changes_no_key(runtime: Runtime, effects: Effects):
    """With a new optional parameter old records still match."""
    world = World()

    def make(new):
        if new:

            @step(name="grown")
            def f(x, extra=None):
                return effects("new")
        else:

            @step(name="grown")
            def f(x):
                return effects("old")

        return f

    current = [make(False)]

    @workflow
    def w():
        value = current[0](1)
        world.maybe_stop()
        return value

    with pytest.raises(KeyboardInterrupt):
        w()
    current[0] = make(True)
    assert w() == 1
    assert effects == ["old"]


def test_a_changed_default_counts_as_a_changed_argument(runtime: Runtime, effects: Effects):
    """A changed default counts as a changed argument."""
    world = World()

    def make(default):
        @step(name="rated")
        def f(x, rate=default):
            return effects("f", rate)

        return f

    current = [make(1)]

    @workflow
    def w():
        value = current[0](1)
        world.maybe_stop()
        return value

    with pytest.raises(KeyboardInterrupt):
        w()
    current[0] = make(2)
    with pytest.raises(NondeterminismError, match="rate"):
        w()
    assert effects == [("f", 1)]


def test_a_failed_attempt_in_waiting_is_evidence_too(storage, effects: Effects):
    """The record of a step that waits for its next attempt is evidence of a divergence."""
    from flowdsl.testing import VirtualClock

    world = World(1)

    class Interrupting(VirtualClock):
        def wait(self, waker, seconds, **more):
            raise KeyboardInterrupt

    @step
    def f(x):
        effects("f", x)
        raise OSError

    @workflow
    def w():
        f(world.values[0])

    with Runtime(storage, clock=Interrupting()), pytest.raises(KeyboardInterrupt):
        w()
    world.values = (2,)
    with Runtime(storage, clock=VirtualClock()), pytest.raises(NondeterminismError):
        w()
    assert effects == [("f", 1)]


def test_an_open_failure_is_no_evidence(runtime: Runtime, effects: Effects):
    """A failed step may be called again with other arguments."""
    world = World("wrong")

    @step(retry=ONCE)
    def f(x):
        if effects("f", x) and x == "wrong":
            raise ValueError(x)
        return x

    @workflow
    def w():
        return f(world.values[0])

    with pytest.raises(ValueError, match="wrong"):
        w()
    world.values = ("right",)
    assert w() == "right"


def test_a_changed_argument_of_a_child_is_caught(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A changed argument of a child diverges, as for a step."""
    world = World(1)

    @flavour.workflow
    def child(x):
        return effects("child", x)
        yield

    @flavour.workflow
    def parent():
        yield child(world.values[0])
        world.maybe_stop()

    interrupted(flavour, parent)
    world.values = (2,)
    with pytest.raises(NondeterminismError):
        flavour.call(parent)
    assert effects == [("child", 1)]


def test_swapping_two_partly_recorded_calls(runtime: Runtime, effects: Effects):
    """If two calls swap and only one was recorded, the new first one reads as a changed call."""
    world = World(1, 2)

    @step
    def f(x):
        return effects("f", x) and x

    @workflow
    def w():
        f(world.values[0])
        world.maybe_stop()
        f(world.values[1])

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = (2, 1)
    with pytest.raises(NondeterminismError):
        w()
    assert effects == [("f", 1)]


def test_two_argument_lists_that_read_the_same_are_told_apart(runtime: Runtime, effects: Effects):
    """Arguments that print the same, such as ``1`` and ``True``, still diverge."""
    for number, (old, new) in enumerate(
        [(1, True), ("x" * 500 + "a" + "y" * 500, "x" * 500 + "b" + "y" * 500)]
    ):
        world = World(old)

        @step
        def f(x):
            return effects("f")

        @workflow(name=f"same-{number}", ignore=("f", "world"))
        def w(f, world):
            f(world.values[0])
            world.maybe_stop()

        with pytest.raises(KeyboardInterrupt):
            w(f, world)
        world.values = (new,)
        with pytest.raises(NondeterminismError):
            w(f, world)


def test_arguments_that_differ_beyond_what_is_kept_of_them(runtime: Runtime, effects: Effects):
    """If the arguments differ beyond the stored preview, the message says that the preview is shortened."""
    world = World("a" * 1000 + "1")

    @step
    def load(text):
        return effects(len(text))

    @workflow
    def w():
        load(world.values[0])
        world.maybe_stop()

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = ("a" * 1000 + "2",)
    with pytest.raises(NondeterminismError, match="is shortened.*the two differ beyond it"):
        w()
    assert effects == [1001]
