"""What happens when a step is called inside a run. Written once; the drivers make it sync or async.

The rules
    1. Identity (key, occurrence, ordinal) is taken at the call, before anything is awaited.
    2. The journal decides: *recorded* answers from the record, *execute* runs the body, *diverged* asks the
    policy.
    3. A result is made durable before the caller sees it, and the caller sees what was *loaded*, not what the
    body returned.
    4. Body, persisting and hooks are separate: a save that fails or a hook that raises never executes a body
       again, and is never taken for the step's failure.
    5. What must not be swallowed (cancel, lost lease, full disk, divergence, …) crosses the caller as
       :class:`Stopped`; retries never see it.

The theory
    A crash can fall between any two effects. Before the final commit nothing is acknowledged, so the body may
    execute again (at least once); after it, the record answers (never again). Attempts that failed are stored
    before the wait that follows them, so that they survive a crash too. An ``in_doubt="raise"`` step stores
    its intent before the body: finding the intent without an outcome is how a later process knows that it
    cannot know.

The implementation
    :func:`identify` makes a :class:`StepCall`; :func:`perform` is the generator that does the rest, by the
    mode.

If you edit this
    Nothing may come between the body's return and the commit of its result that can fail for other reasons
    than the result itself. And an effect's answer is only valid if the run still stands: look at outcomes,
    always.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

from attrs import evolve

from flowdsl.core.binding import Bound
from flowdsl.core.facts import ChildRun, Facts, FromMemo, InDoubt, Retrying, Undoable, facts_of, generation_of
from flowdsl.core.journal import Decision, Verdict
from flowdsl.core.keys import content_digest, step_key
from flowdsl.core.kinds import STEP, VALUE
from flowdsl.core.preview import preview
from flowdsl.core.records import Memo, Step
from flowdsl.core.retry import Retry
from flowdsl.core.status import StepStatus
from flowdsl.engine.definitions import Invocation, StepDef
from flowdsl.engine.divergence import diverged
from flowdsl.engine.effects import Body, Commit, Effect, Flow, Result, wait_out
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.memo import find_memo, memo_of
from flowdsl.engine.scope import INTERRUPTS, Scope, StepView, UnderWay, control
from flowdsl.engine.sources import notice
from flowdsl.errors import FlowError, ResultNotStorable, StepOutcomeUnknown, Stopped, StorageError
from flowdsl.storage.base import Done, Operation, PutMemo, PutStep

__all__ = [
    "StepCall",
    "Undos",
    "commit_for",
    "conclude",
    "crossing",
    "decide",
    "error_preview",
    "flush",
    "halted",
    "identify",
    "make_record",
    "perform",
    "place",
    "put_record",
    "replay",
    "started",
    "view_of",
]

logger = logging.getLogger("flowdsl")

_COMPLETED = StepStatus.COMPLETED
_FAILED = StepStatus.FAILED
_PENDING = StepStatus.PENDING


class Undos(dict[str, Any]):
    """The undo that a call of a step was given, by the step's key: ``options(undo=…)`` may differ by call."""


class StepCall(UnderWay):
    """One call of a step: what it is, and where it stands."""

    __slots__ = (
        "_shown",
        "args",
        "bound",
        "defn",
        "elsewhere",
        "fn",
        "frame",
        "generation",
        "inline",
        "key",
        "kind",
        "kwargs",
        "memo",
        "mode",
        "occurrence",
        "ordinal",
        "queued",
        "receiver",
        "run",
        "scope",
    )

    def __init__(
        self,
        frame: Frame,
        called: Invocation[StepDef],
        bound: Bound,
        mode: str,
    ) -> None:
        self.frame = frame
        self.run: Execution = frame.run
        self.scope: Scope = frame.scope
        self.defn: StepDef
        self.defn, self.fn, self.receiver, self.args, self.kwargs = called
        self.bound = bound
        self.mode = mode
        self.kind = STEP
        self._shown: str | None = None
        self.concurrent = False
        self.submitted = False
        self.inline = False
        self.elsewhere: Callable[[StepCall, Frame], Any] | None = None
        self.queued = False
        self.generation = 0

    # Set by ``place`` and ``perform``: where the call stands.
    key: str
    occurrence: int
    ordinal: int

    @property
    def shown(self) -> str:
        """The arguments, readable; made at the first look, before a body can change them."""
        if self._shown is None:
            self._shown = self.bound.preview()
        return self._shown

    def is_durable(self) -> bool:
        """Whether it does something that is recorded: not mode ``try``, and not a look at the run store."""
        return self.mode == "do" and self.kind != VALUE

    def body_scope(self) -> str:
        """The scope of what the body calls. A step that was undone or forgotten executes in a new one,
        where nothing is recorded."""
        return f"{self.key}~{self.generation}" if self.generation else self.key


