"""Which failures of a run are open. Everything that decides this stands here.

The rules
    A step is *open* if its failure left the body of the run, and no durable call began afterwards. Calling
    the run again executes it anew. All other failures were *handled* and are replayed.

    ======================================  ===============================================================
    what happens                            what it means
    ======================================  ===============================================================
    a durable call fails                    its failure is open, and belongs to the flow that called
    that flow begins another durable call   it has handled the failures that it saw
    somebody asks a future for its result   the failure belongs to the one who asked, from now on
    gather(return_exceptions=True) ends     failures of its tasks belong to the one who called it
    the body of a step succeeds             the failures inside it were handled
    the body of a step ends with an error   failures that it saw are open if they stand in that error's chain
    that step is tried again                what is open inside it executes again
    ======================================  ===============================================================

The theory
    A *flow of control* is a thread or a task. It sees the failures of its own calls, and those of tasks that
    it awaited. A failure leads to the error that left a body if that step's exception is in its chain
    (``__cause__``, ``__context__``, members of groups). The search stops at the exception of another step.
    A step that failed inside ``except`` failed by itself, and the failure before it was handled.

    A simpler rule was considered: look at ``sys.exception()`` when a call begins, and at the chain only at
    the end. It misses ``except E as error: kept = error``, a durable call after the block, and ``raise
    kept``. Compensation is often written so. To continue such a run would build on what was taken back.

If you edit this
    Nothing here knows of runs, storages or the journal. The laws in ``tests/engine/test_failures.py`` check
    it over generated programs.
"""

import asyncio
import threading
from collections.abc import Iterable, Iterator

from flowdsl.codecs.exceptions.handling import cause_of, context_of, exceptions_of, suppresses_context
from flowdsl.engine.scope import Scope

__all__ = ["OpenFailures"]


class OpenFailures:
    """The failures of one run. ``open`` maps the key of each open failure to its scope and to the flow of
    control that has it. A flow is a task, the number of a thread, or the submitted call if nobody has asked
    for its result yet. *lock* is that of the run."""

    __slots__ = ("_lock", "_raised", "open")

    def __init__(self, lock: threading.RLock) -> None:
        self.open: dict[str, tuple[Scope, object]] = {}
        self._raised: dict[int, tuple[str, BaseException]] = {}
        self._lock = lock

    def failed(self, key: str, scope: Scope, flow: object, error: BaseException) -> None:
        """The durable call *key*, made in *scope*, failed, and *error* goes to *flow*."""
        with self._lock:
            self.open[key] = (scope, flow)
            self._raised[id(error)] = (key, error)

    def handed(self, key: str, flow: object) -> None:
        """The failure of a submitted call was handed to *flow*, which asked for its result."""
        if key in self.open:
            with self._lock:
                self.open[key] = (self.open[key][0], flow)

    def returned(self, tasks: Iterable[object], flow: object) -> None:
        """The errors of *tasks* were given to *flow* as values."""
        if not self.open:
            return
        among = set(tasks)
        with self._lock:
            for key, (scope, whose) in self.open.items():
                if whose in among:
                    self.open[key] = (scope, flow)

    def begun(self, scope: Scope, flow: object) -> None:
        """*flow* begins a durable call in *scope*. The failures that it has seen were handled, and so was all
        that led to them. The body of a ``try`` step is no such call itself: there it begins for the caller
        too."""
        if not self.open:
            return
        with self._lock:
            place: Scope | None = scope
            while place is not None and self.open:
                for key, (where, whose) in list(self.open.items()):
                    if where.level_with(place) and (
                        whose == flow or (place.home == flow and _arrived(whose))
                    ):
                        self._handled(key)
                place = place.parent if place.tried else None

    def left(self, scope: Scope, error: BaseException) -> None:
        """The body in *scope* ends with *error*. Failures that it had seen and that did not lead to *error*
        were handled."""
        if not self.open:
            return
        with self._lock:
            leaving = set(self.blames(error))
            for key, (where, whose) in list(self.open.items()):
                seen = whose == scope.home or _returned(whose)
                if seen and key not in leaving and where.level_with(scope):
                    self._handled(key)

    def succeeded(self, scope: Scope) -> None:
        """The body in *scope* has succeeded. Every failure inside it was handled."""
        if not self.open:
            return
        with self._lock:
            for key in self.inside(scope):
                del self.open[key]

    def inside(self, scope: Scope) -> list[str]:
        """Keys of the open failures inside *scope*."""
        with self._lock:
            return [key for key, (where, _) in self.open.items() if where.within(scope)]

    def blames_any(self, error: BaseException) -> bool:
        """Whether the chain of *error* holds the exception of any step."""
        return any(True for _ in self.blames(error))

    def blames(self, error: BaseException) -> Iterator[str]:
        """Keys of the steps whose exceptions stand in the chain of *error*. The search stops at another
        step's exception."""
        seen: set[int] = set()
        chain: list[BaseException | None] = [error]
        while chain:
            link = chain.pop()
            if link is None or id(link) in seen:
                continue
            seen.add(id(link))
            if id(link) in self._raised:
                yield self._raised[id(link)][0]
                continue
            if isinstance(link, BaseExceptionGroup):
                chain.extend(exceptions_of(link))
            chain += [cause_of(link), None if suppresses_context(link) else context_of(link)]

    def _handled(self, key: str) -> None:
        self.open.pop(key, None)
        for inner in [other for other, (where, _) in self.open.items() if where.under(key)]:
            del self.open[inner]


def _arrived(flow: object) -> bool:
    """Whether a failure in *flow* can have reached the scope's own flow of control. It cannot while its task
    executes, or while nobody has asked for it."""
    if isinstance(flow, asyncio.Future):
        return flow.done() and not getattr(flow, "_log_traceback", False)
    return isinstance(flow, int)  # a thread; anything else is a submitted call that nobody has asked


def _returned(flow: object) -> bool:
    """Whether *flow* is a task that ended well, even if something failed in it."""
    if not isinstance(flow, asyncio.Future) or not flow.done() or flow.cancelled():
        return False
    return not getattr(flow, "_log_traceback", False) and flow.exception() is None
