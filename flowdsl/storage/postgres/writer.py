"""Commits in one statement, which is a transaction by itself: steps, a lone update of a run, renewed leases.

One statement holds its locks only as long as the server needs for it, whatever its client does meanwhile.
"""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from flowdsl.storage import columns
from flowdsl.storage.operations import Operation, PutStep, UpdateRun
from flowdsl.storage.outcomes import Done, Outcome
from flowdsl.storage.postgres.fragments import Sql
from flowdsl.storage.postgres.rows import NotTaken, Row, checked, step_values
from flowdsl.storage.postgres.statements import Statements
from flowdsl.storage.topics import topics_of

__all__ = ["Single", "Told", "single"]

_DONE = Done()

Told = list[Outcome | None]
"""Outcomes; ``None`` for each operation of which the rows do not say what became of it."""


@define(slots=True)
class Single:
    """A commit in one statement, and the *outcomes* that its rows tell."""

    sql: Sql
    values: Sequence[Any]
    outcomes: Callable[[list[Row]], Told]


def single(sql: Statements, operations: Sequence[Operation]) -> Single | None:
    """How to commit *operations* in one statement. ``None`` if that is not possible. Raises :class:`NotTaken`
    for a lone operation whose values cannot be stored."""
    if len(operations) > 1:
        try:
            return _many_steps(sql, operations) or _renewals(sql, operations)
        except NotTaken:
            return None
    op = operations[0]
    if type(op) is PutStep and not op.once:
        return _lone_step(sql, op)
    if type(op) is UpdateRun and "tags" not in op.changes and not any(topics_of(operations)):
        return _lone_update(sql, op)
    return None


def _lone_step(sql: Statements, op: PutStep) -> Single:
    (run_id,) = checked((op.step.run_id,))
    fence = () if op.epoch is None else (op.epoch,)
    statement = sql.append_step if op.epoch is None else sql.append_step_fenced
    values = (run_id, *fence, *step_values(op.step))
    return Single(statement, values, lambda rows: [Done(rows[0][0]) if rows else None])


def _lone_update(sql: Statements, op: UpdateRun) -> Single | None:
    lease = "release" if op.release else "renew" if op.lease is not None else ""
    if not op.changes and not lease:
        return None
    values = [columns.encode_run_field(name, value) for name, value in op.changes.items()]
    values += [op.lease] if lease == "renew" else []
    values += [op.run_id] + ([] if op.epoch is None else [op.epoch])
    given: list[Any] = checked(values)
    if op.if_status:
        given.append([status.value for status in op.if_status])
    statement = sql.update_run_if(tuple(op.changes), lease, op.epoch is not None, bool(op.if_status))
    return Single(statement, given, lambda rows: [_DONE if rows else None])


def _many_steps(sql: Statements, operations: Sequence[Operation]) -> Single | None:
    """Only steps. Those of one run have one epoch."""
    epochs: dict[str, int | None] = {}
    rows: list[list[Any]] = []
    for place, op in enumerate(operations):
        if type(op) is not PutStep or op.once or epochs.setdefault(op.step.run_id, op.epoch) != op.epoch:
            return None
        rows.append([*checked((op.step.run_id,)), op.epoch, place, *step_values(op.step)])

    def told(found: list[Row]) -> Told:
        next_of = {run_id: seq for run_id, seq, _ in found}
        outcomes: Told = []
        for run_id, *_ in rows:
            seq = next_of.get(run_id)
            outcomes.append(None if seq is None else Done(seq))
            if seq is not None:
                next_of[run_id] = seq + 1
        return outcomes

    lists = [list(column) for column in zip(*rows, strict=True)]
    return Single(sql.append_many, [sorted(epochs), *lists], told)


def _renewals(sql: Statements, operations: Sequence[Operation]) -> Single | None:
    """Only renewed leases, each run once."""
    rows: list[tuple[str, int, float]] = []
    for op in operations:
        if (
            type(op) is not UpdateRun
            or op.changes
            or op.release
            or op.if_status
            or op.epoch is None
            or op.lease is None
        ):
            return None
        rows.append((op.run_id, op.epoch, op.lease))
    ids, epochs, leases = (list(column) for column in zip(*rows, strict=True))
    if len(set(ids)) < len(ids):
        return None

    def told(found: list[Row]) -> Told:
        renewed = {row[0] for row in found}
        return [_DONE if run_id in renewed else None for run_id in ids]

    return Single(sql.renew, [sorted(checked(ids)), ids, epochs, leases], told)
