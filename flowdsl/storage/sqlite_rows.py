"""All SQL of the SQLite storage, and how records become rows and rows records.

Statements hold placeholders only. What is put together here is put together from the names in this module,
never from what a caller gave.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from attrs import fields

from flowdsl.core.records import Memo, Run, RunFilter, Signal, Step, Tags
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.errors import CorruptPayload
from flowdsl.storage.base import Attention

Row = tuple[Any, ...]

# Columns are named as fields and stand in the order of the record, so that rows become records by position.
RUN_COLUMNS = [a.name for a in fields(Run)]
SIGNAL_COLUMNS = [a.name for a in fields(Signal) if a.name != "run_id"]
MEMO_COLUMNS = [a.name for a in fields(Memo)]

# What most steps have in common stands in one column, ``more``: JSON, or NULL where all is as usual. Each
# column costs as much to read as the row itself, times ten thousand.
_MORE = ("attempts", "concurrent", "draws", "version", "extra")
_USUAL = (1, False, 0, "", "")
STEP_COLUMNS = [name for name in Step._fields if name not in ("run_id", *_MORE)] + ["more"]
_STEP_VALUES = [name for name in STEP_COLUMNS if name != "seq"]
_RUN_STATUS = {status.value: status for status in RunStatus}
_STEP_STATUS = {status.value: status for status in StepStatus}


def _list(names: list[str], prefix: str = "") -> str:
    return ", ".join(prefix + name for name in names)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


# ------------------------------------------------------------------------------------------------- statemen

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
DATA_VERSION = "PRAGMA data_version"

# One statement is one transaction: the epoch is checked and the step stored without BEGIN and COMMIT around
# it. No row is stored, and none changed, when the run is missing or fenced or has the step already.
INSERT_STEP = f"""
    INSERT OR IGNORE INTO steps (run, {_list(_STEP_VALUES)})
    SELECT no, {_marks(len(_STEP_VALUES))} FROM runs WHERE id = ? AND pruned = 0"""
INSERT_STEP_FENCED = INSERT_STEP + " AND epoch = ?"

UPSERT_STEP = f"""
    INSERT INTO steps (seq, run, {_list(_STEP_VALUES)}) VALUES (?, ?, {_marks(len(_STEP_VALUES))})
    ON CONFLICT (run, key) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in STEP_COLUMNS)}"""
HIGHEST_SEQ = "SELECT max(seq) FROM steps"
STEP_SEQ = "SELECT seq FROM steps WHERE run = ? AND key = ?"
DROP_STEP = "DELETE FROM steps WHERE run = ? AND key = ?"
DROP_STEPS_OF_RUN = "DELETE FROM steps WHERE run = ?"
KEEP_SEQ = f"""
    INSERT OR REPLACE INTO steps (seq, run, {_list(_STEP_VALUES)})
    VALUES (?, 0, '', '', '', '', 0, 0, '', '', '', NULL, '', 0, NULL, NULL)"""

RUN_HEAD = "SELECT no, epoch, status FROM runs WHERE id = ? AND pruned = 0"
RUN_BY_ID = f"SELECT no, nonce, {_list(RUN_COLUMNS)} FROM runs WHERE id = ?"
RUN_BY_NO = f"SELECT {_list(RUN_COLUMNS)} FROM runs WHERE no = ?"
RUN_BY_NONCE = (
    f"SELECT {_list(RUN_COLUMNS)} FROM runs WHERE nonce = ? AND nonce <> '' AND owner IS ? AND key = ?"
)
INSERT_RUN = f"INSERT INTO runs ({_list(RUN_COLUMNS)}, nonce) VALUES ({_marks(len(RUN_COLUMNS) + 1)})"
REPLACE_RUN = f"REPLACE INTO runs (no, {_list(RUN_COLUMNS)}) VALUES ({_marks(len(RUN_COLUMNS) + 1)})"
DELETE_RUN = "DELETE FROM runs WHERE no = ?"
HIGHEST_NUMBER_AND_EPOCH = """
    SELECT (SELECT max(number) FROM runs WHERE key = ?), (SELECT value FROM counters WHERE name = 'epoch')"""

_LIVE = "FROM runs WHERE number IS NOT NULL AND status IN ('pending', 'running') AND key = ?"
LIVE_UNOWNED = f"SELECT number, no {_LIVE} AND owner IS NULL ORDER BY number LIMIT ?"
LIVE_OWNED = f"SELECT number, no {_LIVE} AND owner = ? ORDER BY number LIMIT ?"
LIVE_OWNER_AFTER = f"SELECT owner {_LIVE} AND owner > ? ORDER BY owner LIMIT 1"
FAILED_RETRYABLE = """
    SELECT number, no FROM runs
    WHERE number IS NOT NULL AND status = 'failed' AND retryable = 1 AND key = ? ORDER BY number LIMIT ?"""

ADD_TAG = "INSERT INTO run_tags (run, name, value) VALUES (?, ?, ?)"
DROP_TAGS = "DELETE FROM run_tags WHERE run = ?"

_SIGNAL_VALUES = [name for name in SIGNAL_COLUMNS if name not in ("seq", "taken_by")]
ADD_SIGNAL = f"INSERT INTO signals (run, {_list(_SIGNAL_VALUES)}) VALUES (?, {_marks(len(_SIGNAL_VALUES))})"
SAME_SIGNAL = """
    SELECT seq FROM signals WHERE run = ? AND id = ?
    UNION ALL SELECT seq FROM signals WHERE run = ? AND name = ? AND key = ? AND key IS NOT NULL"""
SIGNAL_TAKEN_BY = "SELECT taken_by FROM signals WHERE run = ? AND id = ?"
TAKE_SIGNAL = "UPDATE signals SET taken_by = ? WHERE run = ? AND id = ?"
DROP_SIGNALS = "DELETE FROM signals WHERE run = ?"

PUT_MEMO = f"REPLACE INTO memos ({_list(MEMO_COLUMNS)}) VALUES ({_marks(len(MEMO_COLUMNS))})"
DROP_MEMO = "DELETE FROM memos WHERE key = ?"
GET_MEMO = f"SELECT {_list(MEMO_COLUMNS)} FROM memos WHERE key = ?"

KEEP_EPOCH = "UPDATE counters SET value = max(value, ?) WHERE name = 'epoch'"
HIGHEST_EPOCH = "SELECT coalesce(max(epoch), 0) FROM runs"
CLEAR = [
    "DELETE FROM runs",
    "DELETE FROM run_tags",
    "DELETE FROM steps",
    "DELETE FROM signals",
    "DELETE FROM memos",
]

GET_RUN = f"SELECT {_list(RUN_COLUMNS)} FROM runs WHERE id = ? AND pruned = 0"
GET_STEP = f"""
    SELECT {_list(STEP_COLUMNS)} FROM steps
    WHERE run = (SELECT no FROM runs WHERE id = ? AND pruned = 0) AND key = ?"""
# The inner query walks the index of the run and yields sorted row numbers: wide rows are never sorted.
LIST_STEPS = f"""
    SELECT {_list(STEP_COLUMNS)} FROM steps WHERE seq IN (
        SELECT seq FROM steps WHERE run = (SELECT no FROM runs WHERE id = ? AND pruned = 0) AND seq > ?)
    ORDER BY seq LIMIT ?"""
_SIGNALS = f"""
    SELECT {_list(SIGNAL_COLUMNS)} FROM signals
    WHERE run = (SELECT no FROM runs WHERE id = ? AND pruned = 0)"""


@lru_cache(maxsize=512)
def update_run(columns: tuple[str, ...]) -> str:
    """The statement that sets *columns* (names of ours) of the run of a number."""
    return f"UPDATE runs SET {', '.join(name + ' = ?' for name in columns)} WHERE no = ?"


@lru_cache(maxsize=512)
def update_run_if(columns: tuple[str, ...], fenced: bool, statuses: int) -> str:
    """The statement that sets *columns* of the run of an id, if its epoch and status are as asked for."""
    sql = f"UPDATE runs SET {', '.join(name + ' = ?' for name in columns)} WHERE id = ? AND pruned = 0"
    if fenced:
        sql += " AND epoch = ?"
    return sql + f" AND status IN ({_marks(statuses)})" if statuses else sql


@lru_cache(maxsize=8)
def run_heads(count: int) -> str:
    """The statement that reads, of *count* runs, their id and what ``RUN_HEAD`` reads."""
    return f"SELECT id, no, epoch, status FROM runs WHERE pruned = 0 AND id IN ({_marks(count)})"


@lru_cache(maxsize=8)
def attention(count: int) -> str:
    """The statement that reads what *count* runs must notice."""
    return f"""
        SELECT id, epoch, status, cancel_requested,
            (SELECT count(*) FROM signals WHERE run = runs.no AND taken_by IS NULL)
        FROM runs WHERE pruned = 0 AND id IN ({_marks(count)})"""


def list_signals(run_id: str, name: str | None, unread: bool, limit: int | None) -> tuple[str, list[Any]]:
    """Statement and values for ``Storage.list_signals``."""
    sql, values = _SIGNALS, [run_id]
    if name is not None:
        sql += " AND name = ?"
        values.append(name)
    if unread:
        sql += " AND taken_by IS NULL"
    return sql + " ORDER BY seq LIMIT ?", [*values, _limit(limit)]


def list_runs(where: RunFilter) -> tuple[str, list[Any]]:
    """Statement and values for ``Storage.list_runs``."""
    terms = ["pruned = 0"]
    values: list[Any] = []

    def term(text: str, *given: Any) -> None:
        terms.append(text)
        values.extend(given)

    if where.status:
        term(
            f"status IN ({_marks(len(where.status))})", *(RunStatus(status).value for status in where.status)
        )
    for name in ("workflow", "key", "parent"):
        if getattr(where, name) is not None:
            term(f"{name} = ?", getattr(where, name))
    for tag, value in _tag_rows(where.tags):
        if isinstance(where.tags, Mapping):
            term("no IN (SELECT run FROM run_tags WHERE name = ? AND value = ?)", tag, value)
        else:
            term("no IN (SELECT run FROM run_tags WHERE name = ?)", tag)
    if where.created_after is not None:
        term("created_at >= ?", where.created_after)
    if where.created_before is not None:
        term("created_at < ?", where.created_before)
    if where.after is not None:
        side = "<" if where.newest_first else ">"
        term(
            f"(created_at, id) {side} (SELECT created_at, id FROM runs WHERE id = ? AND pruned = 0)",
            where.after,
        )
    order = "created_at DESC, id DESC" if where.newest_first else "created_at, id"
    sql = f"SELECT {_list(RUN_COLUMNS)} FROM runs WHERE {' AND '.join(terms)} ORDER BY {order} LIMIT ?"
    return sql, [*values, _limit(where.limit)]


def list_steps(run_id: str, after: int, limit: int | None) -> Row:
    """Values for ``LIST_STEPS``."""
    return run_id, after, _limit(limit)


def _limit(limit: int | None) -> int:
    return -1 if limit is None else limit


# --------------------------------------------------------------------------------------------- records → ro


def step_values(s: Step) -> Row:
    """What ``INSERT_STEP`` takes, but for the run and its epoch."""
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
        None
        if (more := (s.attempts, s.concurrent, s.draws, s.version, s.extra)) == _USUAL
        else _encode_more(*more),
    )


@lru_cache(maxsize=4096)
def _encode_more(*values: Any) -> str | None:
    unusual = {
        name: value for name, value, usual in zip(_MORE, values, _USUAL, strict=True) if value != usual
    }
    return json.dumps(unusual, ensure_ascii=False, separators=(",", ":")) if unusual else None


@lru_cache(maxsize=4096)
def _decode_more(text: str) -> tuple[Any, ...]:
    given = json.loads(text)
    return tuple(given.get(name, usual) for name, usual in zip(_MORE, _USUAL, strict=True))


def run_values(r: Run) -> Row:
    """What ``INSERT_RUN`` takes, but for the nonce."""
    return (
        r.id,
        r.workflow,
        r.key,
        r.number,
        r.status._value_,
        r.args,
        r.args_preview,
        _encode_tags(r.tags) if r.tags else "",
        r.created_at,
        r.finished_at,
        r.deadline,
        r.owner,
        r.epoch,
        r.lease_until,
        r.result,
        r.result_preview,
        r.error,
        r.error_preview,
        _encode_keys(r.open_failures) if r.open_failures else "",
        r.retryable,
        r.undoing,
        r.cancel_requested,
        r.parent,
        r.parent_key,
        r.forked_from,
        r.floor,
        r.recoveries,
        r.version,
        r.pruned,
    )


def encode_run_field(name: str, value: Any) -> Any:
    """The stored form of one field of a run."""
    encode = _ENCODE.get(name)
    return value if encode is None else encode(value)


def tag_rows(run: int, tags: Tags) -> list[Row]:
    """The rows of ``run_tags`` for a run."""
    return [(run, name, value) for name, value in _tag_rows(tags)]


def _tag_rows(tags: Tags) -> list[tuple[str, str | None]]:
    return list(tags.items()) if isinstance(tags, Mapping) else [(name, None) for name in dict.fromkeys(tags)]


def _encode_tags(tags: Tags) -> str:
    # Not escaped to ASCII: what is no Unicode is then refused with the row, before any tag is stored.
    return (
        json.dumps(dict(tags) if isinstance(tags, Mapping) else list(tags), ensure_ascii=False)
        if tags
        else ""
    )


def _encode_keys(keys: tuple[str, ...]) -> str:
    return json.dumps(list(keys), ensure_ascii=False) if keys else ""


_ENCODE: dict[str, Callable[[Any], Any]] = {
    "status": lambda status: RunStatus(status).value,
    "tags": _encode_tags,
    "open_failures": _encode_keys,
}


def signal_values(run: int, signal: Signal) -> list[Any]:
    """What ``ADD_SIGNAL`` takes."""
    return [run, *(getattr(signal, name) for name in _SIGNAL_VALUES)]


def memo_values(memo: Memo) -> list[Any]:
    """What ``PUT_MEMO`` takes."""
    return [getattr(memo, name) for name in MEMO_COLUMNS]


# --------------------------------------------------------------------------------------------- rows → recor

_STATUS = RUN_COLUMNS.index("status")
_TAGS = RUN_COLUMNS.index("tags")
_FAILURES = RUN_COLUMNS.index("open_failures")
_RETRYABLE = RUN_COLUMNS.index("retryable")
_PRUNED = RUN_COLUMNS.index("pruned")


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
    """Steps of one run from the columns ``STEP_COLUMNS``. Raises ``CorruptPayload`` if they make none."""
    steps = []
    try:  # one loop, written out: a journal has thousands of rows
        for k, p, n, ki, sc, oc, o, st, ar, de, pl, pr, cr, co, more in rows:
            at, cc, dr, ve, ex = _USUAL if more is None else _decode_more(more)
            status = _STEP_STATUS[st]
            steps.append(
                Step(run_id, k, p, n, ki, sc, oc, o, status, at, ar, de, pl, pr, cr, co, cc, dr, ve, ex)
            )
    except _DAMAGE as error:
        raise CorruptPayload(
            f"a step of run {run_id!r} is damaged in the database, behind {len(steps)} good ones: {error!r}",
            run=run_id,
        ) from error
    return steps


def signal_of(run_id: str, row: Row) -> Signal:
    """A signal from the columns ``SIGNAL_COLUMNS``."""
    return Signal(row[0], run_id, *row[1:])


def attention_of(row: Row) -> Attention:
    """What a run must notice, from a row of :func:`attention`. Raises ``CorruptPayload``."""
    try:
        return Attention(row[0], row[1], _RUN_STATUS[row[2]], row[3], row[4])
    except KeyError as error:
        raise CorruptPayload(
            f"run {row[0]!r} is damaged in the database: status {error}", run=row[0]
        ) from error
