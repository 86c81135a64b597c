"""What happens when a step is called inside a run. Written once; the drivers make it sync or async.

The rules
    1. A result is made durable before the caller sees it, and the caller sees what was *loaded*, not what the
       body returned.
    2. Body, persisting and hooks are separate: a save that fails or a hook that raises never executes a body
       again, and is never taken for the step's failure.
    3. What must not be swallowed crosses the caller as :class:`~flowdsl.errors.Stopped`; retries never see
       it.

The theory
    A crash can fall between any two effects. Before the final commit nothing is acknowledged, so the body may
    execute again (at least once); after it, the record answers (never again). Attempts that failed are stored
    before the wait that follows them, so that they survive a crash too. An ``in_doubt="raise"`` step stores
    its intent before the body: finding the intent without an outcome is how a later process knows that it
    cannot know.

If you edit this
    Nothing may come between the body's return and the commit of its result that can fail for other reasons
    than the result itself. And an effect's answer is only valid if the run still stands: look at outcomes,
    always.
"""

import logging
from collections.abc import Callable

from attrs import evolve

from flowdsl.codecs.exceptions.handling import carry_history
from flowdsl.core.binding import Bound
from flowdsl.core.facts import ATTEMPTS, Facts, FromMemo, InDoubt, Retrying, Undoable, facts_of
from flowdsl.core.kinds import STEP
from flowdsl.core.records import Memo, Step
from flowdsl.core.retry import Retry
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call
from flowdsl.engine.call import Operation as DurableOperation
from flowdsl.engine.definitions import Invocation, StepDef
from flowdsl.engine.divergence import notice
from flowdsl.engine.effects import Body, Effect, Effects, Flow, wait_out
from flowdsl.engine.execution import Frame
from flowdsl.engine.heart import Heart
from flowdsl.engine.heartbeat import beat_of, details_before, heart_of, last_words
from flowdsl.engine.operations.memo import find_memo, memo_of
from flowdsl.engine.record import (
    flush,
    halted,
    note_on,
    put,
    replay,
    row,
    view_of,
)
from flowdsl.engine.scope import INTERRUPTS, Scope, StepView
from flowdsl.engine.user import Function, Named, Value
from flowdsl.errors import ResultNotStorable, StepOutcomeUnknown, Stopped
from flowdsl.storage.base import Operation, PutMemo

__all__ = ["StepOperation", "Undos", "announced"]

logger = logging.getLogger("flowdsl")

_COMPLETED = StepStatus.COMPLETED
_FAILED = StepStatus.FAILED
_PENDING = StepStatus.PENDING

_YEAR = 86_400.0 * 365


def _after(facts: Facts | None, view: StepView, begun: tuple[float, ...]) -> Facts | None:
    """*facts* of a step of which attempts before this one had *begun*: its own beginning is the last."""
    if not begun:
        return facts
    return evolve(facts or Facts(), begun=(*begun, view.started_at)[-ATTEMPTS:])


Elsewhere = Callable[[Call, Invocation[StepDef], Frame, Heart | None], Effect]


class Undos(Named):
    """The undo that a call of a step was given, by the step's key: ``options(undo=…)`` may differ by call."""


