"""Threads that do not keep Python from ending.

When the main thread has ended, Python first waits for the threads of ``concurrent.futures``. From then on
these threads take no more work, and neither does ``asyncio.to_thread``. Only after that does Python call what
is registered with ``atexit``, which closes the runtimes. So with such threads, runs could begin nothing in
that time, and a body that hung would keep the process alive for ever. The threads here are daemons: they work
until the runtimes have closed.
"""

import asyncio
import contextvars
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

__all__ = ["ThreadPool", "in_thread", "wait_in_thread"]

P = ParamSpec("P")
T = TypeVar("T")

_Work: TypeAlias = tuple["Future[Any]", Callable[[], Any]]  # of any type; where its outcome goes stands first

_WORKERS = 32  # in which async code reads and writes


class ThreadPool(Executor):
    """At most *workers* threads (``None``: as many as there is work), called *name* and a number. They end
    when nobody has the pool any more."""

    def __init__(self, workers: int | None, name: str) -> None:
        self._workers = workers
        self._name = name
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        weakref.finalize(self, self._work.put, None).atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Execute ``fn(*args, **kwargs)`` as soon as a thread is free. Raises ``RuntimeError`` when the pool
        is shut down, and when Python starts no more threads."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._work.put((future, partial(fn, *args, **kwargs)))
            try:
                self._need_thread()
            except RuntimeError:
                if not self._threads:
                    future.cancel()  # nobody will execute it
                    raise
        return future

    def _need_thread(self) -> None:
        """Take an idle thread, or start another one if there may be more."""
        if self._idle.acquire(blocking=False):
            return
        if self._workers is not None and len(self._threads) >= self._workers:
            return
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=_serve, args=(self._work, self._idle), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. With *cancel_futures*, drop what has not begun; with *wait*, await the rest."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._drop()
            self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _drop(self) -> None:
        try:
            while True:
                item = self._work.get_nowait()
                if item is not None:
                    item[0].cancel()
        except Empty:
            pass


def _serve(queue: "SimpleQueue[_Work | None]", idle: threading.Semaphore) -> None:
    """Work until the end of the queue. It holds no pool, so that one that nobody has can go."""
    while True:
        try:
            item = queue.get_nowait()
        except Empty:
            idle.release()
            item = queue.get()
        if item is None:
            queue.put(None)  # for the other threads
            return
        _execute(*item)
        del item


def _execute(future: "Future[T]", work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = work()
    except BaseException as error:  # for whoever asks the future
        future.set_exception(error)
        del future  # else the error holds this frame, and so itself
    else:
        future.set_result(value)


_pools: dict[str, ThreadPool] = {}


def _new_pools() -> None:
    """Make the pools. A forked child makes new ones, because it has no threads of its parent."""
    _pools["short"] = ThreadPool(_WORKERS, "flowdsl-async")
    _pools["long"] = ThreadPool(None, "flowdsl-waits")


_new_pools()


os.register_at_fork(after_in_child=_new_pools)


async def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As ``asyncio.to_thread``, but in a pool of this module, which has few threads."""
    return await _in("short", partial(fn, *args, **kwargs))


async def wait_in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for work that may take long. The number of threads is not limited, so no other work waits."""
    return await _in("long", partial(fn, *args, **kwargs))


def _in(pool: str, work: Callable[[], T]) -> "asyncio.Future[T]":
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_pools[pool], context.run, work)
