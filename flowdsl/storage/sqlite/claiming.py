"""Taking the next runs of queues, in SQLite. :mod:`flowdsl.core.queues` and :mod:`flowdsl.core.ownership`
decide which those are. The reads are here."""

import json
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

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
from flowdsl.core.records import QueueRow, Run
from flowdsl.core.versions import knows
from flowdsl.errors import CorruptPayload
from flowdsl.storage import columns
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.outcomes import Claimed
from flowdsl.storage.sqlite import claim_statements as claims
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.read_statements import ReadStatements
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["claim_next"]

Execute = Callable[..., Any]


def claim_next(tx: Transaction, op: ClaimNext) -> Claimed:
    """Take the next runs that the owner may execute."""
    again = tx.execute(claims.CLAIMED_BY_NONCE, (op.nonce, op.owner)).fetchall()
    if again:
        return Claimed(tuple(_by_number(tx, no) for (no,) in again))
    chosen, damaged = _next_runs(tx, op)
    claimed = []
    for no, run in chosen:
        changes = claimed_next(run, owner=op.owner, lease=op.lease, now=tx.now)
        tx.set_run(run.id, no, changes | {"nonce": op.nonce})
        claimed.append(_by_number(tx, no))
    return Claimed(tuple(claimed), tuple(damaged.values()))


def _next_runs(tx: Transaction, op: ClaimNext) -> tuple[list[tuple[int, Run]], dict[int, CorruptPayload]]:
    """The runs that *op* takes, with their numbers; and those that were passed over since their rows are
    damaged. They take no place of others."""
    damaged: dict[int, CorruptPayload] = {}
    while True:
        chosen, before = [], len(damaged)
        for no in _numbers(tx.execute, op, tx.now, damaged):
            try:
                chosen.append((no, _by_number(tx, no)))
            except CorruptPayload as error:
                damaged[no] = error
        if len(damaged) == before or len(damaged) > PASSED_OVER_AT_MOST:
            return chosen, damaged


def _by_number(tx: Transaction, no: int) -> Run:
    row = tx.one(sql.RUN_BY_NO, no)
    assert row is not None
    return columns.run_of(row)


def _numbers(execute: Execute, op: ClaimNext, now: float, without: Collection[int]) -> list[int]:
    """The numbers of the runs that *op* takes now, but those *without* which it has to do; and of some whose
    rows are damaged, for whoever reads them to see it."""
    known = dict(op.workflows)
    lost = _lost(execute, op, known, now, without)
    left = op.limit - len(lost)
    return lost + _pending(execute, op, known, now, left, without) if left > 0 else lost


def _lost(
    execute: Execute, op: ClaimNext, known: dict[str, str], now: float, without: Collection[int]
) -> list[int]:
    names = op.queues or ()
    statement = claims.of_queues(claims.LOST_RUNS, None if op.queues is None else len(names), True)
    found: list[int] = []
    for no, run_id, workflow, version in execute(statement, (now, *names, -1)):
        if no in without or run_id in op.skip or workflow not in known:
            continue
        if not isinstance(version, str) or knows(known, workflow, version):
            found.append(no)  # one that is damaged is found out when it is read
            if len(found) == op.limit:
                break
    return found


def _pending(
    execute: Execute, op: ClaimNext, known: dict[str, str], now: float, limit: int, without: Collection[int]
) -> list[int]:
    """The numbers of the pending runs that *op* takes, *limit* at most. Most claims find them among the first
    that are due. If these do not do, and there are more, the first runs of all lanes are looked at."""
    queues = {row[0]: queue_of(QueueRow(*row)) for row in execute(ReadStatements.list_queues).fetchall()}
    rooms = Rooms(queues, _taken(execute, queues, now), owner=op.owner, now=now)

    def may_be_ours(workflow: str, version: str, queue: str) -> bool:
        named = op.queues is None or queue in op.queues
        return named and knows(known, workflow, version)

    priority, created_at, run_id = op.after or (2**62, 0.0, "")
    place = (-priority, -priority, created_at, run_id)
    chosen: dict[str, int] = {}
    odd: list[int] = []
    due = execute(claims.PENDING_RUNS, (now, *place))
    for is_free, no, run_id, queue, *rest, workflow, version in islice(due, limit + LOOKED_AT + len(without)):
        if not is_free or no in without or run_id in op.skip or workflow not in known:
            continue
        if not (_is_sound(run_id, queue, *rest) and _are_texts(version)):
            odd.append(no)
        elif may_be_ours(workflow, version, queue) and rooms.take([Candidate(run_id, queue, *rest)], 1):
            chosen[run_id] = no
            if len(chosen) == limit:
                return [*odd, *chosen.values()]
    if due.fetchone() is None:
        return [*odd, *chosen.values()]
    full = rooms.closed().queues
    groups = [
        name
        for name, workflow, version, queue in execute(claims.GROUPS)
        if isinstance(name, str)
        and isinstance(version, str)
        and queue not in full
        and may_be_ours(workflow, version, queue)
    ]
    most = limit + len(op.skip) + len(without)
    rows = execute(claims.FIRST_OF_LANES, (json.dumps(groups), *place, most, now, *place, most)).fetchall()
    left = [row for row in rows if row[0] not in without and row[1] not in chosen and row[1] not in op.skip]
    sound = [row for row in left if _is_sound(*row[1:7])]
    numbers = {run_id: no for no, run_id, *_ in sound}
    more = rooms.take([Candidate(*fields[:6]) for _, *fields in sound], limit - len(chosen))
    odd += (row[0] for row in left if not _is_sound(*row[1:7]))
    return [*odd, *chosen.values(), *(numbers[run.id] for run in more)]


def _taken(execute: Execute, queues: dict[str, Queue], now: float) -> Taken:
    executing = execute(claims.EXECUTING, (now,)).fetchall()
    rated = [name for name, queue in queues.items() if queue.rate is not None]
    since = now - longest_window(queues.values())
    begun = execute(claims.BEGUN, (json.dumps(rated), since)).fetchall() if rated else []
    return Taken(
        [row for row in executing if all(one is None or isinstance(one, str) for one in row)],
        [(queue, when) for queue, when in begun if isinstance(when, int | float)],
    )


def _are_texts(*values: Any) -> bool:
    return all(isinstance(one, str) for one in values)


def _is_sound(run_id: Any, queue: Any, priority: Any, created_at: Any, partition: Any, serial: Any) -> bool:
    """Whether these values are of the types that they should be of. SQLite stores any value in any column."""
    return (
        _are_texts(run_id, queue, partition or "", serial or "")
        and isinstance(priority, int)
        and isinstance(created_at, int | float)
    )
