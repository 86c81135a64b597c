"""What happens when a run executes. Written once; the drivers make it sync or async.

The rules
    1. A run is recorded before its body executes, and its outcome is stored before anybody sees it.
    2. A body that raised makes the run ``failed``. An interrupt or a killed process leaves it resumable, and
       so does all that crosses as :class:`Stopped`, except cancel and timeout. Resumable means: not failed,
       no undo, no ``on_error``.
    3. The record of a failed run names its *open* failures. Calling the run again executes those, and replays
       everything else.
    4. A run ends only when all its branches have ended.

If you edit this
    The body may raise the user's own exception, one of ours that crossed, or an interrupt. The order of the
    tests in :func:`flowdsl.engine.runs.ending.ended` keeps the three apart.
"""

import logging
from collections.abc import Callable

from flowdsl.core.journal import Journal
from flowdsl.core.kinds import AUDIT
from flowdsl.core.records import Run, Step, changed
from flowdsl.engine.audit import CLEANUP, audit
from flowdsl.engine.body import Stoppable
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.effects import Effects, Flow, Read, Result, run_async, run_sync
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, current, frame_of, outside_runs
from flowdsl.engine.interruption import closed
from flowdsl.engine.operations.continue_as_new import ContinuesAsNew
from flowdsl.engine.operations.publish import Channels
from flowdsl.engine.operations.schedule import arm_all
from flowdsl.engine.record import commit, crossing, flush, halted
from flowdsl.engine.runs.acquire import Acquired, acquire
from flowdsl.engine.runs.ending import ended, give_back, release, undo_on
from flowdsl.engine.runs.outcome import on_a_loop, outcome_of
from flowdsl.engine.runs.request import Request, arguments_of
from flowdsl.engine.runs.undo import GivenUp, end_given_up
from flowdsl.engine.runs.versions import warn_of_version
from flowdsl.engine.settle import Settle
from flowdsl.engine.strays import Strays
from flowdsl.engine.tracebacks import trim
from flowdsl.engine.user import Named, Value
from flowdsl.errors import FlowError, ResultNotStorable, RunCancelled, Stopped, StorageError
from flowdsl.storage.base import Restart

__all__ = ["acquire_and_execute", "execute", "run_awaited", "run_to_end", "stop_as_error"]

logger = logging.getLogger("flowdsl")


def stop_as_error(flow: Flow) -> Flow:
    """*flow*, for code outside the run. What stopped the run reaches that code as the typed error, not as
    ``Stopped``."""
    try:
        error, value = yield from flow
    except Stopped as crossing:
        error, value = crossing, None
    return (error.error if isinstance(error, Stopped) else error), value


def run_to_end(engine: Engine, asked: Request) -> Value:
    """Drive a run to its end in this thread, and return its result. For an async run, return a coroutine that
    does this. A virtual clock may skip ahead meanwhile, but not before the run begins."""
    flow = acquire_and_execute(engine, asked, counted=engine.virtual)
    if asked.called.defn.is_async:
        flow = stop_as_error(flow)
        return _watched(engine, flow) if engine.virtual else run_async(flow)
    try:
        if not engine.virtual:
            return run_sync(flow)
        with engine.busy(), engine.clock.watching(inside=False):
            return run_sync(flow)
    except Stopped as crossing:
        stop = crossing.error
    raise stop


async def run_awaited(engine: Engine, asked: Request) -> Value:
    """As :func:`run_to_end`, for an async workflow that was called outside any run. Raises
    :class:`~flowdsl.errors.FlowError` on an event loop that is not asyncio's."""
    __tracebackhide__ = True
    if not on_a_loop():
        raise FlowError(f"{asked.defn.path} executes on asyncio; this is no event loop of it (but trio's?)")
    with outside_runs():
        try:
            return await run_to_end(engine, asked)
        except BaseException as error:  # only its traceback is changed
            trim(error)
            raise


async def _watched(engine: Engine, flow: Flow) -> Value:
    with engine.busy(), engine.clock.watching(inside=False):
        return await run_async(flow)


def acquire_and_execute(
    engine: Engine, asked: Request, found: Callable[[], None] = lambda: None, *, counted: bool = False
) -> Flow:
    """Get the run and execute it to its end, or hand over its outcome. *found* is called in that case.
    *counted*: a virtual clock counts the caller as one that can run."""
    try:
        acquired: Acquired = yield from acquire(
            engine,
            asked.wanted,
            fresh=asked.fresh,
            ancestors=asked.ancestors,
            again=asked.again,
            counted=counted,
        )
    except StorageError as error:
        return Stopped(error), None
    except FlowError as error:
        return error, None
    if not acquired.owned:
        found()
        return outcome_of(engine, acquired.run)
    return (yield from execute(engine, asked, acquired, counted=counted))


