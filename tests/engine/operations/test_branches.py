"""Branches: gather and schedule, cancel and children."""

import asyncio
import random
import threading
from contextlib import nullcontext

import pytest
from support import ONCE, Crash, Effects, Mortal, examples, script, spawn
from verbsupport import until

import flowdsl
from flowdsl import RunStatus, Runtime, aio, step, workflow
from flowdsl.errors import NondeterminismError, RunCancelled


def test_results_come_in_input_order(runtime):
    """Results of ``submit``, ``gather`` and a limited ``map`` are in input order."""
    at_once, most, lock = [], [], threading.Lock()

    @step
    def f(n):
        with lock:
            at_once.append(n)
            most.append(len(at_once))
        with lock:
            at_once.remove(n)
        return n

    @workflow
    def w():
        return flowdsl.gather(*(f.submit(n) for n in range(9))), f.map(range(9), limit=2)

    assert w() == (list(range(9)), list(range(9)))
    assert max(most[9:]) <= 2


def test_the_first_failure_is_raised_and_the_others_end(runtime, effects: Effects):
    """After the first failure the other branches end or are cancelled, and a virtual clock goes on."""

    @step(retry=ONCE)
    def f(n):
        if n == 0:
            raise KeyError(n)
        return effects(n)

    @workflow(id="w")
    def w():
        with pytest.raises(KeyError):
            flowdsl.gather(*(f.submit(n) for n in range(50)))
        flowdsl.sleep("1 day")

    @step(retry=ONCE)
    async def af(n):
        if n == 0:
            raise KeyError(n)
        return effects(n)

    @workflow
    async def aw():
        async def branch(n):
            await aio.sleep(n)
            return await af(n)

        with pytest.raises(KeyError):
            await aio.gather(*(branch(n) for n in range(50)))
        await aio.sleep("1 day")

    w()
    before = len(effects)
    asyncio.run(aw())
    assert len(effects) == before


def test_identity_is_deterministic_whatever_the_timing(storage, clock):
    """Branches with identical arguments and random delays find their records at each resume."""
    from flowdsl.storage import MemoryStorage

    chance = random.Random(5)
    reference: set[tuple[str, str]] = set()

    @step
    async def f(x):
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        return x

    @workflow(id="w")
    async def w():
        async def branch(n):
            first = await f("same")
            return n, first, await f("same")

        return await aio.gather(branch(0), branch(1))

    async def once(at):
        place = MemoryStorage() if storage.inline else storage
        try:
            with Runtime(Mortal(place, at)):
                await w()
        except Crash:
            pass
        with Runtime(place) as rt:
            assert await w() == [(0, "same", "same"), (1, "same", "same")]
            found = {(s.key, s.scope) for s in rt.run("w").steps()}
            rt.delete("w")
        reference.update(found)
        assert found == reference
        assert len(found) == 4

    for n in range(examples(150 if storage.inline else 20)):
        asyncio.run(once(n % 6))


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


@pytest.mark.parametrize("started", [False, True])
def test_one_child_for_each_call_across_crashes(storage, clock, flavour, started):
    """Each call has exactly one child, whatever crashes, and parent and child know each other."""

    @flavour.step(name="kids.f")
    def f(n):
        return n

    @flavour.workflow(name="kids.child")
    def child(n):
        return (yield f(n))

    @flavour.workflow(name="kids.parent", id="w")
    def parent():
        if started:
            run = child.start(1)
            assert run.status is not None
            return (yield run if flavour.is_async else run.result())
        return (yield child(1))

    for at in range(9):
        for after in (False, True):
            try:
                with Runtime(Mortal(storage, at, after=after), clock=clock):
                    flavour.call(parent)
            except Crash:
                pass
            with Runtime(storage, clock=clock) as rt:
                assert flavour.call(parent) == 1
                (inner,) = rt.run("w").children()
                assert inner.parent == rt.run("w")
                assert len(rt.runs()) == 2
                rt.delete(inner.id)
                rt.delete("w")


def test_children_that_wait_for_children_do_not_deadlock(runtime):
    """A hundred children that each start a child and wait for it do not deadlock."""

    @workflow(name="deep.child")
    def child(n, depth):
        return n if not depth else child.start(n, depth - 1).result()

    @workflow
    def w():
        return [run.result() for run in [child.start(n, 2) for n in range(40)]]

    assert w() == list(range(40))


def test_a_failing_child_raises_in_its_parent_and_continues_with_it(runtime, flavour, effects: Effects):
    """The parent gets the child's own error, and its retry continues the child."""
    broken = [True]

    @flavour.step(retry=ONCE)
    def f(n):
        effects(n)
        if n == 2 and broken:
            raise KeyError("child")

    @flavour.workflow
    def child():
        for n in range(3):
            yield f(n)

    @flavour.workflow(id="w")
    def parent():
        yield child()

    with pytest.raises(KeyError):
        flavour.call(parent)
    broken.clear()
    flavour.call(parent)
    assert effects == [0, 1, 2, 2]
    assert [run.status for run in runtime.run("w").children()] == [RunStatus.COMPLETED]