def identify(frame: Frame, called: Invocation[StepDef], mode: str | None = None) -> StepCall:
    """Take the identity of a call. Raises before anything is stored: arguments that do not fit or have no
    key, a run that must stop."""
    run, defn = frame.run, called.defn
    if frame.abandoned:
        raise Stopped(FlowError(f"a body that a timeout left behind called step {defn.path}", run=run.id))
    run.stop.check()
    return place(StepCall(frame, called, called.bind(), mode or defn.mode))


def place(call: StepCall) -> StepCall:
    """Number the call in its scope and give it its key."""
    run, scope, defn, bound = call.run, call.scope, call.defn, call.bound
    path = defn.path
    content = content_digest(scope.id, path, defn.version, bound.canonical)
    counts, ordinals = scope.counts, scope.ordinals
    with run.lock:
        occurrence = counts.get(content, 0)
        counts[content] = occurrence + 1
        ordinal = ordinals.get(path, 0)
        ordinals[path] = ordinal + 1
    call.occurrence = occurrence
    call.ordinal = ordinal
    call.key = key = step_key(content, occurrence)
    known = run.journal.get(key)
    if known is None or known.status is not _COMPLETED:  # what is answered needs no picture of its arguments
        call._shown = bound.preview()
    return call


def perform(call: StepCall, how: Callable[[StepCall], Flow] | None = None) -> Flow:
    """Do what the call's mode (or *how*) says, between the bookkeeping of who overlaps whom."""
    run, scope = call.run, call.scope
    virtual = run.engine.virtual
    # A worker is no flow of control: it takes up one submitted call after the other, and whoever asks for the
    # result of one that has not begun executes it himself. Neither may decide what diverges or what was
    # handled.
    beside = call.submitted or call.queued
    call.flow = flow = call if beside else control(True) if scope.is_async else get_ident()
    active = scope.active
    with run.lock:
        if run.failures.open and call.is_durable():
            run.failures.begun(scope, flow)
        if active:
            if len(active) == 1:
                next(iter(active)).concurrent = True
            call.concurrent = True
            if virtual and not call.submitted and _counted_once(active):
                run.engine.clock.enter()
        elif beside or scope.home != flow:
            call.concurrent = True
        active.add(call)
    if call.queued and virtual:
        run.engine.clock.leave()
    try:
        if run.stop.reason is not None:  # identified before the run was told to stop, and only beginning now
            raise Stopped(run.stop.reason)
        if how is not None:
            return (yield from how(call))
        if call.mode != "do":
            return (yield from _once(call))
        if call.defn.undo is not None:
            run.part(Undos)[call.key] = call.defn.undo
        record = run.journal.answer(call.key, call.bound.defaults)
        if record is not None:
            return replay(call, record)
        return (yield from _durable(call))
    except Stopped as crossing:
        return crossing, None
    except StorageError as error:  # of something that was read: what is written says so itself
        return halted(run, error, call), None
    finally:
        if virtual:
            with run.lock:
                active.discard(call)
                if not call.submitted and _counted_once(active):
                    run.engine.clock.leave()
        else:
            active.discard(call)


def _counted_once(active: Iterable[UnderWay]) -> bool:
    """Whether a call in *active* stands for the flow of control that the run itself is counted for, so that
    one more is one more. Submitted calls are counted by whoever submitted them."""
    return any(not call.submitted for call in active)


# ----------------------------------------------------------------------------------------------------- one


def _once(call: StepCall) -> Flow:
    """Mode ``try``: one attempt, no record, the original exception."""
    view = view_of(call, 1)
    scope = Scope(call.body_scope(), call.scope, call.defn.is_async, tried=True)
    error, value = yield from attempt_body(call, view, scope)
    if error is None:
        call.run.engine.hooks.fire("on_step_complete", view, value)
    return error, value


# ------------------------------------------------------------------------------------------------------ one


