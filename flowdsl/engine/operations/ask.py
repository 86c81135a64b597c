"""``ask``: send a message to a run and wait for its reply, from outside or from inside another run."""

import time
from collections.abc import Generator

from flowdsl.core.durations import seconds
from flowdsl.core.facts import Sent, facts_of
from flowdsl.core.kinds import ASK
from flowdsl.core.records import Run, Signal, Step
from flowdsl.core.status import is_final
from flowdsl.engine.call import Call, Operation, keyed
from flowdsl.engine.effects import Commit, Effect, Effects, Flow, Read, Result, run_async, run_sync
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame, current
from flowdsl.engine.operations.signal import message_to, sent
from flowdsl.engine.perform import durable
from flowdsl.engine.record import complete, crossing, fail, flush, pending
from flowdsl.engine.user import Value
from flowdsl.engine.waiting import Pause
from flowdsl.errors import RunFinished, RunNotFound, WaitTimeout
from flowdsl.storage.base import AddSignal, Done
from flowdsl.storage.topics import run_topic
from flowdsl.threads import wait_in_thread

__all__ = ["ask_async", "ask_sync", "question"]

_LOOK = 0.5  # longest time between two looks, in seconds, where nothing tells of a change
_SOON = 0.005, 0.25  # seconds between two looks of a run that waits: first, and longest


def _same(engine: Engine, signal: Signal) -> Signal | None:
    """The earlier message with the same run, name and key."""
    for one in engine.storage.list_signals(signal.run_id, name=signal.name, payloads=False):
        if one.key == signal.key:
            return one
    return None


def _look(engine: Engine, run_id: str, signal_id: str) -> tuple[Run | None, Signal | None]:
    """The run first, then the message. So a reply that came just before the end is seen."""
    return engine.storage.get_run(run_id), engine.storage.get_signal(run_id, signal_id)


def _outcome(engine: Engine, run_id: str, run: Run | None, signal: Signal | None) -> Result | None:
    """What the asker gets. ``None`` means that it has to wait."""
    if signal is not None and signal.reply is not None:
        if signal.reply_failed:
            return engine.payloads.unpack_error(signal.reply, run_id, signal.id, "refusal"), None
        return None, engine.payloads.unpack(signal.reply, run_id, signal.id, "reply")
    if run is None:
        return RunNotFound(f"run {run_id!r} was deleted before it answered", run=run_id), None
    if is_final(run.status):
        return RunFinished(f"run {run_id} has ended without an answer: it is {run.status}", run=run_id), None
    return None


def _too_late(run_id: str, name: str) -> WaitTimeout:
    return WaitTimeout(
        f"run {run_id} has not answered {name!r} in time; the question stays", run=run_id, signal=name
    )


# From outside ----------------------------------------------------------------------------------------------


def question(engine: Engine, run_id: str, name: str, payload: Value, key: str | None) -> str:
    """Send a question, and give the id of the message without waiting for the answer."""
    signal = message_to(engine, run_id, name, payload, sender=None, key=key, asked=True)
    (outcome,) = engine.commit(AddSignal(signal))
    sent(engine, signal, outcome)
    if isinstance(outcome, Done) and outcome.existed:
        known = _same(engine, signal)
        return signal.id if known is None else known.id
    return signal.id


def _waits(
    engine: Engine, run_id: str, name: str, signal_id: str, limit: float | None
) -> Generator[tuple[int, float], int, Result]:
    """Look until there is an answer. Yields what to wait for between two looks: the version of the storage
    that was seen, and at most how many seconds. Is sent the new version."""
    end = None if limit is None else time.monotonic() + limit
    seen = 0
    while True:
        found = _outcome(engine, run_id, *_look(engine, run_id, signal_id))
        if found is not None:
            return found
        left = _LOOK if end is None else min(end - time.monotonic(), _LOOK)
        if left <= 0:
            return _too_late(run_id, name), None
        seen = yield seen, left


def _ask_from_outside(
    engine: Engine, run_id: str, name: str, payload: Value, *, timeout: Value, key: str | None
) -> Value:
    """Ask, and block until the answer is there."""
    limit = None if timeout is None else seconds(timeout, "timeout")
    waiting = _waits(engine, run_id, name, question(engine, run_id, name, payload, key), limit)
    topics = (run_topic(run_id),)
    try:
        seen, left = next(waiting)
        while True:
            engine.require_open(run_id)
            seen, left = waiting.send(engine.storage.wait_for_change(seen, left, topics))
    except StopIteration as stop:
        error, value = stop.value
    if error is not None:
        raise error
    return value


