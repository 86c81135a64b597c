"""The SQL of what is read outside a commit, in PostgreSQL, for one schema."""

from collections.abc import Mapping
from typing import Any

from flowdsl.core.records import Memo, QueueRow, RunFilter, ScheduleRow, WorkerRow, fields_of
from flowdsl.core.status import RunStatus
from flowdsl.storage.columns import ITEM_COLUMNS, RUN_COLUMNS, SIGNAL_COLUMNS, tag_items
from flowdsl.storage.postgres.fragments import STEP_COLUMNS, Sql, names, quoted

__all__ = ["ReadStatements"]

_UPPER, _LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"


class ReadStatements:
    """The statements that :class:`~flowdsl.storage.reading.SQLReading` sends, for the tables in *schema*."""

    def __init__(self, schema: str) -> None:
        s: Sql = quoted(schema)
        self._schema: Sql = s
        run_of = f"(SELECT no FROM {s}.runs WHERE id = %s AND NOT pruned)"
        steps = names(STEP_COLUMNS)
        memos = names(list(fields_of(Memo)))
        signals = names(SIGNAL_COLUMNS)
        self.get_run: Sql = f"SELECT {names(RUN_COLUMNS)} FROM {s}.runs WHERE id = %s AND NOT pruned"
        self.get_step: Sql = f"""
            SELECT seq, {steps} FROM {s}.steps WHERE run = {run_of} AND key = %s ORDER BY seq DESC LIMIT 1"""
        self.list_steps: Sql = f"""
            SELECT seq, {steps} FROM {s}.steps WHERE run = {run_of} AND seq > %s ORDER BY seq LIMIT %s"""
        self.list_steps_bare: Sql = self.list_steps.replace('"payload"', "NULL::bytea")
        self._signals: Sql = f"SELECT {signals} FROM {s}.signals WHERE run = {run_of} AND seq > %s"
        self._signals_bare: Sql = self._signals.replace('"payload"', "''::bytea").replace(
            '"reply"', "NULL::bytea"
        )
        self.get_signal: Sql = f"SELECT {signals} FROM {s}.signals WHERE run = {run_of} AND id = %s"
        items = f"SELECT {names(ITEM_COLUMNS)} FROM {s}.items WHERE run = {run_of} AND channel = %s"
        self.list_items: Sql = f"{items} AND n > %s ORDER BY n LIMIT %s"
        self.last_item: Sql = f"{items} ORDER BY n DESC LIMIT 1"
        self.list_channels: Sql = f"""
            SELECT channel, count(*) FROM {s}.items WHERE run = {run_of} GROUP BY channel ORDER BY channel"""
        self.get_memo: Sql = f"SELECT {memos} FROM {s}.memos WHERE key = %s"
        self.list_memos: Sql = f"SELECT {memos} FROM {s}.memos WHERE key > %s ORDER BY key LIMIT %s"
        self.queue_counts: Sql = f"""
            SELECT queue, count(*) FILTER (WHERE status = 'pending'),
                count(*) FILTER (WHERE status = 'running'), min(created_at) FILTER (WHERE status = 'pending')
            FROM {s}.runs WHERE status IN ('pending', 'running') AND NOT pruned AND queue IS NOT NULL
            GROUP BY queue"""
        self.list_queues: Sql = self._all("queues", QueueRow)
        self.list_schedules: Sql = self._all("schedules", ScheduleRow)
        self.list_workers: Sql = self._all("workers", WorkerRow)
        self.pulses: Sql = f"SELECT id, pulse FROM {s}.runs WHERE NOT pruned AND id = ANY(%s)"
        self.attention: Sql = f"""
            SELECT id, epoch, status, cancel_requested,
                (SELECT count(*) FROM {s}.signals WHERE run = runs.no AND taken_by IS NULL)
            FROM {s}.runs WHERE NOT pruned AND id = ANY(%s)"""

    def _all(self, table: Sql, row: type[Any]) -> Sql:
        columns = list(fields_of(row))
        return f"SELECT {names(columns)} FROM {self._schema}.{table} ORDER BY {names(columns[:1])}"

    def list_signals(
        self, run_id: str, name: str | None, unread: bool, after: int, limit: int | None, payloads: bool
    ) -> tuple[Sql, list[Any]]:
        """Statement and values for ``Storage.list_signals``."""
        sql, values = (self._signals if payloads else self._signals_bare), [run_id, after]
        if name is not None:
            sql += " AND name = %s"
            values.append(name)
        if unread:
            sql += " AND taken_by IS NULL"
        return sql + " ORDER BY seq LIMIT %s", [*values, limit]

    def list_runs(self, where: RunFilter, payloads: bool) -> tuple[Sql, list[Any]]:
        """Statement and values for ``Storage.list_runs``."""
        s = self._schema
        terms: list[Sql] = ["pruned" if where.pruned else "NOT pruned"]
        values: list[Any] = []

        def term(text: Sql, *given: Any) -> None:
            terms.append(text)
            values.extend(given)

        if where.status:
            term("status = ANY(%s)", [RunStatus(status).value for status in where.status])
        for name in ("workflow", "key", "parent"):
            if getattr(where, name) is not None:
                term(f"{name} = %s", getattr(where, name))
        if where.owner:
            term("owner = ANY(%s)", list(where.owner))
        for tag, value in tag_items(where.tags):
            tagged = f"EXISTS (SELECT FROM {s}.run_tags t WHERE t.run = runs.no AND t.name = %s"
            if isinstance(where.tags, Mapping):
                term(f"{tagged} AND t.value = %s)", tag, value)
            else:
                term(f"{tagged})", tag)
        if where.created_after is not None:
            term("created_at >= %s", where.created_after)
        if where.created_before is not None:
            term("created_at < %s", where.created_before)
        if where.text:
            lower = f"translate({{}}, '{_UPPER}', '{_LOWER}')"
            has = f"position({lower.format('%s')} in {lower}) > 0"
            tags = f"EXISTS (SELECT FROM {s}.run_tags t WHERE t.run = runs.no AND ({{}} OR {{}}))"
            tags = tags.format(has.format("t.name"), has.format("coalesce(t.value, '')"))
            term(f"({has.format('id')} OR {has.format('workflow')} OR {tags})", *[where.text] * 4)
        if where.after is not None:
            side = "<" if where.newest_first else ">"
            term(
                f"(created_at, id) {side} (SELECT created_at, id FROM {s}.runs WHERE id = %s AND {terms[0]})",
                where.after,
            )
        order = "created_at DESC, id DESC" if where.newest_first else "created_at, id"
        columns = names(RUN_COLUMNS)
        if not payloads:
            columns = columns.replace('"args"', "''::bytea")
            columns = columns.replace('"result"', "NULL::bytea").replace('"error"', "NULL::bytea")
        sql = f"SELECT {columns} FROM {s}.runs WHERE {' AND '.join(terms)} ORDER BY {order} LIMIT %s"
        return sql, [*values, where.limit]
