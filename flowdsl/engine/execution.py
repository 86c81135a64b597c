"""One run that executes in this process, and the one context variable that says where a call stands.

``current`` holds the :class:`Frame` of the innermost workflow or step body that executes in this context. A
frame knows its execution, its scope and its step. A task inherits it with its context. A bare thread does
not.

An :class:`Execution` is made of parts, and each part is the only one that changes its own fields: the journal
(:mod:`flowdsl.core.journal`), :class:`~flowdsl.engine.stop.Stop`,
:class:`~flowdsl.engine.failures.OpenFailures`, :class:`~flowdsl.engine.writer.Writer`, :class:`Branches` and
:class:`Bodies`. A verb may need a state of its own for each run. It keeps it in a class of its own, by
``execution.part(ThatClass)``.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar, Token
from functools import partial
from typing import Any, TypeAlias, TypeVar

from flowdsl.core.journal import Journal
from flowdsl.core.records import Run
from flowdsl.core.words import clean_lines
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.failures import OpenFailures
from flowdsl.engine.scope import Scope, StepView
from flowdsl.engine.stop import Stop
from flowdsl.engine.user import Handle, Named, Value
from flowdsl.engine.writer import Writer

__all__ = [
    "PROCESS",
    "Bodies",
    "Branches",
    "Execution",
    "Frame",
    "calling",
    "current",
    "enters",
    "frame_of",
    "leaves",
    "outside_runs",
    "restore",
]

P = TypeVar("P")

_Branch: TypeAlias = Any  # a future of a submitted call; its class stands above
_Attempt: TypeAlias = Any  # an attempt; its class stands above


class Branches:
    """Futures of what a run executes beside its body; the run ends only when all of them have."""

    def __init__(self) -> None:
        self.added: list[_Branch] = []  # since the last look
        self._known: Named = {}
        self._lock = threading.Lock()

    def add(self, future: _Branch) -> None:
        """The run has to see *future* ended before it ends itself."""
        with self._lock:
            self.added.append(future)

    def unfinished(self) -> list[Any]:  # futures of submit; their class stands above
        """Those that have yet to end."""
        with self._lock:
            return [future for future in self.added if not future.done()]

    def take(self) -> list[Value]:
        """Those that were added since the last look."""
        with self._lock:
            found, self.added = self.added, []
        return found

    def known(self, key: str) -> _Branch | None:
        """The future that was remembered under this key."""
        return self._known.get(key)

    def remember(self, key: str, future: _Branch) -> None:
        """Let :meth:`known` find *future*. The key is a schedule record's, for its branch, or a child's
        id."""
        self._known[key] = future


class Bodies:
    """The step bodies of a run that are ``executing``: the attempt of each, by the key of its step."""

    def __init__(self) -> None:
        self.executing: dict[str, _Attempt] = {}
        self._announced: frozenset[tuple[str, int]] = frozenset()  # only the keeper looks
        self.left_behind = 0
        self._lock = threading.Lock()

    def call(self, key: str) -> Value | None:
        """The call whose body executes."""
        found = self.executing.get(key)
        return None if found is None else found.call

    def __iter__(self) -> Iterator[_Attempt]:
        return iter(list(self.executing.values()))

    def to_announce(self, before: float) -> list[_Attempt]:
        """The attempts of ``do`` steps that began before that moment; each once."""
        found = []
        for attempt in self:
            call = attempt.call
            mark = (call.key, attempt.number)
            do = call.operation.mode == "do"
            if do and attempt.began <= before and mark not in self._announced:
                self._announced |= {mark}
                found.append(attempt)
        return found

    def abandon(self, by: int) -> None:
        """A timeout has left *by* more bodies behind. If *by* is negative, so many of them have ended."""
        with self._lock:
            self.left_behind += by


class Execution:
    """One run that executes in this process."""

    def __init__(
        self,
        engine: Engine,
        record: Run,
        journal: Journal,
        definition: WorkflowDef | None,
        parent: "Execution | None" = None,
        called: Invocation[WorkflowDef] | None = None,
    ) -> None:
        self.engine = engine
        self.record = record
        self.id = record.id
        # Ids, keys of messages and chance derive from this: the run, and from the second generation on, its
        # generation too.
        self.origin = record.id if record.generation == 1 else f"{record.id}@{record.generation}"
        self.called = called
        self.epoch = record.epoch
        self.journal = journal
        self.definition = definition
        self.parent = parent
        self.is_async = definition is not None and definition.is_async
        self.scope = Scope("", None, self.is_async)
        self.lock = threading.RLock()
        # within this process it follows passing time, however the machine's clock is set
        left = None if record.deadline is None else record.deadline - engine.clock.now()
        deadline = None if left is None else engine.ticks() + left
        cleanup = 60.0 if definition is None else definition.cleanup
        self.stop = Stop(
            record.id,
            deadline,
            engine.ticks,
            self.is_async,
            cleanup,
            partial(_unreplayed, journal, self.lock),
        )
        self.failures = OpenFailures(self.lock)
        self.writer = Writer(engine, record, journal, self.lock, self.stop)
        self.branches = Branches()
        self.bodies = Bodies()
        self._parts: dict[type, Any] = {}  # one of each type
        self._handle: Handle = None

    @property
    def handle(self) -> Handle:
        """What users get of the run."""
        if self._handle is None:
            self._handle = self.engine.make_handle(self.record)
        return self._handle

    def tell(self, event: str, *more: Value) -> None:
        """Tell the hooks what has become of the run."""
        if self.engine.hooks.listens:
            self.engine.hooks.fire(event, self.handle, *more)

    def part(self, kind: type[P]) -> P:
        """The one instance of *kind* for this run. It is made at the first look, without arguments."""
        found: P | None = self._parts.get(kind)
        if found is not None:
            return found
        with self.lock:
            made: P = self._parts.setdefault(kind, kind())
        return made

    def known(self, kind: type[P]) -> P | None:
        """As :meth:`part`, for those who only look: ``None`` if nobody has asked for it yet."""
        found: P | None = self._parts.get(kind)
        return found

    @property
    def parts(self) -> dict[type, object]:
        """What verbs know of this run."""
        return dict(self._parts)

    def inherit(self, parts: dict[type, object]) -> None:
        """Take over what verbs knew of the same run from its last execution here."""
        self._parts.update(parts)


def _unreplayed(journal: Journal, lock: "threading.RLock") -> bool:
    """Whether the *journal* holds records that no call has asked for."""
    with lock:
        return bool(journal.unused())


class Frame:
    """One executing body. ``abandoned`` is set when a timeout has left the body behind: then nothing that it
    does counts. ``callback``: the body is ``on_complete`` or ``on_error`` of a run that is about to end.
    ``transacts``: it is the body of a transactional step."""

    __slots__ = ("_step", "abandoned", "callback", "is_async", "run", "scope", "transacts")

    run: Execution
    scope: Scope
    is_async: bool
    abandoned: bool
    callback: bool
    transacts: bool
    _step: StepView | None

    def entered(self) -> None:
        """The calling flow of control executes the body."""
        self.scope.entered()

    @property
    def step(self) -> StepView | None:
        """The step whose body this is, or in whose body it stands. ``None`` in the body of a run."""
        return self._step

    def enters_transaction(self) -> None:
        """The body executes in a transaction of the storage."""
        self.transacts = True

    def abandon(self) -> None:
        """A timeout leaves the body behind."""
        self.abandoned = True


def frame_of(
    run: Execution, scope: Scope, step: StepView | None, is_async: bool, *, callback: bool = False
) -> Frame:
    """The frame of a body that is no attempt of a step."""
    made = Frame()
    made.callback = callback
    made.run = run
    made.scope = scope
    made._step = step
    made.is_async = is_async
    made.abandoned = made.transacts = False
    return made


current: ContextVar[Frame | None] = ContextVar("flowdsl_current", default=None)
calling, enters, leaves = current.get, current.set, current.reset
"""The frame that makes this call; a body is entered; it is left. Each step does all three, so the methods are
looked up once."""

PROCESS = [object()]
"""Holds one object. A forked child replaces it, so the two can be told apart."""


def _after_fork() -> None:
    """A forked child holds no run."""
    current.set(None)
    PROCESS[0] = object()


os.register_at_fork(after_in_child=_after_fork)


def restore(token: Token[Frame | None]) -> None:
    """Undo ``current.set(…)`` of async code. A coroutine that is thrown away is closed in another context,
    where there is nothing to undo."""
    try:
        current.reset(token)
    except ValueError:
        pass


class outside_runs:
    """No body executes within the block: calls made there belong to no run.

    This is no ``contextmanager``. That one sets the ``__traceback__`` of an exception that leaves the block,
    and some exceptions refuse that.
    """

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = current.set(None)

    def __exit__(self, *_: object) -> None:
        restore(self._token)


class _Where(logging.Filter):
    """Adds the run and the step to each of our log records, so a format may ask for them. Ids and names in
    the message are text from outside: no terminal obeys it, and it forges no further line of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = record.getMessage()
        except Exception:  # no text can be made of it: the record's handler reports that, and no run ends
            said = ""
        if not said.isprintable():
            record.msg, record.args = clean_lines(said), ()
        frame = current.get()
        if not hasattr(record, "run"):
            record.run = None if frame is None else frame.run.id
        if not hasattr(record, "step"):
            record.step = None if frame is None or frame.step is None else frame.step.key
        return True


logging.getLogger("flowdsl").addFilter(_Where())
