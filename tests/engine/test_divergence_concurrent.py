"""Divergence of concurrent calls, and in the scope of a step."""

import asyncio
import random

import pytest
from diverging import World, interrupted
from support import Effects, Flavour

from flowdsl import Runtime, step, workflow
from flowdsl.errors import NondeterminismError


def test_other_timing_of_concurrent_branches_is_no_divergence(runtime: Runtime, effects: Effects):
    """Two concurrent branches of two steps are resumed with other timing, without a divergence."""

    @step
    async def f(x):
        return effects("f", x) and x

    for seed in range(20):
        world = World()
        rng = random.Random(seed)

        @workflow(name=f"timing-{seed}", ignore=("rng", "world"))
        async def w(seed, rng, world):
            done = []

            async def branch(b):
                for x in range(3):
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    done.append(await f((seed, b, x)))
                    if len(done) == 4:
                        world.maybe_stop()

            await asyncio.gather(*(branch(b) for b in range(3)))
            return sorted(done)

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(w(seed, rng, world))
        assert asyncio.run(w(seed, rng, world)) == sorted((seed, b, x) for b in range(3) for x in range(3))
    assert all(effects.log.count(entry) <= 2 for entry in effects.log)


def test_submitted_calls_never_diverge(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A submitted call matches by content alone, whatever the workers' speed."""
    world = World(1, 2, 3)

    @flavour.step
    def f(x):
        return effects("f", x) and x

    @flavour.workflow
    def w():
        found = []
        for x in world.values:
            future = f.submit(x)
            found.append((yield future) if flavour.is_async else future.result())
        world.maybe_stop()
        return found

    interrupted(flavour, w)
    world.values = (9, 8, 1)
    assert flavour.call(w) == [9, 8, 1]
    assert effects.count("f", 1) == 1


def test_a_sequential_record_is_no_evidence_against_a_submitted_call(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A loop that became a ``map`` in another order uses its records, and the rest executes."""
    world = World()

    @flavour.step
    def f(x):
        return effects("f", x) and x

    @flavour.workflow(id="w")
    def w():
        if world.stop:
            yield f(1)
        world.maybe_stop()
        found = f.map([2, 1])
        return (yield found) if flavour.is_async else found

    interrupted(flavour, w)
    assert flavour.call(w) == [2, 1]
    assert effects == [("f", 1), ("f", 2)]


def test_map_never_diverges(runtime: Runtime, flavour: Flavour, effects: Effects):
    """Calls of ``map`` never diverge."""
    world = World(1, 2, 3)

    @flavour.step
    def f(x):
        return effects("f", x) and x

    @flavour.workflow
    def w():
        found = f.map(world.values)
        found = (yield found) if flavour.is_async else found
        world.maybe_stop()
        return found

    interrupted(flavour, w)
    world.values = (5, 3, 4)
    assert flavour.call(w) == [5, 3, 4]
    assert effects.count("f", 3) == 1


def test_calls_of_another_thread_or_task_do_not_diverge(runtime: Runtime, effects: Effects):
    """Calls of another thread or task match by content, and are no evidence."""
    world = World("t1", "main")

    @step
    async def f(x):
        return effects("f", x) and x

    @workflow
    async def w():
        a = await asyncio.create_task(f(world.values[0]))
        b = await f(world.values[1])
        world.maybe_stop()
        return a, b

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(w())
    world.values = ("t2", "main")
    assert asyncio.run(w()) == ("t2", "main")
    world2 = World("t3", "other")
    world.values, world.stop = world2.values, True
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(w())
    world.values = ("t3", "changed")
    with pytest.raises(NondeterminismError):
        asyncio.run(w())


def test_a_call_that_another_one_has_overlapped_is_no_evidence(runtime: Runtime, effects: Effects):
    """A call of the body's own task counts as concurrent if another task called before it had ended."""
    world = World(1)

    @step
    async def f(x):
        effects("f", x)
        for _ in range(3):
            await asyncio.sleep(0)

    @workflow
    async def w():
        other = asyncio.create_task(f("other"))
        await f(world.values[0])
        await other
        world.maybe_stop()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(w())
    world.values = (2,)
    asyncio.run(w())
    assert effects == [("f", 1), ("f", "other"), ("f", 2)]


def test_sequential_calls_behind_a_gather_still_diverge(runtime: Runtime, effects: Effects):
    """Sequential calls after a ``gather`` still diverge."""
    world = World(1)

    @step
    async def f(x):
        return effects("f", x) and x

    @workflow
    async def w():
        await asyncio.gather(f("a"), f("b"))
        await f(world.values[0])
        world.maybe_stop()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(w())
    world.values = (2,)
    with pytest.raises(NondeterminismError):
        asyncio.run(w())


def test_inside_a_step_the_default_is_rerun(runtime: Runtime, flavour: Flavour, effects: Effects):
    """Inside a step the default policy is ``rerun``."""
    world = World(1)

    @flavour.step
    def inner(x):
        return effects("inner", x) and x

    @flavour.step
    def outer():
        value = yield inner(world.values[0])
        world.maybe_stop()
        return value

    @flavour.workflow
    def w():
        return (yield outer())

    interrupted(flavour, w)
    world.values = (2,)
    assert flavour.call(w) == 2
    assert effects == [("inner", 1), ("inner", 2)]


def test_inside_a_step_raise_can_be_asked_for(runtime: Runtime, effects: Effects):
    """Inside a step the step's own option wins over the default."""
    world = World(1)

    @step(on_divergence="raise")
    def inner(x):
        return x

    @step
    def outer():
        value = inner(world.values[0])
        world.maybe_stop()
        return value

    @workflow
    def w():
        return outer()

    with pytest.raises(KeyboardInterrupt):
        w()
    world.values = (2,)
    with pytest.raises(NondeterminismError):
        w()


def test_calls_in_the_body_of_a_submitted_step_are_sequential(runtime: Runtime, flavour: Flavour):
    """A submitted step overlaps others, but the calls of its body do not overlap each other."""

    @flavour.step
    def inner(x):
        return x

    @flavour.step
    def outer():
        return [(yield inner(1)), (yield inner(2))]

    @flavour.workflow(id="w")
    def w():
        future = outer.submit()
        return (yield future) if flavour.is_async else future.result()

    assert flavour.call(w) == [1, 2]
    marks = {(step.path, step.concurrent) for step in runtime.storage.list_steps("w")}
    assert marks == {(inner.path, False), (outer.path, True)}
