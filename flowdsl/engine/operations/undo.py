"""The undo of one step: called with the step's result, under its own retry policy.

The rules
    1. Its key is that of the step, followed by ``/undo``, and its body has a scope of its own for each
       time that the step was undone. It is never evidence of a changed program.
    2. What it takes back becomes ``undone`` in the commit that records it.
    3. One that fails for good is reported and recorded. That is no failure of the run, which goes on with
       the others.
"""

import logging
from collections.abc import Callable
from typing import Self

from flowdsl.core.facts import Facts, Retrying, Undoable, facts_of, generation_of
from flowdsl.core.kinds import UNDO
from flowdsl.core.records import Memo, Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.attempt import Attempt
from flowdsl.engine.body import Body
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.definitions import Invocation, StepDef, step_definition, undo_path
from flowdsl.engine.effects import Effect, Effects, Flow, Read, Result
from flowdsl.engine.execution import Execution, Frame, current, frame_of
from flowdsl.engine.perform import perform
from flowdsl.engine.record import commit, require_python, row
from flowdsl.engine.registry import step_called
from flowdsl.engine.scope import Scope, StepView
from flowdsl.engine.transact import no_transactions, transacted
from flowdsl.engine.user import Value
from flowdsl.engine.waiting import Pause
from flowdsl.errors import StepNotFound
from flowdsl.storage.base import Done, DropMemo, Outcome
from flowdsl.storage.base import Operation as Write

__all__ = ["undo_key", "undo_step"]

logger = logging.getLogger("flowdsl")


def undo_key(step: Step) -> str:
    """The key of the undo of *step*."""
    return f"{step.key}/undo"


def undo_step(run: Execution, step: Step, undo: Value) -> Flow:
    """Undo *step* by calling *undo* with its result; ``None`` for one that cannot be found any more."""
    called = None
    if undo is not None:
        called = _called(undo, run.engine.payloads.unpack(step.payload or b"", run.id, step.key, "result"))
    scope = Scope(step.scope, run.scope, run.is_async)
    run.stop.admits(scope)
    return perform(_UndoCall().of(frame_of(run, scope, None, run.is_async), UndoOperation(step, called)))


def _shared_no_more(run: Execution, step: Step) -> Effects[tuple[Write, ...]]:
    """The write after which other runs share the result of *step* no more, if they share it now."""
    facts, storage = facts_of(step), run.engine.storage
    key = facts.shared if isinstance(facts, Undoable) else ""
    if not key:
        return ()
    memo: Memo | None = yield Read(storage, lambda: storage.get_memo(key))
    return (DropMemo(key),) if memo is not None and memo.created_at == step.completed_at else ()


def _called(undo: Value, value: Value) -> Invocation[StepDef]:
    """The call of an undo: a step's definition, a decorated step, or a plain function."""
    if isinstance(undo, StepDef):
        return undo.call((value,), {})
    if step_definition(undo) is not None:
        return step_called(undo, (value,), {})
    defn = StepDef.build(undo, name=undo_path(undo))
    return Invocation(defn, undo, None, (value,), {})


