"""Identity: which durable call this is.

An :class:`Operation` describes what a call does; there is one class per verb, in
:mod:`flowdsl.engine.operations`. A :class:`Call` is one operation at one place. It has a number in its scope
and a key from the moment it is made, before anything is awaited.
"""

from typing import ClassVar, Self

from flowdsl.core.encoding import encode
from flowdsl.core.facts import generation_of
from flowdsl.core.keys import content_digest, step_key
from flowdsl.core.kinds import LOG, VALUE
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.core.unkeyable import Unkeyable
from flowdsl.engine.effects import Flow, Result
from flowdsl.engine.execution import Execution, Frame, current
from flowdsl.engine.scope import Scope, UnderWay
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, Stopped

__all__ = ["Call", "Operation", "identify", "inside", "keyed"]

_COMPLETED = StepStatus.COMPLETED
_WITH_THE_STEP = (VALUE, LOG)  # kinds of records that wait for the next commit


class Operation:
    """What one durable call does. Subclass it for a verb, with ``execute``.

    * ``kind``: the kind of its record, from :mod:`flowdsl.core.kinds`; ``path``: its name in records.
    * ``version``, ``canonical``: the key is made of these and the path. ``defaults``: arguments that are
      recorded, but do not count in the key.
    * ``durable``: whether it is an act. A caller that acts has handled the failures that it saw. To look at a
      value is no act.
    * ``recorded``: whether it has a record, which answers a later call.
    * ``sequential``: whether it can diverge from what was recorded in its place. A value cannot.
    * ``on_divergence``: what the call itself wants then; ``None`` if it says nothing.
    * ``begun``: whether its work has begun already. Then it is too late to refuse it.
    """

    __slots__ = ()

    kind: ClassVar[str]
    durable: bool = True
    recorded: bool = True
    sequential: ClassVar[bool] = True
    mode: str = "do"
    path: str
    version: str = ""
    canonical: bytes = b""
    defaults: str = ""
    on_divergence: str | None = None

    @property
    def begun(self) -> bool:
        return False

    def preview(self, limit: int = 200) -> str:
        """The arguments, readable."""
        return ""

    def execute(self, call: "Call", prior: Step | None) -> Flow | Result:
        """Do it, and record it. *prior* is the record of an unfinished execution by an earlier process.

        This is written once for sync and async, as a generator of effects. It ends with
        :func:`~flowdsl.engine.record.complete` or :func:`~flowdsl.engine.record.fail`, which record the
        outcome. Where nothing has to be awaited, it may return the outcome itself. It does not ask the
        journal: :mod:`flowdsl.engine.perform` has done that.
        """
        raise NotImplementedError

    def answer(self, call: "Call", record: Step) -> Flow | Result | None:
        """How a recorded call is answered. ``None`` means: with the outcome that its record holds."""
        return None


