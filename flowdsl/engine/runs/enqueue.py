"""``enqueue``: store a run for a worker to begin.

A run without an id is always a new one. With ``dedup``, a later enqueueing finds the unfinished run of the
same name. Its arguments reach that run as a message ``enqueued``. ``debounce`` then delays the start. Inside
a run each call enqueues once, because the id derives from the caller's run and call.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from attrs import define, evolve

from flowdsl.core.binding import Bound
from flowdsl.core.durations import seconds
from flowdsl.core.facts import ChildRun
from flowdsl.core.kinds import START
from flowdsl.core.queues import DEFAULT
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus
from flowdsl.engine.call import Call
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.effects import Commit, Effects, Flow, drive
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame
from flowdsl.engine.operations.signal import message_to
from flowdsl.engine.perform import at_once
from flowdsl.engine.record import complete, crossing, flush
from flowdsl.engine.registry import WORKFLOWS
from flowdsl.engine.runs.request import WorkflowOperation, derived_id, row_of
from flowdsl.engine.user import Named, Value
from flowdsl.storage.base import AddSignal, Done, Opened, OpenRun, UpdateRun, raise_unstorable
from flowdsl.storage.outcomes import Found, Outcome

__all__ = [
    "ENQUEUED",
    "Enqueueable",
    "Queueing",
    "enqueue",
    "enqueue_in_run",
    "enqueue_within",
    "enqueue_within_async",
    "pending_row",
]

_PENDING = RunStatus.PENDING  # naming a member looks it up anew each time

ENQUEUED = "enqueued"
"""The message that carries the arguments of a later enqueueing to a deduplicated run."""


@runtime_checkable
class Enqueueable(Protocol):
    """A workflow, or one with options for a call."""

    def enqueueing(
        self, args: tuple[Value, ...], kwargs: Named
    ) -> "tuple[Invocation[WorkflowDef], Named, Queueing]":
        """The call, the options of the run, and how it waits."""
        ...


@define(slots=True, eq=False, repr=False)
class Queueing:
    """Where and how a run waits. *delay* and *debounce* are in seconds."""

    queue: str = DEFAULT
    priority: int = 0
    delay: float = 0.0
    dedup: str | None = None
    debounce: float | None = None
    partition: str | None = None
    serial: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Value]) -> "Queueing":
        """How a run waits by these options, checked."""
        queueing = cls()
        for name in ("queue", "dedup", "partition"):
            if given.get(name) is not None:
                if not isinstance(given[name], str) or not given[name].strip():
                    raise ValueError(f"{name}= is a non-empty string; got {given[name]!r}")
                queueing = evolve(queueing, **{name: given[name]})
        priority = given.get("priority", 0)
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise TypeError(f"priority= is a whole number; got {priority!r}")
        debounce = given.get("debounce")
        if debounce is not None and queueing.dedup is None:
            raise ValueError("debounce= puts a deduplicated run off, so it goes with dedup=")
        return evolve(
            queueing,
            priority=priority,
            delay=seconds(given.get("delay") or 0.0, "delay"),
            debounce=None if debounce is None else seconds(debounce, "debounce"),
        )


def pending_row(
    engine: Engine,
    called: Invocation[WorkflowDef],
    options: Named,
    queueing: Queueing,
    *,
    bound: Bound | None = None,
    call: Call | None = None,
) -> Run:
    """The row of a run that waits for a worker. *bound* are its arguments, if they are bound already. *call*
    is the one that enqueues it, if that is inside a run. Raises ``TypeError`` for a method of an object that
    no worker knows."""
    known = WORKFLOWS.get(called.defn.path) or called.defn
    known.require_by_name(called, "enqueue()")
    now = engine.storage.now()
    wait = max(queueing.delay, queueing.debounce or 0.0)
    waiting: Named = {
        "status": _PENDING,
        "owner": None,
        "queue": queueing.queue,
        "priority": queueing.priority,
        "partition": queueing.partition,
        "dedup": queueing.dedup,
        "serial": queueing.serial,
        "not_before": now + wait if wait else None,
        "started_by": None if call is None else call.run.id,
    }
    derived = "" if call is None else derived_id(call)
    return row_of(engine, called, bound or called.bind(), **options, derived=derived, also=waiting)


def put(engine: Engine, row: Run, called: Invocation[WorkflowDef], queueing: Queueing) -> Effects[str]:
    """Store *row*. Returns the id of the run that counts."""
    while True:
        (outcome,) = yield Commit(engine, (OpenRun(row, 0.0, row.number is not None, (), engine.nonce()),))
        if isinstance(outcome, Opened):
            return outcome.run.id
        raise_unstorable(outcome)
        assert isinstance(outcome, Found)
        found = outcome.runs[0]
        if queueing.dedup is None or found.dedup != queueing.dedup:
            return found.id
        if (yield from _passed_on(engine, found, called, queueing)):
            return found.id


def _passed_on(
    engine: Engine, run: Run, called: Invocation[WorkflowDef], queueing: Queueing
) -> Effects[bool]:
    """Bring the arguments to *run*. ``False`` if it has ended meanwhile."""
    payload = {"args": called.args, "kwargs": called.kwargs}
    message = message_to(engine, run.id, ENQUEUED, payload, sender=None, key=None)
    operations = [AddSignal(message)]
    if queueing.debounce is not None:
        later = engine.storage.now() + queueing.debounce
        put_off = UpdateRun(run.id, {"not_before": later}, if_status=(RunStatus.PENDING,))
        outcomes = yield Commit(engine, (*operations, put_off))
    else:
        outcomes = yield Commit(engine, operations)
    raise_unstorable(outcomes[0])
    return isinstance(outcomes[0], Done)


def enqueue(engine: Engine, called: Invocation[WorkflowDef], options: Named, queueing: Queueing) -> str:
    """Enqueue from outside any run. Returns the id of the run."""
    return drive(put(engine, pending_row(engine, called, options, queueing), called, queueing))


def enqueue_within(
    engine: Engine,
    called: Invocation[WorkflowDef],
    options: Named,
    queueing: Queueing,
    connection: Value,
) -> str:
    """Enqueue in the transaction that the caller has open on *connection*. Returns the id of the run."""
    operation = _opening(engine, called, options, queueing)
    return _opened(*engine.storage.commit_within(connection, [operation]))


async def enqueue_within_async(
    engine: Engine,
    called: Invocation[WorkflowDef],
    options: Named,
    queueing: Queueing,
    connection: Value,
) -> str:
    """As :func:`enqueue_within`, on a connection that may have to be awaited."""
    operation = _opening(engine, called, options, queueing)
    return _opened(*await engine.storage.commit_within_async(connection, [operation]))


def _opening(engine: Engine, called: Invocation[WorkflowDef], options: Named, queueing: Queueing) -> OpenRun:
    if queueing.dedup is not None:
        raise TypeError("dedup= looks at what others have committed; it does not go with connection=")
    row = pending_row(engine, called, options, queueing)
    return OpenRun(row, 0.0, row.number is not None, (), engine.nonce())


def _opened(outcome: Outcome) -> str:
    raise_unstorable(outcome)
    if isinstance(outcome, Opened):
        return outcome.run.id
    assert isinstance(outcome, Found)
    return outcome.runs[0].id


class Enqueue(WorkflowOperation):
    """Enqueue the workflow that is *called*, once."""

    __slots__ = ("_queueing",)

    kind = START

    def __init__(self, called: Invocation[WorkflowDef], options: Named, queueing: Queueing) -> None:
        super().__init__(called, options)
        self._queueing = queueing

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run, engine = call.run, call.run.engine
        yield from flush(run)
        row = pending_row(engine, self.called, self.options, self._queueing, bound=self.bound, call=call)
        with crossing(run, call):
            run_id = yield from put(engine, row, self.called, self._queueing)
        return (yield from complete(call, run_id, ChildRun(run_id)))


def enqueue_in_run(frame: Frame, called: Invocation[WorkflowDef], options: Named, queueing: Queueing) -> str:
    """Enqueue as a durable call of the executing run. Returns the id of the run."""
    run_id: str = at_once(frame, Enqueue(called, options, queueing))
    return run_id
