"""What every run of one runtime shares: storage, group commit, clock, payloads, hooks, pools, and the
table of active runs."""

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from itertools import count
from typing import Any, NoReturn

from flowdsl.blocks import block
from flowdsl.clock import Clock, ForeignClock, SystemClock, Waker
from flowdsl.codecs.payloads import Payloads
from flowdsl.core.records import Run
from flowdsl.core.retry import Retry
from flowdsl.engine.commit import Committer
from flowdsl.engine.option_checks import Divergence
from flowdsl.engine.owned import Owned
from flowdsl.engine.user import Handle, SomeClock, Value, Work
from flowdsl.errors import FlowError
from flowdsl.hooks import HookChain
from flowdsl.storage.base import Operation, Outcome, Storage
from flowdsl.threads import ThreadPool

__all__ = ["Engine", "end_of_child", "engines", "engines_on"]

logger = logging.getLogger("flowdsl")

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _default_workers() -> int:
    """More than there are processors: bodies mostly wait, and bodies that end together share a commit."""
    return min(32, (os.cpu_count() or 1) + 14)


class Engine:
    """The services of one runtime. ``owned`` holds the runs that are ours. *open_storage* opens a URL in
    another process. *make_handle* makes what users get of a run's row."""

    def __init__(
        self,
        storage: Storage,
        *,
        payloads: Payloads,
        clock: Clock | None = None,
        hooks: HookChain | None = None,
        retry: Retry | None = None,
        on_divergence: Divergence = "raise",
        lease: float = 30.0,
        executor: Executor | None = None,
        name: str = "",
        open_storage: Callable[[str], Storage] | None = None,
        make_handle: Callable[[Run], Handle] = lambda record: record,
    ) -> None:
        self.storage = storage
        self.at_once = storage.inline, storage.inline and not storage.shares
        self.committer = Committer(storage)
        self.payloads = payloads
        source = clock or SystemClock()
        self.clock: SomeClock = source if hasattr(source, "await_") else ForeignClock(source)
        self.virtual = bool(getattr(self.clock, "virtual", False))
        self.now: Callable[[], float] = self.clock.now
        self.ticks: Callable[[], float] = getattr(self.clock, "monotonic", self.clock.now)
        self.hooks = hooks or HookChain()
        self.retry = retry or Retry()
        self.on_divergence: Divergence = on_divergence
        self.lease = lease
        self.name = name
        self.owned: Owned[Any] = Owned()  # its executions belong to a layer above
        self.closing = False
        self.futures: dict[str, Future[Value]] = {}
        self._tasks: set[asyncio.Task[Value]] = set()
        self.warned: set[str] = set()
        self.open_storage = open_storage
        self.make_handle = make_handle
        self.executor = executor
        self._pool: ThreadPool | None = None
        self._pool_lock = threading.Lock()
        self._background_pool: ThreadPool | None = None
        self.coordinators: dict[int, ThreadPool] = {}
        self.replaced: dict[int, Executor] = {}
        self.hung: dict[int, list[Future[Value]]] = {}
        self.lock = threading.Lock()
        self._background: set[Future[Value]] = set()
        self._working: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._attempts = count()
        _engines.add(self)

    def nonce(self) -> str:
        """A name for one attempt to get a run. No other attempt has it: the owner's token is random, and a
        counter follows it."""
        return f"{self.owned.token}-{next(self._attempts)}"

    # Time --------------------------------------------------------------------------------------------------

    @block
    def busy(self) -> Iterator[None]:
        """Work is under way, and a virtual clock must not skip over it."""
        if not self.virtual:
            yield
            return
        self.clock.enter()
        try:
            yield
        finally:
            self.clock.leave()

    @block
    def parked(self) -> Iterator[None]:
        """A body waits for others' work: a virtual clock must not count it as busy."""
        if not self.virtual:
            yield
            return
        self.clock.leave()
        try:
            yield
        finally:
            self.clock.enter()

    def clock_wait(self, waker: Waker, seconds: float | None, *, real: bool = False) -> bool:
        """Block until woken, or until *seconds* have passed. With *real*, real seconds count too on a virtual
        clock."""
        if real:
            return (
                bool(self.clock.wait(waker, seconds, real=seconds)) if self.virtual else waker.block(seconds)
            )
        return bool(self.clock.wait(waker, seconds))

    @block
    def alarm(self, seconds: float | None, ring: Callable[[], Value]) -> Iterator[None]:
        """On a virtual clock, call *ring* on this event loop after *seconds* of virtual time. On a real
        clock, do nothing."""
        if not self.virtual or seconds is None:
            yield
            return
        loop = asyncio.get_running_loop()
        cancel = self.clock.call_later(seconds, lambda: loop.call_soon_threadsafe(ring))
        try:
            yield
        finally:
            cancel()

    @block
    def alarm_in(self, seconds: float, ring: Callable[[], Value]) -> Iterator[None]:
        """Call *ring* on this event loop after *seconds*. On a virtual clock they are virtual."""
        loop = asyncio.get_running_loop()
        if self.virtual:
            cancel = self.clock.call_later(seconds, lambda: loop.call_soon_threadsafe(ring))
        else:
            cancel = loop.call_later(seconds, ring).cancel
        try:
            yield
        finally:
            cancel()

    # Writing -----------------------------------------------------------------------------------------------

    def commit(self, *operations: Operation) -> list[Outcome]:
        """Commit from sync code."""
        return self.committer.commit(operations)

    # Concurrency -------------------------------------------------------------------------------------------

    @property
    def pool(self) -> Executor:
        """Where submitted sync steps execute, unless the step names an executor of its own."""
        if self.executor is not None:
            return self.executor
        with self._pool_lock:
            if self._pool is None:
                self._pool = ThreadPool(_default_workers(), "flowdsl-step")
            return self._pool

    def background(self, work: Callable[[], Value]) -> Future[Value]:
        """Run *work* some time soon in a bounded pool; ``close`` waits for it."""
        with self._pool_lock:
            if self._background_pool is None:
                self._background_pool = ThreadPool(_default_workers(), "flowdsl-send")
            future = self._background_pool.submit(self._at_work, work)
        self.awaits(future)
        return future

    def _at_work(self, work: Callable[[], Value]) -> Value:
        """Execute *work*, which ``close`` waits for."""
        here = threading.get_ident()
        self._working.add(here)
        try:
            return work()
        finally:
            self._working.discard(here)

    def works_here(self) -> bool:
        """Whether ``close`` waits for the work of this thread."""
        here = threading.current_thread()
        return here.ident in self._working or here is self._loop_thread or self.committer.writes_here()

    def require_open(self, run_id: str) -> None:
        """Raise if the runtime was closed while somebody waited for a run."""
        if self.closing:
            raise FlowError(f"the runtime was closed while it waited for run {run_id}", run=run_id)

    def thread(self, work: Callable[[], Value], name: str) -> Future[Value]:
        """Run *work* at once in a thread of its own; ``close`` waits for it."""
        future: Future[Value] = Future()
        future.set_running_or_notify_cancel()  # a thread cannot be cancelled

        def run() -> None:
            try:
                future.set_result(self._at_work(work))
            except BaseException as error:  # for whoever asks the future
                future.set_exception(error)

        self.awaits(future)
        try:
            threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError:  # Python starts no more threads
            self._background.discard(future)
            raise
        return future

    def background_async(self, make: Callable[[], Work[Value]]) -> Future[Value]:
        """Run a coroutine on the engine's own event loop; ``close`` waits for it."""
        future = asyncio.run_coroutine_threadsafe(make(), self.loop())
        self.awaits(future)
        return future

    def keep(self, task: asyncio.Task[Value]) -> None:
        """Hold *task* until it has ended: a loop holds its tasks weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def awaits(self, future: Future[Value]) -> None:
        """``close`` waits for *future*."""
        self._background.add(future)
        future.add_done_callback(self._background.discard)

    def loop(self) -> asyncio.AbstractEventLoop:
        """An event loop in a thread of the engine, for async work started from sync code."""
        with self._pool_lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._loop = loop
                self._loop_thread = threading.Thread(
                    target=_turn, args=(loop,), name="flowdsl-loop", daemon=True
                )
                self._loop_thread.start()
            return self._loop

    def begin_closing(self) -> None:
        """Runs that begin from now on are interrupted at once."""
        self.closing = True

    def drain(self, patience: float | None = None) -> None:
        """Wait for everything in the background, *patience* seconds at most (``None``: as long as it
        takes)."""
        end = None if patience is None else time.monotonic() + patience
        while self._background:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            wait(list(self._background), left)

    @property
    def own_loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of :meth:`loop`, if there is one by now."""
        return self._loop

    def abandon(self) -> None:
        """Wait no more for what executes here, and hold no run: its code does not end."""
        self.futures.clear()
        self._background.clear()
        for state in self.owned.executions():
            self.owned.end(state.id, state)

    def reset_after_fork(self) -> None:
        """In a forked child, hold no run, and share no lock or thread with the parent."""
        self.futures = {}
        self.committer = Committer(self.storage)
        self._pool = self._background_pool = None
        self.coordinators, self.replaced, self.hung = {}, {}, {}
        self.lock, self._pool_lock = threading.Lock(), threading.Lock()
        self._background, self._working = set(), set()
        self._tasks = set()
        if self._loop is not None and self._loop_thread is threading.current_thread():
            # A body on this loop has forked. In the child nobody waits for what the loop executes. It would
            # go on for ever, and take the bytes that are to wake the loop of the parent.
            self._loop.stop()
        self._loop = self._loop_thread = None
        self.owned.reset_after_fork()

    def end_work(self, patience: float) -> None:
        """Let work end, and then its threads and pools. Work that has not ended after *patience* seconds is
        left behind."""
        self.drain(patience)
        in_time = not self._background
        if not in_time:
            left = [state.id for state in self.owned.executions()]
            logger.warning(
                "closing did not wait any longer for %d bodies that cannot be stopped%s",
                len(self._background),
                f", of runs {', '.join(left[:10])}" if left else "",
            )
        for pool in (self._pool, self._background_pool, *self.coordinators.values()):
            if pool is not None:
                pool.shutdown(wait=in_time, cancel_futures=not in_time)
        for replaced in self.replaced.values():  # some libraries' executors do not take cancel_futures
            replaced.shutdown(wait=in_time)
        self._pool = self._background_pool = None
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(None if in_time else 1.0)
            if not self._loop_thread.is_alive():
                self._loop.close()
            self._loop = None

    def close(self) -> None:
        """End what writes. The storage stays open: it belongs to the runtime."""
        self.committer.close()


def end_of_child(error: BaseException | None) -> NoReturn:
    """End a forked child whose work in a thread of ours has ended. Nobody in the child waits for the work.
    The thread would wait for other work for ever, and so would the process that waits for the child."""
    code = 0 if error is None else 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    elif error is not None:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    process = os.getpid()
    while True:
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit):
            continue  # it leaves the loop too. Its own task has it already, and other tasks go on
        break
    if os.getpid() != process:
        end_of_child(None)


def _after_fork() -> None:
    for engine in list(_engines):
        engine.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)


def engines() -> list[Engine]:
    """The open engines of this process."""
    return [engine for engine in list(_engines) if not engine.closing]


def engines_on(storage: Storage) -> list[Engine]:
    """The open engines of this process that use the same storage, by instance or by address."""
    return [
        engine
        for engine in list(_engines)
        if not engine.closing
        and (engine.storage is storage or (storage.url is not None and engine.storage.url == storage.url))
    ]
