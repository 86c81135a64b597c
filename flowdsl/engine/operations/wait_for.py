"""``wait_for``: take the oldest matching message to a run. Delivering one is here too.

A message is stored by its sender and taken in the same commit that records the wait's outcome, so none is
lost and none is taken twice. It may arrive before the wait. One that arrived before the deadline beats the
timeout, even when it is read later.
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from attrs import frozen

from flowdsl.core.durations import seconds
from flowdsl.core.encoding import encode
from flowdsl.core.facts import Waiting, facts_of
from flowdsl.core.kinds import WAIT
from flowdsl.core.records import Signal, Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.effects import Commit, Effects, Flow, Pause, Read, Result, waker_for
from flowdsl.engine.engine import Engine, engines_on
from flowdsl.engine.execution import Frame
from flowdsl.engine.perform import durable
from flowdsl.engine.record import fail, halted, pending, replay, row
from flowdsl.engine.user import Value
from flowdsl.errors import RunFinished, RunNotFound, StorageError, WaitTimeout
from flowdsl.storage.base import AddSignal, Fenced, Missing, TakeSignal, raise_unstorable

__all__ = ["SignalView", "checked_name", "deliver", "wait_for"]

Where = Callable[[Value], bool] | Mapping[str, Value] | None


def checked_name(name: Value) -> str:
    """A signal's name."""
    if not isinstance(name, str):
        raise TypeError(f"a signal is named by a string; got {name!r}")
    if not name.strip():
        raise ValueError("a signal's name is not empty")
    return name


@frozen(slots=True)
class SignalView:
    """What hooks see of a signal; *created_at* is an aware datetime in UTC."""

    run_id: str
    name: str
    payload: Value
    sender: str | None
    key: str | None
    created_at: datetime

    @classmethod
    def of(cls, signal: Signal, payload: Value) -> "SignalView":
        """The view of a stored signal, with its payload as loaded."""
        at = datetime.fromtimestamp(signal.created_at, UTC)
        return cls(signal.run_id, signal.name, payload, signal.sender, signal.key, at)


def deliver(
    engine: Engine, run_id: str, name: str, payload: Value, *, sender: str | None, key: str | None
) -> str:
    """Store a signal for a run and wake what waits for it in this process; returns the signal's id."""
    signal_id = uuid.uuid4().hex
    sealed, loaded = engine.payloads.pack(payload, run_id, signal_id, "signal")
    now = engine.clock.now()
    shown = engine.payloads.previews.value(loaded)
    signal = Signal(signal_id, run_id, checked_name(name), sealed, shown, sender, key, now)
    (outcome,) = engine.commit(AddSignal(signal))
    if isinstance(outcome, Missing):
        raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
    if isinstance(outcome, Fenced):
        raise RunFinished(f"run {run_id} has ended: it is {outcome.run.status}", run=run_id)
    raise_unstorable(outcome)
    for other in engines_on(engine.storage):
        state = other.owned.get(run_id)
        if state is not None:
            state.stop.signalled()
    return signal_id


class WaitFor(Operation):
    """Take the oldest message of *name* that *where* accepts. The timeout is not part of the identity."""

    __slots__ = ("_limit", "_name", "_where", "canonical")

    kind = WAIT
    path = "flowdsl.wait_for"

    def __init__(self, name: str, limit: float | None, where: Where) -> None:
        self._name = name
        self._limit = limit
        self._where = where
        self.canonical = encode(name)

    def preview(self, limit: int = 200) -> str:
        return repr(self._name)[:limit]

    def execute(self, call: Call, prior: Step | None) -> Flow:
        now = call.run.engine.clock.now()
        facts = None if prior is None else facts_of(prior)
        if isinstance(facts, Waiting):  # of a process that is gone
            deadline = facts.deadline
            left = None if deadline is None else deadline - now
        else:
            left = self._limit
            deadline = None if left is None else now + left
            yield from pending(call, Waiting(self._name, deadline))
        return (yield from self._wait(call, left, deadline))

    def _wait(self, call: Call, left: float | None, deadline: float | None) -> Flow:
        run = call.run
        ticks = run.engine.ticks
        end = None if left is None else ticks() + left
        while True:
            waker = yield from waker_for(run)
            try:
                late = left is not None and left <= 0
                taken = yield from self._take(call, deadline if late else None)
                if taken is not None:
                    return taken
                if late:
                    return (yield from self._too_late(call, deadline))
                wait = left
                until_end = run.stop.left()
                if until_end is not None:
                    wait = until_end if wait is None else min(wait, until_end)
                woken = yield Pause(run, wait, waker)
                if end is not None:
                    left = 0.0 if not woken and wait == left else end - ticks()
            finally:
                run.stop.waited(waker)
            run.stop.check()

    def _take(self, call: Call, deadline: float | None) -> Effects[Result | None]:
        """The outcome of the wait if a signal is there, else ``None``."""
        run, engine = call.run, call.run.engine
        after, size = 0, 1  # most often the first one is taken: thousands of others need not be read
        while True:
            page: list[Signal] = yield Read(
                engine.storage,
                partial(
                    engine.storage.list_signals,
                    run.id,
                    name=self._name,
                    unread=True,
                    after=after,
                    limit=size,
                ),
            )
            taken = yield from self._take_of(call, page, deadline)
            if taken is not None or len(page) < size:
                return taken
            after, size = page[-1].seq, min(size * 4, 256)

    def _take_of(self, call: Call, signals: list[Signal], deadline: float | None) -> Effects[Result | None]:
        run, engine = call.run, call.run.engine
        for signal in signals:
            if deadline is not None and signal.created_at > deadline:
                continue
            payload = engine.payloads.unpack(signal.payload, run.id, signal.id, "signal")
            if not _matches(self._where, payload):
                continue
            places = (run.id, signal.id, "signal"), (run.id, call.key, "result")
            sealed = engine.payloads.reseal(signal.payload, *places)
            facts = Waiting(self._name, sender=signal.sender)
            record = row(call, StepStatus.COMPLETED, sealed, signal.preview, 1, facts)
            operation = TakeSignal(signal.id, record, run.epoch)
            try:
                outcome, *_ = yield Commit(engine, (operation, *run.writer.answers(call.key)))
            except StorageError as error:
                raise halted(run, error, call) from error
            if isinstance(outcome, Missing):
                continue  # another branch was quicker
            run.writer.accept(outcome, operation)
            run.writer.add(record)
            if engine.hooks.has("on_signal"):
                engine.hooks.fire("on_signal", engine.make_handle(run.record), SignalView.of(signal, payload))
            return replay(call, record, hooks=False)
        return None

    def _too_late(self, call: Call, deadline: float | None) -> Flow:
        error = WaitTimeout(
            f"no signal {self._name!r} came to run {call.run.id} in time",
            run=call.run.id,
            step=call.key,
            signal=self._name,
        )
        return (yield from fail(call, error, Waiting(self._name, deadline)))


def _matches(where: Where, payload: Value) -> bool:
    if where is None:
        return True
    if callable(where):
        return bool(where(payload))
    return isinstance(payload, Mapping) and all(
        name in payload and payload[name] == value for name, value in where.items()
    )


def wait_for(frame: Frame, name: str, timeout: Value, where: Where) -> Flow:
    """Wait for the oldest matching signal of *name*."""
    checked_name(name)
    limit = None if timeout is None else seconds(timeout, "timeout")
    if where is not None and not callable(where) and not isinstance(where, Mapping):
        raise TypeError(f"where= is a function of the payload, or a dict of items that it has; got {where!r}")
    return durable(frame, WaitFor(name, limit, where))
