"""Taking the next runs of queues, in memory. :mod:`flowdsl.core.queues` and :mod:`flowdsl.core.ownership`
decide which those are."""

from flowdsl.core.listing import place_of
from flowdsl.core.ownership import claimed_next, may_claim, may_come_from, sent_again
from flowdsl.core.queues import Candidate, Taken, choose, longest_window, queue_of
from flowdsl.core.status import RunStatus
from flowdsl.core.versions import knows
from flowdsl.storage.memory.tables import Tables, copy_of
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.outcomes import Claimed

__all__ = ["claim_next"]


def claim_next(tables: Tables, op: ClaimNext) -> Claimed:
    """Take the next runs that the owner may execute."""
    now, known = tables.now(), dict(op.workflows)
    before = [one.run for one in tables.unfinished() if sent_again(op.nonce, op.owner, one.nonce, one.run)]
    if before:
        return Claimed(tuple(map(copy_of, before)))
    live = [data.run for data in tables.unfinished()]
    free = [
        run
        for run in live
        if knows(known, run.workflow, run.version)
        and may_claim(run, now)
        and may_come_from(run, op.queues)
        and run.id not in op.skip
    ]
    lost = sorted((run for run in free if run.status is RunStatus.RUNNING), key=place_of)[: op.limit]
    queues = {row.name: queue_of(row) for row in tables.queues.values()}
    since = now - longest_window(queues.values())
    taken = Taken.by(
        (run for run in live if run.owner is not None and run.lease_until > now),
        (data.run for data in tables.runs.values() if (data.run.claimed_at or since) > since),
    )
    pending = [Candidate.of(run) for run in free if run.status is RunStatus.PENDING]
    more = choose(pending, taken, queues, owner=op.owner, now=now, limit=op.limit - len(lost))
    chosen = [tables.runs[run_id] for run_id in [run.id for run in lost] + [run.id for run in more]]
    for data in chosen:
        tables.take(data, claimed_next(data.run, owner=op.owner, lease=op.lease, now=now), op.nonce)
    return Claimed(tuple(copy_of(data.run) for data in chosen))