def decide(call: StepCall) -> Generator[Effect, Any, Decision | Result]:
    """Ask the journal; give the recorded outcome, or the decision to execute."""
    run, defn = call.run, call.defn
    decision = run.journal.decide(
        call.key,
        call.scope.id,
        defn.path,
        call.ordinal,
        defaults=call.bound.defaults,
        version=defn.version,
        sequential=not call.concurrent,
    )
    if decision.verdict is Verdict.DIVERGED:
        decision = yield from diverged(call, decision)
    if decision.verdict is Verdict.RECORDED:
        assert decision.record is not None
        if call.kind == STEP:
            notice(run, defn.path, decision.record.defaults, call.bound.defaults)
        return replay(call, decision.record)
    call.generation = generation_of(run.journal.get(call.key))
    return decision


def _durable(call: StepCall) -> Flow:
    """Mode ``do``, not answered by a completed record: what the journal or a memo says, else execute."""
    run, defn = call.run, call.defn
    prior = None
    if not run.journal.fresh(call.key, call.scope.id, defn.path, call.ordinal, defn.version, call.concurrent):
        decision = yield from decide(call)
        if not isinstance(decision, Decision):
            return decision
        prior = decision.record
    if defn.memo:
        memo = yield from find_memo(call)
        if memo is not None:
            return (yield from _answer_with(call, memo))
    attempt = 0
    if prior is not None:
        attempt = yield from _take_up(call, prior)
    while True:
        attempt += 1
        view = view_of(call, attempt)
        if defn.in_doubt == "raise":
            yield from put_record(call, _pending(call, view, attempt, InDoubt()))
        scope = Scope(call.body_scope() if call.generation else call.key, call.scope, defn.is_async, True)
        error, value = yield from attempt_body(call, view, scope)
        if error is None:
            record, loaded, more = _completed(call, view, value)
            yield from commit_for(run, call, PutStep(record, run.epoch), *more)
            with run.lock:
                run.journal.add(record)
            run.failures.succeeded(scope)
            if run.engine.hooks.listens:
                run.engine.hooks.fire("on_step_complete", view, loaded)
            return None, loaded
        if isinstance(error, (*INTERRUPTS, Stopped)) or not isinstance(error, Exception):
            return error, None
        if isinstance(error, ResultNotStorable):  # of what its body gave to the run store
            raise halted(run, error, call) from None
        run.failures.left(scope, error)
        retry = defn.retry or run.engine.retry
        if not retry.should_retry(error, attempt):
            return (yield from _gave_up(call, view, error))
        run.stop.check()
        yield from _back_off(call, view, retry, error)
        with run.lock:
            run.journal.reopen(run.failures.inside(scope))


def conclude(call: StepCall, view: StepView, error: BaseException | None, value: Any, child_id: str) -> Flow:
    """Record the outcome of a child run as that of *call*."""
    facts = ChildRun(child_id)
    if error is None:
        payload, loaded = call.run.engine.payloads.pack(value, call.run.id, call.key, "result")
        record = make_record(call, view, _COMPLETED, payload, preview(value), 1, facts)
        yield from put_record(call, record)
        return None, loaded
    if not isinstance(error, Exception):
        return error, None
    payload, loaded = call.run.engine.payloads.pack_error(error, call.run.id, call.key, "error")
    yield from put_record(call, make_record(call, view, _FAILED, payload, error_preview(error), 1, facts))
    call.run.failures.failed(call.key, call.scope, call.flow, error)
    return error, None


def replay(call: StepCall, record: Step, hooks: bool = True) -> Result:
    """Answer from the record; without *hooks* for one that was made just now."""
    run = call.run
    payloads = run.engine.payloads
    try:
        if record.status is _COMPLETED:
            value = payloads.unpack(record.payload or b"", run.id, record.key, "result")
            error = None
        else:
            value = None
            error = payloads.unpack_error(record.payload or b"", run.id, record.key, "error")
    except FlowError as fault:
        raise halted(run, fault, call) from None
    chain = run.engine.hooks
    if hooks and chain.has("on_step_replay"):
        chain.fire("on_step_replay", view_of(call, record.attempts), value if error is None else error)
    if error is not None:
        _annotate(error, call, record.attempts, replayed=True)
        run.failures.failed(call.key, call.scope, call.flow, error)
    return error, value


