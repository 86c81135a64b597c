"""``receive`` and ``wait_for``: take the oldest matching message to a run, of one name or of several.

The commit that takes a message also records the outcome of the wait. So no message is lost or taken twice. A
message may arrive before the wait. If it arrived before the deadline, it beats the timeout, even if it is
read later. ``wait_for(name)`` gives the payload of what ``receive(name)`` gives.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from heapq import merge

from flowdsl.core.durations import seconds
from flowdsl.core.encoding import encode
from flowdsl.core.facts import Waiting, facts_of
from flowdsl.core.kinds import WAIT
from flowdsl.core.records import Signal, Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.effects import Commit, Effects, Flow, Read, Result
from flowdsl.engine.execution import Frame
from flowdsl.engine.operations.reply import Message
from flowdsl.engine.operations.signal import SignalView, checked_name
from flowdsl.engine.perform import durable
from flowdsl.engine.record import fail, halted, pending, replay, row
from flowdsl.engine.user import Value
from flowdsl.engine.waiting import Pause, waker_for
from flowdsl.errors import StorageError, WaitTimeout
from flowdsl.storage.base import Missing, Storage, TakeSignal

__all__ = ["receive", "wait_for"]

Where = Callable[[Value], bool] | Mapping[str, Value] | None

_PAGE = 32  # messages that are read at a time


class Receive(Operation):
    """Take the oldest message of *names* that *where* accepts. The timeout is not part of the identity."""

    __slots__ = ("_limit", "_names", "_where", "canonical", "path")

    kind = WAIT

    def __init__(
        self, path: str, canonical: bytes, names: tuple[str, ...], limit: float | None, where: Where
    ) -> None:
        self.path = path
        self.canonical = canonical
        self._names = names
        self._limit = limit
        self._where = where

    def preview(self, limit: int = 200) -> str:
        return ", ".join(map(repr, self._names))[:limit]

    def given(self, call: Call, record: Step, payload: Value) -> Value:
        """What the caller gets for a message that was taken."""
        facts = facts_of(record)
        assert isinstance(facts, Waiting)
        return Message(
            facts.signal, payload, facts.sender, run_id=call.run.id, id=facts.id, asked=facts.asked
        )

    def answer(self, call: Call, record: Step) -> Flow:
        return self._replayed(call, record)
        yield  # a generator like the others, although it waits for nothing

    def _replayed(self, call: Call, record: Step, hooks: bool = True) -> Result:
        error, payload = replay(call, record, hooks)
        return (error, None) if error is not None else (None, self.given(call, record, payload))

    def execute(self, call: Call, prior: Step | None) -> Flow:
        now = call.run.engine.clock.now()
        facts = None if prior is None else facts_of(prior)
        if isinstance(facts, Waiting):  # a process that is gone has waited before
            deadline = facts.deadline
            left = None if deadline is None else deadline - now
        else:
            left = self._limit
            deadline = None if left is None else now + left
            yield from pending(call, self._facts(deadline))
        return (yield from self._wait(call, left, deadline))

    def _facts(self, deadline: float | None) -> Waiting:
        return Waiting(self._names[0], deadline, names=self._names if len(self._names) > 1 else ())

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
        """The outcome of the wait if a message is there, otherwise ``None``."""
        run, engine = call.run, call.run.engine
        after, most = 0, 1 if self._where is None else _PAGE  # mostly the first one matches
        while True:
            unread = partial(_unread, engine.storage, run.id, self._names, after, most)
            page = yield Read(engine.storage, unread)
            for signal in page:
                if deadline is not None and signal.created_at > deadline:
                    continue
                payload = engine.payloads.unpack(signal.payload, run.id, signal.id, "signal")
                if not _matches(self._where, payload):
                    continue
                taken = yield from self._taken(call, signal, payload)
                if taken is not None:
                    return taken
            if len(page) < most:
                return None
            after, most = page[-1].seq, _PAGE

    def _taken(self, call: Call, signal: Signal, payload: Value) -> Effects[Result | None]:
        """Take *signal*. ``None`` if another branch was quicker."""
        run, engine = call.run, call.run.engine
        places = (run.id, signal.id, "signal"), (run.id, call.key, "result")
        sealed = engine.payloads.reseal(signal.payload, *places)
        facts = Waiting(signal.name, sender=signal.sender, id=signal.id, asked=signal.asked)
        record = row(call, StepStatus.COMPLETED, sealed, signal.preview, 1, facts)
        operation = TakeSignal(signal.id, record, run.epoch)
        try:
            outcome, *_ = yield Commit(engine, (operation, *run.writer.answers(call.key)))
        except StorageError as error:
            raise halted(run, error, call) from error
        if isinstance(outcome, Missing):
            return None
        run.writer.accept(outcome, operation)
        run.writer.add(record)
        if engine.hooks.has("on_signal"):
            engine.hooks.fire("on_signal", engine.make_handle(run.record), SignalView.of(signal, payload))
        return self._replayed(call, record, hooks=False)

    def _too_late(self, call: Call, deadline: float | None) -> Flow:
        names = " or ".join(map(repr, self._names))
        error = WaitTimeout(
            f"no signal {names} came to run {call.run.id} in time",
            run=call.run.id,
            step=call.key,
            signal=self._names[0],
        )
        return (yield from fail(call, error, self._facts(deadline)))


class WaitFor(Receive):
    """As :class:`Receive`, but gives only the payload."""

    __slots__ = ()

    def given(self, call: Call, record: Step, payload: Value) -> Value:
        return payload


def _unread(storage: Storage, run_id: str, names: tuple[str, ...], after: int, most: int) -> list[Signal]:
    """The oldest unread messages of *names* after *after*, at most *most*, in order of arrival."""

    def of(name: str) -> Iterator[Signal]:
        return iter(storage.list_signals(run_id, name=name, unread=True, after=after, limit=most))

    return list(merge(*map(of, names), key=lambda signal: signal.seq))[:most]


def _matches(where: Where, payload: Value) -> bool:
    if where is None:
        return True
    if callable(where):
        return bool(where(payload))
    return isinstance(payload, Mapping) and all(
        name in payload and payload[name] == value for name, value in where.items()
    )


def _checked(timeout: Value, where: Where) -> float | None:
    """The timeout in seconds."""
    if where is not None and not callable(where) and not isinstance(where, Mapping):
        raise TypeError(f"where= is a function of the payload, or a dict of items that it has; got {where!r}")
    return None if timeout is None else seconds(timeout, "timeout")


def wait_for(frame: Frame, name: str, timeout: Value, where: Where) -> Flow:
    """Wait for the oldest matching message of *name*. Gives its payload."""
    checked_name(name)
    limit = _checked(timeout, where)
    return durable(frame, WaitFor("flowdsl.wait_for", encode(name), (name,), limit, where))


def receive(frame: Frame, names: tuple[str, ...], timeout: Value, where: Where) -> Flow:
    """Wait for the oldest matching message of any of *names*. Gives the whole message."""
    if not names:
        raise TypeError('receive() takes the names of messages, as receive("add", "remove")')
    for name in names:
        checked_name(name)
    names = tuple(dict.fromkeys(names))
    limit = _checked(timeout, where)
    return durable(frame, Receive("flowdsl.receive", encode(names), names, limit, where))
