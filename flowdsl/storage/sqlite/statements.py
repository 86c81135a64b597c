"""The SQL of what the SQLite storage writes, and reads for it.

Statements hold placeholders only. They are put together from the names in this module, never from what a
caller gave.

In the database a step's ``seq`` is ``runs.no << 32 | n``. So the steps of a run stand together, in order, in
the table's one b-tree. Outside the database, ``n`` is called ``seq``.
"""

from functools import lru_cache
from typing import Any

from flowdsl.core.records import (
    QueueRow,
    ScheduleRow,
    Step,
    WorkerRow,
    fields_of,
)
from flowdsl.storage.columns import (
    ITEM_COLUMNS,
    MEMO_COLUMNS,
    RUN_COLUMNS,
)
from flowdsl.storage.sqlite.fragments import marks, names

__all__: list[str] = []

# What most steps have in common stands in one column, ``more``: JSON, or NULL if all is as usual. A column
# costs as much to read as the row itself, and there may be ten thousand rows.
MORE = ("attempts", "concurrent", "draws", "version", "extra")
USUAL = (1, False, 0, "", "")
STEP_COLUMNS = [name for name in Step._fields if name not in ("run_id", "seq", *MORE)] + ["more"]


# Transactions -----------------------------------------------------------------------------------------------

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
DATA_VERSION = "PRAGMA data_version"

# Steps ------------------------------------------------------------------------------------------------------


# One statement is one transaction. It checks the epoch and stores the step without BEGIN and COMMIT. It
# stores no row if the run is missing or fenced, or if another process has stored a step of this number.
@lru_cache(maxsize=64)
def append_step(columns: tuple[str, ...], fenced: bool) -> str:
    """The statement that stores a step with these *columns*; the others are NULL."""
    sql = f"""
        INSERT OR IGNORE INTO steps (seq, {names(columns)})
        SELECT ?, {marks(len(columns))} FROM runs WHERE no = ? AND id = ? AND pruned = 0"""
    return sql + " AND epoch = ?" if fenced else sql


# The last step of the run, whatever was deleted. A run without steps begins at its own number.
_LAST = "max(no << 32 | base, coalesce((SELECT max(seq) FROM steps WHERE seq < (runs.no + 1) << 32), 0))"
_RANGE = "seq > ? << 32 AND seq < (? + 1) << 32"
STEP_OF_KEY = f"SELECT seq & 4294967295 FROM steps WHERE {_RANGE} AND key = ? ORDER BY seq DESC LIMIT 1"
KEEP_LAST = "UPDATE runs SET base = ? & 4294967295 WHERE no = ?"
DROP_STEP = f"DELETE FROM steps WHERE {_RANGE} AND key = ?"
DROP_STEPS_OF_RUN = f"DELETE FROM steps WHERE {_RANGE}"

# Runs -------------------------------------------------------------------------------------------------------

_HEAD = f"no, epoch, status, {_LAST}"
RUN_HEAD = f"SELECT {_HEAD} FROM runs WHERE id = ? AND pruned = 0"
RUN_BY_ID = f"SELECT no, nonce, {names(RUN_COLUMNS)} FROM runs WHERE id = ?"
RUN_BY_NO = f"SELECT {names(RUN_COLUMNS)} FROM runs WHERE no = ?"
REPLACE_RUN = f"REPLACE INTO runs (no, base, {names(RUN_COLUMNS)}) VALUES (?, 0, {marks(len(RUN_COLUMNS))})"
DELETE_RUN = "DELETE FROM runs WHERE no = ?"
# Where a new run stands: the highest number and epoch so far, and whether it was opened before.
OPENING = """
    SELECT (SELECT max(number) FROM runs WHERE key = ?1), (SELECT value FROM counters WHERE name = 'epoch'),
        (SELECT no FROM runs WHERE nonce = ?2 AND nonce <> '' AND owner IS ?3 AND key = ?1)"""
