"""What happens when a step is called inside a run. Written once; the drivers make it sync or async.

The rules
    1. A result is durable before the caller sees it. The caller sees what was *loaded*, not what the body
       returned.
    2. Body, storing and hooks are separate. A save that fails or a hook that raises never executes a body
       again, and never counts as the step's failure.
    3. What must not be swallowed passes through the caller as :class:`~flowdsl.errors.Stopped`. Retries never
       see it.

The theory
    A crash can happen between any two effects. Before the final commit nothing is acknowledged, so the body
    may execute again (at least once). After it, the record answers (never again). Failed attempts are stored
    before the wait that follows them, so they survive a crash too. An ``in_doubt="raise"`` step stores its
    intent before the body. A later process that finds the intent without an outcome knows that the step is in
    doubt.

If you edit this
    Between the body's return and the commit of its result, nothing may fail for a reason other than the
    result itself. An effect's answer is valid only if the run still stands, so always look at outcomes.
"""

from collections.abc import Callable
from time import monotonic
from typing import Self

from flowdsl.core.bound import Bound
from flowdsl.core.facts import Facts, InDoubt, Undoable, facts_of
from flowdsl.core.kinds import STEP
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.attempt import Attempt
from flowdsl.engine.body import Body, execute_here
from flowdsl.engine.call import Call
from flowdsl.engine.call import Operation as DurableOperation
from flowdsl.engine.definitions import Invocation, Parts, StepDef
from flowdsl.engine.divergence import notice
from flowdsl.engine.effects import Effect, Effects, Flow, Result
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.heart import Heart
from flowdsl.engine.heartbeat import beat_of, details_before, heart_of
from flowdsl.engine.operations.memo import answer_with, find_memo, memo_of
from flowdsl.engine.record import flush, halted, put, row, still_ours, with_buffered
from flowdsl.engine.registry import STEPS
from flowdsl.engine.retries import begun_with, facts_with, go_on, next_or_outcome
from flowdsl.engine.strays import Strays, left_behind
from flowdsl.engine.transact import no_transactions, transacted
from flowdsl.engine.user import Function, Value
from flowdsl.errors import ResultNotStorable
from flowdsl.storage.base import Operation, PutMemo

__all__ = ["StepOperation", "Undos", "announced"]

_COMPLETED = StepStatus.COMPLETED
_PENDING = StepStatus.PENDING

Elsewhere = Callable[[Call, Invocation[StepDef], Frame, Heart | None], Effect]


class Undos(dict[tuple[str, str], Value]):
    """The undo that each call of a step was given, by its run and key: ``options(undo=…)`` may differ by
    call. A run shares this with its children, because it may have to undo them long after they have ended."""

    @classmethod
    def of(cls, run: Execution) -> "Undos":
        """The undos of *run*, and of all runs that belong to it."""
        while run.parent is not None:
            run = run.parent
        return run.part(cls)