class UndoOperation(Operation):
    """Take *step* back by what is *called*."""

    __slots__ = ("beside", "called", "path", "step")

    kind = UNDO
    durable = False
    sequential = False
    mode = "undo"

    def __init__(self, step: Step, called: Invocation[StepDef] | None) -> None:
        self.step = step
        self.called = called
        self.beside: tuple[Write, ...] = ()
        self.path = "?" if called is None else called.defn.path

    def preview(self, limit: int = 200) -> str:
        return self.step.preview

    def answer(self, call: Call, record: Step) -> Result:
        return None, None

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run, called = call.run, self.called
        if prior is None:
            call.begins(run.engine.clock.now())
        if called is None:
            error = StepNotFound(
                "its undo was local to a function that has ended", run=run.id, step=self.step.path
            )
            return (yield from self._give_up(call, 0, error))
        retry = called.defn.retry or run.engine.retry
        inside = self.body_scope()
        run.journal.reopen(
            [s.key for s in run.journal if s.scope == inside and s.status is StepStatus.FAILED]
        )
        self.beside = yield from _shared_no_more(run, self.step)
        made = 0 if prior is None else (yield from self._take_up(run, prior))
        while True:
            made += 1
            attempt = _UndoAttempt().of(call, self, made, called.defn.is_async)
            run.stop.admits(attempt.scope)
            failed = yield from self._attempt(attempt, called)
            if failed is None or not isinstance(failed, Exception):
                return failed, None
            require_python(run, failed, call)
            if not retry.should_retry(failed, made):
                return (yield from self._give_up(call, made, failed))
            delay = retry.delay(made, run.engine.hooks.jitter(), failed)
            again = Retrying(run.engine.clock.now() + delay)
            yield from self._put(call, self._row(call, StepStatus.PENDING, made, failed, again))
            yield from _wait(run, delay)
            with run.lock:
                run.journal.reopen(run.failures.inside(attempt.scope))

    def body_scope(self) -> str:
        """The scope of what the body calls."""
        return f"{undo_key(self.step)}/{generation_of(self.step)}"

    def _take_up(self, run: Execution, prior: Step) -> Effects[int]:
        """Go on after the attempts of an earlier process. Returns how many there were."""
        facts = facts_of(prior)
        if isinstance(facts, Retrying):
            yield from _wait(run, facts.next - run.engine.clock.now())
        return prior.attempts

    def _attempt(self, attempt: Attempt, called: Invocation[StepDef]) -> Effects[BaseException | None]:
        """Execute the body once, and record that it has taken the step back; its error, if there is one."""
        run, call, defn = attempt.run, attempt.call, called.defn
        body = Body(called.fn, called.args, called.kwargs, attempt, defn.timeout)
        beside: Callable[[Effect], Value] | None = None
        if defn.is_async and not run.is_async:
            beside = lambda effect: run.engine.background_async(effect.aio).result()  # noqa: E731
        if defn.transaction:
            return (yield from self._in_transaction(attempt, called, body, beside))
        if beside is not None:
            error, _ = beside(body)
        else:
            error, _ = (yield body) if defn.is_async else body.sync()
        if error is None:
            yield from self._put(call, *self._undone(call, attempt.number), beside=self.beside)
        found: BaseException | None = error
        return found

    def _in_transaction(
        self,
        attempt: Attempt,
        called: Invocation[StepDef],
        body: Body,
        beside: Callable[[Effect], Value] | None,
    ) -> Effects[BaseException | None]:
        """The same for a transactional undo: its records are committed with its effects."""
        run, call = attempt.run, attempt.call
        if not run.engine.storage.transacts:
            return no_transactions(run.engine, self.path)
        made: list[Step] = []

        def records(_: Value) -> tuple[Write, ...]:
            made[:] = self._undone(call, attempt.number)
            return (*(run.writer.put(record) for record in made), *self.beside)

        outcomes: list[Outcome]
        error, outcomes = yield from transacted(run, called, body, records, beside)
        if error is None:
            first = outcomes[0]
            assert isinstance(first, Done)
            self._stored(call, first.seq, *made)
        return error

    # Records -----------------------------------------------------------------------------------------------

    def _row(
        self,
        call: Call,
        status: StepStatus,
        attempts: int,
        error: BaseException | None = None,
        facts: Facts | None = None,
    ) -> Step:
        text = "" if error is None else call.run.engine.payloads.previews.error(error)
        return row(call, status, None, text, attempts, facts)

    def _undone(self, call: Call, attempts: int) -> tuple[Step, Step]:
        """The record of an undo that has succeeded, and what that of the step has become."""
        facts = Facts(generation=generation_of(self.step) + 1)
        undone = self.step._replace(seq=0, status=StepStatus.UNDONE, extra=facts.to_json())
        return self._row(call, StepStatus.COMPLETED, attempts), undone

    def _put(self, call: Call, *records: Step, beside: tuple[Write, ...] = ()) -> Effects[None]:
        """Make *records* durable in one commit, together with the writes *beside*."""
        puts = (call.run.writer.put(record) for record in records)
        seq = yield from commit(call.run, call, *puts, *beside)
        self._stored(call, seq, *records)

    def _stored(self, call: Call, seq: int, *records: Step) -> None:
        """*records* are durable, the first as number *seq*."""
        for record in records:
            call.run.writer.add(record)
            if record.status is StepStatus.UNDONE:
                call.run.writer.raise_floor(seq)

    def _give_up(self, call: Call, attempts: int, error: BaseException) -> Flow:
        """Report an undo that failed for good."""
        run, step = call.run, self.step
        logger.error(
            "undo %s of step %s in run %s failed after %d attempts; the others go on",
            *(self.path, step.path, run.id, attempts),
            exc_info=run.engine.payloads.previews.exc_info(error),
            extra={"run": run.id, "step": step.key},
        )
        yield from self._put(call, self._row(call, StepStatus.FAILED, attempts, error))
        return None, None


class _UndoCall(Call):
    """The call of an undo. It has its identity from the step that it takes back."""

    __slots__ = ()

    def of(self, frame: Frame, operation: UndoOperation) -> Self:
        """Let this new object be the call of *operation*, which no body makes. Returns itself."""
        self.take_place(frame, operation)
        self.key = undo_key(operation.step)
        self.text = operation.preview()
        return self


class _UndoAttempt(Attempt):
    """One attempt of an undo. Each time that a step is undone, its undo has a scope of its own."""

    __slots__ = ()

    def of(self, call: Call, operation: UndoOperation, number: int, is_async: bool) -> Self:
        """Let this new object be the *number*-th attempt. It begins now. Returns itself."""
        self.begin(call, number, is_async)
        run = call.run
        self.opened = Scope(operation.body_scope(), call.scope, is_async, of_step=True)
        self._step = StepView(
            *(run.id, call.key, operation.path, operation.mode, number, self.began),
            generation=generation_of(operation.step),
            origin=run.origin,
        )
        return self


def _wait(run: Execution, delay: float) -> Effects[None]:
    if delay > 0:
        token = current.set(frame_of(run, run.scope, None, run.is_async))  # it is the run that waits
        try:
            yield Pause(run, delay)
        finally:
            current.reset(token)