class Call(UnderWay):
    """One operation at its place. *frame* is the body that calls.

    ``occurrence`` numbers equal calls of a scope. ``ordinal`` numbers calls of one path, whatever their
    arguments. ``generation`` counts how often the call was undone or forgotten. ``began`` is when its record
    says that it began, in seconds since the epoch. ``queued`` and ``inline`` say how a submitted call came to
    be executed. ``cleans_up`` says that the call was made while its run handled a cancel or a timeout.
    """

    __slots__ = (
        "began",
        "cleans_up",
        "frame",
        "generation",
        "inline",
        "occurrence",
        "operation",
        "ordinal",
        "queued",
        "run",
        "scope",
        "text",
    )

    frame: Frame
    run: Execution
    scope: Scope
    operation: Operation
    queued: bool
    inline: bool
    cleans_up: bool
    began: float | None
    generation: int
    occurrence: int
    ordinal: int
    text: str | None

    def take_place(self, frame: Frame, operation: Operation) -> Self:
        """Let this new object be the call of *operation* in *frame*. It gets its numbers and its key. Returns
        itself. (An ``__init__`` would take longer.)"""
        run = self.run = frame.run
        scope = self.scope = frame.scope
        self.frame = frame
        self.operation = operation
        self.concurrent = not operation.sequential
        self.submitted = self.queued = self.inline = self.counts = False
        self.generation = 0
        self.cleans_up = run.stop.halted and run.stop.cleaning()
        self.began = self.flow = self.text = None
        path = operation.path
        content = content_digest(scope.id, path, operation.version, operation.canonical)
        # The first of equal calls finds its own bytes.
        first = scope.contents.setdefault(content, content) is content
        self.occurrence = occurrence = 0 if first else scope.repeat(content)
        self.ordinal = next(scope.ordinals.get(path) or scope.counter(path))
        self.key = key = step_key(content, occurrence) if occurrence else content.hex()
        known = run.journal.get(key)
        if known is not None:
            run.journal.use(key)  # it is asked for even if nobody awaits it, such as one that lost a race
        if known is None or known.status is not _COMPLETED:  # an answered call needs no preview
            self.text = operation.preview() if run.engine.payloads.previews.shown else ""
        return self

    @property
    def shown(self) -> str:
        """The arguments, readable. They are shown before a body can change them."""
        if self.text is None:
            self.text = self.run.engine.payloads.previews.call(self.operation)
        return self.text

    def executes(self, prior: Step | None) -> None:
        """No record answers the call, so it executes. Remember whether a record did before it was undone or
        forgotten, and when an earlier process began it."""
        self.generation = generation_of(self.run.journal.get(self.key))
        self.began = None if prior is None else prior.created_at

    def begins(self, moment: float) -> None:
        """Its record says that it began then."""
        self.began = moment

    def body_scope(self) -> str:
        """The scope of what the body calls. A step that was undone or forgotten executes in a new one,
        where nothing is recorded."""
        return f"{self.key}~{self.generation}" if self.generation else self.key

    def counts_here(self, in_its_body: bool) -> None:
        """A virtual clock counts the call by its scope: the body itself makes it, and not a branch of a
        ``gather`` or a thread that the body has started."""
        self.counts = in_its_body and not self.submitted

    def is_made_by(self, flow: object) -> None:
        """That flow of control makes it."""
        self.flow = flow

    def is_submitted(self) -> None:
        """A thread of an executor will take it up."""
        self.submitted = True

    def is_queued(self) -> None:
        """A task, or a thread for async code, will take it up."""
        self.queued = True

    def is_inline(self) -> None:
        """It was submitted, and the thread that asks for its result executes it."""
        self.inline = True

    def overlaps(self) -> None:
        """Another call overlaps it, or it comes from a flow of control that is not its scope's own."""
        self.concurrent = True


def identify(frame: Frame, operation: Operation) -> Call:
    """Give a call its identity. Raises before anything is stored, if the run must stop."""
    run = frame.run
    if frame.abandoned:
        raise Stopped(FlowError(f"a body that a timeout left behind called {operation.path}", run=run.id))
    stop = run.stop
    if stop.over:
        stop.check_late(frame.scope)
    stop.check(True)
    if frame.transacts and operation.kind not in _WITH_THE_STEP:
        path = "" if frame.step is None else frame.step.path
        raise TypeError(
            f"{operation.path} is called in the body of the transactional step {path}: it would be stored by "
            "itself, whether the transaction is committed or not. Call it before the step, or after it"
        )
    return Call().take_place(frame, operation)


def inside(verb: str, *, is_async: bool | None = None) -> Frame:
    """The frame of the calling body. Raises outside a run. Raises too for a sync verb in an async body, and
    for an async verb in a sync body."""
    frame = current.get()
    if frame is None:
        raise FlowError(
            f"{verb}() is used inside a run: call it from a function decorated with @workflow, or from "
            "its steps"
        )
    if is_async is not None and frame.is_async is not is_async:
        if frame.is_async:
            raise TypeError(
                f"flowdsl.{verb}() would block this async body; use `await flowdsl.aio.{verb}(…)`"
            )
        raise TypeError(f"flowdsl.aio.{verb}() cannot be awaited in this sync body; use `flowdsl.{verb}(…)`")
    return frame


def keyed(*values: Value) -> bytes:
    """The canonical encoding of *values*. For a value that has none, its type is encoded."""
    parts = []
    for value in values:
        try:
            parts.append(encode(value))
        except Unkeyable:
            parts.append(encode(("?", type(value).__module__, type(value).__qualname__)))
    return b"".join(parts)
