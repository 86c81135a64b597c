"""Appending and dropping step records, in SQLite."""

from flowdsl.storage.columns import Head
from flowdsl.storage.operations import DropSteps, PutStep
from flowdsl.storage.outcomes import Done, Outcome
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["drop_steps", "put_step"]

_DONE = Done()


def put_step(tx: Transaction, op: PutStep) -> Outcome:
    """Append a step record."""
    head = tx.owned(op.step.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    if op.once and (row := tx.one(sql.STEP_OF_KEY, head.no, head.no, op.step.key)):
        return Done(row[0], existed=True)
    return tx.append(head, op.step)


def drop_steps(tx: Transaction, op: DropSteps) -> Outcome:
    """Delete step records."""
    head = tx.owned(op.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    tx.execute(sql.KEEP_LAST, (head.last, head.no))
    tx.executemany(sql.DROP_STEP, [(head.no, head.no, key) for key in op.keys])
    return _DONE
