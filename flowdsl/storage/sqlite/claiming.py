"""Taking the next runs of queues, inside a transaction of the writer. :mod:`flowdsl.core.queues` and
:mod:`flowdsl.core.ownership` decide what may be taken. The reads are here."""

import json
from collections.abc import Callable
from typing import Any

from flowdsl.core.queues import Candidate, Queue, Rooms, Taken, longest_window, queue_of
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
    queues = {row[0]: queue_of(QueueRow(*row)) for row in execute(sql.LIST_QUEUES).fetchall()}
    rooms = Rooms(queues, _taken(execute, queues, now), owner=op.owner, now=now)
    names = op.queues or ()
    statement = sql.of_queues(sql.PENDING_RUNS, None if op.queues is None else len(names), False)
    priority, created_at, run_id = op.after or (2**62, 0.0, "")
    size = 2 * limit + 32
    numbers: dict[str, int] = {}
    chosen: list[Candidate] = []
    while True:
        closed = (json.dumps(names) for names in rooms.closed())
        values = (-priority, -priority, created_at, run_id, now, *closed, *names, size)
        page = execute(statement, values).fetchall()
        candidates: list[Candidate] = []
        for no, run_id, queue, priority, created_at, partition, serial, workflow, version in page:
            if run_id not in op.skip and workflow in known and is_known(version, known[workflow]):
                candidates.append(Candidate(run_id, queue, priority, created_at, partition, serial))
                numbers[run_id] = no
        chosen += rooms.take(candidates, limit - len(chosen))
        if len(chosen) == limit or len(page) < size:
            return [numbers[run.id] for run in chosen]


def _taken(execute: Execute, queues: dict[str, Queue], now: float) -> Taken:
    executing = execute(sql.EXECUTING, (now,)).fetchall()
    since = longest_window(queues.values())
    begun = execute(sql.BEGUN, (now - since,)).fetchall() if since else []
    return Taken(executing, begun)
