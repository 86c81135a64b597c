"""What happens when a run executes. Written once; the drivers make it sync or async.

The rules
    1. A run is recorded before its body executes, and its outcome is stored before anybody sees it.
    2. A body that raised makes the run ``failed``. An interrupt, a killed process and everything that crosses
       as :class:`Crossing` — but cancel and timeout — leave it resumable: not failed, no undo, no
       ``on_error``.
    3. The record of a failed run names its *open* failures: calling again executes those and replays
    everything else.
    4. A run ends only when all its branches have ended.

If you edit this
    What the body raised may be the user's own exception, one of ours that crossed, or an interrupt. Keep the
    three apart by the order in which :func:`flowdsl.engine.ending.ended` asks.
"""

import logging
import string
from contextlib import nullcontext
from typing import Any

from attrs import define

from flowdsl.core.binding import first_name
from flowdsl.core.journal import Journal
from flowdsl.core.keys import run_key
from flowdsl.core.preview import preview
from flowdsl.core.records import Run, Tags
from flowdsl.core.status import RunStatus
from flowdsl.engine.branches import arm_all
from flowdsl.engine.context import Crossing, Frame, RunState, current
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.drive import Body, Call, Flow, Result, Stoppable, run_async, run_sync
from flowdsl.engine.ending import ended, release, undo_on
from flowdsl.engine.lease import Acquired, acquire
from flowdsl.engine.notebooks import notice_unnamed
from flowdsl.engine.services import Engine
from flowdsl.errors import FlowError, ResultNotStorable, RunCancelled, StorageError

__all__ = ["Request", "edge", "execute", "outcome_of", "request", "run_to_end", "whole"]

logger = logging.getLogger("flowdsl")


@define(slots=True)
class Request:
    """One call of a workflow: the run it asks for, and the body to execute."""

    called: Invocation[WorkflowDef]
    wanted: Run
    fresh: bool = False
    ancestors: tuple[str, ...] = ()
    again: bool = True

    @property
    def defn(self) -> WorkflowDef:
        """The workflow."""
        return self.called.defn


