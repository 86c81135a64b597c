"""What may stop an executing run, and what waits in the run meanwhile.

The rules
    The first reason wins. From then on every durable call raises it again, so code cannot swallow it for
    good. Everything that waits is woken.
    Code may handle a cancel or a timeout, in an ``except`` or ``finally`` block. Meanwhile durable calls of
    that flow of control execute: they clean up, for at most ``cleanup=`` seconds.
    Undo lifts the stop, because it executes after the body has ended. While a child is being undone, a stop
    of its parent is too late for it. The child hears it when the undo has ended.
    A run's time limit also limits its children. A child that waits when the time of a run above it is up
    stops that run, and so itself.

The theory
    ``sys.exception()`` tells who cleans up: that flow of control is handling the stop, or the
    ``CancelledError`` by which the stop reached an async body. It handles it directly or in the chain of
    another exception. Python keeps this for each thread and each task, so nothing has to be kept here.
    If the process dies while a body cleans up, the next one executes the body again, *replaying*: recorded
    calls answer, and the stop comes at the first call without a record. A cancel or a timeout may also come
    before a continued run has asked for all its records. It is then treated the same way. Otherwise code that
    cleans up would take what was done for undone.
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from flowdsl.blocks import block
from flowdsl.clock import Waker
from flowdsl.codecs.exceptions.handling import context_of, walk
from flowdsl.engine.scope import Scope, control, interrupting
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, RunCancelled, RunTimeout, Stopped

__all__ = ["Stop", "StoppedTask", "stopped_in"]

Ticks: TypeAlias = Callable[[], float]

_CLEANS_UP = (RunCancelled, RunTimeout)  # stops that a body may handle


class StoppedTask(Stopped, asyncio.CancelledError):
    """What crosses an async body: to asyncio, its task is being cancelled."""


def stopped_in(error: BaseException | None, *, handled: bool = False) -> BaseException | None:
    """The :class:`~flowdsl.errors.Stopped` that *error* is, or that its group holds. With *handled*, also one
    in its chain, or the cancelling of a task: code that cleans up is handling these."""
    for link in walk(error, context_of) if handled else walk(error):
        if isinstance(link, Stopped) or (handled and isinstance(link, asyncio.CancelledError)):
            return link
    return None


class Stop:
    """The stop of one run. Only its own methods change it.

    * ``reason``: the error that later durable calls raise again. ``None`` while the run goes on. ``halted``:
      whether there is a reason, or the run has ended here. That is a reason too, made when somebody asks.
    * ``deadline``: when its time is up, on the engine's ticks. After a cancel or a timeout, it is the end of
      the time for cleaning up.
    * ``above``: its parent, if that or a run above it has a deadline.
    * ``replaying``: recorded calls answer although the run is to stop. *unreplayed* tells whether there are
      records that no call has asked for.
    * ``ending``: the body has ended badly, and no further branch may begin.
    * ``undoing``: the run is being undone, or was. A cancel is too late.
    * ``being_undone``: it is being undone at this moment.
    * ``over``: the body and its branches have ended. Nothing that they left behind begins any more.
    """

    __slots__ = (
        "_admitted",
        "_ambient",
        "_cancel_body",
        "_children",
        "_cleanup",
        "_is_async",
        "_lock",
        "_parent",
        "_reason",
        "_run_id",
        "_ticks",
        "_told",
        "_unreplayed",
        "_wakers",
        "above",
        "being_undone",
        "deadline",
        "ending",
        "halted",
        "listeners",
        "over",
        "replaying",
        "undoing",
    )

    def __init__(
        self,
        run_id: str,
        deadline: float | None,
        ticks: Ticks,
        is_async: bool,
        cleanup: float = 60.0,
        unreplayed: Callable[[], object] = bool,
    ) -> None:
        self._unreplayed = unreplayed
        self._reason: FlowError | None = None
        self.halted = False
        self.replaying = False
        self._cleanup = cleanup
        self._told: frozenset[object] = frozenset()
        self.deadline = deadline
        self.ending = False
        self.undoing = False
        self.over = False
        self.above: Stop | None = None
        self._parent: Stop | None = None
        self._admitted: Scope | None = None
        self.being_undone = False
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

        With *outside*, the reason comes from beyond the run's own code, and the body of an async run is
        cancelled at once.
        """
        cleans_up = isinstance(error, _CLEANS_UP)
        replaying = cleans_up and not self.halted and bool(self._unreplayed())
        with self._lock:
            if not self.halted:
                self._reason, self.halted = error, True
                if cleans_up:
                    self.deadline = self._ticks() + self._cleanup
                    self.replaying = self.replaying or replaying
        self._halt_children(error, outside)
        if outside:
            self._cancel()
        self.wake()

    def _cancel(self) -> None:
        """Cancel an async body where it stands. If a child is being undone in it, cancel after that."""
        cancel = None if self._undoes_below() else self._cancel_body
        if cancel is not None:
            try:
                cancel()
            except RuntimeError:  # its loop is closed
                pass

    def _undoes_below(self) -> bool:
        with self._lock:
            children = list(self._children)
        return any(child.being_undone or child._undoes_below() for child in children)

    def replay(self, error: FlowError) -> None:
        """Stop the run where its journal ends. It was cleaning up for *error* when its process died."""
        self.replaying = True
        self.halt(error)

    def expire(self) -> None:
        """Stop the run because its time, or that of a run above it, is up."""
        late = self._limiting() or self
        late.halt(late.timed_out() if late.reason is None else late.reason, outside=True)

    def _limiting(self) -> "Stop | None":
        """The run whose time is up first: this one or one above it. ``None`` for no deadline."""
        above = None if self.above is None or self.undoing else self.above._limiting()
        if self.deadline is None or (above is not None and (above.deadline or 0.0) < self.deadline):
            return above
        return self

    def end_children(self, error: FlowError) -> None:
        """Stop the children, not the run itself."""
        self._halt_children(error, outside=True)

    def _halt_children(self, error: FlowError, outside: bool) -> None:
        if not self._children:  # a child that is adopted from now on looks for the reason itself
            return
        with self._lock:
            children = [child for child in self._children if not child.being_undone]
        for child in children:
            child.halt(error, outside=outside)

    @block
    def halted_for(self, error: FlowError) -> Iterator[None]:
        """While the block executes, stop what the body has left behind, unless the run is to stop anyway."""
        self.halt(error)
        try:
            yield
        finally:
            with self._lock:
                if self._reason is error:
                    self._forget()

    def _forget(self) -> None:
        """Forget the reason. The caller holds the lock. To be halted without a reason means to have ended, so
        that goes first."""
        self.halted = False
        self._reason = None

    def cleans_up_from_now(self) -> None:
        """What was under way when the run was told to stop took time to end: a child was undone. The time for
        cleaning up begins now."""
        with self._lock:
            if isinstance(self._reason, _CLEANS_UP):
                self.deadline = self._ticks() + self._cleanup

    def end(self) -> None:
        """The run has ended here. What it has left behind is stopped at its next durable call."""
        self.halted = True
        if self._children and (reason := self.reason) is not None:
            self._halt_children(reason, outside=False)
        self.wake()

    def end_branches(self) -> None:
        """The body has ended badly. No further branch may begin."""
        self.ending = True
        self.wake()

    def lift(self) -> None:
        """Let durable calls execute again, for undo."""
        self.undoing = self.being_undone = True
        with self._lock:
            self._forget()
            self.deadline = None
            self.ending = self.replaying = False

    def close(self) -> None:
        """The body has ended. From now on take only calls that are admitted: those of undo and of
        callbacks."""
        self.over = True

    def admits(self, scope: Scope) -> None:
        """The body of an undo or of a callback will execute in *scope*."""
        self._admitted = scope

    def undone(self) -> None:
        """What follows a body that ended badly has ended. A stop that a run above has got meanwhile reaches
        its body now."""
        self._admitted, self.being_undone = None, False
        above = self._parent
        while above is not None:
            if above.halted:
                above._cancel()
            above = above._parent

    def cancelled_by(self, cancel: Callable[[], object] | None) -> None:
        """Remember how to cancel the async body; ``None`` once it has ended."""
        self._cancel_body = cancel

    # Asking ------------------------------------------------------------------------------------------------

    @property
    def reason(self) -> FlowError | None:
        """Why the run is to stop."""
        if self.halted and self._reason is None:
            why = f"run {self._run_id} has ended here; a task or thread that it left behind called a step"
            with self._lock:
                if self.halted:  # it may have been lifted meanwhile
                    self._reason = self._reason or FlowError(why, run=self._run_id)
        return self._reason

    def check(self, replays: bool = False) -> None:
        """Raise the stop before a durable call begins, or before it goes on to wait. With *replays*, the
        call's record may still answer it."""
        if self.halted:
            if (replays and self.replaying) or self.cleaning():
                return
            raise self.stopped()
        if (self.deadline is not None or self.above is not None) and self.left() == 0.0:
            if self.past_deadline():
                self.halt(self.timed_out())
            else:
                self.expire()
            raise self.stopped()
        if sys.exception() is not self._ambient:  # mostly there is none
            interrupt = interrupting(self._ambient, self._is_async)
            if interrupt is not None:
                raise interrupt

    def check_late(self, scope: Scope) -> None:
        """Raise if the body and its branches are over, unless a call in *scope* is admitted."""
        inside: Scope | None = scope
        while inside is not None:
            if inside is self._admitted:
                return
            inside = inside.parent
        late = FlowError(
            f"run {self._run_id} is about to end; a task or thread that it left behind called a step",
            run=self._run_id,
        )
        raise StoppedTask(late) if self._is_async else Stopped(late)

    def must_stop(self) -> bool:
        """Whether durable calls here must neither begin nor wait."""
        return self.halted and not self.cleaning()

    def cleaning(self) -> bool:
        """Whether the calling flow of control is handling a cancel or a timeout, and has time to clean up."""
        if not isinstance(self._reason, _CLEANS_UP):
            return False
        error = sys.exception()
        if error is None or error is self._ambient or stopped_in(error, handled=True) is None:
            return False
        return not self.past_deadline()

    async def handled_in(self, branch: Awaitable[Value]) -> Value:
        """Await *branch* as a flow of control that cleans up, because the flow that began it does."""
        try:
            raise self.stopped()
        except Stopped:
            return await branch

    def stopped(self) -> Stopped:
        """The exception that passes through the body."""
        reason = self.reason
        assert reason is not None
        if not self._is_async:
            return Stopped(reason)
        with self._lock:
            self._told |= {control(True)}
        return StoppedTask(reason)

    def was_told(self, task: object) -> bool:
        """Whether the stop has passed through a durable call of that task, so it need not be cancelled."""
        return task in self._told

    def past_deadline(self) -> bool:
        """Whether the time of the run is up."""
        return self.deadline is not None and self._ticks() >= self.deadline

    def left(self) -> float | None:
        """Seconds until the time of the run, or of one above it, is up; ``None`` for no deadline."""
        limiting = self if self.above is None else self._limiting()
        if limiting is None or limiting.deadline is None:
            return None
        return max(limiting.deadline - self._ticks(), 0.0)

    def timed_out(self) -> RunTimeout:
        """The error of a run past its deadline."""
        return RunTimeout(f"run {self._run_id} passed its deadline", run=self._run_id)

    # Waiting and children ----------------------------------------------------------------------------------

    def waits(self, waker: Waker, *, listens: bool = False) -> None:
        """Wake *waker* when the run is to stop. With *listens*, also for a signal."""
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
        """Wake everything that waits. It then looks again."""
        if not self._wakers:  # whoever waits from now on looks first
            return
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

    def adopt(self, child: "Stop", *, cleans_up: bool = False) -> None:
        """Tell *child* when to stop; this run may have been told already. A child that *cleans_up* executes
        all the same, as long as there is time to clean up."""
        with self._lock:
            self._children.append(child)
            child._parent = self
            child.above = self if self.deadline is not None or self.above is not None else None
            reason = self.reason
        if reason is not None and not (cleans_up or self.cleaning()):
            child.halt(reason)

    def release(self, child: "Stop") -> None:
        """*child* has ended."""
        with self._lock:
            self._children.remove(child)
