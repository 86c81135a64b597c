"""What each operation means in SQL, on the connection with which a process writes.

Most commits of a lone run are one operation. One statement is a transaction, without ``BEGIN`` and
``COMMIT``. All other commits are inside one ``BEGIN IMMEDIATE``. A refused operation has changed nothing: its
first statement is the one that can fail for its values, and SQLite takes back a failed statement by itself.

Steps are numbered here. The writer remembers the number of the last step of each run that this process has
written. So it stores the next step without a look. If another process has stored one since, that number is
taken, and the statement stores nothing. Then a transaction looks.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from heapq import merge
from itertools import islice
from typing import Any

from attrs import define

from flowdsl.core.ownership import (
    FOUND_AT_MOST,
    claimed,
    claimed_next,
    fits,
    has_restarted,
    in_place,
    inserted,
    may_take,
    numbers_for,
    restarted,
    stands,
    stub,
    takes_messages,
    updated,
)
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus
from flowdsl.errors import CorruptPayload, StorageError
from flowdsl.storage import columns
from flowdsl.storage.operations import (
    AddSignal,
    ClaimNext,
    ClaimRun,
    DeleteRun,
    DropMemo,
    DropQueue,
    DropSchedule,
    DropSteps,
    DropWorker,
    OpenRun,
    Operation,
    Publish,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutStep,
    PutWorker,
    Reply,
    Restart,
    Rewrite,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.outcomes import Claimed, Done, Fenced, Found, Missing, Opened, Outcome, Unstorable
from flowdsl.storage.sqlite import rows
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.claiming import next_runs

__all__ = ["Transaction", "Writer", "chunks_of", "is_unstorable", "unstorable"]

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()
_FEW = 8  # for so few operations, reading ahead is not worth it
_NUMBER = 0xFFFFFFFF  # bits of the seq that number the steps of one run
_REMEMBERED = 10_000  # for so many runs the last number is remembered
_STATUS = {status.value: status for status in RunStatus}


_UNSTORABLE = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""What may be about the values of a row: see :func:`is_unstorable`."""


def is_unstorable(error: Exception) -> bool:
    """Whether *error* is about the values of one row, not about the storage.

    These are: a row or value above SQLite's limit, an integer above 64 bits, a text that is not Unicode, a
    type that no column takes, ``None`` where there must be a value.
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


_PASSED_OVER = 1000  # most damaged rows that a claim looks at


class Writer:
    """The connection of a process that writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        connection.text_factory = rows.or_bytes
        self._execute = connection.execute
        self._lasts: dict[str, int] = {}  # run → the seq of its last step that this process stored

    def commit(self, operations: Sequence[Operation], now: float) -> list[Outcome]:
        """Apply *operations* durably. Returns one outcome for each. Errors of the driver pass, and then
        nothing is done."""
        if len(operations) == 1:
            operation = operations[0]
            if type(operation) is PutStep:
                outcome = self._append(operation)
            elif type(operation) is UpdateRun:
                outcome = self._update(operation, now)
            else:
                outcome = None
            if outcome is not None:
                return [outcome]
        elif not operations:
            return []
        return self._transact(now, lambda transaction: transaction.apply(operations))

    def clear(self, _: None, now: float) -> list[Outcome]:
        """Delete everything."""
        return self._transact(now, Transaction.clear)

    # If one statement changes nothing, or cannot tell the whole outcome, the answer is None. Then a
    # transaction looks.

    def _append(self, op: PutStep) -> Outcome | None:
        step = op.step
        last = self._lasts.get(step.run_id)
        if last is None or op.once:
            return None
        seq = last + 1
        values = (seq, *rows.step_values(step), last >> 32, step.run_id)
        try:
            if op.epoch is None:
                cursor = self._execute(sql.APPEND_STEP, values)
            else:
                cursor = self._execute(sql.APPEND_STEP_FENCED, (*values, op.epoch))
        except _UNSTORABLE as error:
            if is_unstorable(error):
                return unstorable(error)
            raise
        if cursor.rowcount != 1:
            return None
        self._lasts[step.run_id] = seq
        return Done(seq & _NUMBER)

    def _update(self, op: UpdateRun, now: float) -> Outcome | None:
        if "tags" in op.changes or not (changes := updated(op.changes, op.lease, op.release, now)):
            return None
        values = [columns.encode_run_field(name, value) for name, value in changes.items()]
        fence = () if op.epoch is None else (op.epoch,)
        statuses = tuple(status.value for status in op.if_status)
        statement = sql.update_run_if(tuple(changes), bool(fence), len(statuses))
        try:
            cursor = self._execute(statement, (*values, op.run_id, *fence, *statuses))
        except _UNSTORABLE as error:
            if is_unstorable(error):
                return unstorable(error)
            raise
        if cursor.rowcount != 1:
            return None
        if op.release:
            self._lasts.pop(op.run_id, None)
        return _DONE

    def _transact(self, now: float, work: Callable[["Transaction"], list[Outcome]]) -> list[Outcome]:
        transaction = Transaction(self.connection, now)
        self._execute(sql.BEGIN)
        try:
            outcomes = work(transaction)
            self._execute(sql.COMMIT)
        except BaseException:  # an interrupt, too, must leave no transaction open
            if self.connection.in_transaction:  # after some errors SQLite has rolled back by itself
                self._execute(sql.ROLLBACK)
            raise
        if len(self._lasts) > _REMEMBERED:
            self._lasts.clear()
        transaction.tell_lasts(self._lasts)
        return outcomes