HIGHEST_SOUND_NUMBER = """
    SELECT max(number) FROM runs
    WHERE key = ? AND typeof(number) = 'integer' AND number < 4611686018427387904"""
PULSE = "UPDATE runs SET pulse = pulse + 1 WHERE no = ?"

_LIVE = "FROM runs WHERE number IS NOT NULL AND status IN ('pending', 'running') AND key = ?"
LIVE_UNOWNED = f"SELECT number, no {_LIVE} AND owner IS NULL ORDER BY number LIMIT ?"
LIVE_OWNED = f"SELECT number, no {_LIVE} AND owner = ? ORDER BY number LIMIT ?"
LIVE_OWNER_AFTER = f"SELECT owner {_LIVE} AND owner > ? ORDER BY owner LIMIT 1"
_FAILED = "FROM runs WHERE number IS NOT NULL AND status = 'failed' AND retryable = 1 AND key = ?"
FAILED_RETRYABLE = f"SELECT number, no {_FAILED} ORDER BY number LIMIT ?"
_ANY_LIVE = _LIVE.replace("FROM runs", "FROM runs INDEXED BY runs_live")  # else it reads all of the key
MAY_CONTINUE = f"SELECT EXISTS (SELECT 1 {_ANY_LIVE}) OR EXISTS (SELECT 1 {_FAILED})"

SAME_WORK = f"""
    SELECT nonce, {names(RUN_COLUMNS)} FROM runs
    WHERE dedup = ? AND workflow = ? AND queue IS ? AND status IN ('pending', 'running') AND pruned = 0
    LIMIT 1"""


ADD_TAG = "INSERT INTO run_tags (run, name, value) VALUES (?, ?, ?)"
DROP_TAGS = "DELETE FROM run_tags WHERE run = ?"

KEEP_EPOCH = "UPDATE counters SET value = max(value, ?) WHERE name = 'epoch'"
HIGHEST_EPOCH = "SELECT coalesce(max(epoch), 0) FROM runs"
_TABLES = (
    *("runs", "run_tags", "steps", "signals", "items", "memos"),
    *("queues", "schedules", "workers"),
)
CLEAR = [f"DELETE FROM {table}" for table in _TABLES]


@lru_cache(maxsize=512)
def update_run(columns: tuple[str, ...], emptied: tuple[str, ...]) -> str:
    """The statement that sets *columns* (names of ours) of the run with a given number, and makes those that
    are *emptied* NULL."""
    return f"UPDATE runs SET pulse = pulse + 1{_assigned(columns, emptied)} WHERE no = ?"


@lru_cache(maxsize=512)
def update_run_if(columns: tuple[str, ...], emptied: tuple[str, ...], fenced: bool, statuses: int) -> str:
    """The same for the run with an id, if its epoch and status are as asked for."""
    pulse = "pulse" if columns == ("lease_until",) and not emptied else "pulse + 1"  # a lease is no news
    sql = f"UPDATE runs SET pulse = {pulse}{_assigned(columns, emptied)} WHERE id = ? AND pruned = 0"
    if fenced:
        sql += " AND epoch = ?"
    return sql + f" AND status IN ({marks(statuses)})" if statuses else sql


def _assigned(columns: tuple[str, ...], emptied: tuple[str, ...]) -> str:
    given = "".join(f', "{name}" = ?' for name in columns)
    return given + "".join(f', "{name}" = NULL' for name in emptied)


@lru_cache(maxsize=256)
def insert(table: str, columns: tuple[str, ...], null: tuple[str, ...] = ()) -> str:
    """The statement that adds a row to *table* with values for *columns* (names of ours), and NULL in those
    that are *null*."""
    values = ", ".join(["?"] * len(columns) + ["NULL"] * len(null))
    return f"INSERT INTO {table} ({names(columns + null)}) VALUES ({values})"


