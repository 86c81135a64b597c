"""Messages to runs, their replies, and the items that runs publish, in memory."""

from attrs import evolve

from flowdsl.core.ownership import arrived, may_take, takes_messages
from flowdsl.storage.memory.tables import RunData, Tables, copy_of
from flowdsl.storage.operations import AddSignal, Publish, Reply, TakeSignal
from flowdsl.storage.outcomes import Done, Fenced, Missing, Outcome

__all__ = ["add_signal", "publish", "reply", "take_signal"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def add_signal(tables: Tables, op: AddSignal) -> Outcome:
    """Store a message."""
    signal = op.signal
    data = tables.runs.get(signal.run_id)
    if data is None:
        return _MISSING
    if (known := data.signals.get(signal.id)) is not None:
        return Done(known.seq, existed=True)
    if signal.key is not None and (seq := data.sent.get((signal.name, signal.key))) is not None:
        return Done(seq, existed=True)
    if not takes_messages(data.run.status):
        return Fenced(copy_of(data.run))
    signal = arrived(signal, tables.next_signal())
    data.receive(signal)
    return Done(signal.seq)


def take_signal(tables: Tables, op: TakeSignal) -> Outcome:
    """Mark a message as taken, and append the record of its wait."""
    data = tables.owned(op.step.run_id, op.epoch)
    if not isinstance(data, RunData):
        return data
    signal = data.signals.get(op.signal_id)
    if signal is None or not may_take(signal.taken_by, op.step.key):
        return _MISSING
    if signal.taken_by is None:
        data.signals[signal.id] = evolve(signal, taken_by=op.step.key)
        del data.unread[signal.id]
    return Done(data.append(op.step))


def reply(tables: Tables, op: Reply) -> Outcome:
    """Store the reply to a message."""
    data = tables.owned(op.run_id, op.epoch)
    if not isinstance(data, RunData):
        return data
    signal = data.signals.get(op.signal_id)
    if signal is None:
        return _MISSING
    if signal.reply is not None:
        return _EXISTED
    data.signals[signal.id] = evolve(
        signal,
        reply=op.payload,
        reply_preview=op.preview,
        reply_failed=op.failed,
        reply_seal=op.seal,
    )
    return _DONE


def publish(tables: Tables, op: Publish) -> Outcome:
    """Store an item of a channel."""
    data = tables.owned(op.item.run_id, op.epoch)
    if not isinstance(data, RunData):
        return data
    items = data.channels.setdefault(op.item.channel, {})
    if op.item.n in items:
        return _EXISTED
    items[op.item.n] = op.item
    return _DONE