class _Template(string.Formatter):
    """``str.format`` that refuses ``None``."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        value, used = super().get_field(field_name, args, kwargs)
        if value is None:
            raise ValueError(f"{{{field_name}}} is None")
        return value, used


def _filled(template: str, arguments: dict[str, Any]) -> str:
    """*template* with the arguments in their places; without a dot or an index in it, only an argument
    itself can be ``None``."""
    if "." in template or "[" in template or any(value is None for value in arguments.values()):
        return _Template().vformat(template, (), arguments)
    return template.format_map(arguments)


def run_id_of(called: Invocation[WorkflowDef], arguments: dict[str, Any]) -> str | None:
    """The id that the workflow's ``id=`` gives to this call, or ``None`` for a numbered run.

    A template may name ``self``; a function gets it if its first parameter is called as that of the workflow.
    """
    defn, _, receiver, args, kwargs = called
    if defn.id is None:
        return None
    first = "" if receiver is None else first_name(defn.fn)
    if callable(defn.id):
        own = (receiver,) if first and first_name(defn.id) == first else ()
        found = defn.id(*own, *args, **kwargs)
    else:
        if first:
            arguments = {first: receiver, **arguments}
        try:
            found = _filled(defn.id, arguments)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(
                f"the id template {defn.id!r} of workflow {defn.path} cannot be filled from "
                f"({', '.join(f'{k}={preview(v, 40)}' for k, v in arguments.items())}): {error}"
            ) from None
    return checked_id(found, f"the id of workflow {defn.path}")


def checked_id(run_id: Any, what: str = "a run id") -> str:
    """*run_id* if it is a non-empty string."""
    if not isinstance(run_id, str):
        raise TypeError(f"{what} is a string; got {run_id!r}")
    if not run_id.strip():
        raise ValueError(f"{what} is not empty; got {run_id!r}")
    return run_id


def request(
    engine: Engine,
    called: Invocation[WorkflowDef],
    *,
    run_id: str | None = None,
    timeout: float | None = None,
    fresh: bool = False,
    tags: Tags | None = None,
) -> Request:
    """Take the identity of a call of a workflow. Raises for arguments that do not fit or have no key."""
    defn = called.defn
    bound = called.bind()
    if run_id is None:
        run_id = run_id_of(called, bound.arguments)
    if fresh and run_id is not None:
        raise ValueError(
            f"fresh=True starts a new number, but run {run_id!r} has an id, and an id is one run for ever"
        )
    notice_unnamed(defn.path, run_id)
    key = run_key(defn.path, defn.version if run_id is None else "", bound.canonical)
    now = engine.clock.now()
    limit = timeout if timeout is not None else defn.timeout
    try:
        stored, _ = engine.payloads.pack(bound.arguments, key, "", "args")
    except ResultNotStorable:
        stored = b""  # callable again, but not resumable by id
    wanted = Run(
        id=run_id
        if run_id is not None
        else f"{defn.path.rpartition('.')[2].replace('<', '').replace('>', '')}-{key[:16]}",
        workflow=defn.path,
        key=key,
        number=None if run_id is not None else 0,
        status=RunStatus.RUNNING,
        args=stored,
        args_preview=bound.preview(),
        tags=defn.tags if tags is None else tags,
        created_at=now,
        owner=engine.owner,
        deadline=None if limit is None else now + limit,
        version=defn.version,
    )
    frame = current.get()
    ancestors: list[str] = []
    state = frame.run if frame is not None else None
    while state is not None:
        ancestors.append(state.id)
        state = state.parent
    return Request(called, wanted, fresh, tuple(ancestors))


def edge(flow: Flow) -> Flow:
    """The edge between a run and the code that called it from outside: what crossed the body arrives as
    itself."""
    try:
        error, value = yield from flow
    except Crossing as crossing:
        error, value = crossing, None
    return (error.error if isinstance(error, Crossing) else error), value


def run_to_end(engine: Engine, asked: Request) -> Any:
    """Drive a run to its end and return its result, in this thread; of an async one, a coroutine that does.
    A virtual clock may skip ahead meanwhile."""
    flow = edge(whole(engine, asked))
    if not engine.virtual:
        return run_async(flow) if asked.defn.is_async else run_sync(flow)
    if asked.defn.is_async:
        return _watched(engine, flow)
    with engine.clock.watching(inside=False):
        return run_sync(flow)


async def _watched(engine: Engine, flow: Flow) -> Any:
    with engine.clock.watching(inside=False):
        return await run_async(flow)


def whole(engine: Engine, asked: Request) -> Flow:
    """Get the run and execute it to its end, or hand over the outcome that it has."""
    try:
        acquired: Acquired = yield from acquire(
            engine, asked.wanted, fresh=asked.fresh, ancestors=asked.ancestors, again=asked.again
        )
    except StorageError as error:
        return Crossing(error), None
    except FlowError as error:
        return error, None
    if not acquired.owned:
        return outcome_of(engine, acquired.run)
    return (yield from execute(engine, asked, acquired))


def outcome_of(engine: Engine, run: Run) -> Result:
    """The stored outcome of a run that has ended."""
    try:
        if run.status is RunStatus.COMPLETED:
            return None, engine.payloads.unpack(run.result or b"", run.id, "", "run")
        if run.status is RunStatus.CANCELLED:
            return RunCancelled(f"run {run.id} was cancelled", run=run.id), None
        if run.error is None:  # nothing was raised
            why = run.error_preview.partition(": ")[2]
            return FlowError(f"run {run.id} has failed: {why}", run=run.id), None
        error = engine.payloads.unpack_error(run.error, run.id, "", "run")
    except FlowError as fault:
        fault.run = run.id
        return fault, None
    if not run.retryable:
        error.add_note(
            f"run {run.id} has failed, and durable calls followed the failure; it cannot be continued. "
            f"To execute part of it again: Runtime.fork({run.id!r}, before=<step>)"
        )
    return error, None


def _adopt(parent: RunState, child: RunState) -> None:
    """Let *parent* tell *child* when to stop; it may have been told already."""
    child.parent = parent
    with parent.lock:
        parent.children.append(child)
        stop = parent.stop
    if stop is not None:
        child.halt(stop)


def execute(engine: Engine, asked: Request, acquired: Acquired) -> Flow:
    """Execute a run that is ours, from its journal on."""
    record, defn = acquired.run, asked.defn
    steps = []
    if acquired.continued:
        try:
            steps = yield Call(lambda: engine.storage.list_steps(record.id), not engine.storage.inline)
        except StorageError as error:
            release(engine, record)
            return Crossing(error), None
        except BaseException:
            release(engine, record)
            raise
    journal = Journal(steps, open_failures=record.open_failures, floor=record.floor)
    state = RunState(engine, record, journal, defn)
    frame = current.get()
    if frame is not None:
        _adopt(frame.run, state)
    engine.active[record.id] = state
    engine.keeper.watch()
    handle = engine.make_handle(record)
    if acquired.continued:
        logger.info(
            "continuing run %s of %s: %d recorded steps are replayed",
            record.id, defn.path, journal.replayable(), extra={"run": record.id, "step": None},
        )  # fmt: skip
    try:
        engine.hooks.fire("on_run_start", handle)
        cancelled = record.cancel_requested is not None
        with nullcontext() if acquired.counted or frame is not None else engine.busy():
            if acquired.continued and not record.undoing and not cancelled:
                arm_all(state)  # within busy(): no virtual time passes before the body
            if record.undoing:
                return (yield from undo_on(state, handle))
            if cancelled:  # its process died before it saw the request
                stop = RunCancelled(f"run {record.id} was cancelled", run=record.id)
                state.halt(stop)
                return (yield from ended(state, handle, Crossing(stop), None))
            _, fn, _, args, kwargs = asked.called
            body = Body(fn, args, kwargs, Frame(state, state.scope, None, defn.is_async))
            failure, value = yield Stoppable(state, body)
            return (yield from ended(state, handle, failure, value))
    except BaseException:  # an interrupt in a hook or callback, or while the outcome was being stored
        release(engine, record)
        raise
    finally:
        if engine.active.get(record.id) is state:
            del engine.active[record.id]
        if state.parent is not None:
            with state.parent.lock:
                state.parent.children.remove(state)
        state.halt(
            FlowError(
                f"run {record.id} has ended here; a task or thread that it left behind called a step",
                run=record.id,
            )
        )
