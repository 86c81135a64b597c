"""Closing a runtime: interrupt what executes, let it end, give back what does not end.

The rules
    * A thread of its own closes. Its caller may hold any lock, because a signal handler interrupts any line.
      Closing may also wait for the caller's own code. So the caller takes no lock itself. It waits for that
      thread at most :data:`_AT_MOST` seconds, so a storage that hangs holds nobody up.
    * Code that closing waits for (a body, a hook in a thread of ours) does not wait for the end of closing.
      Everybody else who asks does, also at a second call.
    * Work that has not ended after :data:`_PATIENCE` seconds is left behind and reported. Runs on an event
      loop that does not run, or that the caller blocks, are left behind at once. Their leases are given back,
      so another runtime takes these runs up. What is left behind can then record nothing.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, current
from flowdsl.engine.interruption import closed
from flowdsl.engine.runs.keeper import Keeper
from flowdsl.engine.runs.outcome import OnLoop
from flowdsl.engine.user import Value
from flowdsl.errors import StorageError
from flowdsl.storage.base import UpdateRun
from flowdsl.threads import ThreadPool

if TYPE_CHECKING:
    from flowdsl.engine.runs.worker import Worker

__all__ = ["Closing"]

logger = logging.getLogger("flowdsl")

_PATIENCE = 28.0  # seconds that closing waits for bodies that cannot be stopped
_AT_MOST = 35.0  # the longest time that a caller waits; the rest below fits into it
_GOODBYE = 2.0  # seconds that a worker in another thread has to say that it ends
_GIVING_BACK = 1.0  # the shortest time that the storage has to give runs back, in seconds
_REST = 4.0  # seconds for what comes after that
_TOLD = 1.0  # seconds to tell the run of a body that closes its runtime to stop
_LOOK = 0.05  # seconds between two looks at what is still under way

Loop = asyncio.AbstractEventLoop | None


class Closing:
    """The end of one engine. *workers* claim runs for it. *at_last* is called when all has ended."""

    def __init__(
        self, engine: Engine, keeper: Keeper, workers: "Iterable[Worker]", at_last: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._keeper = keeper
        self._workers = workers
        self._at_last = at_last
        self._asked: list[tuple[object, int]] = []  # who asked, and in which process
        self._waiting: list[int] = []
        self._told = threading.Event()
        self._ended = threading.Event()
        self._left_behind = False
        self._error: BaseException | None = None

    @property
    def begun(self) -> bool:
        """Whether somebody has asked for it."""
        return bool(self._asked)

    def close(self) -> None:
        """Close, or wait until somebody else has closed it."""
        here = threading.get_ident()
        if here in self._waiting:  # a signal handler has interrupted this very method
            return
        self._waiting.append(here)
        try:
            first = self._begin()
            if not self._may_wait():
                self._told.wait(_TOLD)
                return
            if not self._left_behind and not self._ended.wait(_AT_MOST):
                self._left_behind = True  # whoever asks again waits no second time
                logger.warning(
                    "closing has not ended within %.0f s; the storage may hang. It is left behind", _AT_MOST
                )
        finally:
            self._waiting.remove(here)
        if first and self._error is not None:
            raise self._error

    def _begin(self) -> bool:
        """Start the closing if nobody has. Returns whether this was the first call."""
        me = (object(), os.getpid())
        self._asked.append(me)  # one step, which no signal handler can interrupt
        if self._asked[0] is not me:
            return False
        self._engine.begin_closing()
        try:
            loop: Loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        try:
            threading.Thread(target=self._close, args=(loop,), name="flowdsl-close", daemon=True).start()
        except RuntimeError:  # the interpreter is ending and starts no more threads
            self._close(loop)
        return True

    def _may_wait(self) -> bool:
        """Whether a thread of this process closes, and does not wait for the caller's code."""
        frame = current.get()
        inside = (frame is not None and frame.run.engine is self._engine) or self._engine.works_here()
        return not inside and self._asked[0][1] == os.getpid()

    def _close(self, blocked: Loop) -> None:
        try:
            begun = time.monotonic()
            end = begun + _PATIENCE
            self._tell()
            self._await_runs(blocked, end)
            for worker in list(self._workers):
                worker.ended.wait(_GOODBYE)
            self._engine.end_work(max(end - time.monotonic(), 0.0))
            self._give_back(max(begun + _AT_MOST - _REST - time.monotonic(), _GIVING_BACK))
            self._engine.close()
            self._keeper.close(_GIVING_BACK)
            self._at_last()
        except BaseException as error:  # whoever closes gets it
            self._error = error
        finally:
            self._told.set()
            self._ended.set()

    def _tell(self) -> None:
        """Tell everything that executes to stop."""
        for worker in list(self._workers):
            worker.stop()
        for state in self._engine.owned.executions():
            state.stop.halt(closed(state.id), outside=True)
        self._told.set()

    def _await_runs(self, blocked: Loop, end: float) -> None:
        """Wait for the runs that can end."""
        while (left := end - time.monotonic()) > 0:
            futures = [future for future in list(self._engine.futures.values()) if _can_end(future, blocked)]
            if futures:
                wait(futures, min(left, _LOOK * 10))
            elif any(not state.is_async for state in self._engine.owned.executions()):
                # a caller's own thread executes it
                time.sleep(min(left, _LOOK))
            else:
                return

    def _give_back(self, patience: float) -> None:
        """Let other runtimes have the runs that have not ended here. If the storage does not answer within
        *patience* seconds, their leases end by themselves: nobody renews them any more."""
        engine = self._engine
        left: list[Execution] = engine.owned.executions()
        for state in left:
            engine.owned.end(state.id, state)
        if not left:
            return
        operations = [UpdateRun(state.id, {}, epoch=state.epoch, release=True) for state in left]
        try:
            pool = ThreadPool(1, "flowdsl-gives-back")
            pool.submit(engine.commit, *operations).result(patience)
        except StorageError as error:
            logger.warning("%d runs could not be given back: %s", len(left), str(error))
        except TimeoutError:
            logger.warning(
                "%d runs could not be given back, because the storage does not answer; a transaction of a "
                "body that was left behind may hold it. They are free when their leases are over", len(left),
            )  # fmt: skip
        except RuntimeError:  # Python is ending and starts no more threads
            pass  # with this process, the runs are free


def _can_end(future: "Future[Value]", blocked: Loop) -> bool:
    """Whether a run is executing, and not on an event loop that stands still."""
    if future.done():
        return False
    return not isinstance(future, OnLoop) or (future.loop is not blocked and future.loop.is_running())
