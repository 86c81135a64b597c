"""Appending and dropping step records, in PostgreSQL."""

from typing import Any

from flowdsl.errors import CorruptPayload
from flowdsl.storage.columns import Head
from flowdsl.storage.operations import DropSteps, PutStep
from flowdsl.storage.outcomes import Done, Outcome, Unstorable
from flowdsl.storage.postgres.rows import Dialogue, NotTaken, is_text, step_values, unstorable
from flowdsl.storage.postgres.transaction import Transaction

__all__ = ["drop_steps", "put_step", "put_steps"]

_DONE = Done()


def put_steps(tx: Transaction, operations: list[PutStep]) -> Dialogue[list[Outcome]]:
    """Many steps in one statement."""
    outcomes: list[Outcome] = []
    rows: list[list[Any]] = []
    for op in operations:
        try:
            head = yield from tx.owned(op.step.run_id, op.epoch)
        except CorruptPayload as error:  # its run is damaged
            outcomes.append(Unstorable(error))
            continue
        if not isinstance(head, Head):
            outcomes.append(head)
            continue
        try:
            rows.append([head.no, head.last + 1, *step_values(op.step)])
        except NotTaken as error:
            outcomes.append(unstorable(error))
            continue
        outcomes.append(Done(head.grew()))
    if rows:
        yield tx.sql.append_steps, [list(column) for column in zip(*rows, strict=True)]
    return outcomes


def put_step(tx: Transaction, op: PutStep) -> Dialogue[Outcome]:
    """Append a step record."""
    head = yield from tx.owned(op.step.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    if op.once and is_text(op.step.key):
        rows = yield tx.sql.step_of_key, (head.no, op.step.key)
        if rows:
            return Done(rows[0][0], existed=True)
    return (yield from tx.append(head, op.step))


def drop_steps(tx: Transaction, op: DropSteps) -> Dialogue[Outcome]:
    """Delete step records."""
    head = yield from tx.owned(op.run_id, op.epoch)
    if not isinstance(head, Head):
        return head
    yield tx.sql.keep_last, (head.last, head.no)
    yield tx.sql.drop_steps, (head.no, [key for key in op.keys if is_text(key)])
    return _DONE
