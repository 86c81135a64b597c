"""Opening, claiming, updating and deleting runs, in memory."""

from flowdsl.core.opening import Found, Numbers, opening
from flowdsl.core.ownership import (
    claimed,
    fits,
    has_restarted,
    has_updated,
    merged_tags,
    outlives_restart,
    remains,
    restarted,
    sent_again,
    updated,
)
from flowdsl.core.records import Run
from flowdsl.storage.memory.tables import Tables, copy_of
from flowdsl.storage.operations import AddTags, ClaimRun, DeleteRun, OpenRun, Restart, UpdateRun
from flowdsl.storage.outcomes import Done, Fenced, Missing, Opened, Outcome, opened

__all__ = ["add_tags", "claim_run", "delete_run", "open_run", "restart", "update_run"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def open_run(tables: Tables, op: OpenRun) -> Outcome:
    """Insert a run, or find the one that exists or is to be continued."""
    return opened(opening(op, _ROWS, tables))


class _Rows:
    """The rows of an opening, in the tables."""

    def same_work(self, tables: Tables, op: OpenRun) -> Found | None:
        work = op.run.workflow, op.run.queue, op.run.dedup
        for one in tables.unfinished():
            if (one.run.workflow, one.run.queue, one.run.dedup) == work:
                return one.nonce, copy_of(one.run)
        return None

    def by_id(self, tables: Tables, op: OpenRun) -> Found | None:
        run_id = op.run.id
        if (pruned := tables.stubs.get(run_id)) is not None:
            return "", pruned
        found = tables.runs.get(run_id)
        return None if found is None else (found.nonce, copy_of(found.run))

    def numbers(self, tables: Tables, op: OpenRun) -> Numbers:
        run = op.run
        if run.number is None:
            return 0, tables.highest_epoch, tables.now(), None
        before = tables.opened_by(op.nonce)
        if before is not None and (before.run.owner, before.run.key) != (run.owner, run.key):
            before = None
        highest = tables.numbered(run.key).highest
        return highest, tables.highest_epoch, tables.now(), None if before is None else copy_of(before.run)

    def continuable(self, tables: Tables, op: OpenRun) -> list[Run]:
        oldest = tables.numbered(op.run.key).oldest(op.skip_owners)
        return [copy_of(tables.runs[run_id].run) for run_id in oldest] if oldest else []

    def insert(self, tables: Tables, op: OpenRun, run: Run) -> bool:
        if run.id in tables.runs or run.id in tables.stubs:
            return False
        tables.insert(copy_of(run), op.nonce)
        return True


_ROWS = _Rows()


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


def add_tags(tables: Tables, op: AddTags) -> Outcome:
    """Add tags to those of a run."""
    data = tables.runs.get(op.run_id)
    if data is None:
        return _MISSING
    tables.change(data, {"tags": merged_tags(data.run.tags, op.tags)})
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