@define(slots=True)
class _Head:
    """What most operations need of a run. ``last`` is the seq of its last step."""

    no: int
    epoch: int
    status: RunStatus
    last: int


class Transaction:
    """Applies operations inside a transaction that the caller has begun and will commit or roll back.

    What was read of a run is remembered until an operation changes it. Nobody else can write meanwhile.
    """

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._now = now
        self._heads: dict[str, _Head | None] = {}

    def apply(self, operations: Sequence[Operation]) -> list[Outcome]:
        """One outcome for each of *operations*, in order."""
        outcomes: list[Outcome] = []
        if len(operations) > _FEW:
            self._read_heads(operations)
        for operation in operations:
            try:
                outcomes.append(_APPLY[type(operation)](self, operation))
            except CorruptPayload as error:  # what it is about is damaged
                outcomes.append(Unstorable(error))
            except _UNSTORABLE as error:
                if not is_unstorable(error):
                    raise
                outcomes.append(unstorable(error))
        return outcomes

    def clear(self) -> list[Outcome]:
        """Delete everything, but remember which epochs were used."""
        (epoch,) = self._one(sql.HIGHEST_EPOCH) or (0,)
        self._execute(sql.KEEP_EPOCH, (epoch,))
        for statement in sql.CLEAR:
            self._execute(statement)
        return []

    def tell_lasts(self, lasts: dict[str, int]) -> None:
        """Put into *lasts* what is known of the last steps of runs. It is durable now."""
        for run_id, head in self._heads.items():
            if head is None:
                lasts.pop(run_id, None)
            else:
                lasts[run_id] = head.last

    # Runs ---------------------------------------------------------------------------------------------------

    def _open_run(self, op: OpenRun) -> Outcome:
        run = op.run
        if run.dedup is not None:
            same = self._one(sql.SAME_WORK, run.dedup, run.workflow, run.queue)
            if same is not None:
                found = columns.run_of(same[1:])
                again = op.nonce and same[0] == op.nonce and found.owner == run.owner
                return Opened(found) if again else Found((found,))
        if run.number is None:
            if (row := self._one(sql.RUN_BY_ID, run.id)) is not None:
                found = columns.run_of(row[2:])
                again = op.nonce and row[1] == op.nonce and found.owner == run.owner
                return Opened(found) if again else Found((found,))
            return self._insert_run(op, run.id, None, self._highest(run.key)[1])
        if op.nonce and (row := self._one(sql.RUN_BY_NONCE, op.nonce, run.owner, run.key)):
            return Opened(columns.run_of(row))
        highest, epoch = self._highest(run.key)
        if highest and not op.fresh and (oldest := self._continuable(run.key, op.skip_owners)):
            found_rows = [self._one(sql.RUN_BY_NO, no) for no in oldest]
            return Found(tuple(columns.run_of(row) for row in found_rows if row))
        for number in numbers_for(op.number, highest):
            try:
                return self._insert_run(op, f"{run.id}-{number}", number, epoch)
            except sqlite3.IntegrityError as error:
                if "runs.id" not in str(error):
                    raise
        return _MISSING

    def _highest(self, key: str) -> tuple[int, int]:
        """The highest number of the runs of *key*, and the highest epoch of the deleted runs. 0 if there are
        none."""
        number, epoch = self._one(sql.HIGHEST_NUMBER_AND_EPOCH, key) or (None, None)
        if number is not None and not _is_count(number):  # it is damaged: the others are looked at
            (number,) = self._one(sql.HIGHEST_SOUND_NUMBER, key) or (None,)
        if epoch is not None and not _is_count(epoch):
            raise CorruptPayload(f"the counter of epochs is damaged in the database: {epoch!r}")
        return number or 0, epoch or 0

    def _continuable(self, key: str, skip_owners: tuple[str, ...]) -> list[int]:
        """Numbers of the oldest runs that ``may_continue``. Indexes that hold no other runs find them."""
        groups = [self._execute(sql.LIVE_UNOWNED, (key, FOUND_AT_MOST)).fetchall()]
        owner = ""
        while row := self._one(sql.LIVE_OWNER_AFTER, key, owner):
            owner = row[0]
            if owner not in skip_owners:
                groups.append(self._execute(sql.LIVE_OWNED, (key, owner, FOUND_AT_MOST)).fetchall())
        groups.append(self._execute(sql.FAILED_RETRYABLE, (key, FOUND_AT_MOST)).fetchall())
        return [no for _, no in islice(merge(*groups), FOUND_AT_MOST)]

    def _insert_run(self, op: OpenRun, run_id: str, number: int | None, epoch: int) -> Outcome:
        run = inserted(op.run, run_id, number, epoch + 1, self._now + op.lease)
        cursor = self._execute(sql.INSERT_RUN, (op.nonce, *columns.run_values(run)))
        no = cursor.lastrowid or 0
        if run.tags:
            self._executemany(sql.ADD_TAG, rows.tag_rows(no, run.tags))
        self._heads[run_id] = _Head(no, run.epoch, run.status, no << 32)
        return Opened(run)

    def _claim_run(self, op: ClaimRun) -> Outcome:
        found = self._run(op.run_id)
        if found is None:
            return _MISSING
        no, run = found
        if op.nonce and self._one(sql.RUN_BY_NONCE, op.nonce, op.owner, run.key):
            return Opened(run)
        changes = claimed(
            run,
            epoch=op.epoch,
            owner=op.owner,
            lease=op.lease,
            force=op.force,
            if_status=op.if_status,
            changes=op.changes,
            now=self._now,
        )
        if changes is None:
            return Fenced(run)
        self._set_run(op.run_id, no, changes | {"nonce": op.nonce})
        found = self._run(op.run_id)
        return Opened(found[1]) if found else _MISSING

    def _claim_next(self, op: ClaimNext) -> Outcome:
        again = self._execute(sql.CLAIMED_BY_NONCE, (op.nonce, op.owner)).fetchall()
        if again:
            return Claimed(tuple(self._by_number(no) for (no,) in again))
        chosen, damaged = self._next_runs(op)
        claimed = []
        for no, run in chosen:
            changes = claimed_next(run, owner=op.owner, lease=op.lease, now=self._now)
            self._set_run(run.id, no, changes | {"nonce": op.nonce})
            claimed.append(self._by_number(no))
        return Claimed(tuple(claimed), tuple(damaged.values()))

    def _next_runs(self, op: ClaimNext) -> tuple[list[tuple[int, Run]], dict[int, CorruptPayload]]:
        """The runs that *op* takes, with their numbers; and those that were passed over since their rows are
        damaged. They take no place of others."""
        damaged: dict[int, CorruptPayload] = {}
        while True:
            chosen, before = [], len(damaged)
            for no in next_runs(self._execute, op, self._now, damaged):
                try:
                    chosen.append((no, self._by_number(no)))
                except CorruptPayload as error:
                    damaged[no] = error
            if len(damaged) == before or len(damaged) > _PASSED_OVER:
                return chosen, damaged

    def _by_number(self, no: int) -> Run:
        row = self._one(sql.RUN_BY_NO, no)
        assert row is not None
        return columns.run_of(row)

    def _update_run(self, op: UpdateRun) -> Outcome:
        head = self._head(op.run_id)
        if head is None:
            return _MISSING
        if not fits(head, op.epoch, op.if_status):
            found = self._run(op.run_id)
            if found is not None and in_place(found[1], op.epoch, op.if_status, op.changes):
                return _EXISTED
            return self._fenced(op.run_id)
        if changes := updated(op.changes, op.lease, op.release, self._now):
            self._set_run(op.run_id, head.no, changes)
        return _DONE

    def _restart(self, op: Restart) -> Outcome:
        head, found = self._head(op.run_id), self._run(op.run_id)
        if head is None or found is None:
            return _MISSING
        run = found[1]
        if has_restarted(run, op.epoch, op.changes):
            return _EXISTED
        if not fits(run, op.epoch):
            return Fenced(run)
        self._set_run(op.run_id, head.no, restarted(run, op.changes))
        self._execute(sql.KEEP_LAST, (head.last, head.no))
        self._execute(sql.DROP_STEPS_OF_RUN, (head.no, head.no))
        self._execute(sql.DROP_TAKEN, (head.no,))
        return _DONE

    def _set_run(self, run_id: str, no: int, changes: dict[str, Any]) -> None:
        values = [columns.encode_run_field(name, value) for name, value in changes.items()]
        self._execute(sql.update_run(tuple(changes)), (*values, no))
        if "tags" in changes:
            self._execute(sql.DROP_TAGS, (no,))
            self._executemany(sql.ADD_TAG, rows.tag_rows(no, changes["tags"]))
        if "status" in changes or "epoch" in changes:
            self._heads.pop(run_id, None)

    def _delete_run(self, op: DeleteRun) -> Outcome:
        row = self._one(sql.RUN_BY_ID, op.run_id)
        if row is None:
            return _DONE
        no, run = row[0], columns.run_of(row[2:])
        if run.pruned and op.tombstone:
            return _DONE
        self._execute(sql.DROP_STEPS_OF_RUN, (no, no))
        for statement in (sql.DROP_SIGNALS, sql.DROP_ITEMS, sql.DROP_TAGS):
            self._execute(statement, (no,))
        if op.tombstone and run.number is None:
            self._execute(sql.REPLACE_RUN, (no, *columns.run_values(stub(run, op.seal))))
        else:
            self._execute(sql.DELETE_RUN, (no,))
            self._execute(sql.KEEP_EPOCH, (run.epoch,))
        self._heads[op.run_id] = None
        return _DONE

    # Steps --------------------------------------------------------------------------------------------------

    def _put_step(self, op: PutStep) -> Outcome:
        head = self._owned(op.step.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        if op.once and (row := self._one(sql.STEP_OF_KEY, head.no, head.no, op.step.key)):
            return Done(row[0], existed=True)
        return self._put(head, op.step)

    def _put(self, head: _Head, step: Step) -> Done:
        self._execute(sql.INSERT_STEP, (head.last + 1, *rows.step_values(step)))
        head.last += 1
        return Done(head.last & _NUMBER)

    def _drop_steps(self, op: DropSteps) -> Outcome:
        head = self._owned(op.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        self._execute(sql.KEEP_LAST, (head.last, head.no))
        self._executemany(sql.DROP_STEP, [(head.no, head.no, key) for key in op.keys])
        return _DONE

    # Messages, items, memos ---------------------------------------------------------------------------------

    def _add_signal(self, op: AddSignal) -> Outcome:
        signal = op.signal
        head = self._head(signal.run_id)
        if head is None:
            return _MISSING
        if row := self._one(sql.SAME_SIGNAL, head.no, signal.id, head.no, signal.name, signal.key):
            return Done(row[0], existed=True)
        if not takes_messages(head.status):
            return self._fenced(signal.run_id)
        cursor = self._execute(sql.ADD_SIGNAL, columns.signal_values(head.no, signal))
        self._execute(sql.PULSE, (head.no,))
        return Done(cursor.lastrowid or 0)

    def _take_signal(self, op: TakeSignal) -> Outcome:
        head = self._owned(op.step.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        row = self._one(sql.SIGNAL_TAKEN_BY, head.no, op.signal_id)
        if row is None or not may_take(row[0], op.step.key):
            return _MISSING
        done = self._put(head, op.step)
        self._execute(sql.TAKE_SIGNAL, (op.step.key, head.no, op.signal_id))
        return done

    def _reply(self, op: Reply) -> Outcome:
        head = self._owned(op.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        row = self._one(sql.SIGNAL_REPLY, head.no, op.signal_id)
        if row is None:
            return _MISSING
        if row[0]:
            return _EXISTED
        values = (op.payload, op.preview, op.failed, op.seal, head.no, op.signal_id)
        self._execute(sql.REPLY, values)
        self._execute(sql.PULSE, (head.no,))
        return _DONE

    def _publish(self, op: Publish) -> Outcome:
        head = self._owned(op.item.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        if self._one(sql.HAS_ITEM, head.no, op.item.channel, op.item.n):
            return _EXISTED
        self._execute(sql.ADD_ITEM, columns.item_values(head.no, op.item))
        self._execute(sql.PULSE, (head.no,))
        return _DONE

    def _put_memo(self, op: PutMemo) -> Outcome:
        self._execute(sql.PUT_MEMO, columns.values_of(op.memo))
        return _DONE

    def _drop_memo(self, op: DropMemo) -> Outcome:
        self._execute(sql.DROP_MEMO, (op.key,))
        return _DONE

    # Queues, schedules, workers -----------------------------------------------------------------------------

    def _put_queue(self, op: PutQueue) -> Outcome:
        if op.if_new and self._one(sql.HAS_QUEUE, op.row.name):
            return _EXISTED
        self._execute(sql.PUT_QUEUE, columns.values_of(op.row))
        return _DONE

    def _drop_queue(self, op: DropQueue) -> Outcome:
        self._execute(sql.DROP_QUEUE, (op.name,))
        return _DONE

    def _put_schedule(self, op: PutSchedule) -> Outcome:
        if op.if_new and self._one(sql.HAS_SCHEDULE, op.row.name):
            return _EXISTED
        if op.was is not None:
            found = self._one(sql.GET_SCHEDULE, op.row.name)
            if not stands(columns.schedule_of(found) if found else None, op.was):
                return _MISSING
        self._execute(sql.PUT_SCHEDULE, columns.values_of(op.row))
        return _DONE

    def _drop_schedule(self, op: DropSchedule) -> Outcome:
        self._execute(sql.DROP_SCHEDULE, (op.name,))
        return _DONE

    def _put_worker(self, op: PutWorker) -> Outcome:
        self._execute(sql.PUT_WORKER, columns.values_of(op.row))
        return _DONE

    def _drop_worker(self, op: DropWorker) -> Outcome:
        self._execute(sql.DROP_WORKER, (op.id,))
        return _DONE

    def _rewrite(self, op: Rewrite) -> Outcome:
        fields = tuple(op.now)

        def stored(
            name: str, value: bytes | None
        ) -> bytes | None:  # steps without a seal need no room for it
            return None if op.kind == "step" and name == "seal" and not value else value

        now = [stored(name, op.now[name]) for name in fields]
        was = [0 if (value := stored(name, op.was[name])) is None else value for name in fields]
        cursor = self._execute(sql.rewrite(op.kind, fields), (*now, *op.key, *was))
        return _DONE if cursor.rowcount else _MISSING

    # What stands there --------------------------------------------------------------------------------------

    def _one(self, statement: str, *values: Any) -> rows.Row | None:
        row: rows.Row | None = self._execute(statement, values).fetchone()
        return row

    def _head(self, run_id: str) -> _Head | None:
        try:
            return self._heads[run_id]
        except KeyError:
            row = self._one(sql.RUN_HEAD, run_id)
            head = self._heads[run_id] = None if row is None else _head_of(run_id, row)
            return head

    def _read_heads(self, operations: Sequence[Operation]) -> None:
        """Read at once what many operations would ask for one by one. A statement costs more than its row."""
        for chunk in chunks_of({op.step.run_id for op in operations if type(op) is PutStep}
                             | {op.run_id for op in operations if type(op) is UpdateRun}):  # fmt: skip
            try:
                found = self._execute(sql.run_heads(len(chunk)), chunk).fetchall()
            except _UNSTORABLE as error:
                if not is_unstorable(error):
                    raise
                continue  # one of the ids is not Unicode. Its own operation will say so
            for run_id, *head in found:
                if head[2] in _STATUS:  # otherwise its own operation will say so
                    self._heads[run_id] = _head_of(run_id, head)

    def _owned(self, run_id: str, epoch: int | None) -> _Head | Fenced | Missing:
        """The head of the run, if it has this epoch. Otherwise the outcome that says why not."""
        head = self._head(run_id)
        if head is None:
            return _MISSING
        return head if fits(head, epoch) else self._fenced(run_id)

    def _run(self, run_id: str) -> tuple[int, Run] | None:
        row = self._one(sql.RUN_BY_ID, run_id)
        if row is None:
            return None
        run = columns.run_of(row[2:])
        return None if run.pruned else (row[0], run)

    def _fenced(self, run_id: str) -> Fenced | Missing:
        found = self._run(run_id)
        return Fenced(found[1]) if found else _MISSING


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value < columns.MOST


def _head_of(run_id: str, row: Sequence[Any]) -> _Head:
    no, epoch, status, last = row
    try:
        return _Head(no, epoch, _STATUS[status], last)
    except KeyError as error:
        raise CorruptPayload(
            f"run {run_id!r} is damaged in the database: status {error}", run=run_id
        ) from error


def chunks_of(ids: Iterable[str]) -> list[list[str]]:
    """*ids* in lists of few sizes, so that there are few statements. The last list is filled up with one of
    its ids."""
    wanted = list(ids)
    chunks = []
    for start in range(0, len(wanted), 512):
        chunk = wanted[start : start + 512]
        size = next(size for size in (1, 8, 64, 512) if size >= len(chunk))
        chunks.append(chunk + chunk[:1] * (size - len(chunk)))
    return chunks


_APPLY: dict[type, Callable[[Transaction, Any], Outcome]] = {
    OpenRun: Transaction._open_run,
    ClaimRun: Transaction._claim_run,
    ClaimNext: Transaction._claim_next,
    UpdateRun: Transaction._update_run,
    Restart: Transaction._restart,
    PutStep: Transaction._put_step,
    DropSteps: Transaction._drop_steps,
    AddSignal: Transaction._add_signal,
    TakeSignal: Transaction._take_signal,
    Reply: Transaction._reply,
    Publish: Transaction._publish,
    DeleteRun: Transaction._delete_run,
    PutMemo: Transaction._put_memo,
    DropMemo: Transaction._drop_memo,
    PutQueue: Transaction._put_queue,
    DropQueue: Transaction._drop_queue,
    PutSchedule: Transaction._put_schedule,
    DropSchedule: Transaction._drop_schedule,
    PutWorker: Transaction._put_worker,
    DropWorker: Transaction._drop_worker,
    Rewrite: Transaction._rewrite,
}
