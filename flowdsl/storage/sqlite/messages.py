"""Messages to runs, their replies, and the items that runs publish, in SQLite."""

from flowdsl.core.ownership import may_take, takes_messages
from flowdsl.storage import columns
from flowdsl.storage.columns import Head
from flowdsl.storage.operations import AddSignal, Publish, Reply, TakeSignal
from flowdsl.storage.outcomes import Done, Missing, Outcome
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["add_signal", "publish", "reply", "take_signal"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def add_signal(tx: Transaction, op: AddSignal) -> Outcome:
    """Store a message."""
    signal = op.signal
    head = tx.head(signal.run_id)
    if head is None:
        return _MISSING
    if row := tx.one(sql.SAME_SIGNAL, head.no, signal.id, head.no, signal.name, signal.key):
        return Done(row[0], existed=True)
    if not takes_messages(head.status):
        return tx.fenced(signal.run_id)
    seq = tx.insert("signals", ("run", *columns.NEW_SIGNAL), columns.signal_values(head.no, signal))
    tx.execute(sql.PULSE, (head.no,))
    return Done(seq)


def take_signal(tx: Transaction, op: TakeSignal) -> Outcome:
    """Mark a message as taken, and append the record of its wait."""
    head = tx.owned(op.step.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    row = tx.one(sql.SIGNAL_TAKEN_BY, head.no, op.signal_id)
    if row is None or not may_take(row[0], op.step.key):
        return _MISSING
    done = tx.append(head, op.step)
    tx.execute(sql.TAKE_SIGNAL, (op.step.key, head.no, op.signal_id))
    return done


def reply(tx: Transaction, op: Reply) -> Outcome:
    """Store the reply to a message."""
    head = tx.owned(op.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    row = tx.one(sql.SIGNAL_REPLY, head.no, op.signal_id)
    if row is None:
        return _MISSING
    if row[0]:
        return _EXISTED
    tx.execute(sql.REPLY, (op.payload, op.preview, op.failed, op.seal, head.no, op.signal_id))
    tx.execute(sql.PULSE, (head.no,))
    return _DONE


def publish(tx: Transaction, op: Publish) -> Outcome:
    """Store an item of a channel."""
    head = tx.owned(op.item.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    if tx.one(sql.HAS_ITEM, head.no, op.item.channel, op.item.n):
        return _EXISTED
    tx.execute(sql.ADD_ITEM, columns.item_values(head.no, op.item))
    tx.execute(sql.PULSE, (head.no,))
    return _DONE
