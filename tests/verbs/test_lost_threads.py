"""A thread that a run's body starts by itself has lost the run: said once, where it can be told."""

import asyncio
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import Effects

from flowdsl import step, workflow


@pytest.fixture
def f(effects: Effects):
    """A step that notes its calls."""

    @step(name="lost.f")
    def f(n):
        return effects(n)

    return f


def in_threads(call):
    """Start a bare thread for each of three calls."""
    threads = [threading.Thread(target=call, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_pool(call):
    """Use a pool of one's own."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, range(3)))


@pytest.mark.parametrize("start", [in_threads, in_pool])
def test_a_step_in_a_thread_of_the_body_warns_once_and_names_submit(runtime, effects: Effects, f, start):
    """The calls happen and leave no record; from a step's body too."""

    @step
    def outer():
        start(f)

    for body in (lambda: start(f), outer):
        w = workflow(name="lost.w")(body)
        with pytest.warns(RuntimeWarning, match=r"lost\.f .*not recorded.*f\.submit") as caught:
            w.options(fresh=True)()
        assert len(caught) == 1
        run = runtime.runs(limit=1)[0]
        assert "lost.f" not in {s.path for s in run.steps()}
    assert len(effects) == 6


def test_threads_in_an_async_body_too(runtime, f):
    """``run_in_executor`` loses the run; ``asyncio.to_thread`` does not."""

    @workflow
    async def w():
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            return await loop.run_in_executor(pool, f, 1)

    with pytest.warns(RuntimeWarning, match="submit"):
        asyncio.run(w())

    @workflow(id="kept")
    async def kept():
        return await asyncio.to_thread(f, 2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(kept())
    assert [s.path for s in runtime.run("kept").steps()] == ["lost.f"]


def test_what_is_no_concern_of_a_run_says_nothing(runtime, f):
    """Threads started outside, those of ``submit``, ``send`` and timeouts, and those that outlive the run."""
    go, outlives = threading.Event(), []

    @step(mode="send")
    def sent():
        f(4)

    @step(timeout=60)
    def slow():
        return f(5)

    @workflow
    def w():
        f.submit(1).result()
        f.map(range(3))
        sent()
        slow()
        late = threading.Thread(target=lambda: go.wait(10) and f(9))
        late.start()
        outlives.append(late)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        beside = threading.Thread(target=w)
        beside.start()
        in_threads(f)
        beside.join()
        runtime.engine.drain()
        go.set()
        outlives[0].join()
