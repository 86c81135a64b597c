"""A pool of daemon threads works like that of the standard library, and keeps no process alive."""

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable

import pytest

from flowdsl.threads import ThreadPool, in_thread, wait_in_thread


def test_a_pool_works_with_no_more_threads_than_it_may_have():
    """Work executes in order of submission, on at most the given threads, and errors arrive as themselves."""
    here: set[threading.Thread] = set()
    both = threading.Barrier(2)

    def work(n: int) -> int:
        here.add(threading.current_thread())
        if n < 2:
            both.wait(60)
        return 10 // (n - 7)

    with ThreadPool(2, "few") as pool:
        futures = [pool.submit(work, n) for n in range(8)]
        assert [future.result(60) for future in futures[:7]] == [10 // (n - 7) for n in range(7)]
        assert isinstance(futures[7].exception(60), ZeroDivisionError)
    assert {thread.name for thread in here} == {"few_0", "few_1"}
    assert all(thread.daemon and not thread.is_alive() for thread in here)


def test_a_pool_without_a_limit_keeps_nothing_waiting():
    """A pool without a limit executes work whose items all wait for each other."""
    met = threading.Barrier(40)
    pool = ThreadPool(None, "many")
    futures = [pool.submit(met.wait, 60) for _ in range(40)]
    assert sorted(future.result(60) for future in futures) == list(range(40))
    pool.shutdown()


def test_a_pool_that_is_shut_down_takes_no_more_work():
    """After shutdown a pool takes no work, and executes or drops what has not begun."""
    begun, go = threading.Event(), threading.Event()
    for drops in (False, True):
        begun.clear()
        go.clear()
        pool = ThreadPool(1, "one")
        first = pool.submit(lambda: (begun.set(), go.wait(60)))
        second = pool.submit(int)
        assert begun.wait(60)
        pool.shutdown(wait=False, cancel_futures=drops)
        go.set()
        pool.shutdown()
        assert first.done()
        assert second.cancelled() is drops
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int)


def test_the_threads_of_a_pool_that_nobody_has_end():
    """The threads of a pool end when nobody uses it any more."""
    pool = ThreadPool(1, "lost")
    thread = pool.submit(threading.current_thread).result(60)
    del pool
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("call", [in_thread, wait_in_thread])
def test_async_code_works_in_a_thread_with_its_context(call: Callable[..., object]):
    """Async code can execute a function in a thread with its context, as ``asyncio.to_thread`` does."""
    word = contextvars.ContextVar("word", default="none")

    async def main():
        word.set("mine")
        return await call(lambda text: (text, word.get(), threading.current_thread().daemon), "said")

    assert asyncio.run(main()) == ("said", "mine", True)
