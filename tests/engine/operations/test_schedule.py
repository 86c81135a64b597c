"""Branches: steps that ``schedule`` begins later, beside the body."""

import asyncio
from contextlib import nullcontext

import pytest
from support import ONCE, Crash, Effects, Mortal

import flowdsl
from flowdsl import RunStatus, Runtime, aio, step, workflow
from flowdsl.errors import NondeterminismError


def test_a_run_completes_after_its_last_branch_then_on_complete_fires(runtime, flavour, verbs, clock):
    """A run waits for a scheduled branch, and then ``on_complete`` is called."""
    order = []

    @flavour.step
    def later(n):
        order.append(n)

    @flavour.workflow(on_complete=lambda run: order.append("complete"))
    def w():
        yield verbs.schedule(later, 1, delay="2 days")
        yield verbs.schedule(later, 2, delay="1 day")
        order.append("body")

    before = clock.now()
    flavour.call(w)
    assert order == ["body", 2, 1, "complete"]
    assert clock.now() - before == 2 * 86_400


def test_a_failing_branch_fails_the_run(runtime, flavour, verbs):
    """A failing branch fails the run, ``on_error`` is called, and a retry executes only this branch."""
    seen, broken, done = [], [True], []

    @flavour.step(retry=ONCE)
    def later():
        if broken:
            raise KeyError("later")

    @flavour.step
    def other(n):
        done.append(n)

    @flavour.workflow(
        id="w",
        on_complete=lambda run: seen.append("complete"),
        on_error=lambda run, error: seen.append(type(error).__name__),
    )
    def w():
        yield verbs.schedule(later)
        for n in range(5):
            yield other(n)
            yield verbs.sleep(1)

    with pytest.raises(KeyError):
        flavour.call(w)
    assert seen == ["KeyError"]
    broken.clear()
    flavour.call(w)
    assert seen == ["KeyError", "complete"]
    assert done == list(range(5))


def test_what_is_no_step_cannot_be_scheduled(runtime, flavour, verbs):
    """Scheduling something that is no step raises at the call."""

    @flavour.workflow
    def w(what):
        yield verbs.schedule(what)

    for what, error in ((print, TypeError), ("no.such.step", flowdsl.errors.StepNotFound), (3, TypeError)):
        with pytest.raises(error):
            run = w.options(fresh=True)
            flavour.call(run, what)


def test_a_branch_scheduled_by_a_step_that_is_replayed_still_happens_once(storage, clock, effects: Effects):
    """A branch that a replayed step scheduled happens once, wherever the run died."""

    @step(name="armed.later")
    def later(n):
        effects("later", n)

    @step(name="armed.outer")
    def outer():
        effects("outer")
        flowdsl.schedule(later, 1, delay=60)

    @workflow(id="w")
    def w():
        outer()
        flowdsl.sleep(10)

    for at in range(1, 9):
        effects.log.clear()
        try:
            with Runtime(Mortal(storage, at), clock=clock):
                w()
        except Crash:
            pass
        with Runtime(storage, clock=clock) as rt:
            w()
            assert effects.count("outer") <= 2
            assert 1 <= effects.count("later", 1) <= 2
            assert rt.run("w").status is RunStatus.COMPLETED
            rt.delete("w")


@pytest.mark.parametrize(
    ("policy", "executed"), [("raise", []), ("rerun", ["recorded", "changed"]), ("reuse", ["recorded"])]
)
def test_a_changed_argument_of_schedule_is_a_divergence(storage, clock, effects: Effects, policy, executed):
    """A changed argument of ``schedule`` diverges, because otherwise both branches would execute."""
    given = ["recorded"]

    @step
    def f(x):
        return effects(x)

    @workflow(id="w")
    def w():
        flowdsl.schedule(f, given[0], delay="1 day")
        if given == ["recorded"]:
            raise KeyboardInterrupt

    with Runtime(storage, clock=clock, on_divergence=policy):
        with pytest.raises(KeyboardInterrupt):
            w()
        given[0] = "changed"
        with pytest.raises(NondeterminismError, match="recorded") if policy == "raise" else nullcontext():
            w()
    assert sorted(effects.log) == sorted(executed)  # both are due at the same moment


def test_no_virtual_time_passes_before_the_body_of_a_continued_run(runtime: Runtime, clock):
    """No virtual time passes before the body of a continued run, although its branches wait."""
    stop = [True]

    @step
    def f(x):
        return x

    @workflow(id="w")
    def w():
        for n in range(20):
            flowdsl.schedule(f, n, delay="1 day")
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return clock.now()

    with pytest.raises(KeyboardInterrupt):
        w()
    before = clock.now()
    assert w() == before


@pytest.mark.parametrize("beside", [False, True], ids=["sync step", "async step"])
def test_who_waits_for_a_scheduled_branch_lets_virtual_time_pass(runtime: Runtime, clock, beside):
    """Waiting for a scheduled branch skips its delay and no more, in sync and async code, alone or
    gathered."""

    @step
    def f(x):
        return x

    @step
    async def af(x):
        return x

    g = af if beside else f

    @workflow
    def w():
        one = flowdsl.schedule(g, 1, delay="1 day").result()
        both = [flowdsl.schedule(g, n, delay=f"{n} days") for n in (2, 3)]
        return one, flowdsl.gather(*both)

    @workflow
    async def aw():
        one = await (await aio.schedule(g, 1, delay="1 day"))
        both = [await aio.schedule(g, n, delay=f"{n} days") for n in (2, 3)]
        return one, await aio.gather(*both, aio.sleep("1 day"), af.submit(4))

    begun = clock.now()
    assert w() == (1, [2, 3])
    assert clock.now() == begun + 4 * 86400
    assert asyncio.run(aw()) == (1, [2, 3, None, 4])
    assert clock.now() == begun + 8 * 86400
