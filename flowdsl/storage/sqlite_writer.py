"""What each operation means in SQL. Everything here runs inside one ``BEGIN IMMEDIATE`` transaction of one
connection.

An operation that is refused has changed nothing: the statement that can fail for its values comes first, and
SQLite undoes a failed statement by itself.
"""

import sqlite3
from collections.abc import Callable, Sequence
from heapq import merge
from itertools import count, groupby, islice
from typing import Any

from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus
from flowdsl.errors import StorageError
from flowdsl.storage import sqlite_rows as sql
from flowdsl.storage.base import (
    AddSignal,
    ClaimRun,
    DeleteRun,
    Done,
    DropMemo,
    DropSteps,
    Fenced,
    Found,
    Missing,
    Opened,
    OpenRun,
    Operation,
    Outcome,
    PutMemo,
    PutStep,
    TakeSignal,
    Unstorable,
    UpdateRun,
)
from flowdsl.storage.make import as_inserted, stub

__all__ = ["Transaction", "changes_of", "is_unstorable", "unstorable"]

_DONE = Done()
_MISSING = Missing()
_ENDED = (RunStatus.COMPLETED, RunStatus.CANCELLED)
_FOUND_AT_MOST = 16
_FEW = 8  # operations that are not worth reading ahead for


def is_unstorable(error: Exception) -> bool:
    """Whether *error* is about the values of one row, not about the storage.

    Those are: a row or value above SQLite's limit, an integer above 64 bits, a text that is no Unicode, a
    type that has no place in a column, ``None`` where there must be a value.
    """
    if isinstance(error, (sqlite3.DataError, sqlite3.IntegrityError, OverflowError, UnicodeEncodeError)):
        return True
    return isinstance(error, (sqlite3.InterfaceError, sqlite3.ProgrammingError)) and "binding" in str(error)


def unstorable(error: Exception) -> Unstorable:
    """The outcome for a row that failed with *error*."""
    reason = StorageError(
        f"this record cannot be stored in SQLite: {error}; it is too large or holds a value of a wrong type"
    )
    reason.__cause__ = error
    return Unstorable(reason)


def changes_of(op: UpdateRun, now: float) -> dict[str, Any]:
    """The fields that *op* sets, lease and release included."""
    changes = dict(op.changes)
    if op.release:
        changes |= {"owner": None, "lease_until": now}
    elif op.lease is not None:
        changes["lease_until"] = now + op.lease
    return changes