class StepOperation(Bound, DurableOperation):
    """The bound call of a step in one of the modes: its definition, the function and its arguments."""

    __slots__ = (
        "_details",
        "defn",
        "durable",
        "elsewhere",
        "mode",
        "on_divergence",
        "parts",
        "path",
        "recorded",
        "version",
    )

    kind = STEP
    parts: Parts[StepDef]
    defn: StepDef
    elsewhere: Elsewhere | None
    _details: Value

    def bind(self, called: Parts[StepDef], mode: str) -> Self:
        """Let this new object be the call of a step in this mode. Its arguments are bound and encoded now.
        Returns itself. (An ``__init__`` would take longer.)"""
        defn, _, receiver, args, kwargs = self.parts = called
        self.defn = defn
        defn.bind(receiver, args, kwargs, self)
        self.path = defn.path
        self.version = defn.version
        self.mode = mode
        self.recorded = self.durable = mode == "do"
        self.on_divergence = defn.on_divergence
        self.elsewhere = self._details = None
        return self

    @property
    def called(self) -> Invocation[StepDef]:
        """The call that it performs."""
        return Invocation(*self.parts)

    @property
    def fn(self) -> Function:
        """The function that is called."""
        return self.parts[1]

    def executes_on(self, elsewhere: Elsewhere) -> None:
        """Let *elsewhere* make the effect that executes the body on an executor of other processes."""
        self.elsewhere = elsewhere

    def answer(self, call: Call, record: Step) -> None:
        if record.defaults != self.defaults:
            notice(call.run, self.path, record.defaults, self.defaults)
        if self.defn.undo is not None:
            self._note_undo(call)

    def execute(self, call: Call, prior: Step | None) -> Flow | Result:
        defn = self.defn
        if not self.recorded:
            return self._once(call)
        if prior is not None or not defn.begins_at_once:
            return self._prepared(call, prior)
        if defn.is_async or call.run.writer.buffer:
            return self._attempts(call, 0)
        # Nothing is awaited or written before the first attempt of a sync body. If the storage commits at
        # once, nothing is awaited after it either. Then no generator is needed.
        attempt = Attempt().begin(call, 1, False)
        error, value = self._execute_sync(attempt)
        if error is None:
            return self._succeeded(attempt, value)
        return self._attempts(call, 1, failed=(attempt, error))

    def _prepared(self, call: Call, prior: Step | None) -> Flow:
        """What has to be asked or noted before the first attempt."""
        defn = self.defn
        if defn.transaction and not call.run.engine.storage.transacts:
            raise no_transactions(call.run.engine, self.path)
        if defn.undo is not None:
            self._note_undo(call)
        if prior is not None or defn.memo:
            return self._taken_up(call, prior)
        return self._attempts(call, 0)

    def _note_undo(self, call: Call) -> None:
        if STEPS.get(self.path) is not self.defn:  # otherwise its name is enough
            Undos.of(call.run)[call.run.id, call.key] = self.defn.undo

    def _once(self, call: Call) -> Flow:
        """Mode ``try``: one attempt, no record, the original exception."""
        attempt = self._attempt(call, 1)
        if call.run.writer.buffer:
            yield from flush(call.run)
        error, value = (
            (yield from self._execute_async(attempt)) if self.defn.is_async else self._execute_sync(attempt)
        )
        if error is None:
            call.run.engine.hooks.fire("on_step_complete", attempt.step, value)
        return error, value

    def _taken_up(self, call: Call, prior: Step | None) -> Flow:
        """Answer from what all runs share, or go on after an unfinished execution of an earlier process."""
        key = ""
        if self.defn.memo:
            key, memo = yield from find_memo(call.run, self.defn, self.parts[2], self)
            if memo is not None:
                return (yield from answer_with(call, memo))
        attempt = 0 if prior is None else (yield from go_on(call, prior, in_doubt=self.defn.in_doubt))
        begun = () if prior is None else facts_of(prior).begun
        return (yield from self._attempts(call, attempt, key, begun))

    def _attempts(
        self,
        call: Call,
        made: int,
        memo_key: str = "",
        begun: tuple[float, ...] = (),
        failed: "tuple[Attempt, BaseException] | None" = None,
    ) -> Flow:
        """Execute the body until it succeeds or is given up. *made* counts earlier attempts. They had *begun*
        at those times. The last of them has *failed* with that error, if it was made here."""
        run = call.run
        if self.defn.heartbeat is not None:
            self._details = details_before(call)
        while True:
            if failed is not None:
                given_up = yield from next_or_outcome(*failed, begun, self.defn.retry)
                if given_up is not None:
                    return given_up
                begun = begun_with(begun, failed[0])
            made += 1
            if failed is not None and monotonic() > run.writer.held_until:
                yield from still_ours(run)  # the lease ran out during the wait
            attempt = self._attempt(call, made)
            if self.defn.in_doubt == "raise":
                doubt = InDoubt(undo=self.defn.undo_path)  # a person may say later that it took effect
                yield from put(call, row(call, _PENDING, None, "", made - 1, doubt, attempt))
            if run.writer.buffer:
                yield from flush(run)
            if self.defn.transaction:
                error, value = yield from self._in_transaction(attempt, memo_key, begun)
                if error is None:
                    return self._tell_hooks(attempt, value)
                failed = attempt, error
                continue
            error, value = (
                (yield from self._execute_async(attempt))
                if self.defn.is_async
                else self._execute_sync(attempt)
            )
            if error is None:
                done = self._succeeded(attempt, value, memo_key, begun)
                return done if isinstance(done, tuple) else (yield from done)
            failed = attempt, error

    # One attempt -------------------------------------------------------------------------------------------

    def _attempt(self, call: Call, number: int) -> Attempt:
        """An attempt that begins now."""
        defn = self.defn
        heart = None if defn.heartbeat is None else self._heart(call, defn.heartbeat, number)
        return Attempt().begin(call, number, defn.is_async, heart, not self.recorded)

    def _begins(self, attempt: Attempt) -> None:
        """The body is about to begin."""
        run = attempt.run
        if run.engine.hooks.listens:
            run.engine.hooks.fire("on_step_start", attempt.step)
        run.bodies.executing[attempt.call.key] = attempt

    def _execute_sync(self, attempt: Attempt) -> Result:
        """Execute a sync body. It executes in this thread unless it has limits or another place. A thread
        always drives it, so no driver is needed."""
        defn, fn, _, args, kwargs = self.parts
        outcome: Result | None = None
        self._begins(attempt)
        try:
            if defn.timeout is None and attempt.heart is None and self.elsewhere is None:
                outcome = execute_here(attempt, fn, args, kwargs)
            else:
                outcome = self._body(attempt).sync()
        finally:
            self._ended(attempt, outcome)
        assert outcome is not None
        return outcome

    def _execute_async(self, attempt: Attempt) -> Flow:
        """Execute an async body."""
        outcome: Result | None = None
        self._begins(attempt)
        try:
            outcome = yield self._body(attempt)
        finally:
            self._ended(attempt, outcome)
        assert outcome is not None
        scope = attempt.opened
        if scope is not None and scope.active and outcome[0] is not None:
            yield Strays(attempt.run, scope)
        return outcome

    def _in_transaction(self, attempt: Attempt, memo_key: str, begun: tuple[float, ...]) -> Flow:
        """Execute a body in a transaction, and commit its record with it. Returns the outcome, with the value
        that was loaded from the record."""
        call, run = attempt.call, attempt.run
        made: list[tuple[Step, Value, tuple[Operation, ...]]] = []

        def records(value: Value) -> tuple[Operation, ...]:
            attempt.ended()
            record, loaded, more = self._completed(attempt, value, memo_key, begun)
            operations, buffered = with_buffered(run, call, (run.writer.put(record), *more))
            made[:] = [(record, loaded, operations[:buffered])]
            return operations

        outcome: Result | None = None
        reopened = call.key in run.writer.reopened
        self._begins(attempt)
        try:
            body = self._body(attempt)
            assert isinstance(body, Body)
            error, _ = yield from transacted(run, self.called, body, records)
            outcome = error, None
        finally:
            self._ended(attempt, outcome)
        if error is not None:
            if reopened:
                run.writer.reopen(call.key)
            return error, None
        ((record, loaded, buffered),) = made
        run.writer.stored(buffered)
        run.writer.add(record)
        return None, loaded

    def _body(self, attempt: Attempt) -> Effect:
        """The effect that executes the body once."""
        call, timeout = attempt.call, self.defn.timeout
        if self.elsewhere is not None and not self.defn.transaction:
            return self.elsewhere(call, self.called, attempt, attempt.heart)
        _, fn, _, args, kwargs = self.parts
        if attempt.heart is None:
            return Body(fn, args, kwargs, attempt, timeout)
        inline = call.inline or not (call.submitted or call.queued)
        return Body(fn, args, kwargs, attempt, timeout, heart=attempt.heart, inline=inline)

    def _ended(self, attempt: Attempt, outcome: Result | None) -> None:
        """The body has ended once, with *outcome*. ``None``: it was interrupted."""
        call = attempt.call
        call.run.bodies.executing.pop(call.key, None)
        if attempt.opened is not None and attempt.opened.active:
            left_behind(call.run, attempt.opened)
        attempt.ended()
        if attempt.heart is not None:
            attempt.heart.close()
            self._details = attempt.heart.details
        if outcome is not None and isinstance(outcome[0], Exception):
            call.run.engine.hooks.fire("on_step_error", attempt.step, outcome[0], attempt.number)

    def _succeeded(
        self, attempt: Attempt, value: Value, memo_key: str = "", begun: tuple[float, ...] = ()
    ) -> Flow | Result:
        """Record a result. Gives the value that was loaded from it."""
        record, loaded, more = self._completed(attempt, value, memo_key, begun)
        stored = put(attempt.call, record, *more)
        if stored:
            return self._tell_when_stored(attempt, loaded, stored)
        return self._tell_hooks(attempt, loaded)

    def _completed(
        self, attempt: Attempt, value: Value, memo_key: str, begun: tuple[float, ...]
    ) -> tuple[Step, Value, tuple[Operation, ...]]:
        """The record of a result, the value that was loaded from it, and what to store beside it."""
        call, defn = attempt.call, self.defn
        run = call.run
        payloads = run.engine.payloads
        try:
            payload, loaded = payloads.pack(value, run.id, call.key, "result")
        except ResultNotStorable as error:
            error.args = (f"step {self.path}({call.shown}): {error}",)
            raise halted(run, error, call) from None
        undo = defn.undo_path if defn.undo is not None or defn.never_undone else None
        if undo is not None and run.stop.being_undone:
            undo = ""  # an undo has called this step, so it is not undone
        facts: Facts | None = None if undo is None else Undoable(undo, shared=memo_key)
        if begun:
            facts = facts_with(facts, begun, attempt)
        text = payloads.previews.value(value)
        record = row(call, _COMPLETED, payload, text, attempt.number, facts, attempt)
        if memo_key:
            return record, loaded, (PutMemo(memo_of(run, defn, memo_key, record, payload)),)
        return record, loaded, ()

    def _tell_when_stored(self, attempt: Attempt, loaded: Value, stored: Effects[None]) -> Flow:
        yield from stored
        return self._tell_hooks(attempt, loaded)

    def _tell_hooks(self, attempt: Attempt, loaded: Value) -> Result:
        """Tell the hooks: the result is durable."""
        run = attempt.run
        if run.failures.open:
            run.failures.succeeded(attempt.scope)
        if run.engine.hooks.listens:
            run.engine.hooks.fire("on_step_complete", attempt.step, loaded)
        return None, loaded

    def _heart(self, call: Call, limit: float, attempt: int) -> Heart:
        """The heartbeats of an attempt, at most *limit* seconds apart."""
        stored = self.recorded or self.elsewhere is not None  # elsewhere they come through the storage
        run = call.run
        beat = beat_of(call, attempt)
        return heart_of(run, beat, limit, run.engine.ticks, self._details, stored=stored)


def announced(attempt: Attempt) -> Step:
    """The record that shows others that the body of a step executes."""
    return row(attempt.call, _PENDING, None, "", attempt.number - 1, None, attempt)
