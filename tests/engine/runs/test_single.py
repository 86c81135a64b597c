"""Steps that are executed by hand: ``rt.do``, ``rt.try_`` and ``rt.execute_step``."""

import asyncio

import pytest
from support import Declined, Effects, Flavour, Recorder

from flowdsl import Retry, RunStatus, Runtime, step, workflow
from flowdsl.errors import FlowError, RunConflict, StepNotFound, UnkeyableArgument


@step(name="modes.only_here")
def double(x):
    return 2 * x


def test_do_outside_a_run_is_durable_by_itself(runtime: Runtime, flavour: Flavour, effects: Effects):
    """``rt.do`` outside a run is a run of its own for each path and arguments, whose result is stored."""

    @flavour.step
    def f(x):
        return effects("f", x)

    assert flavour.call(runtime.do, f, 1) == 1
    assert flavour.call(runtime.do, f, 1) == 1
    assert flavour.call(runtime.do, f, 2) == 1
    assert effects == [("f", 1), ("f", 2)]
    assert len(runtime.runs(workflow=f.path)) == 2
    assert len(runtime.runs(workflow=f)) == 2


def test_a_failed_do_is_executed_again(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A failed ``rt.do`` executes again, as the same run."""

    @flavour.step(retry=Retry(attempts=2))
    def f():
        if effects("f") <= 2:
            raise OSError("down")
        return "up"

    with pytest.raises(OSError, match="down"):
        flavour.call(runtime.do, f)
    (run,) = runtime.runs()
    assert run.status is RunStatus.FAILED
    assert flavour.call(runtime.do, f) == "up"
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED


def test_delete_and_forget_drop_what_do_stored(runtime: Runtime, effects: Effects):
    """After ``delete`` or ``forget`` the next ``rt.do`` executes."""

    @step
    def f(x):
        return effects("f", x)

    assert runtime.do(f, 1) == 1
    f.forget(1)
    assert runtime.runs() == []
    assert runtime.do(f, 1) == 2
    runtime.delete(runtime.runs()[0].id)
    assert runtime.do(f, 1) == 3


def test_do_by_name(runtime: Runtime):
    """``rt.do`` accepts the path of a step, or its last part if only one step has it."""
    assert runtime.do("modes.only_here", 4) == 8
    assert runtime.do("only_here", 5) == 10


def test_an_unknown_name_raises_with_near_matches_and_stores_nothing(
    runtime: Runtime, clock, hooks: Recorder
):
    """``rt.do`` with an unknown name raises, names the nearest, and stores nothing."""
    before = clock.now()
    with pytest.raises(StepNotFound, match=r"modes\.only_here"):
        runtime.do("modes.only_hear", 4)
    with pytest.raises(StepNotFound):
        runtime.try_("nothing.like.it")
    assert clock.now() == before
    assert runtime.runs() == []
    assert hooks.events == []


def test_an_unknown_name_in_a_run_is_not_retried(runtime: Runtime, clock):
    """An unknown name inside a run is one typed error, without retries and without a record."""

    @workflow
    def w():
        runtime.do("modes.only_hear", 4)

    with pytest.raises(StepNotFound, match=r"modes\.only_here"):
        w()
    (run,) = runtime.runs()
    assert run.steps() == []


def test_do_of_what_is_no_step(runtime: Runtime):
    """``rt.do`` of a plain function or an empty name is refused."""
    with pytest.raises(TypeError, match="@step"):
        runtime.do(len, [1])
    with pytest.raises((TypeError, ValueError)):
        runtime.do("", 1)


def test_do_in_a_run_is_a_step_of_that_run(runtime: Runtime, flavour: Flavour, effects: Effects):
    """Inside a run, ``rt.do(s)`` is the same as ``s``."""

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def w():
        a = yield runtime.do(f, 1)
        b = yield f(1)
        return a, b

    assert flavour.call(w) == (1, 2)
    (run,) = runtime.runs()
    assert [(s.occurrence, s.key == f.key(1)) for s in run.steps()] == [(0, True), (1, False)]


def test_do_makes_a_try_step_durable(runtime: Runtime, effects: Effects):
    """``rt.do`` makes a ``try`` step durable: the verb decides the mode."""

    @step(mode="try")
    def f():
        return effects("f")

    assert (runtime.do(f), runtime.do(f)) == (1, 1)


def test_try_outside_a_run(runtime: Runtime, flavour: Flavour, hooks: Recorder, effects: Effects):
    """``rt.try_`` outside a run has one attempt, the original exception, hooks, and no record."""
    error = Declined(1, "no")

    @flavour.step
    def f():
        effects("f")
        raise error

    with pytest.raises(Declined) as caught:
        flavour.call(runtime.try_, f)
    assert caught.value is error
    assert effects.count("f") == 1
    assert hooks.names() == ["step_start", "step_error"]
    assert runtime.runs() == []


def test_execute_step_means_the_same_execution_by_id(runtime: Runtime, flavour: Flavour, effects: Effects):
    """The id of ``execute_step`` names the execution, and other arguments under it are a conflict."""

    @flavour.step
    def f(x):
        return effects("f", x)

    assert flavour.call(runtime.execute_step, "pay-1", f, 1) == 1
    assert flavour.call(runtime.execute_step, "pay-1", f, 1) == 1
    assert flavour.call(runtime.execute_step, "pay-2", f, 1) == 2
    with pytest.raises(RunConflict, match="pay-1"):
        flavour.call(runtime.execute_step, "pay-1", f, 2)
    assert effects.count("f", 1) == 2


def test_execute_step_in_a_run_is_keyed_by_the_id(runtime: Runtime, effects: Effects):
    """Inside a run, two ids of ``execute_step`` are two steps, whatever the arguments."""

    @step
    def f(x):
        return effects("f", x)

    stop = [True]

    @workflow
    def w():
        a = runtime.execute_step("a", f, 1)
        b = runtime.execute_step("b", f, 1)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return a, b

    with pytest.raises(KeyboardInterrupt):
        w()
    assert w() == (1, 2)
    (run,) = runtime.runs()
    assert len({s.key for s in run.steps()}) == 2


@pytest.mark.parametrize("bad", ["", " ", None, 3])
def test_execute_step_refuses_an_id_that_is_none(runtime: Runtime, bad):
    """The id of ``execute_step`` must be a non-empty string."""
    with pytest.raises((TypeError, ValueError), match="step_id"):
        runtime.execute_step(bad, double, 1)


def test_execute_step_by_mode(runtime: Runtime, effects: Effects):
    """``execute_step`` with ``mode="try"`` records nothing, and an unknown mode is refused."""

    @step
    def f():
        return effects("f")

    assert runtime.execute_step("x", f, mode="try") == 1
    assert runtime.runs() == []
    with pytest.raises(ValueError, match="'do', 'try', 'send'"):
        runtime.execute_step("x", f, mode="dont")


def test_do_of_a_method_needs_an_identity(runtime: Runtime, effects: Effects):
    """``rt.do`` of a method is refused if its ``self`` has no ``__flow_key__``."""

    class Shop:
        @step
        def price(self, item):
            return effects("price", item)

    with pytest.raises(UnkeyableArgument, match="__flow_key__"):
        runtime.do(Shop().price, "tea")
    assert effects == []


def test_do_of_a_method_with_an_identity(runtime: Runtime, effects: Effects):
    """``rt.do`` of a method makes one run for each object with its own ``__flow_key__``."""

    class Shop:
        def __init__(self, name):
            self.name = name

        def __flow_key__(self):
            return self.name

        @step
        def price(self, item):
            return effects("price", self.name, item)

    assert runtime.do(Shop("a").price, "tea") == 1
    assert runtime.do(Shop("a").price, "tea") == 1
    assert runtime.do(Shop("b").price, "tea") == 1
    assert len(effects) == 2


def test_do_of_an_async_step_in_sync_code_gives_its_result(runtime: Runtime, effects: Effects):
    """In sync code, ``do``, ``try_`` and ``execute_step`` wait for an async step."""

    @step
    async def g(x):
        return effects("g", x)

    assert (runtime.do(g, 1), runtime.do(g.path, 1), runtime.try_(g, 1)) == (1, 1, 2)
    assert runtime.execute_step("one", g, 2) == 1


def test_the_twin_of_do_leaves_the_loop_free_for_a_sync_step(runtime: Runtime):
    """``await rt.aio.do`` executes a sync body in a thread, so it may wait for the event loop."""

    async def main():
        loop = asyncio.get_running_loop()

        @step
        def f():
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "on the loop"), loop).result(60)

        return await runtime.aio.do(f), await runtime.aio.try_(f), await runtime.aio.execute_step("one", f)

    assert asyncio.run(main()) == ("on the loop",) * 3


def test_the_awaitable_twins(runtime: Runtime, effects: Effects):
    """``rt.aio.do`` and the others execute without blocking the loop."""

    @step
    def f(x):
        return effects("f", x)

    @step
    async def g(x):
        return effects("g", x)

    async def main():
        return [
            await runtime.aio.do(f, 1),
            await runtime.aio.do(g, 1),
            await runtime.aio.try_(f, 1),
            await runtime.aio.execute_step("one", g, 1),
            len(await runtime.aio.runs()),
        ]

    assert asyncio.run(main()) == [1, 1, 2, 2, 3]


def test_a_closed_runtime_executes_nothing(storage):
    """A closed runtime raises a typed error that says what to do."""
    runtime = Runtime(storage)
    runtime.close()
    with pytest.raises(FlowError, match="closed"):
        runtime.do(double, 1)
