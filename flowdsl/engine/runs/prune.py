"""Deleting runs that ended long ago."""

from flowdsl.core.records import RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.engine.engine import Engine
from flowdsl.storage.operations import DeleteRun

__all__ = ["prune"]


def prune(engine: Engine, older_than: float, status: tuple[RunStatus, ...], at_once: int = 200) -> int:
    """Delete the runs that have one of the final states *status*, and ended more than *older_than* seconds
    ago. Returns how many. A run whose id was given leaves a stub, so that its id still means that run.

    *at_once* runs are looked at, and deleted in one commit.
    """
    limit = engine.clock.now() - older_than
    pruned = 0
    after: str | None = None
    while True:
        some = RunFilter(status=status, newest_first=False, after=after, limit=at_once)
        found = engine.storage.list_runs(some)
        gone = []
        for run in found:
            if run.finished_at is not None and run.finished_at <= limit:
                gone.append(run.id)
            else:
                after = run.id
        if gone:
            engine.commit(*(DeleteRun(run_id, tombstone=True) for run_id in gone))
            pruned += len(gone)
        if len(found) < at_once:
            return pruned
