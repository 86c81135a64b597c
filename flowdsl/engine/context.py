"""Where a call stands: the one context variable, and what hangs on it.

``current`` holds the :class:`Frame` of the innermost workflow or step body that is executing in this context;
a frame knows its run, its scope and its step. Threads and tasks inherit it the way they inherit context: a
task does, a bare thread does not.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from attrs import define

from flowdsl.clock import Waker
from flowdsl.core.journal import Journal
from flowdsl.core.records import Run, Step
from flowdsl.engine.definitions import WorkflowDef
from flowdsl.engine.engine import Engine
from flowdsl.errors import FlowError, LeaseLost, RunTimeout
from flowdsl.storage.base import Done, Fenced, Missing, Operation, Outcome, PutStep, Unstorable, UpdateRun

__all__ = [
    "INTERRUPTS",
    "Crossing",
    "Frame",
    "RunState",
    "Scope",
    "StepView",
    "current",
    "here",
    "interrupting",
]

INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
"""What leaves a run resumable when it leaves the body."""


class Crossing(BaseException):
    """Carries a typed error across user code that must not swallow it, up to the edge of the workflow."""

    def __init__(self, error: FlowError) -> None:
        super().__init__(str(error))
        self.error = error


def interrupting(ambient: BaseException | None, is_async: bool = False) -> BaseException | None:
    """The interrupt that is propagating through the calling code (it sits in a ``finally`` or ``except``
    block), if any.

    *ambient* is what was already being handled when the run began, and does not count. A ``CancelledError``
    counts only while the surrounding task itself is being cancelled: code may well cancel and await a task of
    its own.
    """
    error = sys.exception()
    if error is None or error is ambient or not isinstance(error, (*INTERRUPTS, Crossing)):
        return None
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if isinstance(
            error, GeneratorExit
        ):  # a coroutine is being thrown away; but to close a generator is no interrupt
            return error if is_async and task is None else None
        return error if task is not None and task.cancelling() else None
    return error


@define(slots=True)
class StepView:
    """What hooks and ``current_step()`` show of one attempt of a step.

    ``idempotency_key`` is the same for all attempts and resumes of this step in this run. It is another one
    in a fork, and once the step was undone or forgotten (``generation`` counts that): who refunded a payment
    and charges anew wants both to happen. ``started_at`` is in seconds since the epoch on the runtime's
    clock, ``duration`` in seconds once the attempt has ended.
    """

    run_id: str
    key: str
    path: str
    mode: str
    attempt: int
    started_at: float
    duration: float | None = None
    generation: int = 0

    @property
    def idempotency_key(self) -> str:
        """A name for this step of this run that another system can deduplicate by."""
        again = f"~{self.generation}" if self.generation else ""
        return f"{self.run_id}/{self.key}{again}"


class Scope:
    """A place where calls are counted: the run, the body of a step (``of_step``; of mode ``try``: ``tried``),
    a branch."""

    __slots__ = (
        "active",
        "counts",
        "draws",
        "home",
        "id",
        "is_async",
        "of_step",
        "ordinals",
        "parent",
        "tried",
    )

    def __init__(self, scope_id: str, parent: "Scope | None", is_async: bool, of_step: bool = False) -> None:
        self.id = scope_id
        self.of_step = of_step
        self.tried = False
        self.parent = parent
        self.is_async = is_async
        self.home: Any = None
        self.counts: dict[bytes, int] = {}
        self.ordinals: dict[str, int] = {}
        self.active: set[Any] = set()
        self.draws = 0

    def within(self, other: "Scope") -> bool:
        """Whether this scope is *other* or lies inside it."""
        scope: Scope | None = self
        while scope is not None:
            if scope.id == other.id:  # each attempt of a step has a new object for the same place
                return True
            scope = scope.parent
        return False

    def under(self, key: str) -> bool:
        """Whether this scope lies in the body of step *key*."""
        scope: Scope | None = self
        while scope is not None:
            if scope.id == key:
                return True
            scope = scope.parent
        return False

    def level_with(self, other: "Scope") -> bool:
        """Whether what leaves this scope arrives in *other*, with no step in between that may yet handle
        it."""
        scope: Scope | None = self
        while scope is not None and scope.id != other.id:
            if scope.of_step:
                return False
            scope = scope.parent
        return scope is not None


class RunState:
    """One run that executes in this process: its record, its journal, and what may stop it.

    * ``stop``: the error that every later durable call re-raises (cancelled, timed out, lease lost, …).
    * ``open``: key → (scope, flow) of the steps whose failure left their caller with no durable call begun
      afterwards.
    * ``wakers``: what waits in this run, to be woken when the run should stop; ``listeners``: those of them
      that wait for a signal.
    * ``ending``: the body has failed, and branches that have not begun are not to begin any more.
    * ``armed``: schedule record → its branch; ``started``: id of a child → its future.
    * ``noticed``: it was said that sources of recorded steps have changed; ``strayed``: that a step was
      called in a thread that the run does not reach into.
    * ``branches``: futures that the run has to see ended before it ends itself.
    * ``reopened``: the failures that the retry of a failed run has yet to execute again.
    """

    def __init__(self, engine: Engine, record: Run, journal: Journal, definition: WorkflowDef | None) -> None:
        self.engine = engine
        self.record = record
        self.id = record.id
        self.epoch = record.epoch
        self.journal = journal
        self.definition = definition
        self.lock = threading.RLock()
        self.is_async = definition is not None and definition.is_async
        self.scope = Scope("", None, self.is_async)
        self.ambient: BaseException | None = sys.exception()
        self.stop: FlowError | None = None
        self.open: dict[str, tuple[Scope, Any]] = {}
        self.raised: dict[int, tuple[str, BaseException]] = {}
        self.wakers: set[Waker] = set()
        self.branches: list[Any] = []
        self.parent: RunState | None = None
        # within this process it goes by the passing of time, whatever the machine's clock is set to
        self.deadline = (
            None if record.deadline is None else engine.ticks() + (record.deadline - engine.clock.now())
        )
        self.listeners: set[Waker] = set()
        self.left_behind = 0
        self.undoing = False
        self.noticed = self.strayed = False
        self.running: dict[str, tuple[StepView, Any]] = {}
        self.announced: set[tuple[str, int]] = set()
        self.unused: list[str] = []
        self.stopper: Callable[[], Any] | None = None
        self.children: list[RunState] = []
        self.buffer: dict[str, Step] = {}
        self.origin_draws: list[tuple[str, dict[str, int]]] | None = None
        self.fold: Any = None
        self.undos: dict[str, Any] = {}
        self.floor = record.floor
        self.ending = False
        self.armed: dict[str, Any] = {}
        self.started: dict[str, Any] = {}
        self.reopened = set(record.open_failures)

    def halt(self, error: FlowError, *, outside: bool = False) -> None:
        """Stop the run at its next durable call, and wake it where it waits. The first reason wins.

        With *outside* the reason comes from beyond the run's own code, and the body of an async run is
        cancelled where it stands.
        """
        with self.lock:
            if self.stop is None:
                self.stop = error
            wakers, children = list(self.wakers), list(self.children)
        for child in children:
            child.halt(error, outside=outside)
        if outside and self.stopper is not None:
            try:
                self.stopper()
            except RuntimeError:  # its loop is closed
                pass
        for waker in wakers:
            waker.set()

    def keep(self, record: Step) -> None:
        """Take *record* into the journal; it becomes durable with the next commit, and before the next body
        begins."""
        with self.lock:
            self.journal.add(record)
            self.buffer[record.key] = record

    def buffered(self) -> list[Operation]:
        """Writes of the records that are yet to be made durable. They stay in the buffer until
        :meth:`stored`, so that no other branch takes them for durable while their commit is under way; to
        write one twice does no harm."""
        if not self.buffer:
            return []
        with self.lock:
            return [PutStep(step, self.epoch, True) for step in self.buffer.values()]

    def stored(self, operations: Iterable[Operation]) -> None:
        """These operations are durable, and with them the buffered records that are among them."""
        if not self.buffer:
            return
        with self.lock:
            for operation in operations:
                if isinstance(operation, PutStep):
                    self.buffer.pop(operation.step.key, None)

    def expire(self) -> None:
        """Stop the run because its deadline has passed."""
        self.halt(self.timed_out(), outside=True)

    def poke(self) -> None:
        """Wake everything that waits in this run, so that it looks again."""
        with self.lock:
            wakers = list(self.wakers)
        for waker in wakers:
            waker.set()

    def signalled(self) -> None:
        """Wake what waits for a signal."""
        with self.lock:
            wakers = list(self.listeners)
        for waker in wakers:
            waker.set()

    def answers(self, key: str) -> tuple[Operation, ...]:
        """What has to be stored with the record of *key*, if its failure was open: it is no more, so that a
        process that dies behind this does not execute it once more."""
        if key not in self.reopened:
            return ()
        with self.lock:
            self.reopened.discard(key)
            left = tuple(other for other in self.record.open_failures if other in self.reopened)
        return (UpdateRun(self.id, {"open_failures": left}, epoch=self.epoch),)

    def check(self) -> None:
        """Raise what must not be passed over before a durable call begins."""
        if self.stop is not None:
            raise Crossing(self.stop)
        if self.deadline is not None and self.past_deadline():
            self.halt(self.timed_out())
            raise Crossing(self.stop or self.timed_out())
        if sys.exception() is not self.ambient:  # mostly there is none
            interrupt = interrupting(self.ambient, self.is_async)
            if interrupt is not None:
                raise interrupt

    def past_deadline(self) -> bool:
        """Whether the run's time is up."""
        return self.deadline is not None and self.engine.ticks() >= self.deadline

    def timed_out(self) -> RunTimeout:
        """The error of a run past its deadline."""
        return RunTimeout(f"run {self.id} passed its deadline", run=self.id)

    def accept(self, outcome: Outcome, operation: Operation) -> int:
        """The ``seq`` of a write that took effect; raises :class:`Crossing` for one that was refused."""
        if isinstance(outcome, Done):
            return outcome.seq
        if isinstance(outcome, Unstorable):
            self.halt(outcome.error)
            raise Crossing(outcome.error)
        if isinstance(outcome, Fenced | Missing):
            error = self.lost(outcome)
            self.halt(error)
            raise Crossing(error)
        raise AssertionError(f"{outcome!r} answers {operation!r}")

    def lost(self, outcome: Outcome) -> LeaseLost:
        """The error of a run that is not ours any more."""
        what = (
            f"another process owns it now (epoch {outcome.run.epoch}, ours was {self.epoch})"
            if isinstance(outcome, Fenced)
            else "it was deleted"
        )
        return LeaseLost(
            f"run {self.id} cannot be written from here: {what}. What this process was executing is "
            "discarded; "
            f"call the workflow again to follow the run",
            run=self.id,
        )

    def begun(self, scope: Scope, flow: Any) -> None:
        """A durable call begins in *scope*: failures that this flow of control has seen were handled, and
        all that led to them. In the body of a ``try`` step, which is no such call itself, it begins for the
        caller too."""
        place: Scope | None = scope
        while place is not None and self.open:
            for key, (where, whose) in list(self.open.items()):
                if where.level_with(place) and (whose == flow or (place.home == flow and _arrived(whose))):
                    self._handled(key)
            place = place.parent if place.tried else None

    def left(self, scope: Scope, error: BaseException) -> None:
        """The body in *scope* ends with *error*: failures that it had seen and that did not lead to that
        were handled."""
        if not self.open:
            return
        with self.lock:
            leaving = set(self.blames(error))
            for key, (where, whose) in list(self.open.items()):
                seen = whose == scope.home or _returned(whose)
                if seen and key not in leaving and where.level_with(scope):
                    self._handled(key)

    def _handled(self, key: str) -> None:
        self.open.pop(key, None)
        for inner in [other for other, (where, _) in self.open.items() if where.under(key)]:
            del self.open[inner]

    def inside_handled(self, scope: Scope) -> None:
        """The body in *scope* has succeeded: whatever failed inside it was handled."""
        with self.lock:
            for key in [key for key, (where, _) in self.open.items() if where.within(scope)]:
                del self.open[key]

    def reopen_inside(self, scope: Scope) -> None:
        """The body in *scope* is to be tried again: what failed inside it executes again."""
        with self.lock:
            self.journal.reopen([key for key, (where, _) in self.open.items() if where.within(scope)])

    def seen(self, key: str, flow: Any) -> None:
        """The failure of a submitted call was handed to *flow*, which asked for its result."""
        with self.lock:
            if key in self.open:
                self.open[key] = (self.open[key][0], flow)

    def failed(self, key: str, scope: Scope, flow: Any, error: BaseException) -> None:
        """A durable call failed and its error goes to the caller."""
        with self.lock:
            self.open[key] = (scope, flow)
            self.raised[id(error)] = (key, error)

    def blames(self, error: BaseException) -> Iterable[str]:
        """Keys of the steps whose exceptions stand in the chain of *error*, but those behind another step's
        exception.

        A step that failed inside ``except`` failed by itself; what it stood in for was handled.
        """
        seen: set[int] = set()
        chain: list[BaseException | None] = [error]
        while chain:
            link = chain.pop()
            if link is None or id(link) in seen:
                continue
            seen.add(id(link))
            if id(link) in self.raised:
                yield self.raised[id(link)][0]
                continue
            if isinstance(link, BaseExceptionGroup):
                chain.extend(link.exceptions)
            chain += [link.__cause__, None if link.__suppress_context__ else link.__context__]


