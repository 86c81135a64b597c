"""Opening, claiming, updating and deleting runs, in PostgreSQL."""

from hashlib import blake2b
from typing import Any

from flowdsl.core.opening import Answers, Numbers, Unanswered, opening
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
from flowdsl.storage import columns
from flowdsl.storage.columns import Head
from flowdsl.storage.operations import AddTags, ClaimRun, DeleteRun, OpenRun, Restart, UpdateRun
from flowdsl.storage.outcomes import Done, Fenced, Missing, Opened, Outcome, opened
from flowdsl.storage.postgres.rows import Dialogue, checked, is_text
from flowdsl.storage.postgres.transaction import Transaction

__all__ = ["add_tags", "claim_run", "delete_run", "key_lock", "open_run", "restart", "update_run"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


def open_run(tx: Transaction, op: OpenRun) -> Dialogue[Outcome]:
    """Insert a run, or find the one that exists or is to be continued."""
    _check_run(op.run)
    answers: list[Any] = []
    while True:
        try:
            return opened(opening(op, Answers(answers), None))
        except Unanswered as unanswered:
            question = unanswered
        answers.append((yield from _answer(tx, op, question)))


def _answer(tx: Transaction, op: OpenRun, question: Unanswered) -> Dialogue[Any]:
    run = op.run
    if question.run is not None:
        return (yield from _insert(tx, op, question.run))
    if question.name == "numbers":
        return (yield from _numbers(tx, op))
    if question.name == "continuable":
        rows = yield tx.sql.continuable, (run.key, list(op.skip_owners), FOUND_AT_MOST)
        return [columns.run_of(row) for row in rows]
    if question.name == "by_id":
        rows = yield tx.sql.run_by_id, (run.id,)
        return columns.stored_run_of(rows[0])[1:] if rows else None
    yield tx.sql.lock_keys, ([key_lock(f"dedup {run.workflow} {run.queue} {run.dedup}")],)
    rows = yield tx.sql.same_work, (run.dedup, run.workflow, run.queue)
    return (rows[0][0], columns.run_of(rows[0][1:])) if rows else None


def _numbers(tx: Transaction, op: OpenRun) -> Dialogue[Numbers]:
    same = (op.nonce, op.run.owner, op.run.key)
    ((highest, epoch, opened_before, now),) = yield tx.sql.opening, (op.run.key, *same)
    tx.note_time(now)
    rows = (yield tx.sql.run_by_nonce, same) if opened_before else []
    moment = yield from tx.clock()
    return highest or 0, epoch, moment, columns.run_of(rows[0]) if rows else None


def _insert(tx: Transaction, op: OpenRun, run: Run) -> Dialogue[bool]:
    rows = yield tx.sql.insert_run, (op.nonce, *checked(columns.run_values(run)))
    if not rows:
        return False
    no = rows[0][0]
    yield from tx.add_tags(no, run.tags)
    tx.heads[run.id] = Head(no, run.epoch, run.status, 0)
    return True


def claim_run(tx: Transaction, op: ClaimRun) -> Dialogue[Outcome]:
    """Take a run over."""
    found = yield from tx.run(op.run_id)
    if found is None:
        return _MISSING
    no, nonce, run = found
    if sent_again(op.nonce, op.owner, nonce, run):
        return Opened(run)
    now = yield from tx.clock()
    changes = claimed(
        run,
        epoch=op.epoch,
        owner=op.owner,
        lease=op.lease,
        force=op.force,
        if_status=op.if_status,
        changes=op.changes,
        now=now,
    )
    if changes is None:
        return Fenced(run)
    yield from tx.set_run(op.run_id, no, changes | {"nonce": op.nonce})
    found = yield from tx.run(op.run_id)
    return Opened(found.run) if found else _MISSING


def update_run(tx: Transaction, op: UpdateRun) -> Dialogue[Outcome]:
    """Set fields of a run."""
    head = yield from tx.head(op.run_id)
    if head is None:
        return _MISSING
    if not fits(head, op.epoch, op.if_status):
        found = yield from tx.run(op.run_id)
        if found is not None and has_updated(found.run, op.epoch, op.if_status, op.changes):
            return _EXISTED
        return Fenced(found.run) if found else _MISSING
    now = (yield from tx.clock()) if op.release or op.lease is not None else 0.0
    if changes := updated(op.changes, op.lease, op.release, now):
        yield from tx.set_run(op.run_id, head.no, changes)
    return _DONE


def add_tags(tx: Transaction, op: AddTags) -> Dialogue[Outcome]:
    """Add tags to those of a run, which is locked."""
    found = yield from tx.run(op.run_id)
    if found is None:
        return _MISSING
    yield from tx.set_run(op.run_id, found.no, {"tags": merged_tags(found.run.tags, op.tags)})
    return _DONE


def restart(tx: Transaction, op: Restart) -> Dialogue[Outcome]:
    """Begin the next generation of a run."""
    head = yield from tx.head(op.run_id)  # locks it
    found = yield from tx.run(op.run_id)
    if head is None or found is None:
        return _MISSING
    run = found.run
    if has_restarted(run, op.epoch, op.changes):
        return _EXISTED
    if not fits(run, op.epoch):
        return Fenced(run)
    yield from tx.set_run(op.run_id, head.no, restarted(run, op.changes))
    yield tx.sql.keep_last, (head.last, head.no)
    yield tx.sql.drop_steps_of_run, (head.no,)
    yield tx.sql.drop_taken, (head.no,)
    return _DONE


def delete_run(tx: Transaction, op: DeleteRun) -> Dialogue[Outcome]:
    """Delete a run with all that belongs to it, or the stub that remained of it."""
    if not is_text(op.run_id):
        return _DONE
    rows = yield tx.sql.run_by_id, (op.run_id,)
    if not rows:
        return _DONE
    no, _, run = columns.stored_run_of(rows[0])
    stub = remains(run, op.tombstone, op.seal)
    if stub is run:
        return _DONE
    for statement in (
        tx.sql.drop_steps_of_run,
        tx.sql.drop_signals,
        tx.sql.drop_items,
        tx.sql.drop_tags,
    ):
        yield statement, (no,)
    if stub is not None:
        yield tx.sql.replace_run, (*columns.run_values(stub), no)
    else:
        yield tx.sql.delete_run, (no,)
        yield tx.sql.keep_epoch, (run.epoch,)
    tx.heads[op.run_id] = None
    return _DONE


def _check_run(run: Run) -> None:
    names = [text for item in columns.tag_items(run.tags) for text in item]
    checked([*columns.run_values(run), *names], (run.id, run.key, run.workflow, run.parent, *names))


def key_lock(key: str) -> int:
    """The number that is locked while runs of *key* are numbered."""
    return int.from_bytes(
        blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )
