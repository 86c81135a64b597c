"""Records as rows of SQLite, and rows as records."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from attrs import evolve

from flowdsl.core.records import Item, QueueRow, Run, ScheduleRow, Signal, Step, Tags, fields_of
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.errors import CorruptPayload
from flowdsl.storage.base import Attention
from flowdsl.storage.sqlite.statements import (
    ITEM_COLUMNS,
    MORE,
    NEW_SIGNAL,
    RUN_COLUMNS,
    SIGNAL_COLUMNS,
    USUAL,
    tag_items,
)

__all__ = [
    "attention_of",
    "encode_run_field",
    "item_of",
    "item_values",
    "last_of_each_key",
    "queue_of",
    "run_of",
    "run_values",
    "schedule_of",
    "signal_of",
    "signal_values",
    "step_values",
    "steps_of",
    "tag_rows",
    "values_of",
]

Row = tuple[Any, ...]

_RUN_STATUS = {status.value: status for status in RunStatus}
_STEP_STATUS = {status.value: status for status in StepStatus}

# From records to rows ---------------------------------------------------------------------------------------


def step_values(s: Step) -> Row:
    """What the statements that store a step take, in the order of ``STEP_COLUMNS``."""
    return (
        s.key,
        s.path,
        s.kind,
        s.scope,
        s.occurrence,
        s.ordinal,
        s.status._value_,  # a plain str: for a subclass, sqlite3 would look for an adapter
        s.args,
        s.defaults,
        s.payload,
        s.preview,
        s.created_at,
        s.completed_at,
        s.seal or None,
        None
        if (more := (s.attempts, s.concurrent, s.draws, s.version, s.extra)) == USUAL
        else _encode_more(*more),
    )


@lru_cache(maxsize=4096)
def _encode_more(*values: Any) -> str | None:
    unusual = {name: value for name, value, usual in zip(MORE, values, USUAL, strict=True) if value != usual}
    return json.dumps(unusual, ensure_ascii=False, separators=(",", ":")) if unusual else None


@lru_cache(maxsize=4096)
def _decode_more(text: str) -> tuple[Any, ...]:
    given = json.loads(text)
    return tuple(given.get(name, usual) for name, usual in zip(MORE, USUAL, strict=True))


def run_values(run: Run) -> list[Any]:
    """What ``INSERT_RUN`` takes, but for the nonce."""
    values = [getattr(run, name) for name in RUN_COLUMNS]
    values[_STATUS] = run.status._value_
    values[_TAGS] = _encode_tags(run.tags) if run.tags else ""
    values[_FAILURES] = _encode_keys(run.open_failures) if run.open_failures else ""
    return values


def encode_run_field(name: str, value: Any) -> Any:
    """The stored form of one field of a run."""
    encode = _ENCODE.get(name)
    return value if encode is None else encode(value)


def tag_rows(run: int, tags: Tags) -> list[Row]:
    """The rows of ``run_tags`` for a run."""
    return [(run, name, value) for name, value in tag_items(tags)]


def _encode_tags(tags: Tags) -> str:
    # Not escaped to ASCII: what is no Unicode is then refused with the row, before any tag is stored.
    if not tags:
        return ""
    return json.dumps(dict(tags) if hasattr(tags, "keys") else list(tags), ensure_ascii=False)


def _encode_keys(keys: tuple[str, ...]) -> str:
    return json.dumps(list(keys), ensure_ascii=False) if keys else ""


_ENCODE: dict[str, Callable[[Any], Any]] = {
    "status": lambda status: RunStatus(status).value,
    "tags": _encode_tags,
    "open_failures": _encode_keys,
}


def signal_values(run: int, signal: Signal) -> list[Any]:
    """What ``ADD_SIGNAL`` takes."""
    return [run, *(getattr(signal, name) for name in NEW_SIGNAL)]


def item_values(run: int, item: Item) -> list[Any]:
    """What ``ADD_ITEM`` takes."""
    return [run, *(getattr(item, name) for name in ITEM_COLUMNS)]


def values_of(row: Any) -> list[Any]:
    """All fields of a row that is stored as it is."""
    return [getattr(row, name) for name in fields_of(type(row))]


# From rows to records ---------------------------------------------------------------------------------------

_STATUS = RUN_COLUMNS.index("status")
_TAGS = RUN_COLUMNS.index("tags")
_FAILURES = RUN_COLUMNS.index("open_failures")
_RETRYABLE = RUN_COLUMNS.index("retryable")
_PRUNED = RUN_COLUMNS.index("pruned")
_ASKED = SIGNAL_COLUMNS.index("asked") + 1
_REPLY_FAILED = SIGNAL_COLUMNS.index("reply_failed") + 1


# What damaged rows raise below. (Damage inside a payload is found by its checksum, above the storage.)
_DAMAGE = (AttributeError, KeyError, TypeError, ValueError)


def run_of(row: Row) -> Run:
    """A run from the columns ``RUN_COLUMNS``. Raises ``CorruptPayload`` when they make no run."""
    values = list(row)
    try:
        values[_STATUS] = _RUN_STATUS[values[_STATUS]]
        tags = json.loads(values[_TAGS]) if values[_TAGS] else ()
        values[_TAGS] = tuple(tags) if isinstance(tags, list) else tags
        values[_FAILURES] = tuple(json.loads(values[_FAILURES])) if values[_FAILURES] else ()
    except _DAMAGE as error:
        raise CorruptPayload(
            f"run {values[0]!r} is damaged in the database: {error!r}", run=values[0]
        ) from error
    values[_RETRYABLE] = values[_RETRYABLE] == 1
    values[_PRUNED] = values[_PRUNED] == 1
    return Run(*values)


def steps_of(run_id: str, rows: list[Row]) -> list[Step]:
    """Steps of one run from ``n`` and the columns ``STEP_COLUMNS``, the last of each key. Raises
    ``CorruptPayload`` if they make none."""
    steps: dict[str, Step] = {}
    try:  # one loop, written out: a journal has thousands of rows
        for n, k, p, ki, sc, oc, o, st, ar, de, pl, pr, cr, co, se, more in rows:
            at, cc, dr, ve, ex = USUAL if more is None else _decode_more(more)
            status = _STEP_STATUS[st]
            steps.pop(k, None)  # so that the last one stands in its own place
            steps[k] = Step(
                run_id, k, p, n, ki, sc, oc, o, status, at, ar, de, pl, pr, cr, co, cc, dr, ve, ex, se or b""
            )
    except _DAMAGE as error:
        raise CorruptPayload(
            f"a step of run {run_id!r} is damaged in the database, behind {len(steps)} good ones: {error!r}",
            run=run_id,
        ) from error
    return list(steps.values())


def last_of_each_key(steps: list[Step]) -> list[Step]:
    """*steps* without those that a later one replaces."""
    found: dict[str, Step] = {}
    for step in steps:
        found.pop(step.key, None)
        found[step.key] = step
    return list(found.values())


def signal_of(run_id: str, row: Row) -> Signal:
    """A message from the columns ``SIGNAL_COLUMNS``."""
    values = [row[0], run_id, *row[1:]]
    values[_ASKED] = values[_ASKED] == 1
    values[_REPLY_FAILED] = values[_REPLY_FAILED] == 1
    return Signal(*values)


def item_of(run_id: str, row: Row) -> Item:
    """An item from the columns ``ITEM_COLUMNS``."""
    return Item(run_id, *row)


def queue_of(row: Row) -> QueueRow:
    """A queue from its row."""
    queue = QueueRow(*row)
    return evolve(queue, paused=bool(queue.paused))


def schedule_of(row: Row) -> ScheduleRow:
    """A schedule from its row."""
    schedule = ScheduleRow(*row)
    return evolve(schedule, paused=bool(schedule.paused))


def attention_of(row: Row) -> Attention:
    """What a run must notice, from a row of ``attention``. Raises ``CorruptPayload``."""
    try:
        return Attention(row[0], row[1], _RUN_STATUS[row[2]], row[3], row[4])
    except KeyError as error:
        raise CorruptPayload(
            f"run {row[0]!r} is damaged in the database: status {error}", run=row[0]
        ) from error
