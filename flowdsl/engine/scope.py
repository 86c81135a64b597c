"""Where calls are counted, and which flow of control makes them."""

import asyncio
import sys
import threading
from itertools import count

from attrs import define, field

from flowdsl.engine.heart import Heart
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, Stopped

__all__ = ["INTERRUPTS", "SCHEDULED", "Scope", "StepView", "UnderWay", "control", "interrupting"]

INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
"""Exceptions that leave a run resumable when they leave its body."""


SCHEDULED = "/scheduled"
"""The scope of a scheduled branch is the key of its record, followed by this."""


class UnderWay:
    """A call that is under way in a scope: its *key*, and the *flow* of control that made it. It also says
    whether another call overlaps it, and whether it was *submitted* to execute beside its caller. *counts*
    says whether a virtual clock counts it by its scope."""

    __slots__ = ("concurrent", "counts", "flow", "key", "submitted")

    key: str
    concurrent: bool
    counts: bool
    flow: object
    submitted: bool


class Scope:
    """A place where calls are counted: the run, the body of a step, or a branch. The body of a step has
    ``of_step``; in mode ``try`` it has ``tried`` too.

    ``home`` is the flow of control that executes the scope. ``active`` are the calls under way in it, and
    ``alone`` is the last of them that ``home`` has made: no other can be without overlap. ``contents`` holds
    the content of each call once, ``repeats`` numbers equal calls, and ``ordinals`` those of one path.

    Threads share a scope without a lock: ``setdefault`` is one step of the interpreter, and so are taking the
    ``next`` number and adding to ``active``. A ``defaultdict`` would not do. To make a counter may collect
    garbage, and a finalizer may let another thread make one too. The last one would replace the other, and
    give its numbers again.
    """

    __slots__ = (
        "active",
        "alone",
        "contents",
        "draws",
        "home",
        "id",
        "is_async",
        "of_step",
        "ordinals",
        "parent",
        "repeats",
        "tried",
    )

    def __init__(
        self,
        scope_id: str,
        parent: "Scope | None",
        is_async: bool,
        of_step: bool = False,
        tried: bool = False,
        home: object = None,
    ) -> None:
        self.id = scope_id
        self.of_step = of_step
        self.tried = tried
        self.parent = parent
        self.is_async = is_async
        self.home = home
        self.contents: dict[bytes, bytes] = {}
        self.repeats: dict[bytes, count[int]] = {}
        self.ordinals: dict[str, count[int]] = {}
        self.active: set[UnderWay] = set()
        self.alone: UnderWay | None = None
        self.draws = 0

    def entered(self) -> None:
        """The calling flow of control executes the scope."""
        self.home = control(True) if self.is_async else threading.get_ident()

    def begins(self, call: UnderWay, flow: object) -> None:
        """*call*, which *flow* makes, is under way from now on. It learns whether another one overlaps it,
        and so does the other. A call of a flow that does not execute the scope always counts as overlapped.

        Of two calls that begin at the same time, the one that is added last sees the other.
        """
        before = self.alone
        call.flow = flow
        if flow != self.home:
            call.concurrent = True
        else:
            self.alone = call
        self.active.add(call)
        if len(self.active) > 1:
            call.concurrent = True
            # ``home`` may have made a call since the first look, which did not see this one yet.
            for other in (before, self.alone):
                if other is not None:
                    other.concurrent = True

    def ends(self, call: UnderWay) -> None:
        """*call* has ended."""
        self.active.discard(call)
        if self.alone is call:
            self.alone = None

    def repeat(self, content: bytes) -> int:
        """Number a call that is not the first with this *content*."""
        return next(self.repeats.setdefault(content, count(1)))

    def counter(self, path: str) -> "count[int]":
        """What numbers the calls of *path*."""
        return self.ordinals.setdefault(path, count())

    def draw(self) -> int:
        """The number of this random draw. The caller holds the run's lock."""
        number = self.draws
        self.draws = number + 1
        return number

    def within(self, other: "Scope") -> bool:
        """Whether this scope is *other* or lies inside it."""
        return self.under(other.id)  # each attempt of a step has a new object for the same place

    def under(self, scope_id: str) -> bool:
        """Whether this scope has that id, or lies inside one that has: the body of step *scope_id*."""
        scope: Scope | None = self
        while scope is not None:
            if scope.id == scope_id:
                return True
            scope = scope.parent
        return False

    def level_with(self, other: "Scope") -> bool:
        """Whether an error that leaves this scope arrives in *other* without passing a step that may handle
        it."""
        scope: Scope | None = self
        while scope is not None and scope.id != other.id:
            if scope.of_step:
                return False
            scope = scope.parent
        return scope is not None


@define(slots=True)
class StepView:
    """What hooks and ``current_step()`` show of one attempt of a step.

    ``idempotency_key`` is the same for all attempts and resumes of this step in this run. It changes in a
    fork, and after the step was undone or forgotten (``generation`` counts that). Code that refunds a payment
    and charges anew wants both to happen. ``started_at`` is in seconds since the epoch on the runtime's
    clock. ``duration`` is in seconds, once the attempt has ended. ``details`` is what the last attempt said
    with its last heartbeat; ``None`` if there was none.
    """

    run_id: str
    key: str
    path: str
    mode: str
    attempt: int
    started_at: float
    duration: float | None = None
    generation: int = 0
    details: Value = None
    _origin: str = field(default="", kw_only=True, alias="origin")
    _heart: Heart | None = field(default=None, kw_only=True, repr=False, eq=False, alias="heart")

    @property
    def idempotency_key(self) -> str:
        """A name for this step of this run. Another system can deduplicate by it."""
        again = f"~{self.generation}" if self.generation else ""
        return f"{self._origin or self.run_id}/{self.key}{again}"

    def ended(self, now: float) -> None:
        """The body has ended at that moment."""
        self.duration = now - self.started_at

    def heartbeat(self, details: Value = None) -> None:
        """Say that the body lives. The next attempt finds *details* in ``current_step().details``.

        A plain call, in sync and async bodies. Raises ``TypeError`` in a step without ``heartbeat=``, and
        :class:`~flowdsl.errors.ResultNotStorable` for details that cannot be stored.
        """
        if self._heart is None:
            raise TypeError(
                f'step {self.path} has no heartbeat limit: write @step(heartbeat="30 sec"), the longest time '
                "between two beats"
            )
        if not self._heart.beat(details):
            raise Stopped(
                FlowError(f"a body of {self.path} that was given up gave a heartbeat", run=self.run_id)
            )


def control(is_async: bool) -> object:
    """The flow of control that calls this: the task in async code, otherwise the number of the thread."""
    if is_async:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is not None:
            return task
    return threading.get_ident()


def interrupting(ambient: BaseException | None, is_async: bool = False) -> BaseException | None:
    """The interrupt that is passing through the calling code, if any. The code is then in a ``finally`` or
    ``except`` block.

    *ambient* is what was already being handled when the run began. It does not count. A ``CancelledError``
    counts only while the surrounding task itself is being cancelled. Code may well cancel and await a task of
    its own.
    """
    error = sys.exception()
    if error is None or error is ambient or not isinstance(error, (*INTERRUPTS, Stopped)):
        return None
    if isinstance(error, asyncio.CancelledError | GeneratorExit) and not isinstance(error, Stopped):
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if isinstance(error, GeneratorExit):
            # a coroutine is being thrown away; but closing a generator is no interrupt
            return error if is_async and task is None else None
        return error if task is not None and task.cancelling() else None
    return error
