"""The SQL of what is read outside a commit, in SQLite."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flowdsl.core.records import QueueRow, RunFilter, ScheduleRow, WorkerRow, fields_of
from flowdsl.core.status import RunStatus
from flowdsl.storage.columns import ITEM_COLUMNS, MEMO_COLUMNS, RUN_COLUMNS, SIGNAL_COLUMNS, tag_items
from flowdsl.storage.sqlite.fragments import marks, names
from flowdsl.storage.sqlite.statements import STEP_COLUMNS

__all__ = ["ReadStatements", "attention", "pulses"]

_RUN_OF = "(SELECT no FROM runs WHERE id = ?1 AND pruned = 0)"
_STEPS = f"SELECT seq & 4294967295, {names(STEP_COLUMNS)} FROM steps"
_ITEMS = f"SELECT {names(ITEM_COLUMNS)} FROM items WHERE run = {_RUN_OF} AND channel = ?2"
_SIGNALS = "FROM signals WHERE run = (SELECT no FROM runs WHERE id = ? AND pruned = 0)"
_MEMOS = f"SELECT {names(MEMO_COLUMNS)} FROM memos"
_BARE_RUN = names(RUN_COLUMNS).replace('"args"', "x''").replace('"result"', "NULL").replace('"error"', "NULL")
_BARE_SIGNAL = names(SIGNAL_COLUMNS).replace('"payload"', "x''").replace('"reply"', "NULL")
# No limit is NULL, as elsewhere. For SQLite it is -1.
_LIMIT = "LIMIT coalesce(?, -1)"


def _all(table: str, row: type[Any]) -> str:
    columns = list(fields_of(row))
    return f'SELECT {names(columns)} FROM {table} ORDER BY "{columns[0]}"'


class ReadStatements:
    """The statements that :class:`~flowdsl.storage.reading.SQLReading` sends."""

    get_run = f"SELECT {names(RUN_COLUMNS)} FROM runs WHERE id = ? AND pruned = 0"
    get_step = f"""
        {_STEPS} WHERE seq > {_RUN_OF} << 32 AND seq < ({_RUN_OF} + 1) << 32 AND key = ?2
        ORDER BY seq DESC LIMIT 1"""
    list_steps = f"""
        {_STEPS} WHERE seq > {_RUN_OF} << 32 | ?2 AND seq < ({_RUN_OF} + 1) << 32
        ORDER BY seq LIMIT coalesce(?3, -1)"""
    list_steps_bare = list_steps.replace('"payload"', "NULL")
    get_signal = f"SELECT {names(SIGNAL_COLUMNS)} FROM signals WHERE run = {_RUN_OF} AND id = ?2"
    list_items = f"{_ITEMS} AND n > ?3 ORDER BY n LIMIT coalesce(?4, -1)"
    last_item = f"{_ITEMS} ORDER BY n DESC LIMIT 1"
    list_channels = f"""
        SELECT channel, count(*) FROM items WHERE run = {_RUN_OF} GROUP BY channel ORDER BY channel"""
    get_memo = f"{_MEMOS} WHERE key = ?"
    list_memos = f"{_MEMOS} WHERE key > ? ORDER BY key {_LIMIT}"
    queue_counts = """
        SELECT queue, sum(status = 'pending'), sum(status = 'running'),
            min(CASE WHEN status = 'pending' THEN created_at END)
        FROM runs WHERE status IN ('pending', 'running') AND pruned = 0 AND queue IS NOT NULL
        GROUP BY queue"""
    list_queues = _all("queues", QueueRow)
    list_schedules = _all("schedules", ScheduleRow)
    list_workers = _all("workers", WorkerRow)

    @staticmethod
    def list_signals(
        run_id: str, name: str | None, unread: bool, after: int, limit: int | None, payloads: bool
    ) -> tuple[str, list[Any]]:
        """Statement and values for ``Storage.list_signals``."""
        columns = names(SIGNAL_COLUMNS) if payloads else _BARE_SIGNAL
        sql, values = f"SELECT {columns} {_SIGNALS} AND seq > ?", [run_id, after]
        if name is not None:
            sql += " AND name = ?"
            values.append(name)
        if unread:
            sql += " AND taken_by IS NULL"
        return f"{sql} ORDER BY seq {_LIMIT}", [*values, limit]

    @staticmethod
    def list_runs(where: RunFilter, payloads: bool) -> tuple[str, list[Any]]:
        """Statement and values for ``Storage.list_runs``."""
        terms = [f"pruned = {where.pruned:d}"]
        values: list[Any] = []

        def term(text: str, *given: Any) -> None:
            terms.append(text)
            values.extend(given)

        if where.status:
            statuses = [RunStatus(status).value for status in where.status]
            term(f"status IN ({marks(len(statuses))})", *statuses)
        for name in ("workflow", "key", "parent"):
            if getattr(where, name) is not None:
                term(f"{name} = ?", getattr(where, name))
        if where.owner:
            term(f"owner IN ({marks(len(where.owner))})", *where.owner)
        for tag, value in tag_items(where.tags):
            if isinstance(where.tags, Mapping):
                term("no IN (SELECT run FROM run_tags WHERE name = ? AND value = ?)", tag, value)
            else:
                term("no IN (SELECT run FROM run_tags WHERE name = ?)", tag)
        if where.created_after is not None:
            term("created_at >= ?", where.created_after)
        if where.created_before is not None:
            term("created_at < ?", where.created_before)
        if where.text:
            term(_HAS_TEXT, *[_pattern(where.text)] * 4)
        if where.after is not None:
            side = "<" if where.newest_first else ">"
            term(
                f"(created_at, id) {side} (SELECT created_at, id FROM runs WHERE id = ? AND {terms[0]})",
                where.after,
            )
        order = "created_at DESC, id DESC" if where.newest_first else "created_at, id"
        columns = names(RUN_COLUMNS) if payloads else _BARE_RUN
        sql = f"SELECT {columns} FROM runs WHERE {' AND '.join(terms)} ORDER BY {order} {_LIMIT}"
        return sql, [*values, where.limit]


# LIKE knows the letters of ASCII, as the contract wants it. Each part reads only an index, and the workflows
# one by one. Rows of runs are read only for what was found.
_HAS_TEXT = """
    no IN (
        SELECT no FROM runs WHERE id LIKE ? ESCAPE '\\'
        UNION ALL
        SELECT no FROM runs WHERE workflow IN (
            WITH RECURSIVE known(name) AS (
                SELECT min(workflow) FROM runs
                UNION ALL
                SELECT (SELECT min(workflow) FROM runs WHERE workflow > name) FROM known
                WHERE name IS NOT NULL)
            SELECT name FROM known WHERE name LIKE ? ESCAPE '\\')
        UNION ALL
        SELECT run FROM run_tags WHERE name LIKE ? ESCAPE '\\' OR value LIKE ? ESCAPE '\\')"""


def _pattern(text: str) -> str:
    """The pattern for LIKE that fits a text which contains *text*."""
    for char in "\\%_":
        text = text.replace(char, "\\" + char)
    return f"%{text}%"


@lru_cache(maxsize=8)
def pulses(count: int) -> str:
    """The statement that reads the pulse of *count* runs."""
    return f"SELECT id, pulse FROM runs WHERE pruned = 0 AND id IN ({marks(count)})"


@lru_cache(maxsize=8)
def attention(count: int) -> str:
    """The statement that reads what *count* runs must notice."""
    return f"""
        SELECT id, epoch, status, cancel_requested,
            (SELECT count(*) FROM signals WHERE run = runs.no AND taken_by IS NULL)
        FROM runs WHERE pruned = 0 AND id IN ({marks(count)})"""