def _arrived(flow: Any) -> bool:
    """Whether a failure in *flow* can have come to the scope's own flow of control: not while its task
    executes, or nobody asked it."""
    if isinstance(flow, asyncio.Future):
        return flow.done() and not getattr(flow, "_log_traceback", False)
    return isinstance(flow, int)  # a thread's; else a submitted call that nobody has asked


def _returned(flow: Any) -> bool:
    """Whether *flow* is a task that ended well, whatever failed in it."""
    if not isinstance(flow, asyncio.Future) or not flow.done() or flow.cancelled():
        return False
    return not getattr(flow, "_log_traceback", False) and flow.exception() is None


class Frame:
    """One executing body. ``abandoned`` is set when a timeout left the body behind: what it does no longer
    counts."""

    __slots__ = ("abandoned", "is_async", "run", "scope", "step")

    def __init__(self, run: RunState, scope: Scope, step: StepView | None, is_async: bool) -> None:
        self.run = run
        self.scope = scope
        self.step = step
        self.is_async = is_async
        self.abandoned = False


current: ContextVar[Frame | None] = ContextVar("flowdsl_current", default=None)

os.register_at_fork(after_in_child=lambda: current.set(None))  # a forked child holds no run


class _Where(logging.Filter):
    """Gives every record of ours the run and the step that it is about, so that a format may ask for them."""

    def filter(self, record: logging.LogRecord) -> bool:
        frame = current.get()
        if not hasattr(record, "run"):
            record.run = None if frame is None else frame.run.id
        if not hasattr(record, "step"):
            record.step = None if frame is None or frame.step is None else frame.step.key
        return True


logging.getLogger("flowdsl").addFilter(_Where())


def here(is_async: bool) -> Any:
    """The flow of control that is executing: the task in async code, else the thread."""
    if is_async:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is not None:
            return task
    return threading.get_ident()