async def _ask_from_outside_async(
    engine: Engine, run_id: str, name: str, payload: Value, *, timeout: Value, key: str | None
) -> Value:
    """Ask, and await the answer."""
    return await wait_in_thread(_ask_from_outside, engine, run_id, name, payload, timeout=timeout, key=key)


# From inside a run -----------------------------------------------------------------------------------------


class Ask(Operation):
    """Ask run *to*, and record its answer. The timeout is not part of the identity."""

    __slots__ = ("_key", "_limit", "_name", "_payload", "_to", "canonical")

    kind = ASK
    path = "flowdsl.ask"

    def __init__(self, to: str, name: str, payload: Value, limit: float | None, key: str | None) -> None:
        self._to = to
        self._name = name
        self._payload = payload
        self._limit = limit
        self._key = key
        self.canonical = keyed(to, name, payload, key)

    def preview(self, limit: int = 200) -> str:
        return f"{self._to!r}, {self._name!r}"[:limit]

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run = call.run
        facts = None if prior is None else facts_of(prior)
        if isinstance(facts, Sent):
            signal_id = facts.id
        else:
            yield from flush(run)
            try:
                signal_id = yield from self._send(call)
            except (RunNotFound, RunFinished) as error:
                return (yield from fail(call, error, Sent(self._to, self._name)))
            facts = Sent(self._to, self._name, signal_id)
            yield from pending(call, facts)
        refusal, value = yield from self._answered(call, signal_id)
        if isinstance(refusal, Exception):
            return (yield from fail(call, refusal, facts))
        return (yield from complete(call, value, facts))

    def _send(self, call: Call) -> Effects[str]:
        run, engine = call.run, call.run.engine
        key = self._key if self._key is not None else f"{run.origin}/{call.key}"
        signal = message_to(engine, self._to, self._name, self._payload, sender=run.id, key=key, asked=True)
        with crossing(run, call):
            (outcome,) = yield Commit(engine, (AddSignal(signal),))
        sent(engine, signal, outcome)
        if isinstance(outcome, Done) and outcome.existed:
            known: Signal | None = yield Read(engine.storage, lambda: _same(engine, signal))
            return signal.id if known is None else known.id
        return signal.id

    def _answered(self, call: Call, signal_id: str) -> Generator[Effect, Value, Result]:
        run, engine = call.run, call.run.engine
        end = None if self._limit is None else engine.ticks() + self._limit
        pause, longest = _SOON
        while True:
            look = yield Read(engine.storage, lambda: _look(engine, self._to, signal_id))
            found = _outcome(engine, self._to, *look)
            if found is not None:
                return found
            left = pause if end is None else min(pause, end - engine.ticks())
            if left <= 0:
                return _too_late(self._to, self._name), None
            yield Pause(run, left)
            run.stop.check()
            pause = min(pause * 2, longest)


def _ask_inside(
    frame: Frame, run_id: str, name: str, payload: Value, *, timeout: Value, key: str | None
) -> Flow:
    """Ask, as a durable call of the executing run."""
    limit = None if timeout is None else seconds(timeout, "timeout")
    return durable(frame, Ask(run_id, name, payload, limit, key))


# From anywhere ---------------------------------------------------------------------------------------------


def ask_sync(
    engine: Engine, run_id: str, name: str, payload: Value, *, timeout: Value, key: str | None
) -> Value:
    """Ask a run, from wherever this is called. Inside a run of the same storage it is a durable call."""
    frame = current.get()
    if frame is None or frame.run.engine.storage is not engine.storage:
        return _ask_from_outside(engine, run_id, name, payload, timeout=timeout, key=key)
    if frame.is_async:
        raise TypeError("ask() would block this async body; use `await runtime.aio.ask(…)`")
    return run_sync(_ask_inside(frame, run_id, name, payload, timeout=timeout, key=key))


async def ask_async(
    engine: Engine, run_id: str, name: str, payload: Value, *, timeout: Value, key: str | None
) -> Value:
    """The same, awaited."""
    frame = current.get()
    if frame is None or frame.run.engine.storage is not engine.storage:
        return await _ask_from_outside_async(engine, run_id, name, payload, timeout=timeout, key=key)
    return await run_async(_ask_inside(frame, run_id, name, payload, timeout=timeout, key=key))
