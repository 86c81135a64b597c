"""Waiting for submitted steps by the functions of others: ``asyncio`` and ``concurrent.futures``."""

import asyncio
import concurrent.futures

import pytest
from support import Flavour

from flowdsl import step, workflow


def test_the_functions_of_concurrent_futures_take_them(runtime):
    """``concurrent.futures.wait`` and ``as_completed`` take the futures, and return the same objects."""

    @step
    def double(n):
        return 2 * n

    @workflow
    def w():
        first = [double.submit(n) for n in range(3)]
        done, pending = concurrent.futures.wait(first, timeout=60)
        second = [double.submit(n) for n in range(3, 6)]
        found = [future.result() for future in concurrent.futures.as_completed(second)]
        return done == set(first), pending, sorted(found)

    assert w() == (True, set(), [6, 8, 10])


@pytest.mark.parametrize("is_async", [False, True])
def test_the_functions_of_asyncio_take_them(runtime, is_async):
    """``asyncio.wait``, ``gather`` and ``as_completed`` take the futures, and callbacks come on the event
    loop."""

    @Flavour(is_async).step
    def double(n):
        return 2 * n

    @step
    async def slow():
        await begun.wait()

    @workflow
    async def w():
        first = [double.submit(n) for n in range(3)]
        done, pending = await asyncio.wait(first)
        waits = slow.submit()
        assert await asyncio.wait([waits], timeout=0.01) == (set(), {waits})
        called = []
        waits.add_done_callback(called.append)
        waits.add_done_callback(print)
        assert waits.remove_done_callback(print) == 1
        begun.set()
        await waits
        await asyncio.sleep(0)
        gathered = await asyncio.gather(*(double.submit(n) for n in (3, 4)))
        found = [await one for one in asyncio.as_completed([double.submit(n) for n in (5, 6)])]
        return done == set(first), pending, called == [waits], gathered, sorted(found)

    begun = asyncio.Event()
    assert asyncio.run(w()) == (True, set(), True, [6, 8], [10, 12])
