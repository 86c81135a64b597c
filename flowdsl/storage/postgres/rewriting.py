"""Replacing bytes of a record in its place, in PostgreSQL, because the secret has changed."""

from flowdsl.storage.operations import Rewrite
from flowdsl.storage.outcomes import Done, Missing, Outcome
from flowdsl.storage.postgres.rows import Dialogue, checked, is_text
from flowdsl.storage.postgres.transaction import Transaction

__all__ = ["rewrite"]

_DONE = Done()
_MISSING = Missing()


def rewrite(tx: Transaction, op: Rewrite) -> Dialogue[Outcome]:
    """Replace bytes of one record, if they are still those that were read."""
    fields = tuple(op.now)
    if not all(is_text(part) for part in op.key if isinstance(part, str)):
        return _MISSING
    now = checked(op.now[name] for name in fields)
    rows = yield tx.sql.rewrite(op.kind, fields), (*now, *op.key, *(op.was[name] for name in fields))
    return _DONE if rows else _MISSING
