"""Opening, claiming, updating and deleting runs, in SQLite."""

import sqlite3
from heapq import merge
from itertools import islice
from typing import Any

from flowdsl.core.opening import Found, Numbers, opening
from flowdsl.core.ownership import (
    FOUND_AT_MOST,
    claimed,
    fits,
    has_restarted,
    has_updated,
    merged_tags,
    remains,
    restarted,
    sent_again,
    updated,
)
from flowdsl.core.records import Run
from flowdsl.errors import CorruptPayload
from flowdsl.storage import columns
from flowdsl.storage.operations import AddTags, ClaimRun, DeleteRun, OpenRun, Restart, UpdateRun
from flowdsl.storage.outcomes import Done, Fenced, Missing, Opened, Outcome, opened
from flowdsl.storage.sqlite import rows
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.transaction import Transaction

__all__ = ["add_tags", "claim_run", "delete_run", "open_run", "restart", "update_run"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def open_run(tx: Transaction, op: OpenRun) -> Outcome:
    """Insert a run, or find the one that exists or is to be continued."""
    return opened(opening(op, _ROWS, tx))


class _Rows:
    """The rows of an opening, in a transaction."""

    def same_work(self, tx: Transaction, op: OpenRun) -> Found | None:
        row = tx.one(sql.SAME_WORK, op.run.dedup, op.run.workflow, op.run.queue)
        return None if row is None else (row[0], columns.run_of(row[1:]))

    def by_id(self, tx: Transaction, op: OpenRun) -> Found | None:
        row = tx.one(sql.RUN_BY_ID, op.run.id)
        return None if row is None else columns.stored_run_of(row)[1:]

    def numbers(self, tx: Transaction, op: OpenRun) -> Numbers:
        key = op.run.key
        number, epoch, no = tx.one(sql.OPENING, key, op.nonce, op.run.owner) or (None, None, None)
        before = None if no is None else tx.one(sql.RUN_BY_NO, no)
        if number is not None and not _is_count(number):  # it is damaged: the others are looked at
            (number,) = tx.one(sql.HIGHEST_SOUND_NUMBER, key) or (None,)
        if epoch is not None and not _is_count(epoch):
            raise CorruptPayload(f"the counter of epochs is damaged in the database: {epoch!r}")
        return number or 0, epoch or 0, tx.now, None if before is None else columns.run_of(before)

    def continuable(self, tx: Transaction, op: OpenRun) -> list[Run]:
        oldest = [tx.one(sql.RUN_BY_NO, no) for no in _continuable(tx, op.run.key, op.skip_owners)]
        return [columns.run_of(row) for row in oldest if row]

    def insert(self, tx: Transaction, op: OpenRun, run: Run) -> bool:
        return _insert(tx, op, run)


_ROWS = _Rows()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value < columns.MOST


def _continuable(tx: Transaction, key: str, skip_owners: tuple[str, ...]) -> list[int]:
    """Numbers of the oldest runs that ``may_continue``. Indexes that hold no other runs find them."""
    if tx.one(sql.MAY_CONTINUE, key, key) == (0,):  # so it is nearly always
        return []
    groups = [tx.execute(sql.LIVE_UNOWNED, (key, FOUND_AT_MOST)).fetchall()]
    owner = ""
    while row := tx.one(sql.LIVE_OWNER_AFTER, key, owner):
        owner = row[0]
        if owner not in skip_owners:
            groups.append(tx.execute(sql.LIVE_OWNED, (key, owner, FOUND_AT_MOST)).fetchall())
    groups.append(tx.execute(sql.FAILED_RETRYABLE, (key, FOUND_AT_MOST)).fetchall())
    return [no for _, no in islice(merge(*groups), FOUND_AT_MOST)]


def _insert(tx: Transaction, op: OpenRun, run: Run) -> bool:
    try:
        no = tx.insert("runs", ("nonce", *columns.RUN_COLUMNS), (op.nonce, *columns.run_values(run)))
    except sqlite3.IntegrityError as error:
        if "runs.id" not in str(error):
            raise
        return False
    if run.tags:
        tx.executemany(sql.ADD_TAG, rows.tag_rows(no, run.tags))
    tx.heads[run.id] = columns.Head(no, run.epoch, run.status, no << 32)
    return True


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


def add_tags(tx: Transaction, op: AddTags) -> Outcome:
    """Add tags to those of a run."""
    found = tx.run(op.run_id)
    if found is None:
        return _MISSING
    tx.set_run(op.run_id, found.no, {"tags": merged_tags(found.run.tags, op.tags)})
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
