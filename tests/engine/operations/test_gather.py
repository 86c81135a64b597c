"""``gather`` and ``map``: order, failures, and ``return_exceptions=``."""

import asyncio
import random
import threading

import pytest
from support import ONCE, Crash, Effects, Mortal, examples

import flowdsl
from flowdsl import Retry, Runtime, aio, gather, step, workflow


@step(retry=None)
def half(n):
    """Half of an even number."""
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


@step(retry=None)
async def ahalf(n):
    """The same, awaited."""
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n // 2


def shown(found):
    """Results as they are, errors by type and text."""
    return [repr(one) if isinstance(one, Exception) else one for one in found]


def test_gather_gives_errors_in_their_places(runtime):
    """``gather`` gives results and exceptions in the order of the input."""

    @workflow
    def w():
        return shown(gather(*(half.submit(n) for n in range(4)), return_exceptions=True))

    assert w() == [0, "ValueError('1 is odd')", 1, "ValueError('3 is odd')"]


def test_map_gives_errors_in_their_places(runtime):
    """``map`` gives results and exceptions in the order of the input, with and without a limit."""

    @workflow
    def w(limit):
        return shown(half.map(range(4), limit=limit, return_exceptions=True))

    assert w(None) == w(2) == [0, "ValueError('1 is odd')", 1, "ValueError('3 is odd')"]


def test_the_awaited_ones(runtime):
    """``aio.gather`` and an async step's ``map`` give errors in their places."""

    @workflow
    async def w():
        return (
            shown(await aio.gather(*(ahalf(n) for n in range(4)), return_exceptions=True)),
            shown(await ahalf.map(range(4), return_exceptions=True)),
        )

    expected = [0, "ValueError('1 is odd')", 1, "ValueError('3 is odd')"]
    assert asyncio.run(w()) == (expected, expected)


def test_handled_failures_are_replayed(runtime):
    """Errors that were returned are handled: the run completes, and a replay returns them again."""

    @workflow(id="w")
    def w():
        return shown(gather(half.submit(1), return_exceptions=True))

    assert w() == w() == ["ValueError('1 is odd')"]


def test_without_it_the_first_error_is_raised(runtime):
    """Without ``return_exceptions`` the first error is raised."""

    @workflow
    def w():
        return gather(half.submit(1), half.submit(2))

    with pytest.raises(ValueError, match="1 is odd"):
        w()


@pytest.mark.parametrize("submitted", [True, False], ids=["futures", "branches"])
def test_errors_that_came_as_values_are_not_executed_again(runtime, effects, submitted):
    """A failed step whose error ``gather`` returned is replayed when the step around it is tried again."""

    @step(retry=Retry(attempts=1))
    async def refused(n):
        effects("refused", n)
        raise ValueError(n)

    @step(retry=Retry(attempts=2, initial=0))
    async def around():
        calls = [refused.submit(n) if submitted else refused(n) for n in range(2)]
        found = await aio.gather(*calls, return_exceptions=True)
        if effects("around") < 2:
            raise OSError("not yet")
        return shown(found)

    @workflow
    async def w():
        return await around()

    assert asyncio.run(w()) == ["ValueError(0)", "ValueError(1)"]
    assert effects.count("around") == 2
    assert [effects.count("refused", n) for n in range(2)] == [1, 1]


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
