"""How a run ends: completed, failed, cancelled — or let go, to be continued.

The order is always the same. Branches end first. Undo comes before the final status, and so do
``on_complete`` and ``on_error``. Hooks come after it.

Once the body and its branches have ended, nothing that they left behind begins any more. Callbacks have a
scope of their own, ``on_complete`` or ``on_error``: no call of the body is answered by a record of theirs,
when a failed run is retried. What ``on_error`` calls is not undone.
"""

import logging
from collections.abc import Sequence

from flowdsl.core.journal import CALLBACKS
from flowdsl.core.records import Run, Step, changed
from flowdsl.core.status import RunStatus
from flowdsl.engine.body import Body
from flowdsl.engine.effects import Commit, Effects, Flow, drive
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, frame_of
from flowdsl.engine.interruption import python_ends, refused_at_exit
from flowdsl.engine.record import halted, require_python
from flowdsl.engine.runs.acquire import free_lease
from flowdsl.engine.runs.outcome import outcome_of
from flowdsl.engine.runs.undo import end_children, end_given_up, has_settled_child, quieten, undo_all
from flowdsl.engine.scope import INTERRUPTS, Scope
from flowdsl.engine.settle import Settle
from flowdsl.engine.stop import stopped_in
from flowdsl.engine.strays import Strays, left_behind, let_go
from flowdsl.engine.user import Function, Named, Value
from flowdsl.errors import (
    CorruptPayload,
    FlowError,
    LeaseLost,
    NondeterminismError,
    ResultNotStorable,
    RunCancelled,
    RunTimeout,
    Stopped,
    StorageError,
)
from flowdsl.storage.base import Done, Fenced, Missing, Operation, UpdateRun, raise_not_storable

__all__ = ["ended", "give_back", "release", "undo_on"]

logger = logging.getLogger("flowdsl")

_ON_COMPLETE, _ON_ERROR = CALLBACKS
_COMPLETED = RunStatus.COMPLETED
_REFUSED = (Fenced, Missing)  # a union would be made anew for each run


def ended(state: Execution, error: BaseException | None, value: Value) -> Flow:
    """Give the run the end that its body's outcome asks for."""
    try:
        interrupted = False
        if error is not None:
            error = _unwrapped(state, error)
            if isinstance(error, Exception) and refused_at_exit(error):
                error = halted(state, python_ends(state.id), None)
            if error is not None and not isinstance(error, Exception | Stopped):
                interrupted = True
                why = f"run {state.id} was interrupted by {type(error).__name__}"
                state.stop.halt(FlowError(why, run=state.id))
            if error is not None:
                state.stop.end_branches()
        if state.is_async and (error is not None or state.stop.halted):
            yield Strays(state)
        if state.branches.added:
            failures = yield Settle(state, failed=error is not None, interrupted=interrupted)
            if failures and error is None:
                error = failures[0]
        if error is None and not state.stop.halted and state.stop.past_deadline():
            state.stop.halt(state.stop.timed_out())
        if error is None and not state.stop.halted:
            if (strays := let_go(state)) is not None:
                yield strays
            if state.branches.added:  # something that the body had left behind began these
                yield Settle(state, failed=False)
            if not state.stop.halted:
                return (yield from _completed(state, value))
        # A body may have swallowed what was to stop it.
        if isinstance(error, Stopped) or (state.stop.halted and not interrupted):
            stop = error.error if isinstance(error, Stopped) else state.stop.reason
            assert stop is not None
            return (yield from _stopped(state, stop))
        if isinstance(error, ResultNotStorable):  # the body gave such a value to the run store
            error.run = error.run or state.id
            return (yield from _stopped(state, error))
        assert error is not None
        if isinstance(error, Exception):
            return (yield from _failed(state, error))
        yield from _let_go(state, error)
        return error, None
    except StorageError as fault:
        crossing = Stopped(fault)
    except Stopped as stop:
        crossing = stop
    yield from _let_go(state, crossing.error)
    return crossing, None


def undo_on(state: Execution) -> Flow:
    """Continue the undo of a run whose process died in it. Then give the run the end that was planned."""
    record = state.record
    try:
        if record.undoing == RunStatus.CANCELLED:
            return (
                yield from _cancelled(state, RunCancelled(f"run {record.id} was cancelled", run=record.id))
            )
        if record.undoing == _COMPLETED:
            return (yield from _undone(state))
        error = state.engine.payloads.unpack_error(record.error or b"", record.id, "", "run")
        yield from undo_all(state, {"undoing": record.undoing}, goes_on=True)
        return (yield from _end_failed(state, error, {"retryable": False}))
    except StorageError as fault:
        crossing = Stopped(fault)
    except Stopped as stop:
        crossing = stop
    yield from _let_go(state, crossing.error)
    return crossing, None