class Transaction:
    """Applies operations inside a transaction that the caller has begun and will commit or roll back.

    What was read of a run is remembered until an operation changes it: nobody else can write meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._now = now
        self._heads: dict[str, tuple[int, int, str] | None] = {}
        self._highest_seq: int | None = None

    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """One outcome for each of *operations*, in order."""
        outcomes: list[Outcome] = []
        if len(operations) > _FEW:
            self._read_heads(operations)
        for plain_puts, group in groupby(operations, key=lambda op: type(op) is PutStep and not op.once):
            if plain_puts:
                outcomes += self._put_steps(list(group))  # type: ignore[arg-type]
            else:
                outcomes += [self._apply_one(operation) for operation in group]
        return outcomes

    def clear(self) -> list[Outcome]:
        """Delete everything, but not the memory of which numbers were used."""
        (epoch,) = self._one(sql.HIGHEST_EPOCH) or (0,)
        self._execute(sql.KEEP_EPOCH, (epoch,))
        highest = self._last_seq()
        for statement in sql.CLEAR:
            self._execute(statement)
        self._keep_seq(highest)
        return []

    def _apply_one(self, operation: Operation) -> Outcome:
        try:
            return _APPLY[type(operation)](self, operation)
        except Exception as error:
            if is_unstorable(error):
                return unstorable(error)
            raise

    # Runs --------------------------------------------------------------------------------------------------

    def _open_run(self, op: OpenRun) -> Outcome:
        run = op.run
        if run.number is None:
            if (row := self._one(sql.RUN_BY_ID, run.id)) is not None:
                found = sql.run_of(row[2:])
                again = op.nonce and row[1] == op.nonce and found.owner == run.owner
                return Opened(found) if again else Found((found,))
            return self._insert_run(op, run.id, None, self._highest(run.key)[1])
        if op.nonce and (row := self._one(sql.RUN_BY_NONCE, op.nonce, run.owner, run.key)):
            return Opened(sql.run_of(row))
        highest, epoch = self._highest(run.key)
        if highest and not op.fresh and (oldest := self._continuable(run.key, op.skip_owners)):
            rows = [self._one(sql.RUN_BY_NO, no) for no in oldest]
            return Found(tuple(sql.run_of(row) for row in rows if row))
        for number in count(highest + 1):
            try:
                return self._insert_run(op, f"{run.id}-{number}", number, epoch)
            except sqlite3.IntegrityError as error:
                if "runs.id" not in str(error):
                    raise
        raise AssertionError("unreachable")

    def _highest(self, key: str) -> tuple[int, int]:
        """The highest number of the runs of *key*, and the highest epoch of the deleted runs; 0 for none."""
        number, epoch = self._one(sql.HIGHEST_NUMBER_AND_EPOCH, key) or (None, None)
        return number or 0, epoch or 0

    def _continuable(self, key: str, skip_owners: tuple[str, ...]) -> list[int]:
        groups = [self._execute(sql.LIVE_UNOWNED, (key, _FOUND_AT_MOST)).fetchall()]
        owner = ""
        while row := self._one(sql.LIVE_OWNER_AFTER, key, owner):
            owner = row[0]
            if owner not in skip_owners:
                groups.append(self._execute(sql.LIVE_OWNED, (key, owner, _FOUND_AT_MOST)).fetchall())
        groups.append(self._execute(sql.FAILED_RETRYABLE, (key, _FOUND_AT_MOST)).fetchall())
        return [no for _, no in islice(merge(*groups), _FOUND_AT_MOST)]

    def _insert_run(self, op: OpenRun, run_id: str, number: int | None, epoch: int) -> Outcome:
        run = as_inserted(op.run, run_id, number, epoch + 1, self._now + op.lease)
        cursor = self._execute(sql.INSERT_RUN, (*sql.run_values(run), op.nonce))
        if run.tags:
            self._executemany(sql.ADD_TAG, sql.tag_rows(cursor.lastrowid or 0, run.tags))
        self._heads.pop(run_id, None)
        return Opened(run)

    def _claim_run(self, op: ClaimRun) -> Outcome:
        found = self._run(op.run_id)
        if found is None:
            return _MISSING
        no, run = found
        if op.nonce and self._one(sql.RUN_BY_NONCE, op.nonce, op.owner, run.key):
            return Opened(run)
        free = op.force or run.owner is None or run.lease_until <= self._now
        if run.epoch != op.epoch or not free or (op.if_status and run.status not in op.if_status):
            return Fenced(run)
        changes = {"owner": op.owner, "status": RunStatus.RUNNING, "finished_at": None, **op.changes}
        changes |= {"epoch": run.epoch + 1, "lease_until": self._now + op.lease, "nonce": op.nonce}
        self._set_run(op.run_id, no, changes)
        found = self._run(op.run_id)
        return Opened(found[1]) if found else _MISSING

    def _update_run(self, op: UpdateRun) -> Outcome:
        changes = changes_of(op, self._now)
        head = self._head(op.run_id)
        if head is None:
            return _MISSING
        no, epoch, status = head
        if op.epoch is not None and op.epoch != epoch:
            return self._fenced(op.run_id)
        if op.if_status and status not in op.if_status:
            if op.epoch is not None and op.changes and self._has(op.run_id, op.changes):
                return Done(existed=True)
            return self._fenced(op.run_id)
        if changes:
            self._set_run(op.run_id, no, changes)
        return _DONE

    def _set_run(self, run_id: str, no: int, changes: dict[str, Any]) -> None:
        values = [sql.encode_run_field(name, value) for name, value in changes.items()]
        self._execute(sql.update_run(tuple(changes)), (*values, no))
        if "tags" in changes:
            self._execute(sql.DROP_TAGS, (no,))
            self._executemany(sql.ADD_TAG, sql.tag_rows(no, changes["tags"]))
        if "status" in changes or "epoch" in changes:
            self._heads.pop(run_id, None)

    def _has(self, run_id: str, changes: Any) -> bool:
        found = self._run(run_id)
        return found is not None and all(getattr(found[1], name) == value for name, value in changes.items())

    def _delete_run(self, op: DeleteRun) -> Outcome:
        row = self._one(sql.RUN_BY_ID, op.run_id)
        if row is None:
            return _DONE
        no, run = row[0], sql.run_of(row[2:])
        if run.pruned and op.tombstone:
            return _DONE
        highest = self._last_seq()
        for statement in (sql.DROP_STEPS_OF_RUN, sql.DROP_SIGNALS, sql.DROP_TAGS):
            self._execute(statement, (no,))
        self._keep_seq(highest)
        if op.tombstone and run.number is None:
            self._execute(sql.REPLACE_RUN, (no, *sql.run_values(stub(run))))
        else:
            self._execute(sql.DELETE_RUN, (no,))
            self._execute(sql.KEEP_EPOCH, (run.epoch,))
        self._heads.pop(op.run_id, None)
        return _DONE

    # Steps -------------------------------------------------------------------------------------------------

    def _put_steps(self, operations: list[PutStep]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        rows = []
        for op in operations:
            run = self._owned(op.step.run_id, op.epoch)
            if isinstance(run, int):
                seq = self._next_seq()
                rows.append((seq, run, *sql.step_values(op.step)))
                outcomes.append(Done(seq))
            else:
                outcomes.append(run)
        try:
            self._executemany(sql.UPSERT_STEP, rows)
        except Exception as error:
            if not is_unstorable(error):
                raise
            # One row is at fault. What of the others is stored already is stored again: the same, under a
            # later seq.
            return [self._apply_one(op) for op in operations]
        return outcomes

    def _put_step(self, op: PutStep) -> Outcome:
        run = self._owned(op.step.run_id, op.epoch)
        if not isinstance(run, int):
            return run
        if op.once and (row := self._one(sql.STEP_SEQ, run, op.step.key)):
            return Done(row[0], existed=True)
        return self._put(run, op.step)

    def _put(self, run: int, step: Step) -> Done:
        seq = self._next_seq()
        self._execute(sql.UPSERT_STEP, (seq, run, *sql.step_values(step)))
        return Done(seq)

    def _drop_steps(self, op: DropSteps) -> Outcome:
        run = self._owned(op.run_id, op.epoch)
        if not isinstance(run, int):
            return run
        highest = self._last_seq()
        self._executemany(sql.DROP_STEP, [(run, key) for key in op.keys])
        self._keep_seq(highest)
        return _DONE

    def _last_seq(self) -> int:
        if self._highest_seq is None:
            (self._highest_seq,) = self._one(sql.HIGHEST_SEQ) or (0,)
        return self._highest_seq or 0

    def _next_seq(self) -> int:
        self._highest_seq = self._last_seq() + 1
        return self._highest_seq

    def _keep_seq(self, highest: int) -> None:
        # The next seq is one above the highest row: where that row went, another must hold its place.
        if highest > ((self._one(sql.HIGHEST_SEQ) or (0,))[0] or 0):
            self._execute(sql.KEEP_SEQ, (highest,))

    # Signals and memos -------------------------------------------------------------------------------------

    def _add_signal(self, op: AddSignal) -> Outcome:
        signal = op.signal
        head = self._head(signal.run_id)
        if head is None:
            return _MISSING
        no = head[0]
        if row := self._one(sql.SAME_SIGNAL, no, signal.id, no, signal.name, signal.key):
            return Done(row[0], existed=True)
        if head[2] in _ENDED:
            return self._fenced(signal.run_id)
        cursor = self._execute(sql.ADD_SIGNAL, sql.signal_values(head[0], signal))
        return Done(cursor.lastrowid or 0)

    def _take_signal(self, op: TakeSignal) -> Outcome:
        run = self._owned(op.step.run_id, op.epoch)
        if not isinstance(run, int):
            return run
        row = self._one(sql.SIGNAL_TAKEN_BY, run, op.signal_id)
        if row is None or row[0] not in (None, op.step.key):
            return _MISSING
        done = self._put(run, op.step)
        self._execute(sql.TAKE_SIGNAL, (op.step.key, run, op.signal_id))
        return done

    def _put_memo(self, op: PutMemo) -> Outcome:
        self._execute(sql.PUT_MEMO, sql.memo_values(op.memo))
        return _DONE

    def _drop_memo(self, op: DropMemo) -> Outcome:
        self._execute(sql.DROP_MEMO, (op.key,))
        return _DONE

    # What stands there -------------------------------------------------------------------------------------

    def _one(self, statement: str, *values: Any) -> sql.Row | None:
        row: sql.Row | None = self._execute(statement, values).fetchone()
        return row

    def _head(self, run_id: str) -> tuple[int, int, str] | None:
        try:
            return self._heads[run_id]
        except KeyError:
            head: Any = self._one(sql.RUN_HEAD, run_id)
            self._heads[run_id] = head
            return head  # type: ignore[no-any-return]

    def _read_heads(self, operations: Sequence[Operation]) -> None:
        """Read at once what many operations would ask for one by one: a statement costs more than its row."""
        ids = {op.step.run_id for op in operations if type(op) is PutStep}
        ids |= {op.run_id for op in operations if type(op) is UpdateRun}
        wanted = list(ids)
        for start in range(0, len(wanted), 512):
            chunk = wanted[start : start + 512]
            size = next(size for size in (8, 64, 512) if size >= len(chunk))  # few sizes: few statements
            try:
                rows = self._execute(
                    sql.run_heads(size), [*chunk, *chunk[:1] * (size - len(chunk))]
                ).fetchall()
            except Exception as error:
                if not is_unstorable(error):
                    raise
                continue  # one of the ids is no Unicode: whose operation it is will be told that
            self._heads.update((run_id, (no, epoch, status)) for run_id, no, epoch, status in rows)

    def _owned(self, run_id: str, epoch: int | None) -> int | Fenced | Missing:
        """The number of the run, if it has this epoch; else the outcome that says why not."""
        head = self._head(run_id)
        if head is None:
            return _MISSING
        return head[0] if epoch is None or epoch == head[1] else self._fenced(run_id)

    def _run(self, run_id: str) -> tuple[int, Run] | None:
        row = self._one(sql.RUN_BY_ID, run_id)
        if row is None:
            return None
        run = sql.run_of(row[2:])
        return None if run.pruned else (row[0], run)

    def _fenced(self, run_id: str) -> Fenced | Missing:
        found = self._run(run_id)
        return Fenced(found[1]) if found else _MISSING


_APPLY: dict[type, Callable[[Transaction, Any], Outcome]] = {
    OpenRun: Transaction._open_run,
    ClaimRun: Transaction._claim_run,
    UpdateRun: Transaction._update_run,
    PutStep: Transaction._put_step,
    DropSteps: Transaction._drop_steps,
    AddSignal: Transaction._add_signal,
    TakeSignal: Transaction._take_signal,
    DeleteRun: Transaction._delete_run,
    PutMemo: Transaction._put_memo,
    DropMemo: Transaction._drop_memo,
}