@lru_cache(maxsize=8)
def run_heads(count: int) -> str:
    """The statement that reads, of *count* runs, their id and what ``RUN_HEAD`` reads."""
    return f"SELECT id, {_HEAD} FROM runs WHERE pruned = 0 AND id IN ({marks(count)})"


# Messages, items, memos -------------------------------------------------------------------------------------

SAME_SIGNAL = """
    SELECT seq FROM signals WHERE run = ? AND id = ?
    UNION ALL SELECT seq FROM signals WHERE run = ? AND name = ? AND key = ? AND key IS NOT NULL"""
SIGNAL_TAKEN_BY = "SELECT taken_by FROM signals WHERE run = ? AND id = ?"
TAKE_SIGNAL = "UPDATE signals SET taken_by = ? WHERE run = ? AND id = ?"
SIGNAL_REPLY = "SELECT reply IS NOT NULL FROM signals WHERE run = ? AND id = ?"
REPLY = """
    UPDATE signals SET reply = ?, reply_preview = ?, reply_failed = ?, reply_seal = ?
    WHERE run = ? AND id = ?"""
DROP_SIGNALS = "DELETE FROM signals WHERE run = ?"
DROP_TAKEN = "DELETE FROM signals WHERE run = ? AND taken_by IS NOT NULL AND NOT asked"
HAS_ITEM = "SELECT 1 FROM items WHERE run = ? AND channel = ? AND n = ?"
ADD_ITEM = f"INSERT INTO items (run, {names(ITEM_COLUMNS)}) VALUES (?, {marks(len(ITEM_COLUMNS))})"
DROP_ITEMS = "DELETE FROM items WHERE run = ?"
PUT_MEMO = f"REPLACE INTO memos ({names(MEMO_COLUMNS)}) VALUES ({marks(len(MEMO_COLUMNS))})"
DROP_MEMO = "DELETE FROM memos WHERE key = ?"
_REWRITTEN = {
    "run": "UPDATE runs SET {} WHERE id = ?",
    "step": "UPDATE steps SET {} WHERE seq = (SELECT no FROM runs WHERE id = ? AND pruned = 0) << 32 | ?",
    "signal": """
        UPDATE signals SET {} WHERE run = (SELECT no FROM runs WHERE id = ? AND pruned = 0) AND id = ?""",
    "item": """
        UPDATE items SET {} WHERE run = (SELECT no FROM runs WHERE id = ? AND pruned = 0)
        AND channel = ? AND n = ?""",
    "memo": "UPDATE memos SET {} WHERE key = ?",
    "queue": "UPDATE queues SET {} WHERE name = ?",
    "schedule": "UPDATE schedules SET {} WHERE name = ?",
}


def rewrite(kind: str, fields: tuple[str, ...]) -> str:
    """The statement that replaces *fields* (names of ours) of a record that has the expected ones."""
    sets = ", ".join(f'"{name}" = ?' for name in fields)
    return _REWRITTEN[kind].format(sets) + "".join(f' AND coalesce("{name}", 0) IS ?' for name in fields)


# Queues, schedules, workers ---------------------------------------------------------------------------------


def _put(table: str, row: type[Any]) -> str:
    columns = list(fields_of(row))
    return f"REPLACE INTO {table} ({names(columns)}) VALUES ({marks(len(columns))})"


PUT_QUEUE = _put("queues", QueueRow)
HAS_QUEUE = "SELECT 1 FROM queues WHERE name = ?"
DROP_QUEUE = "DELETE FROM queues WHERE name = ?"

PUT_SCHEDULE = _put("schedules", ScheduleRow)
GET_SCHEDULE = f"SELECT {names(list(fields_of(ScheduleRow)))} FROM schedules WHERE name = ?"
HAS_SCHEDULE = "SELECT 1 FROM schedules WHERE name = ?"
DROP_SCHEDULE = "DELETE FROM schedules WHERE name = ?"

PUT_WORKER = _put("workers", WorkerRow)
DROP_WORKER = "DELETE FROM workers WHERE id = ?"
