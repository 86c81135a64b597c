"""The SQL with which the SQLite storage finds runs to claim.

The index runs_pending has the order in which runs are due. The index runs_lanes holds them apart by what
decides whether they can begin: those of one lane share all limits.
"""

from flowdsl.storage.sqlite.fragments import marks

__all__: list[str] = []

_CANDIDATE = "no, id, coalesce(queue, 'default'), priority, created_at, partition, serial, workflow, version"
LOST_RUNS = """
    SELECT no, id, workflow, version FROM runs
    WHERE status = 'running' AND pruned = 0 AND parent IS NULL AND (owner IS NULL OR lease_until <= ?)
        AND {queues} ORDER BY created_at, id LIMIT ?"""
# SQLite searches no index for a row of values that begins with an expression. So the first value stands
# twice.
_AFTER = "-priority >= ? AND (-priority, created_at, id) > (?, ?, ?)"
_ORDER = "ORDER BY -priority, created_at, id"
_FREE = "status = 'pending' AND owner IS NULL AND pruned = 0"
PENDING_RUNS = f"""
    SELECT owner IS NULL AND pruned = 0 AND coalesce(not_before, 0.0) <= ?, {_CANDIDATE}
    FROM runs INDEXED BY runs_pending WHERE status = 'pending' AND {_AFTER} {_ORDER}"""
_GROUP = (
    "length(workflow) || ':' || workflow || length(version) || ':' || version || coalesce(queue, 'default')"
)
_LANE = "coalesce(length(partition) || ':' || partition, '-') || coalesce('/' || serial, '')"
_LANES = f"FROM runs INDEXED BY runs_lanes WHERE {_FREE}"
GROUPS = f"""
    WITH RECURSIVE groups (no) AS (
        SELECT (SELECT no {_LANES} ORDER BY {_GROUP} LIMIT 1)
        UNION ALL SELECT (
            SELECT no {_LANES} AND {_GROUP} > (SELECT {_GROUP} FROM runs WHERE no = groups.no)
            ORDER BY {_GROUP} LIMIT 1)
        FROM groups WHERE no IS NOT NULL)
    SELECT {_GROUP}, workflow, version, coalesce(queue, 'default') FROM groups CROSS JOIN runs USING (no)"""
_IN_LANE = (
    f"SELECT no {_LANES} AND {_GROUP} = lanes.grp AND {_LANE} = lanes.lane AND coalesce(not_before, 0.0)"
)
FIRST_OF_LANES = f"""
    WITH RECURSIVE lanes (grp, lane) AS (
        SELECT value, (SELECT min({_LANE}) {_LANES} AND {_GROUP} = value) FROM json_each(?)
        UNION ALL SELECT grp, (SELECT min({_LANE}) {_LANES} AND {_GROUP} = grp AND {_LANE} > lane)
        FROM lanes WHERE lane IS NOT NULL)
    SELECT {_CANDIDATE} FROM lanes CROSS JOIN runs ON no IN (
        SELECT no FROM ({_IN_LANE} = 0.0 AND {_AFTER} {_ORDER} LIMIT ?)
        UNION ALL SELECT no FROM ({_IN_LANE} > 0.0 AND coalesce(not_before, 0.0) <= ?
            AND {_AFTER} {_ORDER} LIMIT ?))
    WHERE lane IS NOT NULL"""
# When the first run of each workflow is due. The index runs_due has this order.
FIRST_DUE = """
    SELECT min((
        SELECT coalesce(not_before, 0.0) FROM runs INDEXED BY runs_due
        WHERE status = 'pending' AND owner IS NULL AND pruned = 0 AND workflow = known.value AND {queues}
        ORDER BY coalesce(not_before, 0.0) LIMIT 1))
    FROM json_each(?) AS known"""
LEASE_ENDS = """
    SELECT min(CASE WHEN owner IS NULL THEN 0.0 ELSE lease_until END) FROM runs
    WHERE status = 'running' AND pruned = 0 AND parent IS NULL
        AND workflow IN (SELECT value FROM json_each(?)) AND {queues}"""
EXECUTING = """
    SELECT coalesce(queue, 'default'), owner, partition, serial FROM runs
    WHERE status = 'running' AND pruned = 0 AND owner IS NOT NULL AND lease_until > ?"""
BEGUN = """
    SELECT value, claimed_at FROM json_each(?)
    CROSS JOIN runs INDEXED BY runs_begun ON coalesce(queue, 'default') = value AND claimed_at > ?"""
CLAIMED_BY_NONCE = "SELECT no FROM runs WHERE nonce = ? AND nonce <> '' AND owner IS ?"


def of_queues(statement: str, count: int | None, unqueued: bool) -> str:
    """*statement* for *count* queues (``None``: all). With *unqueued*, also for runs of no queue."""
    if count is None:
        return statement.format(queues="1")
    term = f"coalesce(queue, 'default') IN ({marks(count)})"
    return statement.format(queues=f"({term} OR queue IS NULL)" if unqueued else term)
