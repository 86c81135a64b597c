"""Taking the next runs of queues, inside a transaction of the writer. What may be taken is decided by
:mod:`flowdsl.core.queues` and :mod:`flowdsl.core.ownership`; here are the reads."""

from collections.abc import Callable
from typing import Any

from flowdsl.core.queues import Candidate, Queue, Taken, choose, full, longest_window, queue_of
from flowdsl.core.records import QueueRow
from flowdsl.core.versions import is_known
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.sqlite import statements as sql

__all__ = ["next_runs"]

_PAGES = 100  # of candidates that are read at the most: what is behind them waits for the next claim

Execute = Callable[..., Any]


def next_runs(execute: Execute, op: ClaimNext, now: float) -> list[int]:
    """The numbers of the runs that *op* takes now."""
    known = dict(op.workflows)
    lost = _lost(execute, op, known, now)
    left = op.limit - len(lost)
    return lost + _pending(execute, op, known, now, left) if left > 0 else lost


def _lost(execute: Execute, op: ClaimNext, known: dict[str, str], now: float) -> list[int]:
    names = op.queues or ()
    statement = sql.of_queues(sql.LOST_RUNS, None if op.queues is None else len(names), 0, True)
    found: list[int] = []
    for no, workflow, version in execute(statement, (now, *names, -1)):
        if workflow in known and is_known(version, known[workflow]):
            found.append(no)
            if len(found) == op.limit:
                break
    return found


def _pending(execute: Execute, op: ClaimNext, known: dict[str, str], now: float, limit: int) -> list[int]:
    queues = {row[0]: queue_of(QueueRow(*row)) for row in execute(sql.LIST_QUEUES).fetchall()}
    taken = _taken(execute, queues, now)
    closed = full(queues, taken, op.owner, now)
    names = op.queues or ()
    statement = sql.of_queues(sql.PENDING_RUNS, None if op.queues is None else len(names), len(closed), False)
    priority, created_at, run_id = op.after or (2**62, 0.0, "")
    size = 2 * limit + 32
    candidates: list[Candidate] = []
    numbers: dict[str, int] = {}
    chosen: list[Candidate] = []
    for _ in range(_PAGES):
        values = (-priority, -priority, created_at, run_id, now, *names, *closed, size)
        page = execute(statement, values).fetchall()
        for no, run_id, queue, priority, created_at, partition, serial, workflow, version in page:
            if workflow in known and is_known(version, known[workflow]):
                candidates.append(Candidate(run_id, queue, priority, created_at, partition, serial))
                numbers[run_id] = no
        chosen = choose(candidates, taken, queues, owner=op.owner, now=now, limit=limit)
        if len(chosen) == limit or len(page) < size:
            break
    return [numbers[run.id] for run in chosen]


def _taken(execute: Execute, queues: dict[str, Queue], now: float) -> Taken:
    executing = execute(sql.EXECUTING, (now,)).fetchall()
    since = longest_window(queues.values())
    begun = execute(sql.BEGUN, (now - since,)).fetchall() if since else []
    return Taken(executing, begun)
