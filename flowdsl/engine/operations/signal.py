"""``signal``: send a message to a run, from outside or from inside another one.

The sender stores the message. Inside a run each call is one message, however often the sender is resumed.
The key of the message derives from the sender's run and call, and the sending is recorded.
"""

import uuid
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TypeVar

from attrs import frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.encoding import encode
from flowdsl.core.facts import Sent
from flowdsl.core.kinds import MESSAGE
from flowdsl.core.records import Signal, Step
from flowdsl.engine.call import Call, Operation, keyed
from flowdsl.engine.effects import Commit, Flow
from flowdsl.engine.engine import Engine, engines_on
from flowdsl.engine.execution import current
from flowdsl.engine.perform import at_once
from flowdsl.engine.record import complete, crossing, fail, flush
from flowdsl.engine.user import Value
from flowdsl.errors import RunFinished, RunNotFound
from flowdsl.storage.base import AddSignal, Fenced, Missing, Outcome, raise_not_storable

__all__ = ["SignalView", "checked_name", "deliver", "message_to", "send", "sent"]

T = TypeVar("T")


def checked_name(name: Value) -> str:
    """A signal's name."""
    if not isinstance(name, str):
        raise TypeError(f"a signal is named by a string; got {name!r}")
    if not name.strip():
        raise ValueError("a signal's name must not be empty")
    return name


@frozen(slots=True, eq=False, repr=False)
class SignalView(ByFields):
    """What hooks see of a signal. *created_at* is an aware datetime in UTC."""

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


def message_to(
    engine: Engine,
    run_id: str,
    name: str,
    payload: Value,
    *,
    sender: str | None,
    key: str | None,
    asked: bool = False,
) -> Signal:
    """A message as it will be stored. If it has a *key*, its id derives from that. So sending it again names
    the stored message, and work that is keyed by the id replays."""
    if key is None:
        signal_id = uuid.uuid4().hex
    else:
        signal_id = blake2b(encode((run_id, name, key)), digest_size=16).hexdigest()
    sealed, loaded = engine.payloads.pack(payload, run_id, signal_id, "signal")
    return Signal(
        signal_id,
        run_id,
        checked_name(name),
        sealed,
        engine.payloads.previews.value(loaded),
        sender,
        key,
        engine.clock.now(),
        asked=asked,
    )


def sent(engine: Engine, signal: Signal, outcome: Outcome) -> None:
    """Raise what speaks against a message. Otherwise wake whoever waits for it in this process."""
    if isinstance(outcome, Missing):
        raise RunNotFound(f"no run {signal.run_id!r} in this storage", run=signal.run_id)
    if isinstance(outcome, Fenced):
        status = outcome.run.status
        raise RunFinished(f"run {signal.run_id} has ended: it is {status}", run=signal.run_id)
    raise_not_storable(outcome)
    for other in engines_on(engine.storage):
        state = other.owned.get(signal.run_id)
        if state is not None:
            state.stop.signalled()


def deliver(
    engine: Engine, run_id: str, name: str, payload: Value, *, sender: str | None, key: str | None
) -> str:
    """Send a message from outside any run; returns its id."""
    signal = message_to(engine, run_id, name, payload, sender=sender, key=key)
    (outcome,) = engine.commit(AddSignal(signal))
    sent(engine, signal, outcome)
    return signal.id


class SendSignal(Operation):
    """Send a message to run *to*, once."""

    __slots__ = ("_key", "_name", "_payload", "_sender", "_to", "canonical")

    kind = MESSAGE
    path = "flowdsl.signal"

    def __init__(self, to: str, name: str, payload: Value, sender: str | None, key: str | None) -> None:
        self._to = to
        self._name = checked_name(name)
        self._payload = payload
        self._sender = sender
        self._key = key
        self.canonical = keyed(to, name, payload, key)

    def preview(self, limit: int = 200) -> str:
        return f"{self._to!r}, {self._name!r}"[:limit]

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run, engine = call.run, call.run.engine
        key = self._key if self._key is not None else f"{run.origin}/{call.key}"
        signal = message_to(engine, self._to, self._name, self._payload, sender=self._sender, key=key)
        yield from flush(run)
        with crossing(run, call):
            (outcome,) = yield Commit(engine, (AddSignal(signal),))
        try:
            sent(engine, signal, outcome)
        except (RunNotFound, RunFinished) as error:
            return (yield from fail(call, error, Sent(self._to, self._name)))
        return (yield from complete(call, signal.id, Sent(self._to, self._name, signal.id)))


def send(
    engine: Engine, run_id: str, name: str, payload: Value, *, sender: str | None, key: str | None
) -> str:
    """Send a message, from wherever this is called; returns its id."""
    frame = current.get()
    if frame is None:
        return deliver(engine, run_id, name, payload, sender=sender, key=key)
    if frame.run.engine.storage is not engine.storage:  # to another storage, so not recorded here
        return deliver(engine, run_id, name, payload, sender=sender, key=key)
    found: str = at_once(frame, SendSignal(run_id, name, payload, sender, key))
    return found
