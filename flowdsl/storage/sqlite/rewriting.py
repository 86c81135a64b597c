"""Replacing bytes of a record in its place, in SQLite, because the secret has changed."""

from flowdsl.storage.operations import Rewrite
from flowdsl.storage.outcomes import Done, Missing, Outcome
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["rewrite"]

_DONE = Done()
_MISSING = Missing()


def rewrite(tx: Transaction, op: Rewrite) -> Outcome:
    """Replace bytes of one record, if they are still those that were read."""
    fields = tuple(op.now)
    now = [_stored(op, name, op.now[name]) for name in fields]
    was = [0 if (value := _stored(op, name, op.was[name])) is None else value for name in fields]
    cursor = tx.execute(sql.rewrite(op.kind, fields), (*now, *op.key, *was))
    return _DONE if cursor.rowcount else _MISSING


def _stored(op: Rewrite, name: str, value: bytes | None) -> bytes | None:
    """*value* as it stands in its column. A step without a seal needs no room for one."""
    return None if op.kind == "step" and name == "seal" and not value else value
