"""``return_exceptions=`` of ``gather`` and ``map``."""

import asyncio

import pytest

from flowdsl import Retry, aio, gather, step, workflow


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
