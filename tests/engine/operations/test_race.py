"""``race``: the first that succeeds wins, and a replay takes the same winner."""

import threading

import pytest
from support import Crash, Mortal

from flowdsl import Runtime, aio, race, step, wait_for, workflow
from flowdsl.storage import MemoryStorage
from flowdsl.testing import VirtualClock


def test_the_first_wins_and_the_others_are_withdrawn(storage, effects):
    """The result is that of the quickest, and the others are cancelled."""

    @workflow
    def child(name):
        return wait_for(name)

    @workflow(id="w")
    def w():
        slow, quick = child.start("slow"), child.start("quick")
        quick.signal("quick", "won")
        return race(slow, quick), slow.status

    with Runtime(storage) as rt:
        result, _ = w()
        assert result == "won"
        slow, quick = rt.run("w").children()
        assert {slow.exception() is None, quick.exception() is None} == {True, False}


def test_a_failure_does_not_win(runtime):
    """A failure does not win a race."""

    @step(retry=None)
    def fails():
        raise OSError("no")

    @step
    def works():
        return "yes"

    @workflow
    def w():
        return race(fails.submit(), works.submit())

    assert w() == "yes"


def test_if_all_fail_their_errors_come_in_a_group(runtime):
    """If all fail, ``race`` raises an ``ExceptionGroup`` of their errors in the order given."""

    @step
    def fails(n):
        raise LookupError(n)

    @workflow
    def w():
        return race(fails.options(retry=None).submit(1), fails.options(retry=None).submit(2))

    with pytest.raises(ExceptionGroup) as caught:
        w()
    assert [error.args for error in caught.value.exceptions] == [(1,), (2,)]


def test_a_replay_takes_the_recorded_winner():
    """After a crash the recorded winner wins, whatever the timing."""
    storage, clock = MemoryStorage(), VirtualClock()
    gates = {1: threading.Event(), 2: threading.Event()}

    @step
    def one(n):
        gates[n].wait(60)
        return n

    @step
    def after():
        pass

    @workflow(id="w")
    def w():
        found = race(one.submit(1), one.submit(2))
        after()
        return found

    gates[2].set()

    def second_winner(operations):
        return any(getattr(getattr(op, "step", None), "path", "").endswith("after") for op in operations)

    threading.Timer(0.2, gates[1].set).start()
    with Runtime(Mortal(storage, second_winner), clock=clock), pytest.raises(Crash):
        w()
    with Runtime(storage, clock=clock):
        assert w() == 2


def test_async_races_take_coroutines_too(runtime):
    """In async bodies coroutines are branches of a race, and losers are cancelled."""
    import asyncio

    @step
    async def quick():
        return "quick"

    async def slow():
        await aio.wait_for("never")

    @workflow
    async def w():
        return await aio.race(slow(), quick())

    assert asyncio.run(w()) == "quick"


def test_nothing_to_race(runtime):
    """A race of nothing is refused."""

    @workflow
    def w():
        race()

    with pytest.raises(ValueError, match="at least one"):
        w()
