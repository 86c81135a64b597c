"""Records as the columns of a database, and back, for all backends that speak SQL.

Columns are named after fields and stand in the order of the record. So rows become records by position.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from operator import attrgetter
from types import UnionType
from typing import Any, NamedTuple, get_args, get_type_hints

from attrs import define, evolve

from flowdsl.core.records import (
    Attention,
    Item,
    Memo,
    QueueCounts,
    QueueRow,
    Run,
    ScheduleRow,
    Signal,
    Step,
    Tags,
    WorkerRow,
    fields_of,
    run_from,
)
from flowdsl.core.status import RunStatus
from flowdsl.errors import CorruptPayload

__all__ = [
    "ITEM_COLUMNS",
    "MEMO_COLUMNS",
    "MOST",
    "NEW_SIGNAL",
    "RUN_COLUMNS",
    "SIGNAL_COLUMNS",
    "Head",
    "Row",
    "StoredRun",
    "attention_of",
    "counts_of",
    "encode_run_field",
    "has_status",
    "head_of",
    "item_of",
    "item_values",
    "page_of_steps",
    "queue_of",
    "run_of",
    "run_values",
    "schedule_of",
    "signal_of",
    "signal_values",
    "stored_run_of",
    "tag_items",
    "values_of",
    "worker_of",
]

Row = tuple[Any, ...]

RUN_COLUMNS = list(fields_of(Run))
_of_run = attrgetter(*RUN_COLUMNS)
SIGNAL_COLUMNS = [name for name in fields_of(Signal) if name != "run_id"]
NEW_SIGNAL = [
    name for name in SIGNAL_COLUMNS if name not in ("seq", "taken_by") and not name.startswith("reply")
]
ITEM_COLUMNS = [name for name in fields_of(Item) if name != "run_id"]
MEMO_COLUMNS = list(fields_of(Memo))

_RUN_STATUS = {status.value: status for status in RunStatus}

# From records to rows ---------------------------------------------------------------------------------------


def run_values(run: Run) -> list[Any]:
    """The columns of a run."""
    values = list(_of_run(run))
    values[_STATUS] = run.status._value_
    values[_TAGS] = _encode_tags(run.tags) if run.tags else ""
    values[_FAILURES] = _encode_keys(run.open_failures) if run.open_failures else ""
    return values


def encode_run_field(name: str, value: Any) -> Any:
    """The stored form of one field of a run."""
    encode = _ENCODE.get(name)
    return value if encode is None else encode(value)


def tag_items(tags: Tags) -> list[tuple[str, str | None]]:
    """Tags as pairs. A tag that is only a name has the value ``None``."""
    return list(tags.items()) if isinstance(tags, Mapping) else [(name, None) for name in dict.fromkeys(tags)]


def _encode_tags(tags: Tags) -> str:
    # Not escaped to ASCII. So text that is no Unicode is refused with the row, before any tag is stored.
    if not tags:
        return ""
    return json.dumps(dict(tags) if isinstance(tags, Mapping) else list(tags), ensure_ascii=False)


def _encode_keys(keys: tuple[str, ...]) -> str:
    return json.dumps(list(keys), ensure_ascii=False) if keys else ""


_ENCODE: dict[str, Callable[[Any], Any]] = {
    "status": lambda status: (status if type(status) is RunStatus else RunStatus(status))._value_,
    "tags": _encode_tags,
    "open_failures": _encode_keys,
}


def signal_values(run: int, signal: Signal) -> list[Any]:
    """The columns of a new message, after the number of its run."""
    return [run, *(getattr(signal, name) for name in NEW_SIGNAL)]


def item_values(run: int, item: Item) -> list[Any]:
    """The columns of an item, after the number of its run."""
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


# What damaged rows raise below. (A checksum above the storage finds damage inside a payload.)
_DAMAGE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)

_STORED: dict[Any, tuple[type, ...]] = {
    str: (str,),
    bytes: (bytes,),
    int: (int,),
    float: (float, int),
    bool: (bool, int),
    type(None): (type(None),),
}
MOST = 2**62  # above it, counting on would leave the column


def _types_of(row: type[Any]) -> list[frozenset[type]]:
    """What may stand in the columns of *row*: what is not in the table above is stored as text."""
    found = get_type_hints(row)
    hints = [found[name] for name in fields_of(row)]
    kinds = [get_args(hint) if isinstance(hint, UnionType) else (hint,) for hint in hints]
    return [frozenset(kind for one in each for kind in _STORED.get(one, (str,))) for each in kinds]


_TYPES = {row: _types_of(row) for row in (Run, ScheduleRow, WorkerRow)}
_COUNTED = [RUN_COLUMNS.index(name) for name in ("epoch", "recoveries", "generation")]
_MOMENTS = [place for place, name in enumerate(RUN_COLUMNS) if name.endswith("_at")]
_LEASE = RUN_COLUMNS.index("lease_until")
_seen: set[tuple[type, ...]] = set()  # types of good rows of runs, so that most are looked up at once


def run_of(row: Row) -> Run:
    """A run from the columns ``RUN_COLUMNS``. Raises ``CorruptPayload`` if they make no run."""
    values = list(row)
    try:
        _check_run(values)
        values[_STATUS] = _RUN_STATUS[values[_STATUS]]
        values[_TAGS] = _decode_tags(values[_TAGS]) if values[_TAGS] else ()
        values[_FAILURES] = tuple(_texts(json.loads(values[_FAILURES]))) if values[_FAILURES] else ()
    except _DAMAGE as error:
        run_id = values[0] if isinstance(values[0], str) else repr(values[0])
        raise CorruptPayload(f"run {run_id!r} is damaged in the database: {error!r}", run=run_id) from error
    values[_RETRYABLE] = values[_RETRYABLE] == 1
    values[_PRUNED] = values[_PRUNED] == 1
    return run_from(values)


class StoredRun(NamedTuple):
    """A run with the number of its row, and the nonce of its last opening or claim."""

    no: int
    nonce: str
    run: Run


def stored_run_of(row: Row) -> StoredRun:
    """A run from its number, its nonce and the columns ``RUN_COLUMNS``. Raises ``CorruptPayload`` if they
    make no run."""
    return StoredRun(row[0], row[1], run_of(row[2:]))


@define(slots=True, eq=False, repr=False)
class Head:
    """What most operations need of a run. ``no`` is the number of its row, ``last`` the seq of its last
    step."""

    no: int
    epoch: int
    status: RunStatus
    last: int

    def grew(self) -> int:
        """A step was appended. Returns its seq."""
        self.last += 1
        return self.last


def has_status(row: Sequence[Any]) -> bool:
    """Whether the row of a head names a status. Otherwise it is damaged."""
    return row[2] in _RUN_STATUS


def head_of(run_id: str, row: Sequence[Any]) -> Head:
    """A head from its columns. Raises ``CorruptPayload`` if they make none."""
    no, epoch, status, last = row
    if status not in _RUN_STATUS:
        raise CorruptPayload(f"run {run_id!r} is damaged in the database: status {status!r}", run=run_id)
    return Head(no, epoch, _RUN_STATUS[status], last)


def _check_run(values: list[Any]) -> None:
    types = tuple(map(type, values))
    if types not in _seen:
        _check_types(RUN_COLUMNS, types, _TYPES[Run])
        if len(_seen) < 1000:
            _seen.add(types)
    for place in _COUNTED:
        if values[place] >= MOST:
            raise ValueError(f"{RUN_COLUMNS[place]} is {values[place]}")
    for place in _MOMENTS:
        if values[place] is not None and not isfinite(values[place]):
            raise ValueError(f"{RUN_COLUMNS[place]} is {values[place]}")
    if values[_LEASE] != values[_LEASE]:
        raise ValueError("lease_until is no number")
    if not values[0]:
        raise ValueError("it has no id")


def _check_types(names: Iterable[str], types: Iterable[type], allowed: Iterable[frozenset[type]]) -> None:
    for name, kind, good in zip(names, types, allowed, strict=True):
        if kind not in good:
            raise TypeError(f"{name} holds {kind.__name__}")


def _decode_tags(text: str) -> Tags:
    tags = json.loads(text)
    if isinstance(tags, dict):
        _texts(tags.values())
        return tags
    return tuple(_texts(tags))


def _texts(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{value!r:.80} is no text")
    return values


def _last_of_each_key(steps: list[Step]) -> list[Step]:
    """*steps* without those that a later one replaces."""
    found: dict[str, Step] = {}
    for step in steps:
        found.pop(step.key, None)
        found[step.key] = step
    return list(found.values())


def page_of_steps(read: Callable[[int, int | None], list[Step]], after: int, limit: int | None) -> list[Step]:
    """A whole page of the steps behind *after*. *read* gives those behind a place, *limit* rows at most.

    Some rows of a page replace others of it, so more are read until the page is full.
    """
    steps = read(after, limit)
    while limit is not None and len(steps) < limit:
        more = read(steps[-1].seq if steps else after, limit - len(steps))
        if not more:
            break
        steps = _last_of_each_key([*steps, *more])
    return steps


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
    """A schedule from its row. Raises ``CorruptPayload`` if it makes none."""
    _check_row("schedule", ScheduleRow, row)
    schedule = ScheduleRow(*row)
    return evolve(schedule, paused=bool(schedule.paused))


def worker_of(row: Row) -> WorkerRow:
    """A worker from its row. Raises ``CorruptPayload`` if it makes none."""
    _check_row("worker", WorkerRow, row)
    return WorkerRow(*row)


def _check_row(what: str, cls: type[Any], row: Row) -> None:
    names = list(fields_of(cls))
    try:
        _check_types(names, map(type, row), _TYPES[cls])
        if not row[0]:
            raise ValueError("it has no name")
    except (TypeError, ValueError) as error:
        raise CorruptPayload(f"{what} {row[0]!r} is damaged in the database: {error}") from error


def counts_of(row: Row) -> tuple[str, QueueCounts]:
    """How many runs of a queue there are, and when the oldest was made, if that is known."""
    name, pending, running, oldest = row
    return str(name), QueueCounts(pending, running, oldest if isinstance(oldest, int | float) else None)


def attention_of(row: Row) -> Attention:
    """What a run must know, from a row of id, epoch, status, request to cancel and count. Raises
    ``CorruptPayload``."""
    try:
        return Attention(row[0], row[1], _RUN_STATUS[row[2]], row[3], row[4])
    except (KeyError, TypeError) as error:
        raise CorruptPayload(
            f"run {row[0]!r} is damaged in the database: status {error}", run=row[0]
        ) from error
