"""Replacing bytes of a record in its place, in memory, because the secret has changed."""

from typing import Any

from attrs import evolve

from flowdsl.storage.memory.tables import RunData, Tables
from flowdsl.storage.operations import Rewrite
from flowdsl.storage.outcomes import Done, Missing, Outcome

__all__ = ["rewrite"]

_DONE = Done()
_MISSING = Missing()


def rewrite(tables: Tables, op: Rewrite) -> Outcome:
    """Replace bytes of one record, if they are still those that were read."""
    first, last = op.key[0], op.key[-1]
    if op.kind == "memo":
        return _in_table(op, tables.memos, first)
    if op.kind == "queue":
        return _in_table(op, tables.queues, first)
    if op.kind == "schedule":
        return _in_table(op, tables.schedules, first)
    if op.kind == "run" and first in tables.stubs:
        return _in_table(op, tables.stubs, first)
    data = tables.runs.get(str(first))
    if data is None:
        return _MISSING
    if op.kind == "signal":
        return _in_table(op, data.signals, last)
    if op.kind == "item":
        return _in_table(op, data.channels.get(str(op.key[1]), {}), last)
    return _run(op, data) if op.kind == "run" else _step(op, data, last)


def _in_table(op: Rewrite, table: dict[Any, Any], key: Any) -> Outcome:
    row = table.get(key)
    if row is None or not _is_as_read(op, row):
        return _MISSING
    table[key] = evolve(row, **_changes(op))
    return _DONE


def _run(op: Rewrite, data: RunData) -> Outcome:
    if not _is_as_read(op, data.run):
        return _MISSING
    data.rewrite(_changes(op))
    return _DONE


def _step(op: Rewrite, data: RunData, seq: Any) -> Outcome:
    for key, (place, step) in data.steps.items():
        if place == seq and _is_as_read(op, step):
            data.steps[key] = (place, step._replace(**_changes(op)))
            return _DONE
    return _MISSING


def _is_as_read(op: Rewrite, row: Any) -> bool:
    return all(getattr(row, name) == value for name, value in op.was.items())


def _changes(op: Rewrite) -> dict[str, Any]:
    return dict(op.now)
