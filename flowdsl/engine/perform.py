"""The one way of every durable call. It notes who overlaps whom, asks the journal, then executes the
operation.

The rules
    1. Identity (key, occurrence, ordinal) is taken at the call, before anything is awaited.
    2. The journal decides: *recorded* answers from the record, *execute* executes the operation, *diverged*
       asks the policy.
    3. What must not be swallowed (cancel, lost lease, full disk, divergence, …) passes through the caller as
       :class:`~flowdsl.errors.Stopped`.

The theory
    Calls match by content. Their order counts only for sequential calls, so each call has to know whether
    another one overlaps it. A flow of control is a task or a thread. A worker of a pool is none, because it
    takes up one submitted call after the other. A call that no worker has taken up is executed by the thread
    that asks for its result. Such a call is its own flow of control. It does not decide what diverges or what
    was handled.
"""

from collections.abc import Iterable
from threading import get_ident
from time import monotonic

from flowdsl.core.journal import Verdict
from flowdsl.core.records import Step
from flowdsl.engine.audit import note_cleanup
from flowdsl.engine.call import Call, Operation, identify
from flowdsl.engine.divergence import diverged
from flowdsl.engine.effects import Flow, Forked, Result, drive
from flowdsl.engine.execution import Frame, current
from flowdsl.engine.interruption import python_ends, refused_at_exit
from flowdsl.engine.record import crossing, halted, replay, still_ours
from flowdsl.engine.scope import UnderWay, control
from flowdsl.engine.user import Value
from flowdsl.errors import Stopped, StorageError

__all__ = ["at_once", "durable", "perform", "perform_here"]


def durable(frame: Frame, operation: Operation) -> Flow:
    """A durable call of *operation* in *frame*. It gets its identity now. Driving the flow does the rest."""
    return perform(identify(frame, operation))


def at_once(frame: Frame, operation: Operation) -> Value:
    """Perform an *operation* that neither waits nor awaits, in any body; return its value."""
    call = identify(frame, operation)
    with crossing(call.run, call):
        decided = _decide(call)
        error, value = decided if isinstance(decided, tuple) else drive(decided)
    if error is not None:
        raise error
    return value


def perform(call: Call) -> Flow:
    """Answer *call* from its record, or execute it. Note before and after who overlaps whom."""
    try:
        decided = _enter(call) or _decide(call)
        return decided if isinstance(decided, tuple) else (yield from decided)
    except (Stopped, StorageError, RuntimeError) as error:
        return _crossing(call, error)
    finally:
        if call.run.engine.virtual:
            _leave_counted(call)
        else:
            call.scope.ends(call)


def perform_here(call: Call) -> Value:
    """As :func:`perform`, for a sync body, which waits. If nothing has to be awaited, no generator is
    made."""
    try:
        decided = _enter(call) or _decide(call)
        error, value = decided if isinstance(decided, tuple) else drive(decided)
        del decided
    except (Stopped, StorageError, RuntimeError) as fault:
        error, value = _crossing(call, fault)
    except Forked as forked:
        error, value = forked.error, forked.value
    finally:
        if call.run.engine.virtual:
            _leave_counted(call)
        else:
            call.scope.ends(call)
    if error is not None:
        try:
            raise error
        finally:
            del error
    return value


def _crossing(call: Call, error: Stopped | StorageError | RuntimeError) -> Result:
    """What passes through the caller. An error of the storage is one of a read here; a failed write says so
    itself."""
    if isinstance(error, Stopped):
        return error, None
    if isinstance(error, StorageError):
        return halted(call.run, error, call), None
    if not refused_at_exit(error):
        raise error
    return halted(call.run, python_ends(call.run.id), call), None


def _enter(call: Call) -> Flow | Result | None:
    """*call* is under way from now on, and learns whether another one overlaps it. Returns the outcome if its
    run has been told to stop."""
    run, scope = call.run, call.scope
    virtual = run.engine.virtual
    beside = call.submitted or call.queued
    flow = object() if beside else control(True) if scope.is_async else get_ident()
    if run.failures.open and call.operation.durable:
        with run.lock:
            run.failures.begun(scope, flow)
    if virtual:
        _enter_counted(call, flow)
    else:
        scope.begins(call, flow)
    if run.stop.over and not call.operation.begun:
        run.stop.check_late(scope)
    if run.stop.halted:  # the call may have got its identity before that
        if call.cleans_up or run.stop.cleaning():
            note_cleanup(run)
        elif not run.stop.replaying:
            return run.stop.stopped(), None
    if monotonic() > run.writer.held_until:
        return _enter_late(call)
    return None


def _enter_late(call: Call) -> Flow:
    """The lease ran out meanwhile. Check that the run is still ours before anything begins."""
    yield from still_ours(call.run)
    decided = _decide(call)
    return decided if isinstance(decided, tuple) else (yield from decided)


def _enter_counted(call: Call, flow: object) -> None:
    """*call* is under way. A virtual clock counts it, if another one stands for the flow of the run."""
    run, scope = call.run, call.scope
    call.counts_here(current.get() is call.frame)
    with run.lock:
        if call.counts and _counted_once(scope.active):
            run.engine.clock.enter()
        scope.begins(call, flow)
    if call.queued:
        run.engine.clock.leave()


def _leave_counted(call: Call) -> None:
    """*call* has ended. A virtual clock counts it no more."""
    run, scope = call.run, call.scope
    with run.lock:
        scope.ends(call)
        if call.counts and _counted_once(scope.active):
            run.engine.clock.leave()


def _counted_once(active: Iterable[UnderWay]) -> bool:
    """Whether a call in *active* stands for the flow of control that the run itself is counted for. Then each
    further call counts too. Submitted calls are counted by whoever submitted them. Branches of a ``gather``
    are counted by the ``gather``."""
    return any(call.counts for call in active)


def _decide(call: Call) -> Flow | Result:
    """Recorded, execute or diverged: only this asks. Gives the outcome, or the flow that leads to it."""
    run, operation = call.run, call.operation
    if not operation.recorded:
        if run.stop.replaying and not run.journal.unused() and not run.stop.cleaning():
            return run.stop.stopped(), None
        return operation.execute(call, None)
    journal, key = run.journal, call.key
    known = journal.get(key) is not None
    record = journal.answer(key, operation.defaults) if known else None
    prior: Step | None = None
    if record is None and run.stop.replaying and not (call.cleans_up or run.stop.cleaning()):
        return run.stop.stopped(), None
    if record is None and (known or not (journal.quiet or call.concurrent)):
        decision = journal.decide(
            key,
            call.scope.id,
            operation.path,
            call.ordinal,
            defaults=operation.defaults,
            version=operation.version,
            sequential=not call.concurrent,
        )
        if decision.verdict is Verdict.DIVERGED:
            decision = diverged(call, decision)
        if decision.verdict is Verdict.RECORDED:
            record = decision.record
        else:
            prior = decision.record
            call.executes(prior)
    if record is None:
        return operation.execute(call, prior)
    return operation.answer(call, record) or replay(call, record)
