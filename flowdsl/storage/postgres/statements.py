"""The SQL of what the PostgreSQL storage writes, and reads for it, for one schema.

Statements hold only placeholders. They are put together from names in this module and the quoted name of the
schema, never from what a caller gave. Names are qualified, because a pooler forgets the search path.
"""

from functools import lru_cache
from typing import Any

from flowdsl.core.records import (
    Memo,
    QueueRow,
    ScheduleRow,
    WorkerRow,
    fields_of,
)
from flowdsl.storage.columns import ITEM_COLUMNS, NEW_SIGNAL, RUN_COLUMNS
from flowdsl.storage.postgres.claim_statements import ClaimStatements
from flowdsl.storage.postgres.fragments import NOW, STEP_COLUMNS, Sql, assigned, marks, names, ours, quoted
from flowdsl.storage.postgres.read_statements import ReadStatements

__all__ = ["Statements"]

_ARRAYS = {
    "occurrence": "bigint", "ordinal": "bigint", "attempts": "bigint", "payload": "bytea", "draws": "bigint",
    "created_at": "double precision", "completed_at": "double precision", "concurrent": "boolean", "seal":
    "bytea",
}  # fmt: skip


class Statements:
    """The statements for the tables in *schema*."""

    def __init__(self, schema: str) -> None:
        s: Sql = quoted(schema)
        self.schema: Sql = s
        self._steps(s)
        self._runs(s)
        self.reads = ReadStatements(schema)
        self.claims = ClaimStatements(schema)
        self._queues(s)
        self._lives(s)
        self._messages(s)
        self._rows(s)
        self._waits(s)

    def _steps(self, s: Sql) -> None:
        steps = names(STEP_COLUMNS)
        # Steps. One statement locks the run, checks its epoch and appends. It may have to wait for another
        # one that appends too. Then its number is taken, and it is sent again.
        append = f"""
            WITH r AS MATERIALIZED (
                SELECT no, base FROM {s}.runs WHERE id = %s AND NOT pruned {{fence}} FOR NO KEY UPDATE)
            INSERT INTO {s}.steps (run, seq, {steps})
            SELECT no, greatest(base, coalesce((SELECT max(seq) FROM {s}.steps WHERE run = r.no), 0)) + 1,
                {marks(len(STEP_COLUMNS))} FROM r RETURNING seq"""
        self.append_step: Sql = append.format(fence="")
        self.append_step_fenced: Sql = append.format(fence="AND epoch = %s")
        arrays = ours(", ".join(f"%s::{_ARRAYS.get(name, 'text')}[]" for name in STEP_COLUMNS))
        self.append_steps: Sql = f"""
            INSERT INTO {s}.steps (run, seq, {steps}) SELECT * FROM unnest(%s::bigint[], %s::bigint[],
            {arrays})"""
        last = f"greatest(base, coalesce((SELECT max(seq) FROM {s}.steps WHERE run = runs.no), 0))"
        # The same for many steps of many runs. It tells the first number of each run, and how many of its
        # steps were taken.
        given = names(STEP_COLUMNS, "g.")
        self.append_many: Sql = f"""
            WITH r AS MATERIALIZED (
                SELECT no, id, epoch, {last} AS last FROM {s}.runs WHERE id = ANY(%s) AND NOT pruned
                ORDER BY id FOR NO KEY UPDATE),
            i AS (
                INSERT INTO {s}.steps (run, seq, {steps})
                SELECT r.no, r.last + row_number() OVER (PARTITION BY r.no ORDER BY g.place), {given}
                FROM unnest(%s::text[], %s::bigint[], %s::bigint[], {arrays})
                    AS g (id, fence, place, {steps})
                JOIN r ON r.id = g.id AND (g.fence IS NULL OR g.fence = r.epoch)
                RETURNING run, seq)
            SELECT r.id, min(i.seq), count(*) FROM i JOIN r ON r.no = i.run GROUP BY r.id"""
        self.step_of_key: Sql = (
            f"SELECT seq FROM {s}.steps WHERE run = %s AND key = %s ORDER BY seq DESC LIMIT 1"
        )
        self.keep_last: Sql = f"UPDATE {s}.runs SET base = greatest(base, %s) WHERE no = %s"
        self.drop_steps: Sql = f"DELETE FROM {s}.steps WHERE run = %s AND key = ANY(%s)"
        self.drop_steps_of_run: Sql = f"DELETE FROM {s}.steps WHERE run = %s"

    def _runs(self, s: Sql) -> None:
        runs = names(RUN_COLUMNS)
        last = f"greatest(base, coalesce((SELECT max(seq) FROM {s}.steps WHERE run = runs.no), 0))"
        # Runs.
        self.now: Sql = f"SELECT {NOW}"
        head = f"no, epoch, status, {last}"
        # The runs of a commit are locked in the order of their ids, so that no two commits wait for each
        # other.
        self.lock_runs: Sql = f"""
            SELECT id, {head} FROM {s}.runs WHERE id = ANY(%s) AND NOT pruned ORDER BY id FOR NO KEY UPDATE"""
        self.lock_keys: Sql = "SELECT pg_advisory_xact_lock(k) FROM unnest(%s::bigint[]) k ORDER BY k"
        self.lock_run: Sql = f"SELECT {head} FROM {s}.runs WHERE id = %s AND NOT pruned FOR NO KEY UPDATE"
        self.run_by_id: Sql = f"SELECT no, nonce, {runs} FROM {s}.runs WHERE id = %s"
        by_nonce = "nonce = %s AND nonce <> '' AND owner IS NOT DISTINCT FROM %s AND key = %s"
        self.run_by_nonce: Sql = f"SELECT {runs} FROM {s}.runs WHERE {by_nonce}"
        self.insert_run: Sql = f"""
            INSERT INTO {s}.runs (nonce, {runs}) VALUES ({marks(len(RUN_COLUMNS) + 1)})
            ON CONFLICT (id) DO NOTHING RETURNING no"""
        self.replace_run: Sql = f"""
            UPDATE {s}.runs SET nonce = '', base = 0, {assigned(RUN_COLUMNS)} WHERE no = %s"""
        self.delete_run: Sql = f"DELETE FROM {s}.runs WHERE no = %s"
        # What opening a run asks first: the highest number and epoch so far, whether it was opened before,
        # and the time.
        self.opening: Sql = f"""
            SELECT (SELECT max(number) FROM {s}.runs WHERE key = %s),
                (SELECT value FROM {s}.counters WHERE name = 'epoch'),
                EXISTS (SELECT FROM {s}.runs WHERE {by_nonce}), {NOW}"""
        self.continuable: Sql = f"""
            SELECT {runs} FROM {s}.runs WHERE key = %s AND number IS NOT NULL AND (
                (status IN ('pending', 'running') AND (owner IS NULL OR owner <> ALL(%s)))
                OR (status = 'failed' AND retryable))
            ORDER BY number LIMIT %s"""

    def _queues(self, s: Sql) -> None:
        # What waits in a queue.
        runs = names(RUN_COLUMNS)
        self.same_work: Sql = f"""
            SELECT nonce, {runs} FROM {s}.runs
            WHERE dedup = %s AND workflow = %s AND queue IS NOT DISTINCT FROM %s
                AND status IN ('pending', 'running') AND NOT pruned LIMIT 1"""

    def _lives(self, s: Sql) -> None:
        # Questions about living runs, and their leases and tags.
        self.pulse: Sql = f"UPDATE {s}.runs SET pulse = pulse + 1 WHERE no = %s"
        # All leases that an owner renews.
        self.renew: Sql = f"""
            WITH r AS MATERIALIZED (
                SELECT no, id, epoch FROM {s}.runs WHERE id = ANY(%s) AND NOT pruned
                ORDER BY id FOR NO KEY UPDATE)
            UPDATE {s}.runs SET lease_until = {NOW} + g.lease
            FROM unnest(%s::text[], %s::bigint[], %s::float8[]) AS g (id, fence, lease)
            JOIN r ON r.id = g.id AND r.epoch = g.fence
            WHERE runs.no = r.no RETURNING runs.id"""
        self.add_tags: Sql = f"""
            INSERT INTO {s}.run_tags (run, name, value)
            SELECT %s, t.name, t.value FROM unnest(%s::text[], %s::text[]) t (name, value)"""
        self.drop_tags: Sql = f"DELETE FROM {s}.run_tags WHERE run = %s"
        self.keep_epoch: Sql = f"UPDATE {s}.counters SET value = greatest(value, %s) WHERE name = 'epoch'"
        self.highest_epoch: Sql = f"SELECT coalesce(max(epoch), 0) FROM {s}.runs"
        tables = ("runs", "run_tags", "steps", "signals", "items", "memos", "queues", "schedules", "workers")
        self.clear: list[Sql] = [f"DELETE FROM {s}.{table}" for table in tables]

    def _messages(self, s: Sql) -> None:
        # Messages and items.
        self.add_signal: Sql = f"""
            INSERT INTO {s}.signals (run, {names(NEW_SIGNAL)}) VALUES ({marks(len(NEW_SIGNAL) + 1)})
            RETURNING seq"""
        self.same_signal: Sql = f"""
            SELECT seq FROM {s}.signals WHERE run = %s AND (id = %s OR (name = %s AND key = %s)) ORDER BY id
            <> %s"""
        self.signal_taken_by: Sql = f"SELECT taken_by FROM {s}.signals WHERE run = %s AND id = %s"
        self.take_signal: Sql = f"UPDATE {s}.signals SET taken_by = %s WHERE run = %s AND id = %s"
        self.signal_reply: Sql = f"SELECT reply IS NOT NULL FROM {s}.signals WHERE run = %s AND id = %s"
        self.reply: Sql = f"""
            UPDATE {s}.signals SET reply = %s, reply_preview = %s, reply_failed = %s, reply_seal = %s
            WHERE run = %s AND id = %s"""
        self.drop_signals: Sql = f"DELETE FROM {s}.signals WHERE run = %s"
        self.drop_taken: Sql = (
            f"DELETE FROM {s}.signals WHERE run = %s AND taken_by IS NOT NULL AND NOT asked"
        )
        self.add_item: Sql = f"""
            INSERT INTO {s}.items (run, {names(ITEM_COLUMNS)}) VALUES ({marks(len(ITEM_COLUMNS) + 1)})
            ON CONFLICT DO NOTHING RETURNING n"""
        self.drop_items: Sql = f"DELETE FROM {s}.items WHERE run = %s"

    def _rows(self, s: Sql) -> None:
        # Memos, queues, schedules and workers.
        self.put_memo: Sql = self._put("memos", Memo)
        self.drop_memo: Sql = f"DELETE FROM {s}.memos WHERE key = %s"
        self.put_queue: Sql = self._put("queues", QueueRow)
        self.put_schedule: Sql = self._put("schedules", ScheduleRow)
        self.put_worker: Sql = self._put("workers", WorkerRow)
        self.has_queue: Sql = f"SELECT 1 FROM {s}.queues WHERE name = %s"
        self.get_schedule: Sql = f"""
            SELECT {names(list(fields_of(ScheduleRow)))} FROM {s}.schedules WHERE name = %s FOR UPDATE"""
        self.has_schedule: Sql = f"SELECT 1 FROM {s}.schedules WHERE name = %s"
        self.drop_queue: Sql = f"DELETE FROM {s}.queues WHERE name = %s"
        self.drop_schedule: Sql = f"DELETE FROM {s}.schedules WHERE name = %s"
        self.drop_worker: Sql = f"DELETE FROM {s}.workers WHERE id = %s"

    def _waits(self, s: Sql) -> None:
        # Waiting.
        self.wait: Sql = f"""
            INSERT INTO {s}.waits SELECT t, {NOW} + %s FROM unnest(%s::text[]) t ORDER BY t
            ON CONFLICT (topic) DO UPDATE SET until = excluded.until"""
        # Hardly ever does another statement want a row that ended an hour ago, so this is in nobody's way.
        self.forget_waits: Sql = f"DELETE FROM {s}.waits WHERE until < {NOW} - 3600"
        # A transaction that is isolated more than usual sees no wait that was entered since it began.
        self.notify: Sql = f"""
            SELECT pg_notify(%s, topic) FROM (
                SELECT topic FROM {s}.waits WHERE topic = ANY(%s) AND until > {NOW}
                UNION ALL SELECT unnest(%s::text[])
                WHERE current_setting('transaction_isolation') NOT LIKE 'read%%') told"""
        # Transactions are numbered in order. A snapshot names the open ones up to the highest number that has
        # ended. So whoever wants all that were open at a moment ends one with a new number, and looks then.
        self.number: Sql = "SELECT pg_current_xact_id()"
        self.under_way: Sql = "SELECT pg_snapshot_xip(pg_current_snapshot())::text"

    def _put(self, table: Sql, row: type[Any]) -> Sql:
        first, *others = fields_of(row)
        sets = ours(", ".join(f'"{name}" = excluded."{name}"' for name in others))
        columns = [first, *others]
        return f"""
            INSERT INTO {self.schema}.{table} ({names(columns)}) VALUES ({marks(len(columns))})
            ON CONFLICT ({names([first])}) DO UPDATE SET {sets}"""

    @lru_cache(maxsize=512)  # noqa: B019 - one object for each schema
    def update_run(self, columns: tuple[str, ...]) -> Sql:
        """The statement that sets *columns* (names of ours) of the run of a number."""
        return f"UPDATE {self.schema}.runs SET pulse = pulse + 1, {assigned(columns)} WHERE no = %s"

    @lru_cache(maxsize=512)  # noqa: B019
    def update_run_if(self, columns: tuple[str, ...], lease: str, fenced: bool, statuses: bool) -> Sql:
        """The statement that sets *columns* of the run of an id, if it has the epoch and status that are
        asked for. *lease*: ``"renew"``, ``"release"`` or ``""``."""
        sets = [f'"{name}" = %s' for name in columns]
        if lease == "release":
            sets += ["owner = NULL", f"lease_until = {NOW}"]
        elif lease:
            sets.append(f"lease_until = {NOW} + %s")
        if columns or lease == "release":  # a renewed lease is not news
            sets.append("pulse = pulse + 1")
        sql = f"UPDATE {self.schema}.runs SET {ours(', '.join(sets))} WHERE id = %s AND NOT pruned"
        sql += " AND epoch = %s" if fenced else ""
        sql += " AND status = ANY(%s)" if statuses else ""
        return sql + " RETURNING no"

    def rewrite(self, kind: str, fields: tuple[str, ...]) -> Sql:
        """The statement that replaces *fields* (names of ours) of a record that has the expected ones."""
        s = self.schema
        run_of = f"(SELECT no FROM {s}.runs WHERE id = %s AND NOT pruned)"
        places: dict[str, tuple[Sql, Sql]] = {
            "run": ("runs", "id = %s"),
            "step": ("steps", f"run = {run_of} AND seq = %s"),
            "signal": ("signals", f"run = {run_of} AND id = %s"),
            "item": ("items", f"run = {run_of} AND channel = %s AND n = %s"),
            "memo": ("memos", "key = %s"),
            "queue": ("queues", "name = %s"),
            "schedule": ("schedules", "name = %s"),
        }
        table, where = places[kind]
        same = ours("".join(f' AND "{name}" IS NOT DISTINCT FROM %s' for name in fields))
        return f"UPDATE {s}.{table} SET {assigned(fields)} WHERE {where}{same} RETURNING 1"
