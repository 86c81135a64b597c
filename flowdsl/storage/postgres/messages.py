"""Messages to runs, their replies, and the items that runs publish, in PostgreSQL."""

from flowdsl.core.ownership import may_take, takes_messages
from flowdsl.storage import columns
from flowdsl.storage.columns import Head
from flowdsl.storage.operations import AddSignal, Publish, Reply, TakeSignal
from flowdsl.storage.outcomes import Done, Missing, Outcome
from flowdsl.storage.postgres.rows import Dialogue, checked, is_text
from flowdsl.storage.postgres.transaction import Transaction

__all__ = ["add_signal", "publish", "reply", "take_signal"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def add_signal(tx: Transaction, op: AddSignal) -> Dialogue[Outcome]:
    """Store a message."""
    signal = op.signal
    head = yield from tx.head(signal.run_id)
    if head is None:
        return _MISSING
    values = checked(columns.signal_values(head.no, signal), (signal.id, signal.name, signal.key))
    same = (head.no, signal.id, signal.name, signal.key, signal.id)
    rows = yield tx.sql.same_signal, same
    if rows:
        return Done(rows[0][0], existed=True)
    if not takes_messages(head.status):
        return (yield from tx.fenced(signal.run_id))
    ((seq,),) = yield tx.sql.add_signal, values
    yield tx.sql.pulse, (head.no,)
    return Done(seq)


def take_signal(tx: Transaction, op: TakeSignal) -> Dialogue[Outcome]:
    """Mark a message as taken, and append the record of its wait."""
    head = yield from tx.owned(op.step.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    rows = (yield tx.sql.signal_taken_by, (head.no, op.signal_id)) if is_text(op.signal_id) else []
    if not rows or not may_take(rows[0][0], op.step.key):
        return _MISSING
    done = yield from tx.append(head, op.step)
    yield tx.sql.take_signal, (op.step.key, head.no, op.signal_id)
    return done


def reply(tx: Transaction, op: Reply) -> Dialogue[Outcome]:
    """Store the reply to a message."""
    head = yield from tx.owned(op.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    rows = (yield tx.sql.signal_reply, (head.no, op.signal_id)) if is_text(op.signal_id) else []
    if not rows:
        return _MISSING
    if rows[0][0]:
        return _EXISTED
    values = checked((op.payload, op.preview, op.failed, op.seal))
    yield tx.sql.reply, (*values, head.no, op.signal_id)
    yield tx.sql.pulse, (head.no,)
    return _DONE


def publish(tx: Transaction, op: Publish) -> Dialogue[Outcome]:
    """Store an item of a channel."""
    head = yield from tx.owned(op.item.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    values = checked(columns.item_values(head.no, op.item), (op.item.channel,))
    rows = yield tx.sql.add_item, values
    if not rows:
        return _EXISTED
    yield tx.sql.pulse, (head.no,)
    return _DONE
