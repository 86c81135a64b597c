"""What may stop an executing run, and what waits in it until then.

The first reason wins. From then on every durable call re-raises it, so that code cannot swallow it for good,
and whatever waits is woken. Undo lifts the stop, because it executes after the body has ended.
"""

import sys
import threading
from collections.abc import Callable
from typing import TypeAlias

from flowdsl.clock import Waker
from flowdsl.engine.scope import interrupting
from flowdsl.errors import FlowError, RunTimeout, Stopped

__all__ = ["Stop"]

Ticks: TypeAlias = Callable[[], float]


class Stop:
    """The stop of one run. Only its own methods change it.

    * ``reason``: the error that later durable calls re-raise; ``None`` while the run goes on.
    * ``deadline``: when its time is up, on the engine's ticks.
    * ``ending``: the body has ended badly, and branches that have not begun are not to begin any more.
    * ``undoing``: the run is being undone; a cancel has come too late.
    """

    __slots__ = (
        "_ambient",
        "_cancel_body",
        "_children",
        "_is_async",
        "_lock",
        "_run_id",
        "_ticks",
        "_wakers",
        "deadline",
        "ending",
        "listeners",
        "reason",
        "undoing",
    )

    def __init__(self, run_id: str, deadline: float | None, ticks: Ticks, is_async: bool) -> None:
        self.reason: FlowError | None = None
        self.deadline = deadline
        self.ending = False
        self.undoing = False
        self.listeners: set[Waker] = set()
        self._run_id = run_id
        self._ticks = ticks
        self._is_async = is_async
        self._ambient = sys.exception()
        self._wakers: set[Waker] = set()
        self._children: list[Stop] = []
        self._cancel_body: Callable[[], object] | None = None
        self._lock = threading.RLock()

    # Stopping ----------------------------------------------------------------------------------------------

    def halt(self, error: FlowError, *, outside: bool = False) -> None:
        """Stop the run at its next durable call, and wake it where it waits.

        With *outside* the reason comes from beyond the run's own code, and the body of an async run is
        cancelled where it stands.
        """
        with self._lock:
            if self.reason is None:
                self.reason = error
            children, cancel = list(self._children), self._cancel_body
        for child in children:
            child.halt(error, outside=outside)
        if outside and cancel is not None:
            try:
                cancel()
            except RuntimeError:  # its loop is closed
                pass
        self.wake()

    def expire(self) -> None:
        """Stop the run because its time is up."""
        self.halt(self.timed_out(), outside=True)

    def end_branches(self) -> None:
        """Let no further branch begin: the body has ended badly."""
        self.ending = True
        self.wake()

    def lift(self) -> None:
        """Let durable calls execute again, for undo."""
        self.undoing = True
        self.reason = self.deadline = None
        self.ending = False

    def cancelled_by(self, cancel: Callable[[], object] | None) -> None:
        """Remember what cancels the async body; ``None`` once it has ended."""
        self._cancel_body = cancel

    # Asking ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what must not be passed over before a durable call begins."""
        if self.reason is not None:
            raise Stopped(self.reason)
        if self.deadline is not None and self.past_deadline():
            self.halt(self.timed_out())
            raise Stopped(self.reason or self.timed_out())
        if sys.exception() is not self._ambient:  # mostly there is none
            interrupt = interrupting(self._ambient, self._is_async)
            if interrupt is not None:
                raise interrupt

    def past_deadline(self) -> bool:
        """Whether the run's time is up."""
        return self.deadline is not None and self._ticks() >= self.deadline

    def left(self) -> float | None:
        """Seconds until the run's time is up; ``None`` for no deadline."""
        return None if self.deadline is None else max(self.deadline - self._ticks(), 0.0)

    def timed_out(self) -> RunTimeout:
        """The error of a run past its deadline."""
        return RunTimeout(f"run {self._run_id} passed its deadline", run=self._run_id)

    # Waiting and children ----------------------------------------------------------------------------------

    def waits(self, waker: Waker, *, listens: bool = False) -> None:
        """Wake *waker* when the run is to stop; with *listens*, by a signal too."""
        with self._lock:
            self._wakers.add(waker)
            if listens:
                self.listeners.add(waker)

    def waited(self, waker: Waker) -> None:
        """*waker* waits no more."""
        with self._lock:
            self._wakers.discard(waker)
            self.listeners.discard(waker)

    def wake(self) -> None:
        """Wake everything that waits, so that it looks again."""
        with self._lock:
            wakers = list(self._wakers)
        for waker in wakers:
            waker.set()

    def signalled(self) -> None:
        """Wake what waits for a signal."""
        with self._lock:
            wakers = list(self.listeners)
        for waker in wakers:
            waker.set()

    def adopt(self, child: "Stop") -> None:
        """Tell *child* when to stop; this run may have been told already."""
        with self._lock:
            self._children.append(child)
            reason = self.reason
        if reason is not None:
            child.halt(reason)

    def release(self, child: "Stop") -> None:
        """*child* has ended."""
        with self._lock:
            self._children.remove(child)