def execute(engine: Engine, asked: Request, acquired: Acquired, *, counted: bool = False) -> Flow:
    """Execute a run of ours from its journal on, generation by generation, until it ends. *counted*: a
    virtual clock counts the run as one that can run."""
    record, called, continued = acquired.run, asked.called, acquired.continued
    steps: list[Step] = []
    parts: dict[type, object] | None = None
    if continued:
        try:
            found = yield Read(engine.storage, lambda: _stored(engine, record))
            steps, channels, called = found[0], found[1], _stored_call(engine, record, called)
        except StorageError as error:
            yield from give_back(engine, record)
            return Stopped(error), None
        except BaseException:  # an interrupt, too, must give the lease back
            release(engine, record)
            raise
        counts = Channels()
        counts.begin(channels)
        parts = {Channels: counts, GivenUp: GivenUp()}
    frame = current.get()
    journal = Journal(steps, record.open_failures, record.floor)
    state = Execution(
        engine, record, journal, asked.called.defn, None if frame is None else frame.run, called
    )
    if parts is not None:
        state.inherit(parts)
    if engine.owned.begin(record.id, state):
        state.stop.halt(RunCancelled(f"run {record.id} was cancelled", run=record.id))
    if continued:
        _tell(state, acquired.action)
        warn_of_version(record, asked.defn)
    uncounted = engine.virtual and not counted and frame is None
    if uncounted:
        engine.clock.enter()
    try:
        while True:
            ended = yield from _generation(state, continued, asked.cleans_up)
            if not isinstance(ended, Execution):
                return ended
            state, continued = ended, False
    finally:
        if uncounted:
            engine.clock.leave()


def _tell(state: Execution, action: str) -> None:
    """Say that a run continues, in the log and in its audit."""
    record, replayed = state.record, state.journal.replayable()
    logger.info(
        "continuing run %s of %s: %d recorded steps are replayed",
        record.id, record.workflow, replayed, extra={"run": record.id, "step": None},
    )  # fmt: skip
    what = f"{record.workflow}: {replayed} recorded steps are replayed"
    state.writer.keep(audit(state.engine, record.id, action, what))


def _stored(engine: Engine, record: Run) -> tuple[list[Step], dict[str, int]]:
    """The journal of a run, and how many items its channels have."""
    return engine.storage.list_steps(record.id), engine.storage.list_channels(record.id)


def _stored_call(engine: Engine, record: Run, called: Invocation[WorkflowDef]) -> Invocation[WorkflowDef]:
    """The call that the run will make. A run that has begun anew goes on with its own arguments."""
    if record.generation == 1:
        return called
    arguments = arguments_of(engine, record)
    args, kwargs = called.defn.binder(called.receiver is not None).call_with(arguments)
    return called._replace(args=args, kwargs=kwargs)


def _generation(state: Execution, continued: bool, cleans_up: bool) -> Effects[Result | Execution]:
    """Execute one generation of a run: to its end, or up to the next generation. A run that *cleans_up* was
    called while its parent handled a cancel or a timeout."""
    engine, record, parent = state.engine, state.record, state.parent
    if parent is not None:
        parent.stop.adopt(state.stop, cleans_up=cleans_up)
    try:
        if record.generation == 1 or continued:
            state.tell("on_run_start")
        cancelled = record.cancel_requested is not None
        cleaning = continued and any(s.kind == AUDIT and s.path == CLEANUP for s in state.journal)
        if cleaning and not record.undoing and (cancelled or state.stop.past_deadline()):
            late = RunCancelled(f"run {record.id} was cancelled", run=record.id)
            state.stop.replay(late if cancelled else state.stop.timed_out())
            cancelled = False
        if engine.closing:
            state.stop.halt(closed(record.id), outside=True)
        if continued and not record.undoing and not cancelled:
            arm_all(state)  # so that no virtual time passes before the body
        if record.undoing:
            return (yield from undo_on(state))
        if cancelled:  # its process died before it saw the request
            stop = RunCancelled(f"run {record.id} was cancelled", run=record.id)
            state.stop.halt(stop)
            return (yield from ended(state, Stopped(stop), None))
        assert state.called is not None
        defn, fn, _, args, kwargs = state.called
        frame = frame_of(state, state.scope, None, defn.is_async)
        failure, value = yield Stoppable(fn, args, kwargs, frame)
        if state.stop.halted and isinstance(state.stop.reason, ContinuesAsNew):
            try:
                return (yield from _next(state, state.stop.reason.called))
            except Stopped as stopped:
                failure = stopped
        return (yield from ended(state, failure, value))
    except BaseException:  # an interrupt in a hook or callback, or while the outcome was being stored
        release(engine, record)
        raise
    finally:
        engine.owned.end(record.id, state)
        if parent is not None:
            parent.stop.release(state.stop)
        state.stop.end()


def _next(state: Execution, called: Invocation[WorkflowDef]) -> Effects[Execution]:
    """Commit the change of generations. Gives the execution of the next one."""
    engine, record = state.engine, state.record
    if state.is_async:
        yield Strays(state)
    yield Settle(state, failed=False)  # losers of races, and branches that records answer
    with crossing(state):
        yield from end_given_up(state, all_of_them=True)
    bound = called.bind()
    try:
        args = engine.payloads.pack_arguments(bound.arguments, record.key)
    except ResultNotStorable as error:
        raise halted(state, error, None) from None
    changes: Named = {
        "args": args,
        "args_preview": engine.payloads.previews.call(bound),
        "generation": record.generation + 1,
        "open_failures": (),
        "floor": 0,
    }
    yield from flush(state)  # first, so that a value that cannot be stored keeps the run in this generation
    yield from commit(state, None, Restart(record.id, state.epoch, changes))
    begun = changed(record, {**changes, "epoch": record.epoch + 1})
    following = Execution(engine, begun, Journal(), called.defn, state.parent, called)
    following.writer.holds(state.writer.held_until)
    following.inherit({Channels: state.part(Channels)})
    engine.owned.begin(record.id, following)
    return following
