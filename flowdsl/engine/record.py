"""How a call becomes a record, and how a record becomes durable. All that a run writes about its calls is
built and committed here.

The rules
    A result is durable before the caller sees it. The caller sees what was *loaded*, not what was given.
    A refused or failed write stops the run, resumably. Buffered records are written first.
"""

import time
from collections.abc import Iterator

from attrs import evolve

from flowdsl.blocks import block
from flowdsl.codecs.exceptions.handling import add_note
from flowdsl.core.facts import Facts
from flowdsl.core.records import Step, step_of
from flowdsl.core.status import StepStatus
from flowdsl.engine.attempt import Attempt
from flowdsl.engine.call import Call
from flowdsl.engine.effects import Commit, Effects, Flow, Result
from flowdsl.engine.execution import Execution
from flowdsl.engine.interruption import python_ends, refused_at_exit
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, Stopped, StorageError
from flowdsl.storage.base import Done, Operation, Outcome, PutStep, UpdateRun

__all__ = [
    "commit",
    "complete",
    "crossing",
    "fail",
    "flush",
    "halted",
    "keep",
    "note_on",
    "pending",
    "put",
    "replay",
    "require_python",
    "row",
    "still_ours",
    "with_buffered",
]

_COMPLETED = StepStatus.COMPLETED
_FAILED = StepStatus.FAILED
_PENDING = StepStatus.PENDING

# Rows -------------------------------------------------------------------------------------------------------


def row(
    call: Call,
    status: StepStatus,
    payload: bytes | None,
    text: str,
    attempts: int,
    facts: Facts | None = None,
    attempt: Attempt | None = None,
) -> Step:
    """The record of a call. *attempt* tells when its body began and how long it took."""
    run, scope, operation = call.run, call.scope, call.operation
    if call.generation:
        facts = evolve(facts or Facts(), generation=call.generation)
    ended = None
    if attempt is None:
        now = run.engine.now()
        began = call.began or now
        ended = None if status is _PENDING else now
    else:
        began = attempt.began
        if status is not _PENDING:
            ended = run.engine.now() if attempt.duration is None else began + attempt.duration
    return step_of((
        run.id,
        call.key,
        operation.path,
        0,
        operation.kind,
        scope.id,
        call.occurrence,
        call.ordinal,
        status,
        attempts,
        call.shown if call.text is None else call.text,
        operation.defaults,
        payload,
        text,
        began,
        ended,
        call.concurrent,
        scope.draws,
        operation.version,
        "" if facts is None else facts.to_json(),
        b"",
    ))  # fmt: skip


# Outcomes ---------------------------------------------------------------------------------------------------


def pending(call: Call, facts: Facts | None = None) -> Effects[None]:
    """Record that the call has begun, with all that a later process needs to go on."""
    record = row(call, _PENDING, None, "", 0, facts)
    call.begins(record.created_at)
    yield from put(call, record)


def complete(call: Call, value: Value, facts: Facts | None = None) -> Flow:
    """Record that the call has ended with *value*. Gives what was loaded from the record."""
    run = call.run
    payload, loaded = run.engine.payloads.pack(value, run.id, call.key, "result")
    text = "" if value is None else run.engine.payloads.previews.value(value)
    yield from put(call, row(call, _COMPLETED, payload, text, 1, facts))
    return None, loaded


def fail(call: Call, error: Exception, facts: Facts | None = None, *, itself: bool = False) -> Flow:
    """Record that the call has failed with *error*, and raise what was loaded from the record. With *itself*,
    raise the given exception."""
    run = call.run
    payload, loaded = run.engine.payloads.pack_error(error, run.id, call.key, "error")
    yield from put(call, row(call, _FAILED, payload, run.engine.payloads.previews.error(error), 1, facts))
    raised = error if itself else loaded
    run.failures.failed(call.key, call.scope, call.flow, raised)
    return raised, None


def keep(call: Call, payload: bytes | None, text: str, facts: Facts | None = None) -> Step:
    """Record a value. It is committed with the next commit of the run, or before the next body begins."""
    record = row(call, _COMPLETED, payload, text, 1, facts)
    call.run.writer.keep(record)
    return record


def replay(call: Call, record: Step, hooks: bool = True) -> Result:
    """The outcome that *record* holds. Without *hooks*, the record was made just now."""
    run = call.run
    payloads = run.engine.payloads
    value = error = None
    try:
        if record.status is _COMPLETED:
            value = payloads.unpack(record.payload or b"", run.id, record.key, "result")
        else:
            error = payloads.unpack_error(record.payload or b"", run.id, record.key, "error")
    except FlowError as fault:
        raise halted(run, fault, call) from None
    chain = run.engine.hooks
    if hooks and chain.listens and chain.has("on_step_replay"):
        chain.fire(
            "on_step_replay",
            Attempt().begin(call, record.attempts, False).step,
            value if error is None else error,
        )
    if error is not None:
        note_on(error, call, record.attempts)
        run.failures.failed(call.key, call.scope, call.flow, error)
    return error, value


