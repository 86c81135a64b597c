"""Opening, claiming, updating and deleting runs, in memory."""

from flowdsl.core.ownership import (
    claimed,
    fits,
    has_restarted,
    has_updated,
    inserted,
    numbers_for,
    outlives_restart,
    remains,
    restarted,
    sent_again,
    updated,
)
from flowdsl.storage.memory.tables import Tables, copy_of
from flowdsl.storage.operations import ClaimRun, DeleteRun, OpenRun, Restart, UpdateRun
from flowdsl.storage.outcomes import Done, Fenced, Found, Missing, Opened, Outcome, existing

__all__ = ["claim_run", "delete_run", "open_run", "restart", "update_run"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def open_run(tables: Tables, op: OpenRun) -> Outcome:
    """Insert a run, or find the one that exists or is to be continued."""
    run = op.run
    if run.dedup is not None:
        work = run.workflow, run.queue, run.dedup
        for data in tables.unfinished():
            if (data.run.workflow, data.run.queue, data.run.dedup) == work:
                return existing(op, data.nonce, copy_of(data.run))
    if run.number is None:
        if (found := tables.runs.get(run.id)) is not None:
            return existing(op, found.nonce, copy_of(found.run))
        if (pruned := tables.stubs.get(run.id)) is not None:
            return Found((pruned,))
        return _insert(tables, op, run.id, None)
    before = tables.opened_by(op.nonce)
    if before is not None and (before.run.owner, before.run.key) == (run.owner, run.key):
        return Opened(copy_of(before.run))
    numbered = tables.numbered(run.key)
    if not op.fresh and (oldest := numbered.oldest(op.skip_owners)):
        return Found(tuple(copy_of(tables.runs[run_id].run) for run_id in oldest))
    for number in numbers_for(op.number, numbered.highest):
        run_id = f"{run.id}-{number}"
        if run_id not in tables.runs and run_id not in tables.stubs:
            return _insert(tables, op, run_id, number)
    return _MISSING


def _insert(tables: Tables, op: OpenRun, run_id: str, number: int | None) -> Outcome:
    run = inserted(op.run, run_id, number, tables.highest_epoch + 1, tables.now() + op.lease)
    tables.insert(run, op.nonce)
    return Opened(copy_of(run))


def claim_run(tables: Tables, op: ClaimRun) -> Outcome:
    """Take a run over."""
    data = tables.runs.get(op.run_id)
    if data is None:
        return _MISSING
    run = data.run
    if sent_again(op.nonce, op.owner, data.nonce, run):
        return Opened(copy_of(run))
    changes = claimed(
        run,
        epoch=op.epoch,
        owner=op.owner,
        lease=op.lease,
        force=op.force,
        if_status=op.if_status,
        changes=op.changes,
        now=tables.now(),
    )
    if changes is None:
        return Fenced(copy_of(run))
    tables.take(data, changes, op.nonce)
    return Opened(copy_of(data.run))


def update_run(tables: Tables, op: UpdateRun) -> Outcome:
    """Set fields of a run."""
    data = tables.runs.get(op.run_id)
    if data is None:
        return _MISSING
    run = data.run
    if not fits(run, op.epoch, op.if_status):
        if has_updated(run, op.epoch, op.if_status, op.changes):
            return _EXISTED
        return Fenced(copy_of(run))
    tables.change(data, updated(op.changes, op.lease, op.release, tables.now()))
    return _DONE


def restart(tables: Tables, op: Restart) -> Outcome:
    """Begin the next generation of a run."""
    data = tables.runs.get(op.run_id)
    if data is None:
        return _MISSING
    if has_restarted(data.run, op.epoch, op.changes):
        return _EXISTED
    if not fits(data.run, op.epoch):
        return Fenced(copy_of(data.run))
    tables.change(data, restarted(data.run, op.changes))
    data.steps.clear()
    for signal in [one for one in data.signals.values() if not outlives_restart(one)]:
        data.forget(signal)
    return _DONE


def delete_run(tables: Tables, op: DeleteRun) -> Outcome:
    """Delete a run with all that belongs to it, or the stub that remained of it."""
    data = tables.runs.get(op.run_id)
    run = tables.stubs.get(op.run_id) if data is None else data.run
    if run is None:
        return _DONE
    if data is not None:
        tables.remove(data)
    if (stub := remains(run, op.tombstone, op.seal)) is not None:
        tables.stubs[run.id] = stub
    else:
        tables.stubs.pop(run.id, None)
        tables.keep_epoch(run.epoch)
    return _DONE
