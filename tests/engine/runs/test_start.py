"""Runs that are started beside their caller."""

import asyncio

import pytest
from support import Declined, Flavour

from flowdsl import Runtime, step, workflow


def test_start_returns_once_the_run_is_recorded(runtime: Runtime, flavour: Flavour):
    """``start`` returns after the run was recorded."""

    @flavour.workflow
    def w(x):
        return x + 1
        yield

    def go():
        run = w.start(1)
        assert runtime.run(run.id) == run
        return run

    assert go().result(60) == 2


def test_a_started_run_can_be_awaited(runtime: Runtime):
    """``await run`` gives the result of a started run."""

    @step
    async def f(x):
        return x + 1

    @workflow
    async def w(x):
        return await f(x)

    @workflow
    def v(x):
        return x * 10

    async def main():
        return await w.start(1), await v.start(1), await asyncio.gather(*(w.start(i) for i in range(20)))

    assert asyncio.run(main()) == (2, 10, list(range(1, 21)))


def test_many_sync_runs_get_a_thread_each(runtime: Runtime):
    """Fifty sync runs that wait for each other do not deadlock."""
    import threading

    barrier = threading.Barrier(50)

    @workflow
    def w(x):
        barrier.wait(60)
        return x

    runs = [w.start(x) for x in range(50)]
    assert [r.result(60) for r in runs] == list(range(50))


def test_a_started_run_that_failed_and_was_continued_shows_its_new_outcome(
    runtime: Runtime, flavour: Flavour
):
    """A handle shows the outcome in the storage, also after the run failed and was continued."""
    fixed = []

    @flavour.workflow
    def w():
        if not fixed:
            raise Declined
        return "fine"
        yield

    run = w.start()
    with pytest.raises(Declined):
        run.result(60)
    fixed.append(True)
    assert flavour.call(w) == "fine"
    assert run.result(60) == "fine"
    assert run.exception() is None
    assert asyncio.run(_wait(run)) == "fine"


async def _wait(run):
    return await run


def test_a_parent_starts_children_side_by_side(runtime: Runtime):
    """``w.start`` in a run starts children concurrently, and the parent ends after them."""

    @workflow
    async def child(x):
        return x * 10

    @workflow
    async def parent():
        runs = [child.start(x) for x in range(3)]
        return [await run for run in runs]

    @workflow
    def schild(x):
        return x * 10

    @workflow
    def sparent():
        runs = [schild.start(x) for x in range(3)]
        return [run.result() for run in runs]

    assert asyncio.run(parent()) == [0, 10, 20]
    assert sparent() == [0, 10, 20]
    assert len(runtime.runs()) == 8


def test_children_that_wait_for_one_another_get_a_thread_each(runtime: Runtime):
    """Forty started sync children that wait for each other each get a thread."""
    import threading

    barrier = threading.Barrier(40)

    @workflow
    def child(x):
        barrier.wait(60)
        return x

    @workflow
    def parent():
        return [run.result() for run in [child.start(x) for x in range(40)]]

    assert parent() == list(range(40))