def test_a_failed_child_whose_parent_died_is_not_executed_again(storage, clock, flavour, effects: Effects):
    """A failed child whose parent died before recording that is not executed again."""

    @flavour.step(retry=ONCE, name="lost.f")
    def f():
        effects("f")
        raise KeyError("child")

    @flavour.workflow(name="lost.child")
    def child():
        yield f()

    @flavour.workflow(name="lost.parent", id="w")
    def parent():
        try:
            yield child()
        except KeyError:
            return "handled"

    for at, after in [(3, True), (4, False), (4, True), (5, False)]:  # 3 stores the child's end
        effects.log.clear()
        with pytest.raises(Crash):
            with Runtime(Mortal(storage, at, after=after), clock=clock):
                flavour.call(parent)
                raise Crash
        with Runtime(storage, clock=clock) as rt:
            (inner,) = rt.run("w").children()
            assert inner.status is RunStatus.FAILED
            assert flavour.call(parent) == "handled"
            assert effects == ["f"]
            rt.delete(inner.id)
            rt.delete("w")


def test_cancelling_the_parent_cancels_the_children(storage, flavour, verbs):
    """Cancelling a parent cancels its called and started children while they wait."""

    @flavour.workflow(name="c.child")
    def child(n):
        yield verbs.wait_for("never")

    @flavour.workflow(id="w", name="c.parent")
    def parent():
        child.start(1)
        yield child(2)

    with Runtime(storage) as rt:
        run = parent.start()
        until(lambda: sum(bool(c.steps()) for c in run.children()) == 2)
        run.cancel()
        with pytest.raises(RunCancelled):
            run.result(60)
        assert [c.status for c in run.children()] == [RunStatus.CANCELLED] * 2
        assert rt.run("w").status is RunStatus.CANCELLED


def test_cancelling_an_interrupted_parent_cancels_its_children(storage, clock, flavour, verbs):
    """Cancelling an interrupted parent leaves no child unfinished."""

    @flavour.workflow(name="i.child")
    def child():
        yield verbs.sleep(5)
        yield verbs.sleep(5)

    @flavour.workflow(id="w", name="i.parent")
    def parent():
        yield child()

    with Runtime(Mortal(storage, 4), clock=clock), pytest.raises(Crash):
        flavour.call(parent)
    with Runtime(storage, clock=clock) as rt:
        rt.cancel("w")
        assert rt.run("w").status is RunStatus.CANCELLED
        assert [c.status for c in rt.run("w").children()] == [RunStatus.CANCELLED]


def test_a_cancel_that_its_process_did_not_live_to_see_is_kept(storage, clock, flavour, verbs, effects):
    """A request to cancel is kept if the process dies, and the next process cancels and executes nothing."""
    from flowdsl.storage.base import UpdateRun

    @flavour.step
    def f():
        effects("f")

    @flavour.workflow(id="w")
    def w():
        yield verbs.sleep(5)
        yield f()

    with Runtime(Mortal(storage, 2), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    storage.commit([UpdateRun("w", {"cancel_requested": 1.0})])
    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(RunCancelled):
            flavour.call(w)
        assert rt.run("w").status is RunStatus.CANCELLED
    assert not len(effects)


@pytest.mark.parametrize("how", ["sleep", "submit", "body"])
def test_an_async_run_is_cancelled_at_once_wherever_it_stands(storage, how):
    """An async run is cancelled at once while it sleeps, waits for a submitted step, or is in a step's
    body."""
    here = threading.Event()

    @step
    async def long():
        here.set()
        await asyncio.sleep(3600)

    @workflow(id="w")
    async def w():
        if how == "submit":
            long.submit()
        elif how == "body":
            await long()
        here.set() if how == "sleep" else None
        await aio.sleep(3600)

    with Runtime(storage):
        run = w.start()
        here.wait(60)
        run.cancel()
        with pytest.raises(RunCancelled):
            run.result(60)
        assert run.status is RunStatus.CANCELLED


def test_a_run_is_cancelled_from_another_process(tmp_path):
    """A sleeping run of another process is cancelled within about a second."""
    code = script(
        tmp_path / "sleeps.py",
        """
        from flowdsl import Runtime, sleep, workflow
        from flowdsl.errors import NondeterminismError, RunCancelled
        @workflow(id="w")
        def w(): sleep(3600)
        with Runtime("sqlite:///flow.db"):
            try: w()
            except RunCancelled: print("cancelled")
        """,
    )
    process = spawn(code)
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        until(lambda: rt.run("w") and rt.run("w").steps())
        rt.cancel("w")
        assert process.communicate(timeout=60)[0] == "cancelled\n"
        assert rt.run("w").status is RunStatus.CANCELLED


def test_gather_begins_nothing_when_one_of_its_arguments_is_wrong(runtime: Runtime, effects: Effects):
    """If one argument of ``gather`` is wrong, no branch executes."""

    @step
    async def f(n):
        return effects(n)

    @workflow
    async def w():
        with pytest.raises(TypeError, match="got 5"):
            await aio.gather(f(1), 5)
        await asyncio.sleep(0)
        await f(2)

    asyncio.run(w())
    assert effects == [2]


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