def attempt_body(call: StepCall, view: StepView, scope: Scope) -> Flow:
    """Execute the body once, with its hooks."""
    run, defn = call.run, call.defn
    hooks = run.engine.hooks
    if run.writer.buffer:
        yield from flush(run)
    if hooks.listens:
        hooks.fire("on_step_start", view)
    run.bodies.begin(call.key, (view, call))
    try:
        frame = Frame(run, scope, view, defn.is_async)
        if call.elsewhere is not None:
            error, value = yield call.elsewhere(call, frame)
        else:
            body = Body(call.fn, call.args, call.kwargs, frame, defn.timeout)
            # A sync step is always driven by a thread: no need to ask the driver.
            error, value = (yield body) if defn.is_async else body.sync()
    finally:
        run.bodies.end(call.key)
    view.duration = run.engine.clock.now() - view.started_at
    if error is not None and isinstance(error, Exception):
        hooks.fire("on_step_error", view, error, view.attempt)
    return error, value


def _completed(call: StepCall, view: StepView, value: Any) -> tuple[Step, Any, tuple[Operation, ...]]:
    """The record of a result, the value that was loaded from it, and what is to be stored beside it."""
    run = call.run
    try:
        payload, loaded = run.engine.payloads.pack(value, run.id, call.key, "result")
    except ResultNotStorable as error:
        error.args = (f"step {call.defn.path}({call.bound.preview()}): {error}",)
        raise halted(run, error, call) from None
    undo = call.defn.undo_path
    facts = None if undo is None else Undoable(undo)
    record = make_record(call, view, _COMPLETED, payload, preview(value), view.attempt, facts)
    return record, loaded, (PutMemo(memo_of(call, record, payload)),) if call.defn.memo else ()


def _gave_up(call: StepCall, view: StepView, error: Exception) -> Flow:
    """Store the exception and raise what was loaded from it, with the traceback of the original."""
    run = call.run
    payload, loaded = run.engine.payloads.pack_error(error, run.id, call.key, "error")
    yield from put_record(call, make_record(call, view, _FAILED, payload, error_preview(error), view.attempt))
    if loaded is not error:
        loaded = loaded.with_traceback(error.__traceback__)
        if loaded.__cause__ is None:
            loaded.__cause__ = error.__cause__
        loaded.__context__ = error.__context__
        loaded.__suppress_context__ = error.__suppress_context__
    _annotate(loaded, call, view.attempt)
    run.failures.failed(call.key, call.scope, call.flow, loaded)
    return loaded, None


def _back_off(call: StepCall, view: StepView, retry: Retry, error: Exception) -> Flow:
    """Store the failed attempt, then wait."""
    engine = call.run.engine
    delay = retry.delay(view.attempt, engine.hooks.jitter(), error)
    wake_at = engine.clock.now() + delay
    yield from put_record(call, _pending(call, view, view.attempt, Retrying(wake_at, error_preview(error))))
    engine.hooks.fire("on_step_retry", view, error, view.attempt, delay)
    logger.info(
        "step %s failed at attempt %d of %d (%s); next in %.3g s",
        call.defn.path,
        view.attempt,
        retry.attempts,
        error_preview(error),
        delay,
        extra={"run": call.run.id, "step": call.key},
    )
    yield from _pause(call.run, delay)
    return None, None


def _pause(run: Execution, delay: float) -> Flow:
    yield from wait_out(run, delay)
    return None, None


def _take_up(call: StepCall, prior: Step) -> Any:
    """Go on behind an unfinished execution of an earlier process; returns the attempts already made."""
    facts = facts_of(prior)
    run = call.run
    if isinstance(facts, InDoubt) and call.defn.in_doubt == "raise":
        raise halted(
            run,
            StepOutcomeUnknown(
                f"step {call.defn.path} ({call.shown}) of run {run.id} was executing when its process "
                "died; nobody knows "
                f"whether it took effect. Find out, then say so: Runtime.resolve({run.id!r}, "
                f"{call.key[:12]!r}, result=…), error=… or rerun=True",
                run=run.id,
                step=call.key,
            ),
            call,
        )
    if isinstance(facts, Retrying):
        left = min(facts.next - run.engine.clock.now(), 86_400.0 * 365)
        if left > 0:
            yield from _pause(run, left)
    return prior.attempts


# ----------------------------------------------------------------------------------------------------------


def _answer_with(call: StepCall, memo: Memo) -> Flow:
    """Copy a shared result into the run and answer with it."""
    run = call.run
    notice(run, memo.path, memo.defaults, call.bound.defaults)
    payload = run.engine.payloads.reseal(memo.payload, ("", memo.key, "memo"), (run.id, call.key, "result"))
    record = make_record(call, view_of(call, 0), _COMPLETED, payload, memo.preview, 0, FromMemo())
    yield from put_record(call, record)
    return replay(call, record)