def _unwrapped(state: Execution, error: BaseException) -> BaseException | None:
    """The exception of a body, without groups around a stop or an interrupt. ``TaskGroup`` and anyio make
    such groups."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    interrupt = _member(error, KeyboardInterrupt, SystemExit)
    if interrupt is not None:
        return interrupt
    stopped = stopped_in(error)
    if stopped is not None:
        return stopped
    if isinstance(error, Exception):
        return error
    reason = state.stop.reason
    return _member(error, *INTERRUPTS) if reason is None else Stopped(reason)


def _member(group: BaseExceptionGroup[BaseException], *kinds: type[BaseException]) -> BaseException | None:
    """The first exception of one of these *kinds* in a group."""
    for one in group.exceptions:
        found = _member(one, *kinds) if isinstance(one, BaseExceptionGroup) else one
        if isinstance(found, kinds):
            return found
    return None


def _stopped(state: Execution, stop: FlowError) -> Flow:
    """Give the run the end that *stop* asks for. Its body must not swallow that."""
    if isinstance(stop, RunCancelled):
        return (yield from _cancelled(state, stop))
    if isinstance(stop, RunTimeout):
        return (yield from _failed(state, stop))
    yield from _let_go(state, stop)
    return Stopped(stop), None


def _completed(state: Execution, value: Value) -> Flow:
    engine, defn = state.engine, state.definition
    try:
        payload, loaded = engine.payloads.pack(value, state.id, "", "run")
    except ResultNotStorable as error:
        error.run = state.id
        yield from _let_go(state, error)
        return Stopped(error), None
    yield from end_given_up(state, all_of_them=True)
    unused = state.journal.unused()
    if unused:
        _report_unused(state, unused)
    changes = {
        "status": _COMPLETED, "result": payload,
        "result_preview": engine.payloads.previews.value(value), "error": None, "error_preview": "",
        "open_failures": (), "finished_at": engine.clock.now(),
    }  # fmt: skip
    if defn is not None and defn.on_complete is not None:
        ending = state.handle.ending(_COMPLETED, (None, loaded))
        yield from _callback(state, defn.on_complete, _ON_COMPLETE, ending)
        if state.stop.reason is not None:
            return (yield from _stopped(state, state.stop.reason))
    stop = yield from _finish(state, changes)
    if stop is not None:
        return Stopped(stop), None
    state.tell("on_run_complete", loaded)
    return None, loaded


def _failed(state: Execution, error: Exception) -> Flow:
    engine = state.engine
    state.failures.left(state.scope, error)
    blamed = tuple(state.failures.blames(error))
    retryable = all(key in state.failures.open for key in blamed)
    still_open = tuple(dict.fromkeys((*state.failures.open, *blamed)))  # the latter for an explicit retry
    payload, _ = engine.payloads.pack_error(error, state.id, "", "run")
    yield from quieten(state)
    yield from end_given_up(state)
    if (yield from end_children(state, RunStatus.FAILED)) or (yield from has_settled_child(state)):
        retryable = False
    changes = {
        "error": payload, "error_preview": engine.payloads.previews.error(error),
        "open_failures": still_open, "retryable": retryable,
    }  # fmt: skip
    if (yield from undo_all(state, changes | {"undoing": str(RunStatus.FAILED)})):
        changes["retryable"] = False
    return (yield from _end_failed(state, error, changes))


def _end_failed(state: Execution, error: BaseException, changes: Named) -> Flow:
    engine, defn = state.engine, state.definition
    changes = changes | {
        "status": RunStatus.FAILED, "finished_at": engine.clock.now(), "undoing": "",
        "floor": state.writer.floor,
    }  # fmt: skip
    if defn is not None and defn.on_error is not None:
        ending = state.handle.ending(RunStatus.FAILED, (error, None))
        state.stop.lift()  # it may be the time of the run that is up
        try:
            yield from _callback(state, defn.on_error, _ON_ERROR, ending, error)
        finally:
            state.stop.undone()
        if state.stop.reason is not None:  # a cancel would have come too late
            raise Stopped(state.stop.reason)
    stop = yield from _finish(state, changes)
    if stop is not None:
        return Stopped(stop), None
    state.tell("on_run_fail", error)
    return error, None


def _cancelled(state: Execution, error: RunCancelled) -> Flow:
    yield from quieten(state)
    yield from end_children(state, RunStatus.CANCELLED)
    begin = {"undoing": str(RunStatus.CANCELLED)}
    yield from undo_all(state, begin, goes_on=bool(state.record.undoing))
    changes = {
        "status": RunStatus.CANCELLED, "finished_at": state.engine.clock.now(), "error_preview": str(error),
        "undoing": "", "floor": state.writer.floor,
    }  # fmt: skip
    stop = yield from _finish(state, changes)
    if stop is not None:
        return Stopped(stop), None
    state.tell("on_run_cancel")
    return error, None


def _undone(state: Execution) -> Flow:
    """End once more, as completed, a child that its parent was undoing. The parent notes that when it goes on
    itself."""
    yield from undo_all(state, {"undoing": state.record.undoing}, goes_on=True)
    changes = {
        "status": _COMPLETED, "finished_at": state.engine.clock.now(), "retryable": False, "undoing": "",
        "floor": state.writer.floor,
    }  # fmt: skip
    stop = yield from _finish(state, changes)
    return (
        (Stopped(stop), None)
        if stop is not None
        else outcome_of(state.engine, changed(state.record, changes))
    )


def _finish(state: Execution, changes: Named) -> Effects[FlowError | None]:
    """Store how the run ended. Returns the error if that was refused or failed."""
    operation = UpdateRun(state.id, changes, state.epoch, release=True)
    buffered = state.writer.buffered()
    try:
        *_, outcome = yield Commit(state.engine, (*buffered, operation))
        if isinstance(outcome, Done):
            return None
        raise_not_storable(outcome)
    except (StorageError, ResultNotStorable) as error:
        error.run = error.run or state.id
        yield from _let_go(state, error)
        return error
    if isinstance(outcome, _REFUSED):
        return state.writer.lost(outcome)
    return None


def _callback(state: Execution, fn: Function, what: str, *args: Value) -> Effects[None]:
    """Call ``on_complete`` or ``on_error`` of a workflow inside the run. Wait for what it began. Its errors
    are logged. The caller checks whether the run has to stop."""
    import inspect

    is_async = inspect.iscoroutinefunction(fn)
    scope = Scope(what, None, is_async)
    state.stop.admits(scope)
    left_behind(state, scope)
    body = Body(fn, args, {}, frame_of(state, scope, None, is_async, callback=True), callback=True)
    error, _ = (yield body) if is_async else body.sync()
    if state.branches.added:
        yield Settle(state, failed=False)
    if (strays := let_go(state)) is not None:
        yield strays
    if isinstance(error, Stopped):
        state.stop.halt(error.error)
    elif error is not None:
        if not isinstance(error, Exception):
            raise error
        require_python(state, error, None)
        logger.error(
            "%s of workflow %s raised; the run is not affected", what, state.record.workflow,
            exc_info=state.engine.payloads.previews.exc_info(error), extra={"run": state.id, "step": None},
        )  # fmt: skip


def _let_go(state: Execution, reason: BaseException) -> Effects[None]:
    """Give the lease back at once if we still have it, with the values that the body has seen. A run that
    replays wrongly does not store these."""
    if not isinstance(reason, LeaseLost):
        seen = () if isinstance(reason, NondeterminismError | CorruptPayload) else state.writer.buffered()
        yield from give_back(state.engine, state.record, seen)


def give_back(engine: Engine, record: Run, operations: Sequence[Operation] = ()) -> Effects[None]:
    """Give the lease back after *operations*. Errors are logged. A run that is not ours is left alone (it may
    be another owner's by now, or this is a forked child). A run that has begun anew in the same moment is
    ours under its next epoch."""
    if record.id not in engine.owned:
        return
    engine.owned.release(record.id, record.epoch)
    outcome = yield from free_lease(engine, record, operations)
    if isinstance(outcome, Fenced) and outcome.run.owner == record.owner:
        yield from free_lease(engine, outcome.run)


def release(engine: Engine, record: Run) -> None:
    """As :func:`give_back`, at once: for code that is no flow, or that an interrupt is leaving."""
    drive(give_back(engine, record))


def _report_unused(state: Execution, unused: list[Step]) -> None:
    names = ", ".join(f"{step.path}({step.args})" for step in unused[:5])
    more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
    text = (
        f"run {state.id} completed without asking for {len(unused)} recorded "
        f"step{'s' if len(unused) > 1 else ''}: {names}{more}. "
        f"The code has changed since they were recorded, or does not always do the same"
    )
    logger.warning("%s", text, extra={"run": state.id, "step": unused[0].key})
