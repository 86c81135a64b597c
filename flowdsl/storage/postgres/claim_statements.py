"""The SQL with which the PostgreSQL storage finds runs to claim, and takes them."""

from flowdsl.core.records import QueueRow, fields_of
from flowdsl.storage.columns import RUN_COLUMNS
from flowdsl.storage.postgres.fragments import NOW, QUEUED, Sql, names, quoted, schema_text

__all__ = ["ClaimStatements"]


class ClaimStatements:
    """The statements for the tables in *schema*."""

    def __init__(self, schema: str) -> None:
        s = quoted(schema)
        self._claims(s)
        self._takes(s, schema_text(schema))
        self._limits(s)

    def _claims(self, s: Sql) -> None:
        runs = names(RUN_COLUMNS)
        # Claims. They pass over rows that another worker takes.
        queued = QUEUED
        full = f"length({queued}) || ':' || {queued} || coalesce('/' || partition, '')"  # as partition_key
        skip = "FOR NO KEY UPDATE SKIP LOCKED"
        after = "(-priority, created_at, id) > (%s, %s, %s)"
        order = "ORDER BY -priority, created_at, id"
        by_nonce = "nonce = %s AND nonce <> '' AND owner = %s"
        self.claimed_by_nonce: Sql = f"SELECT {runs} FROM {s}.runs WHERE {by_nonce}"
        # What claiming asks first: whether it was done before, whether pending runs are serial, the time,
        # where the pending runs end that it looks at in order, and the declared queues. There is one row for
        # each queue, and one if there is none.
        self.claiming: Sql = f"""
            SELECT EXISTS (SELECT FROM {s}.runs WHERE {by_nonce}),
                EXISTS (SELECT FROM {s}.runs WHERE status = 'pending' AND serial <> ''), {NOW},
                last.*, {names(list(fields_of(QueueRow)), "queues.")}
            FROM (VALUES (1)) AS one LEFT JOIN {s}.queues ON true LEFT JOIN (
                SELECT -priority, created_at, id FROM {s}.runs
                WHERE status = 'pending' AND {after} {order} OFFSET %s LIMIT 1) AS last ON true"""
        self.lost_runs: Sql = f"""
            SELECT no, {runs} FROM {s}.runs
            WHERE status = 'running' AND NOT pruned AND parent IS NULL
                AND (owner IS NULL OR lease_until <= %s) AND workflow = ANY(%s) AND id <> ALL(%s)
                AND (%s::text[] IS NULL OR queue IS NULL OR {queued} = ANY(%s))
            ORDER BY created_at, id LIMIT %s {skip}"""
        self.pending_runs: Sql = f"""
            SELECT no, {runs} FROM {s}.runs
            WHERE status = 'pending' AND {after} AND (-priority, created_at, id) <= (%s, %s, %s)
                AND id <> ALL(%s)
                AND owner IS NULL AND NOT pruned AND (not_before IS NULL OR not_before <= %s)
                AND workflow = ANY(%s) AND (%s::text[] IS NULL OR {queued} = ANY(%s))
                AND {queued} <> ALL(%s::text[]) AND {full} <> ALL(%s::text[])
                AND (serial IS NULL OR serial <> ALL(%s::text[]))
            {order} LIMIT %s {skip}"""
        self._lanes(s, after, order)
        self.lock_pending: Sql = f"""
            SELECT no, {runs} FROM {s}.runs
            WHERE no = ANY(%s) AND status = 'pending' AND owner IS NULL AND NOT pruned {order} {skip}"""

    def _takes(self, s: Sql, schema: Sql) -> None:
        # When the first run of each workflow is due, and when the first lease ends, whichever is earlier.
        self.next_due: Sql = f"""
            SELECT least(
                (SELECT min(first.due) FROM unnest(%s::text[]) AS known (path), LATERAL (
                    SELECT coalesce(not_before, 0) AS due FROM {s}.runs
                    WHERE status = 'pending' AND owner IS NULL AND NOT pruned AND workflow = known.path
                        AND (%s::text[] IS NULL OR {QUEUED} = ANY(%s))
                    ORDER BY coalesce(not_before, 0) LIMIT 1) AS first),
                (SELECT min(CASE WHEN owner IS NULL THEN 0 ELSE lease_until END) FROM {s}.runs
                WHERE status = 'running' AND NOT pruned AND parent IS NULL AND workflow = ANY(%s)
                    AND (%s::text[] IS NULL OR queue IS NULL OR {QUEUED} = ANY(%s)))), {NOW}"""
        self.lock_claims: Sql = f"SELECT pg_advisory_xact_lock(hashtextextended('{schema}', 7))"
        self.take_runs: Sql = f"""
            UPDATE {s}.runs SET pulse = pulse + 1, status = 'running', finished_at = NULL, owner = %s,
                nonce = %s, lease_until = %s, epoch = t.epoch, claimed_at = t.claimed_at,
                recoveries = t.recoveries
            FROM unnest(%s::bigint[], %s::bigint[], %s::float8[], %s::bigint[])
                AS t (no, epoch, claimed_at, recoveries)
            WHERE runs.no = t.no"""

    def _limits(self, s: Sql) -> None:
        # What the limits of queues count.
        self.executing: Sql = f"""
            SELECT {QUEUED}, owner, partition, serial FROM {s}.runs
            WHERE status = 'running' AND NOT pruned AND owner IS NOT NULL AND lease_until > %s"""
        self.begun: Sql = f"""
            SELECT {QUEUED}, claimed_at FROM {s}.runs WHERE {QUEUED} = ANY(%s) AND claimed_at > %s"""

    def _lanes(self, s: Sql, after: Sql, order: Sql) -> None:
        # The index runs_lanes keeps pending runs apart by what decides whether they can begin.
        code = "length(workflow) || ':' || workflow || length(version) || ':' || version"
        grp: Sql = f"md5({code} || {QUEUED})::uuid"
        part = "coalesce(length(partition) || ':' || partition, '-')"
        lane: Sql = f"md5({part} || coalesce('/' || serial, ''))::uuid"
        free: Sql = f"FROM {s}.runs WHERE status = 'pending' AND owner IS NULL AND NOT pruned"
        self.groups: Sql = f"""
            WITH RECURSIVE groups (no, name) AS (
                (SELECT no, {grp} AS name {free} ORDER BY {grp} LIMIT 1)
                UNION ALL SELECT next.* FROM groups, LATERAL (
                    SELECT no, {grp} AS name {free} AND {grp} > groups.name ORDER BY {grp} LIMIT 1) AS next)
            SELECT name, workflow, version, {QUEUED} FROM groups JOIN {s}.runs USING (no)"""
        in_lane: Sql = f"{free} AND {grp} = lanes.grp AND {lane} = lanes.lane AND coalesce(not_before, 0)"
        candidate: Sql = f"no, id, {QUEUED} AS queue, priority, created_at, partition, serial"
        self.first_of_lanes: Sql = f"""
            WITH RECURSIVE lanes (grp, lane) AS (
                SELECT known.grp, first.* FROM unnest(%s::uuid[]) AS known (grp), LATERAL (
                    SELECT {lane} AS lane {free} AND {grp} = known.grp ORDER BY {lane} LIMIT 1) AS first
                UNION ALL SELECT lanes.grp, next.* FROM lanes, LATERAL (
                    SELECT {lane} AS lane {free} AND {grp} = lanes.grp AND {lane} > lanes.lane
                    ORDER BY {lane} LIMIT 1) AS next)
            SELECT run.* FROM lanes, LATERAL (
                (SELECT {candidate} {in_lane} = 0 AND {after} {order} LIMIT %s)
                UNION ALL (SELECT {candidate} {in_lane} > 0 AND coalesce(not_before, 0) <= %s AND {after}
                    {order} LIMIT %s)) AS run"""