def view_of(call: StepCall, attempt: int) -> StepView:
    run = call.run
    now, generation = run.engine.clock.now(), call.generation
    return StepView(run.id, call.key, call.defn.path, call.mode, attempt, now, generation=generation)


def make_record(
    call: StepCall,
    view: StepView,
    status: StepStatus,
    payload: bytes | None,
    text: str,
    attempts: int,
    facts: Facts | None = None,
) -> Step:
    if call.generation:
        facts = evolve(facts or Facts(), generation=call.generation)
    ended = None
    if status is not _PENDING:
        ended = call.run.engine.clock.now() if view.duration is None else view.started_at + view.duration
    scope, defn = call.scope, call.defn
    return Step(
        call.run.id,
        call.key,
        defn.path,
        0,
        call.kind,
        scope.id,
        call.occurrence,
        call.ordinal,
        status,
        attempts,
        call._shown or call.shown,
        call.bound.defaults,
        payload,
        text,
        view.started_at,
        ended,
        call.concurrent,
        scope.draws,
        defn.version,
        "" if facts is None else facts.to_json(),
    )


def _pending(call: StepCall, view: StepView, attempts: int, facts: Facts) -> Step:
    if isinstance(facts, InDoubt):
        attempts -= 1
        facts = InDoubt(undo=call.defn.undo_path)  # for a person's word that it took effect
    return make_record(call, view, _PENDING, None, "", attempts, facts)


def put_record(call: StepCall, record: Step, *more: Operation) -> Flow:
    """Make a record durable and take it into the journal. A refused or failed write stops the run,
    resumably."""
    run = call.run
    yield from commit_for(run, call, PutStep(record, run.epoch), *more)
    with run.lock:
        run.journal.add(record)
    return None, None


def started(call: StepCall, view: StepView) -> Step:
    """The record of a step whose body is executing, for others to see."""
    return make_record(call, view, _PENDING, None, "", view.attempt - 1)


def commit_for(run: Execution, call: StepCall | None, *operations: Operation) -> Generator[Effect, Any, int]:
    """Commit *operations* of a run behind what it has buffered; answers the ``seq`` of the first. A refused
    or failed write stops the run, resumably."""
    if run.writer.reopened and call is not None:
        operations += run.writer.answers(call.key)
    buffered = run.writer.buffered() if run.writer.buffer else ()
    if buffered:
        operations = (*buffered, *operations)
    engine = run.engine
    try:
        if engine.storage.inline:  # sync or async, it is called as it is
            outcomes = engine.storage.commit(operations)
        else:
            outcomes = yield Commit(engine, operations)
    except StorageError as error:
        raise halted(run, error, call) from error
    if buffered:
        for outcome, operation in zip(outcomes, buffered, strict=False):
            run.writer.accept(outcome, operation)
        run.writer.stored(buffered)
        outcomes = outcomes[len(buffered) :] or outcomes
    outcome = outcomes[0]
    return outcome.seq if type(outcome) is Done else run.writer.accept(outcome, operations[len(buffered)])


def flush(run: Execution) -> Flow:
    """Make durable what somebody who begins now may act upon: a body, a child."""
    if run.writer.buffer:
        yield from commit_for(run, None)
    return None, None


def halted(run: Execution, error: FlowError, call: StepCall | None) -> Stopped:
    """Stop the run for *error*, resumably."""
    error.run = error.run or run.id
    if call is not None:
        error.step = error.step or call.key
        if call.defn.path not in str(error):
            error.add_note(f"at step {call.defn.path} ({call.key[:12]}) of run {run.id}")
    run.stop.halt(error)
    return Stopped(error)


@contextmanager
def crossing(run: Execution, call: StepCall | None = None) -> Iterator[None]:
    """What the storage does not take or give in here crosses the body, outside of :func:`perform` too."""
    try:
        yield
    except StorageError as error:
        raise halted(run, error, call) from error


def error_preview(error: BaseException) -> str:
    return f"{type(error).__name__}: {preview(str(error), 500)[1:-1]}"


def _annotate(error: BaseException, call: StepCall, attempts: int, replayed: bool = False) -> None:
    note = (
        f"step {call.defn.path} ({call.key[:12]}) of run {call.run.id} failed after {attempts} "
        f"attempt{'s' if attempts != 1 else ''}{', recorded earlier' if replayed else ''}"
    )
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