class StepOperation(DurableOperation):
    """The call of a step: its definition, the function and its arguments, in one of the modes."""

    __slots__ = (
        "_details",
        "_elsewhere",
        "bound",
        "called",
        "canonical",
        "defaults",
        "defn",
        "durable",
        "mode",
        "on_divergence",
        "path",
        "recorded",
        "version",
    )

    kind = STEP

    def __init__(self, called: Invocation[StepDef], mode: str | None = None) -> None:
        self.called = called
        defn = self.defn = called.defn
        self.bound: Bound = defn.bind(called.receiver, called.args, called.kwargs)
        self.canonical = self.bound.canonical
        self.defaults = self.bound.defaults
        self.path = defn.path
        self.version = defn.version
        self.mode = mode or defn.mode
        self.recorded = self.durable = self.mode == "do"
        self.on_divergence = defn.on_divergence
        self._elsewhere: Elsewhere | None = None
        self._details: Value = None

    def preview(self, limit: int = 200) -> str:
        return self.bound.preview(limit)

    @property
    def fn(self) -> Function:
        """The function that is called."""
        return self.called.fn

    def executes_on(self, elsewhere: Elsewhere) -> None:
        """Let *elsewhere* make the effect that executes the body, on an executor of other processes."""
        self._elsewhere = elsewhere

    def answer(self, call: Call, record: Step) -> None:
        if record.defaults != self.defaults:
            notice(call.run, self.path, record.defaults, self.defaults)
        if self.defn.undo is not None:
            self._note_undo(call)

    def execute(self, call: Call, prior: Step | None) -> Flow:
        if self.mode != "do":
            return self._once(call)
        if self.defn.undo is not None:
            self._note_undo(call)
        if prior is None and not self.defn.memo:
            return self._attempts(call, 0)
        return self._taken_up(call, prior)

    def _note_undo(self, call: Call) -> None:
        call.run.part(Undos)[call.key] = self.defn.undo

    def _once(self, call: Call) -> Flow:
        """Mode ``try``: one attempt, no record, the original exception."""
        defn = self.defn
        heart = None if defn.heartbeat is None else self._heart(call, defn.heartbeat, 1)
        view = view_of(call, 1, heart)
        scope = Scope(call.body_scope(), call.scope, defn.is_async, tried=True)
        if call.run.writer.buffer:
            yield from flush(call.run)
        body = self._begun(call, view, scope, heart)
        try:
            # A sync one is always driven by a thread: no need to ask the driver.
            error, value = (yield body) if defn.is_async else body.sync()
        finally:
            call.run.bodies.end(call.key, None)
        self._ended(call, view, error)
        if heart is not None:
            heart.close()
        if error is None:
            call.run.engine.hooks.fire("on_step_complete", view, value)
        return error, value

    def _taken_up(self, call: Call, prior: Step | None) -> Flow:
        """Answer from what all runs share, or go on behind an unfinished execution of an earlier process."""
        key = ""
        if self.defn.memo:
            key, memo = yield from find_memo(call.run, self.defn, self.called.receiver, self.bound)
            if memo is not None:
                return (yield from self._answer_with(call, memo))
        attempt = 0 if prior is None else (yield from self._take_up(call, prior))
        begun = () if prior is None else facts_of(prior).begun
        return (yield from self._attempts(call, attempt, key, begun))

    def _attempts(self, call: Call, attempt: int, memo_key: str = "", begun: tuple[float, ...] = ()) -> Flow:
        """Execute the body until it succeeds or is given up; *attempt* were made already, which had *begun*
        then."""
        run, defn = call.run, self.defn
        if defn.heartbeat is not None:
            self._details = details_before(call)
        while True:
            attempt += 1
            heart = None if defn.heartbeat is None else self._heart(call, defn.heartbeat, attempt)
            view = view_of(call, attempt, heart)
            if defn.in_doubt == "raise":
                doubt = InDoubt(undo=defn.undo_path)  # for a person's word that it took effect
                yield from put(call, row(call, _PENDING, None, "", attempt - 1, doubt, view))
            if run.writer.buffer:
                yield from flush(run)
            scope = Scope(call.body_scope() if call.generation else call.key, call.scope, defn.is_async, True)
            body = self._begun(call, view, scope, heart)
            try:
                # A sync one is always driven by a thread: no need to ask the driver.
                error, value = (yield body) if defn.is_async else body.sync()
            finally:
                run.bodies.end(call.key, None)
            self._ended(call, view, error)
            if heart is not None:
                heart.close()
                self._details = heart.details
            if error is None:
                record, loaded, more = self._completed(call, view, value, memo_key, begun)
                yield from put(call, record, *more)
                if run.failures.open:
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
            # what a step inside has given up on was retried there
            given_up = defn.retry is None and run.failures.blames_any(error)
            if given_up or not retry.should_retry(error, attempt):
                return (yield from self._gave_up(call, view, error, begun, heart))
            run.stop.check()
            begun = (*begun, view.started_at)[-ATTEMPTS:]
            yield from self._back_off(call, view, retry, error, begun, heart)
            with run.lock:
                run.journal.reopen(run.failures.inside(scope))

    def _heart(self, call: Call, limit: float, attempt: int) -> Heart:
        """The heartbeats of an attempt, at most *limit* seconds from one to the next."""
        stored = self.recorded or self._elsewhere is not None  # from elsewhere they come by the storage
        run = call.run
        beat = beat_of(call, attempt)
        return heart_of(run, beat, limit, run.engine.ticks, self._details, stored=stored)

    def _begun(self, call: Call, view: StepView, scope: Scope, heart: Heart | None) -> Effect:
        """The effect that executes the body once, which is about to begin."""
        run, defn = call.run, self.defn
        if run.engine.hooks.listens:
            run.engine.hooks.fire("on_step_start", view)
        run.bodies.begin(call.key, (view, call))
        frame = Frame(run, scope, view, defn.is_async)
        if self._elsewhere is not None:
            return self._elsewhere(call, self.called, frame, heart)
        _, fn, _, args, kwargs = self.called
        if heart is None:
            return Body(fn, args, kwargs, frame, defn.timeout)
        inline = call.inline or not (call.submitted or call.queued)
        return Body(fn, args, kwargs, frame, defn.timeout, heart=heart, inline=inline)

    def _ended(self, call: Call, view: StepView, error: BaseException | None) -> None:
        """The body has ended once."""
        engine = call.run.engine
        view.duration = engine.clock.now() - view.started_at
        if error is not None and isinstance(error, Exception):
            engine.hooks.fire("on_step_error", view, error, view.attempt)

    def _completed(
        self, call: Call, view: StepView, value: Value, memo_key: str, begun: tuple[float, ...]
    ) -> tuple[Step, Value, tuple[Operation, ...]]:
        """The record of a result, the value that was loaded from it, and what is to be stored beside it."""
        run = call.run
        payloads = run.engine.payloads
        try:
            payload, loaded = payloads.pack(value, run.id, call.key, "result")
        except ResultNotStorable as error:
            error.args = (f"step {self.path}({call.shown}): {error}",)
            raise halted(run, error, call) from None
        undo = None if self.defn.undo is None else self.defn.undo_path
        facts = _after(None if undo is None else Undoable(undo), view, begun)
        record = row(call, _COMPLETED, payload, payloads.previews.value(value), view.attempt, facts, view)
        if not memo_key:
            return record, loaded, ()
        return record, loaded, (PutMemo(memo_of(run, self.defn, memo_key, record, payload)),)

    def _gave_up(
        self, call: Call, view: StepView, error: Exception, begun: tuple[float, ...], heart: Heart | None
    ) -> Flow:
        """Store the exception and raise what was loaded from it, with the traceback of the original."""
        run = call.run
        payload, loaded = run.engine.payloads.pack_error(error, run.id, call.key, "error")
        text = run.engine.payloads.previews.error(error)
        more = () if heart is None else last_words(call, view.attempt, heart)
        record = row(call, _FAILED, payload, text, view.attempt, _after(None, view, begun), view)
        yield from put(call, record, *more)
        carry_history(error, loaded)
        note_on(loaded, call, view.attempt)
        run.failures.failed(call.key, call.scope, call.flow, loaded)
        return loaded, None

    def _back_off(
        self,
        call: Call,
        view: StepView,
        retry: Retry,
        error: Exception,
        begun: tuple[float, ...],
        heart: Heart | None,
    ) -> Effects[None]:
        """Store the failed attempt, then wait."""
        engine = call.run.engine
        delay = retry.delay(view.attempt, engine.hooks.jitter(), error)
        previews = engine.payloads.previews
        facts: Facts = Retrying(engine.clock.now() + delay, previews.error(error), begun=begun)
        more = () if heart is None else last_words(call, view.attempt, heart)
        yield from put(call, row(call, _PENDING, None, "", view.attempt, facts, view), *more)
        engine.hooks.fire("on_step_retry", view, error, view.attempt, delay)
        logger.info(
            "step %s failed at attempt %d of %s (%s); next in %.3g s",
            self.path,
            view.attempt,
            retry.attempts or "any",
            previews.error_line(error),
            delay,
            extra={"run": call.run.id, "step": call.key},
        )
        yield from wait_out(call.run, delay)

    def _take_up(self, call: Call, prior: Step) -> Effects[int]:
        """Go on behind an unfinished execution of an earlier process; returns the attempts already made."""
        facts = facts_of(prior)
        run = call.run
        if isinstance(facts, InDoubt) and self.defn.in_doubt == "raise":
            raise halted(
                run,
                StepOutcomeUnknown(
                    f"step {self.path} ({call.shown}) of run {run.id} was executing when its process died; "
                    "nobody knows "
                    f"whether it took effect. Find out, then say so: Runtime.resolve({run.id!r}, "
                    f"{call.key[:12]!r}, result=…), error=… or rerun=True",
                    run=run.id,
                    step=call.key,
                ),
                call,
            )
        if isinstance(facts, Retrying):
            left = min(facts.next - run.engine.clock.now(), _YEAR)
            if left > 0:
                yield from wait_out(run, left)
        return prior.attempts

    def _answer_with(self, call: Call, memo: Memo) -> Flow:
        """Copy a shared result into the run and answer with it."""
        run = call.run
        notice(run, memo.path, memo.defaults, self.defaults)
        payloads = run.engine.payloads
        payload = payloads.reseal(memo.payload, ("", memo.key, "memo"), (run.id, call.key, "result"))
        record = row(call, _COMPLETED, payload, memo.preview, 0, FromMemo(), view_of(call, 0))
        yield from put(call, record)
        return replay(call, record)


def announced(call: Call, view: StepView) -> Step:
    """The record of a step whose body is executing, for others to see."""
    return row(call, _PENDING, None, "", view.attempt - 1, None, view)
