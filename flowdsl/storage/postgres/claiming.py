"""Taking the next runs of queues, in PostgreSQL. :mod:`flowdsl.core.queues` and
:mod:`flowdsl.core.ownership` decide which those are. The reads are here.

Rows that another worker has locked are passed over. If there are limits, one worker claims at a time. It
looks at the clock when its turn has come.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from flowdsl.core.ownership import claimed_next
from flowdsl.core.queues import (
    LOOKED_AT,
    PASSED_OVER_AT_MOST,
    Candidate,
    Queue,
    Rooms,
    Taken,
    longest_window,
    queue_of,
)
from flowdsl.core.records import QueueRow, Run, changed
from flowdsl.core.versions import knows
from flowdsl.errors import CorruptPayload
from flowdsl.storage import columns
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.outcomes import Claimed
from flowdsl.storage.postgres.claim_statements import ClaimStatements
from flowdsl.storage.postgres.rows import Dialogue, Row, checked, is_text
from flowdsl.storage.postgres.transaction import Transaction

__all__ = ["claim_next"]

Numbered = tuple[int, Run]
"""A run, with the number of its row."""

_PLACE = [columns.RUN_COLUMNS.index(name) for name in ("id", "priority", "created_at")]
_END = (2**62, float("inf"), "")
"""A place behind all runs."""


def claim_next(tx: Transaction, op: ClaimNext) -> Dialogue[Claimed]:
    """Take the next runs that the owner may execute."""
    first = yield from _look_first(tx.sql.claims, op)
    tx.note_time(first.now)
    again = (yield tx.sql.claims.claimed_by_nonce, (op.nonce, op.owner)) if first.claimed_before else []
    if again:
        return Claimed(tuple(columns.run_of(row) for row in again))
    if first.limited:
        yield tx.sql.claims.lock_claims, ()
        tx.forget_time()
    found, damaged = yield from _next_runs(tx.sql.claims, op, first, (yield from tx.clock()))
    if not found:
        return Claimed((), tuple(damaged))
    now = yield from tx.clock()
    runs = [changed(run, claimed_next(run, owner=op.owner, lease=op.lease, now=now)) for _, run in found]
    for run in runs:
        tx.heads.pop(run.id, None)
    numbers, epochs = [no for no, _ in found], [run.epoch for run in runs]
    begun, recoveries = [run.claimed_at for run in runs], [run.recoveries for run in runs]
    (owner,) = checked((op.owner,))
    values = (owner, op.nonce, now + op.lease, numbers, epochs, begun, recoveries)
    yield tx.sql.claims.take_runs, values
    return Claimed(tuple(runs), tuple(damaged))


@frozen(slots=True)
class _First:
    """What a claim knows after its first look.

    *claimed_before*: the same claim was sent before. *limited*: there are limits. *now* is in seconds on the
    server's clock. Pending runs are looked at in order behind the place *begin*, up to the place *end*.
    """

    claimed_before: bool
    limited: bool
    now: float
    begin: tuple[Any, ...]
    end: tuple[Any, ...]
    queues: dict[str, Queue]


def _look_first(sql: ClaimStatements, op: ClaimNext) -> Dialogue[_First]:
    """The first look, in one statement."""
    priority, created_at, run_id = op.after or (2**62, 0.0, "")
    begin = (-priority, created_at, run_id)
    rows = yield sql.claiming, (op.nonce, op.owner, *begin, op.limit + LOOKED_AT - 1)
    queues = {row[6]: queue_of(QueueRow(*row[6:])) for row in rows if row[6] is not None}
    claimed_before, serial, now, *end = rows[0][:6]
    return _First(
        claimed_before, bool(queues or serial), now, begin, _END if end[0] is None else tuple(end), queues
    )


def _next_runs(
    sql: ClaimStatements, op: ClaimNext, first: _First, now: float
) -> Dialogue[tuple[list[Numbered], list[CorruptPayload]]]:
    """The runs that *op* takes now, whose rows are locked; and why others were passed over: their rows are
    damaged. These take no place of others."""
    damaged: dict[str, CorruptPayload] = {}
    while True:
        known = len(damaged)
        found = yield from _found(sql, op, first, now, damaged)
        if len(damaged) == known or len(damaged) > PASSED_OVER_AT_MOST:
            return found, list(damaged.values())


def _found(
    sql: ClaimStatements, op: ClaimNext, first: _First, now: float, damaged: dict[str, CorruptPayload]
) -> Dialogue[list[Numbered]]:
    claim = _Claim(sql, op, first.begin, now, damaged)
    lost = yield from claim.lost()
    taken = (yield from _taken(sql, first.queues, now)) if first.limited else Taken()
    rooms = Rooms(first.queues, taken, owner=op.owner, now=now)
    left = op.limit - len(lost)
    size = 2 * left + 32 if first.limited else left
    chosen = yield from claim.in_order(rooms, first.end, left, size)
    if len(chosen) < left and first.end is not _END:
        chosen += yield from claim.of_lanes(rooms, [run.id for _, run in chosen], left - len(chosen))
    return lost + chosen


def _taken(sql: ClaimStatements, queues: Mapping[str, Queue], now: float) -> Dialogue[Taken]:
    executing = yield sql.executing, (now,)
    rated = [name for name, queue in queues.items() if queue.rate is not None]
    begun = (yield sql.begun, (rated, now - longest_window(queues.values()))) if rated else []
    return Taken(executing, begun)


class _Claim:
    """What one claim asks for. *begin* is the place behind which it looks, *now* its moment. It looks at none
    of the *damaged*, and adds to them."""

    def __init__(
        self,
        sql: ClaimStatements,
        op: ClaimNext,
        begin: tuple[Any, ...],
        now: float,
        damaged: dict[str, CorruptPayload],
    ) -> None:
        self._sql, self._op, self._begin, self._now = sql, op, begin, now
        self._known = dict(op.workflows)
        self._names = None if op.queues is None else list(op.queues)
        self._skip = [*(run_id for run_id in op.skip if is_text(run_id)), *damaged]
        self._damaged = damaged

    def lost(self) -> Dialogue[list[Numbered]]:
        """Runs whose owner is gone."""
        values = (self._now, list(self._known), self._skip, self._names, self._names, self._op.limit)
        rows = yield self._sql.lost_runs, values
        return self._ours(rows)

    def in_order(self, rooms: Rooms, end: tuple[Any, ...], limit: int, size: int) -> Dialogue[list[Numbered]]:
        """Pending runs up to the place *end*, in the order in which they are due, *size* at a time."""
        chosen: list[Numbered] = []
        place = self._begin
        while len(chosen) < limit:
            names = (self._names, self._names)
            values = (*place, *end, self._skip, self._now, list(self._known), *names, *rooms.closed(), size)
            page = yield self._sql.pending_runs, values
            chosen += _chosen(rooms, self._ours(page), limit - len(chosen))
            if len(page) < size:
                break
            run_id, priority, created_at = (page[-1][1 + column] for column in _PLACE)
            place = (-priority, created_at, run_id)
        return chosen

    def of_lanes(self, rooms: Rooms, chosen: list[str], limit: int) -> Dialogue[list[Numbered]]:
        """Pending runs from the first ones of each lane, whatever their place. *chosen* are those that the
        claim has already."""
        groups = yield self._sql.groups, ()
        full = rooms.closed().queues
        names = [
            name
            for name, workflow, version, queue in groups
            if queue not in full and self._knows(workflow, version, queue)
        ]
        skip = {*self._skip, *chosen}
        most = self._op.limit + len(skip)
        values = (names, *self._begin, most, self._now, *self._begin, most)
        rows = yield self._sql.first_of_lanes, values
        numbers = {run_id: no for no, run_id, *_ in rows if run_id not in skip}
        candidates = [Candidate(*fields) for _, *fields in rows if fields[0] in numbers]
        wanted = [numbers[run.id] for run in rooms.take(candidates, limit)]
        locked = (yield self._sql.lock_pending, (wanted,)) if wanted else []
        return self._numbered(locked)

    def _ours(self, rows: list[Row]) -> list[Numbered]:
        return [(no, run) for no, run in self._numbered(rows) if self._knows(run.workflow, run.version)]

    def _numbered(self, rows: list[Row]) -> list[Numbered]:
        found = []
        for row in rows:
            try:
                found.append((row[0], columns.run_of(row[1:])))
            except CorruptPayload as error:
                self._damaged[row[1]] = error
        return found

    def _knows(self, workflow: str, version: str, queue: str | None = None) -> bool:
        named = queue is None or self._names is None or queue in self._names
        return named and knows(self._known, workflow, version)


def _chosen(rooms: Rooms, runs: list[Numbered], limit: int) -> list[Numbered]:
    found = {run.id: (no, run) for no, run in runs}
    return [found[run.id] for run in rooms.take([Candidate.of(run) for _, run in runs], limit)]
