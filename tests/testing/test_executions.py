"""effects(): what bodies really executed."""

import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from flowdsl import Retry, Runtime, on, send, step, workflow
from flowdsl.testing import check_replay, effects, fresh_runtime


@step(retry=Retry(attempts=3))
def flaky(n: int, fails: list[int]) -> int:
    """Fails as often as the list says."""
    if fails:
        fails.pop()
        raise OSError("not yet")
    return n


@step
def process() -> int:
    """Where it executes."""
    return os.getpid()


class Shop:
    """Steps as methods."""

    @step
    def sell(self, item: str, *, count: int = 1) -> str:
        """Sell."""
        return item * count


@workflow
def work(n: int) -> int:
    """One step that needs two attempts."""
    return flaky(n, [1])


def test_each_attempt_is_an_execution() -> None:
    """Each attempt is noted, with run, step, attempt and arguments."""
    with fresh_runtime() as runtime, effects() as done:
        assert work(7) == 7
        (run,) = runtime.runs()
    assert [(one.run, one.path, one.attempt, one.args[0]) for one in done] == [
        (run.id, flaky.path, 1, 7),
        (run.id, flaky.path, 2, 7),
    ]
    assert done.count(flaky) == done.count("flaky") == done.count(flaky.path) == 2
    assert "flaky(7, []) (attempt 2)" in repr(done)


def test_a_replay_is_no_execution() -> None:
    """A replayed step is not noted."""
    with fresh_runtime() as runtime, effects() as done:
        assert runtime.do(flaky, 1, []) == 1
        assert runtime.do(flaky, 1, []) == 1
    assert done.count(flaky, 1, []) == 1


def test_nothing_is_noted_outside_the_block() -> None:
    """Nothing is noted outside the block, and blocks can be nested."""
    with fresh_runtime() as runtime:
        with effects() as outer:
            runtime.do(flaky, 1, [])
            with effects() as inner:
                runtime.do(flaky, 2, [])
        runtime.do(flaky, 3, [])
    assert [one.args[0] for one in outer] == [1, 2]
    assert inner.names == ["flaky"]
    inner.clear()
    assert len(inner) == 0


def test_methods_threads_and_async_steps_are_noted() -> None:
    """Bodies of methods, threads and async steps are noted."""

    @step
    async def fetch(n: int) -> int:
        return n

    @workflow
    async def flow() -> int:
        return (await fetch.submit(1)) + (await fetch(2))

    @workflow
    def sale(shop: str) -> list[str]:
        return [Shop().sell(shop, count=2), *flaky.map([1, 2], [[], []])]

    with fresh_runtime(), effects() as done:
        assert asyncio.run(flow()) == 3
        assert sale("a") == ["aa", 1, 2]
    assert done.count(fetch) == 2
    assert done.count("sell", "a", count=2) == 1
    assert done.count(flaky) == 2


def test_a_step_is_named_by_itself_or_its_path() -> None:
    """A step is named by itself or its path, and anything else is a TypeError."""
    with Runtime("memory://"), effects() as done, pytest.raises(TypeError, match="a step is"):
        done.count(17)


def test_bodies_in_other_processes_are_noted_and_faked() -> None:
    """A body in a process pool executes there and is noted here, and a fake replaces it here."""

    @workflow
    def flow() -> int:
        return process.submit().result()

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with fresh_runtime(executor=pool), effects() as done:
            assert flow() != os.getpid()
        assert done.names == ["process"]
        report = check_replay(flow, fakes={process: lambda: 17}, options={"executor": pool})
        assert report.value == 17
        assert check_replay(flow, options={"executor": pool}).value != os.getpid()


def test_what_is_sent_undone_and_handled_is_noted() -> None:
    """Bodies of ``send`` steps, undo functions and event handlers are noted."""

    def unbook(room: str) -> None: ...

    @step(undo=unbook)
    def book(room: str) -> str:
        return room

    @step(mode="send")
    def tell(room: str) -> None: ...

    @on("booked")
    def booked(room: str) -> None: ...

    @workflow
    def stay(room: str) -> None:
        book(room)
        tell(room)
        send("booked", room)
        raise ValueError("no bed")

    with fresh_runtime(), effects() as done:
        with pytest.raises(ValueError, match="no bed"):
            stay("blue")
    for name in ("book", "tell", "booked", "unbook"):
        assert done.count(name, "blue") == 1
    assert done.count(unbook, "blue") == done.count(book) == 1