def note_on(error: BaseException, call: Call, attempts: int) -> None:
    """Add to an exception which step failed, and how often. A replay says the same: the body may read it."""
    note = (
        f"step {call.operation.path} ({call.key[:12]}) of run {call.run.id} failed after {attempts} "
        f"attempt{'s' if attempts != 1 else ''}"
    )
    add_note(error, note)


# Commits ----------------------------------------------------------------------------------------------------


def put(call: Call, record: Step, *more: Operation) -> Effects[None] | tuple[()]:
    """Make a record durable, together with *more*, and take it into the journal. A storage that commits at
    once does it here. For any other, the caller gives the answer to ``yield from``."""
    run = call.run
    operation = PutStep(record, run.epoch)
    operations = (operation, *more) if more else (operation,)
    if run.engine.at_once[call.scope.is_async]:
        _commit_now(run, call, operations)
        run.journal.add(record)
        return ()
    return _put(call, record, operations)


def _put(call: Call, record: Step, operations: tuple[Operation, ...]) -> Effects[None]:
    yield from commit(call.run, call, *operations)
    call.run.writer.add(record)


def commit(run: Execution, call: Call | None, *operations: Operation) -> Effects[int]:
    """Commit *operations* of a run after what it has buffered. Answers the ``seq`` of the first. A refused or
    failed write stops the run, resumably."""
    if run.engine.at_once[True]:  # sync or async, it is called directly
        return _commit_now(run, call, operations)
    operations, buffered = with_buffered(run, call, operations)
    if not operations:  # another branch has committed what was to be flushed here
        return 0
    try:
        outcomes = yield Commit(run.engine, operations)
    except StorageError as error:
        raise halted(run, error, call) from error
    return _accepted(run, operations, outcomes, buffered)


def _commit_now(run: Execution, call: Call | None, operations: tuple[Operation, ...]) -> int:
    writer, buffered = run.writer, 0
    if writer.buffer or writer.reopened:
        operations, buffered = with_buffered(run, call, operations)
    if not operations:
        return 0
    try:
        outcomes = run.engine.storage.commit(operations)
    except StorageError as error:
        raise halted(run, error, call) from error
    first = outcomes[0]
    return (
        first.seq if not buffered and type(first) is Done else _accepted(run, operations, outcomes, buffered)
    )


def with_buffered(
    run: Execution, call: Call | None, operations: tuple[Operation, ...]
) -> tuple[tuple[Operation, ...], int]:
    """*operations* after what has to be committed with them, and how many were buffered."""
    writer = run.writer
    if writer.reopened and call is not None:
        operations += writer.answers(call.key)
    if not writer.buffer:
        return operations, 0
    buffered = writer.buffered()
    return (*buffered, *operations), len(buffered)


def _accepted(
    run: Execution, operations: tuple[Operation, ...], outcomes: list[Outcome], buffered: int
) -> int:
    """Note that *operations* are durable. Returns the ``seq`` of the first that was not buffered."""
    if buffered:
        for outcome, operation in zip(outcomes[:buffered], operations, strict=False):
            run.writer.accept(outcome, operation)
        run.writer.stored(operations[:buffered])
        if len(outcomes) == buffered:
            return 0
    outcome = outcomes[buffered]
    return outcome.seq if type(outcome) is Done else run.writer.accept(outcome, operations[buffered])


def flush(run: Execution) -> Effects[None]:
    """Make durable what the next body or child may act upon."""
    if run.writer.buffer:
        yield from commit(run, None)


def still_ours(run: Execution) -> Effects[None]:
    """Go on only if *run* is ours, and renew its lease, which is over by our clock. A process that stood
    still learns here that another one has taken the run. So it does not begin what the other may have
    done."""
    begun = time.monotonic()
    renewal = UpdateRun(run.id, {}, epoch=run.epoch, lease=run.engine.lease)
    yield from commit(run, None, renewal)
    run.writer.holds(begun + run.engine.lease)


def halted(run: Execution, error: FlowError, call: Call | None) -> Stopped:
    """Stop the run for *error*, resumably."""
    error.run = error.run or run.id
    if call is not None:
        error.step = error.step or call.key
        if call.operation.path not in str(error):
            error.add_note(f"at step {call.operation.path} ({call.key[:12]}) of run {run.id}")
    run.stop.halt(error)
    return Stopped(error)


def require_python(run: Execution, error: BaseException | None, call: Call | None) -> None:
    """Stop the run, resumably, if *error* is Python's refusal to begin work because it is ending."""
    if refused_at_exit(error):
        raise halted(run, python_ends(run.id), call) from error


@block
def crossing(run: Execution, call: Call | None = None) -> Iterator[None]:
    """Within the block, a failed read or write of the storage passes through the body."""
    try:
        yield
    except StorageError as error:
        raise halted(run, error, call) from error
