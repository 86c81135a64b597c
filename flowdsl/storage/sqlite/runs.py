"""Opening, claiming, updating and deleting runs, in SQLite."""

import sqlite3
from heapq import merge
from itertools import islice
from typing import Any

from flowdsl.core.ownership import (
    FOUND_AT_MOST,
    claimed,
    fits,
    has_restarted,
    has_updated,
    inserted,
    numbers_for,
    remains,
    restarted,
    sent_again,
    updated,
)
from flowdsl.errors import CorruptPayload
from flowdsl.storage import columns
from flowdsl.storage.operations import ClaimRun, DeleteRun, OpenRun, Restart, UpdateRun
from flowdsl.storage.outcomes import Done, Fenced, Found, Missing, Opened, Outcome, existing
from flowdsl.storage.sqlite import rows
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["claim_run", "delete_run", "open_run", "restart", "update_run"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def open_run(tx: Transaction, op: OpenRun) -> Outcome:
    """Insert a run, or find the one that exists or is to be continued."""
    run = op.run
    if run.dedup is not None:
        same = tx.one(sql.SAME_WORK, run.dedup, run.workflow, run.queue)
        if same is not None:
            return existing(op, same[0], columns.run_of(same[1:]))
    if run.number is None:
        if (row := tx.one(sql.RUN_BY_ID, run.id)) is not None:
            found = columns.stored_run_of(row)
            return existing(op, found.nonce, found.run)
        return _insert(tx, op, run.id, None, _highest(tx, run.key)[1])
    if op.nonce and (row := tx.one(sql.RUN_BY_NONCE, op.nonce, run.owner, run.key)):
        return Opened(columns.run_of(row))
    highest, epoch = _highest(tx, run.key)
    if highest and not op.fresh and (oldest := _continuable(tx, run.key, op.skip_owners)):
        found_rows = [tx.one(sql.RUN_BY_NO, no) for no in oldest]
        return Found(tuple(columns.run_of(row) for row in found_rows if row))
    for number in numbers_for(op.number, highest):
        try:
            return _insert(tx, op, f"{run.id}-{number}", number, epoch)
        except sqlite3.IntegrityError as error:
            if "runs.id" not in str(error):
                raise
    return _MISSING


def _highest(tx: Transaction, key: str) -> tuple[int, int]:
    """The highest number of the runs of *key*, and the highest epoch of the deleted runs. 0 if there are
    none."""
    number, epoch = tx.one(sql.HIGHEST_NUMBER_AND_EPOCH, key) or (None, None)
    if number is not None and not _is_count(number):  # it is damaged: the others are looked at
        (number,) = tx.one(sql.HIGHEST_SOUND_NUMBER, key) or (None,)
    if epoch is not None and not _is_count(epoch):
        raise CorruptPayload(f"the counter of epochs is damaged in the database: {epoch!r}")
    return number or 0, epoch or 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value < columns.MOST


def _continuable(tx: Transaction, key: str, skip_owners: tuple[str, ...]) -> list[int]:
    """Numbers of the oldest runs that ``may_continue``. Indexes that hold no other runs find them."""
    groups = [tx.execute(sql.LIVE_UNOWNED, (key, FOUND_AT_MOST)).fetchall()]
    owner = ""
    while row := tx.one(sql.LIVE_OWNER_AFTER, key, owner):
        owner = row[0]
        if owner not in skip_owners:
            groups.append(tx.execute(sql.LIVE_OWNED, (key, owner, FOUND_AT_MOST)).fetchall())
    groups.append(tx.execute(sql.FAILED_RETRYABLE, (key, FOUND_AT_MOST)).fetchall())
    return [no for _, no in islice(merge(*groups), FOUND_AT_MOST)]


def _insert(tx: Transaction, op: OpenRun, run_id: str, number: int | None, epoch: int) -> Outcome:
    run = inserted(op.run, run_id, number, epoch + 1, tx.now + op.lease)
    no = tx.insert("runs", ("nonce", *columns.RUN_COLUMNS), (op.nonce, *columns.run_values(run)))
    if run.tags:
        tx.executemany(sql.ADD_TAG, rows.tag_rows(no, run.tags))
    tx.heads[run_id] = columns.Head(no, run.epoch, run.status, no << 32)
    return Opened(run)


def claim_run(tx: Transaction, op: ClaimRun) -> Outcome:
    """Take a run over."""
    found = tx.run(op.run_id)
    if found is None:
        return _MISSING
    no, nonce, run = found
    if sent_again(op.nonce, op.owner, nonce, run):
        return Opened(run)
    changes = claimed(
        run,
        epoch=op.epoch,
        owner=op.owner,
        lease=op.lease,
        force=op.force,
        if_status=op.if_status,
        changes=op.changes,
        now=tx.now,
    )
    if changes is None:
        return Fenced(run)
    tx.set_run(op.run_id, no, changes | {"nonce": op.nonce})
    found = tx.run(op.run_id)
    return Opened(found.run) if found else _MISSING


def update_run(tx: Transaction, op: UpdateRun) -> Outcome:
    """Set fields of a run."""
    head = tx.head(op.run_id)
    if head is None:
        return _MISSING
    if not fits(head, op.epoch, op.if_status):
        found = tx.run(op.run_id)
        if found is not None and has_updated(found.run, op.epoch, op.if_status, op.changes):
            return _EXISTED
        return Fenced(found.run) if found else _MISSING
    if changes := updated(op.changes, op.lease, op.release, tx.now):
        tx.set_run(op.run_id, head.no, changes)
    return _DONE


def restart(tx: Transaction, op: Restart) -> Outcome:
    """Begin the next generation of a run."""
    head, found = tx.head(op.run_id), tx.run(op.run_id)
    if head is None or found is None:
        return _MISSING
    if has_restarted(found.run, op.epoch, op.changes):
        return _EXISTED
    if not fits(found.run, op.epoch):
        return Fenced(found.run)
    tx.set_run(op.run_id, head.no, restarted(found.run, op.changes))
    tx.execute(sql.KEEP_LAST, (head.last, head.no))
    tx.execute(sql.DROP_STEPS_OF_RUN, (head.no, head.no))
    tx.execute(sql.DROP_TAKEN, (head.no,))
    return _DONE


def delete_run(tx: Transaction, op: DeleteRun) -> Outcome:
    """Delete a run with all that belongs to it, or the stub that remained of it."""
    row = tx.one(sql.RUN_BY_ID, op.run_id)
    if row is None:
        return _DONE
    no, _, run = columns.stored_run_of(row)
    stub = remains(run, op.tombstone, op.seal)
    if stub is run:
        return _DONE
    tx.execute(sql.DROP_STEPS_OF_RUN, (no, no))
    for statement in (sql.DROP_SIGNALS, sql.DROP_ITEMS, sql.DROP_TAGS):
        tx.execute(statement, (no,))
    if stub is not None:
        tx.execute(sql.REPLACE_RUN, (no, *columns.run_values(stub)))
    else:
        tx.execute(sql.DELETE_RUN, (no,))
        tx.execute(sql.KEEP_EPOCH, (run.epoch,))
    tx.heads[op.run_id] = None
    return _DONE
