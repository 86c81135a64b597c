"""Taking the next runs of queues, inside a transaction of the writer. :mod:`flowdsl.core.queues` and
:mod:`flowdsl.core.ownership` decide what may be taken. The reads are here."""

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

from flowdsl.core.queues import LOOKED_AT, Candidate, Queue, Rooms, Taken, longest_window, queue_of
from flowdsl.core.records import QueueRow
from flowdsl.core.versions import is_known
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.sqlite import statements as sql

__all__ = ["next_runs"]

Execute = Callable[..., Any]


def next_runs(execute: Execute, op: ClaimNext, now: float) -> list[int]:
    """The numbers of the runs that *op* takes now."""
    known = dict(op.workflows)
    lost = _lost(execute, op, known, now)
    left = op.limit - len(lost)
    return lost + _pending(execute, op, known, now, left) if left > 0 else lost


def _lost(execute: Execute, op: ClaimNext, known: dict[str, str], now: float) -> list[int]:
    names = op.queues or ()
    statement = sql.of_queues(sql.LOST_RUNS, None if op.queues is None else len(names), True)
    found: list[int] = []
    for no, run_id, workflow, version in execute(statement, (now, *names, -1)):
        if run_id not in op.skip and workflow in known and is_known(version, known[workflow]):
            found.append(no)
            if len(found) == op.limit:
                break
    return found


def _pending(execute: Execute, op: ClaimNext, known: dict[str, str], now: float, limit: int) -> list[int]:
    """The numbers of the pending runs that *op* takes, *limit* at most. Most claims find them among the first
    that are due. If these do not do, and there are more, the first runs of all lanes are looked at."""
    queues = {row[0]: queue_of(QueueRow(*row)) for row in execute(sql.LIST_QUEUES).fetchall()}
    rooms = Rooms(queues, _taken(execute, queues, now), owner=op.owner, now=now)

    def may_be_ours(workflow: str, version: str, queue: str) -> bool:
        named = op.queues is None or queue in op.queues
        return named and workflow in known and is_known(version, known[workflow])

    priority, created_at, run_id = op.after or (2**62, 0.0, "")
    place = (-priority, -priority, created_at, run_id)
    chosen: dict[str, int] = {}
    due = execute(sql.PENDING_RUNS, (now, *place))
    for is_free, no, run_id, queue, *rest, workflow, version in islice(due, limit + LOOKED_AT):
        if not is_free or run_id in op.skip or not may_be_ours(workflow, version, queue):
            continue
        if rooms.take([Candidate(run_id, queue, *rest)], 1):
            chosen[run_id] = no
            if len(chosen) == limit:
                return list(chosen.values())
    if due.fetchone() is None:
        return list(chosen.values())
    full = rooms.closed().queues
    groups = [name for name, *group in execute(sql.GROUPS) if group[-1] not in full and may_be_ours(*group)]
    most = limit + len(op.skip)
    rows = execute(sql.FIRST_OF_LANES, (json.dumps(groups), *place, most, now, *place, most)).fetchall()
    numbers = {run_id: no for no, run_id, *_ in rows if run_id not in chosen and run_id not in op.skip}
    candidates = [Candidate(*fields[:6]) for _, *fields in rows if fields[0] in numbers]
    more = rooms.take(candidates, limit - len(chosen))
    return [*chosen.values(), *(numbers[run.id] for run in more)]


def _taken(execute: Execute, queues: dict[str, Queue], now: float) -> Taken:
    executing = execute(sql.EXECUTING, (now,)).fetchall()
    rated = [name for name, queue in queues.items() if queue.rate is not None]
    since = now - longest_window(queues.values())
    begun = execute(sql.BEGUN, (json.dumps(rated), since)).fetchall() if rated else []
    return Taken(executing, begun)
