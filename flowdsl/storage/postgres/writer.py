"""What each operation means in PostgreSQL.

It is written once, for connections that block and for those that are awaited. A commit is a generator: it
yields statements, and is sent their rows. Steps, a lone update of a run, and renewed leases are each one
statement, and so one transaction. All others share a transaction. It first locks its runs in the order of
their ids, so that no two transactions wait for each other.

If an operation has values that cannot be stored, it is refused before any of its statements is sent. If the
server refuses them all the same, everything begins anew, with a savepoint for each operation.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any

import psycopg
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
from flowdsl.core.records import Run, ScheduleRow, Step, changed
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
from flowdsl.storage.postgres.claiming import look_first, next_runs
from flowdsl.storage.postgres.rows import Dialogue, NotTaken, Row, checked, is_text, step_values
from flowdsl.storage.postgres.statements import Sql, Statements
from flowdsl.storage.topics import topics_of

__all__ = ["REFUSED", "Single", "Transaction", "single", "topic_key", "unstorable"]

REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.NotSupportedError)
"""What the driver raises for the values of a row."""

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()
_STATUS = {status.value: status for status in RunStatus}


def unstorable(error: Exception) -> Unstorable:
    """The outcome for a row that failed with *error*."""
    reason = StorageError(f"this record cannot be stored in PostgreSQL: {str(error).strip()}")
    reason.__cause__ = error
    return Unstorable(reason)


def topic_key(topic: str) -> str:
    """What stands for a topic in the database. It is short, and always a text."""
    return blake2b(topic.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


Told = list[Outcome | None]
"""Outcomes; ``None`` for each operation of which the rows do not say what became of it."""


@define(slots=True)
class Single:
    """A commit in one statement, and the *outcomes* that its rows tell."""

    sql: Sql
    values: Sequence[Any]
    outcomes: Callable[[list[Row]], Told]


def single(sql: Statements, operations: Sequence[Operation]) -> Single | None:
    """How to commit *operations* in one statement. ``None`` if that is not possible. Raises :class:`NotTaken`
    for a lone operation whose values cannot be stored.

    One statement holds its locks only as long as the server needs for it, whatever its client does meanwhile.
    """
    if len(operations) > 1:
        try:
            return _many_steps(sql, operations) or _renewals(sql, operations)
        except NotTaken:
            return None
    op = operations[0]
    if type(op) is PutStep and not op.once:
        return _lone_step(sql, op)
    if type(op) is UpdateRun and "tags" not in op.changes and not any(topics_of(operations)):
        return _lone_update(sql, op)
    return None


def _lone_step(sql: Statements, op: PutStep) -> Single:
    (run_id,) = checked((op.step.run_id,))
    fence = () if op.epoch is None else (op.epoch,)
    statement = sql.append_step if op.epoch is None else sql.append_step_fenced
    values = (run_id, *fence, *step_values(op.step))
    return Single(statement, values, lambda rows: [Done(rows[0][0]) if rows else None])


def _lone_update(sql: Statements, op: UpdateRun) -> Single | None:
    lease = "release" if op.release else "renew" if op.lease is not None else ""
    if not op.changes and not lease:
        return None
    values = [columns.encode_run_field(name, value) for name, value in op.changes.items()]
    values += [op.lease] if lease == "renew" else []
    values += [op.run_id] + ([] if op.epoch is None else [op.epoch])
    given: list[Any] = checked(values)
    if op.if_status:
        given.append([status.value for status in op.if_status])
    statement = sql.update_run_if(tuple(op.changes), lease, op.epoch is not None, bool(op.if_status))
    return Single(statement, given, lambda rows: [_DONE if rows else None])


def _many_steps(sql: Statements, operations: Sequence[Operation]) -> Single | None:
    """Only steps. Those of one run have one epoch."""
    epochs: dict[str, int | None] = {}
    rows: list[list[Any]] = []
    for place, op in enumerate(operations):
        if type(op) is not PutStep or op.once or epochs.setdefault(op.step.run_id, op.epoch) != op.epoch:
            return None
        rows.append([*checked((op.step.run_id,)), op.epoch, place, *step_values(op.step)])

    def told(found: list[Row]) -> Told:
        next_of = {run_id: seq for run_id, seq, _ in found}
        outcomes: Told = []
        for run_id, *_ in rows:
            seq = next_of.get(run_id)
            outcomes.append(None if seq is None else Done(seq))
            if seq is not None:
                next_of[run_id] = seq + 1
        return outcomes

    lists = [list(column) for column in zip(*rows, strict=True)]
    return Single(sql.append_many, [sorted(epochs), *lists], told)


def _renewals(sql: Statements, operations: Sequence[Operation]) -> Single | None:
    """Only renewed leases, each run once."""
    rows: list[tuple[str, int, float]] = []
    for op in operations:
        if (
            type(op) is not UpdateRun
            or op.changes
            or op.release
            or op.if_status
            or op.epoch is None
            or op.lease is None
        ):
            return None
        rows.append((op.run_id, op.epoch, op.lease))
    ids, epochs, leases = (list(column) for column in zip(*rows, strict=True))
    if len(set(ids)) < len(ids):
        return None

    def told(found: list[Row]) -> Told:
        renewed = {row[0] for row in found}
        return [_DONE if run_id in renewed else None for run_id in ids]

    return Single(sql.renew, [sorted(checked(ids)), ids, epochs, leases], told)


@define(slots=True)
class _Head:
    """What most operations need of a run. ``last`` is the seq of its last step."""

    no: int
    epoch: int
    status: RunStatus
    last: int


class Transaction:
    """Applies operations inside a transaction that the caller has begun and will commit or roll back."""

    def __init__(self, sql: Statements, channel: str) -> None:
        self._sql = sql
        self._channel = channel
        self._now = 0.0
        self._heads: dict[str, _Head | None] = {}

    def apply(self, operations: Sequence[Operation], careful: bool = False) -> Dialogue[list[Outcome]]:
        """One outcome for each of *operations*, in order. *careful*: with a savepoint for each."""
        yield from self._lock(operations)
        outcomes: list[Outcome] = []
        for steps, group in groupby(operations, key=lambda op: type(op) is PutStep and not op.once):
            if steps and not careful:
                outcomes += yield from self._put_steps(list(group))  # type: ignore[arg-type]
                continue
            for operation in group:
                outcomes.append((yield from self._apply_one(operation, careful)))
        topics = [topic_key(topic) for topic in dict.fromkeys(topics_of(operations))]
        if topics:
            yield self._sql.notify, (self._channel, topics)
        return outcomes

    def clear(self) -> Dialogue[None]:
        """Delete everything, but remember which epochs were used."""
        ((epoch,),) = yield self._sql.highest_epoch, ()
        yield self._sql.keep_epoch, (epoch,)
        for statement in self._sql.clear:
            yield statement, ()

    def _lock(self, operations: Sequence[Operation]) -> Dialogue[None]:
        keys = {
            _key_lock(op.run.key) for op in operations if type(op) is OpenRun and op.run.number is not None
        }
        if keys:
            yield self._sql.lock_keys, (sorted(keys),)
        ids = sorted({run_id for op in operations for run_id in _about(op) if is_text(run_id)})
        if ids:
            found = yield self._sql.lock_runs, (ids,)
            self._heads = dict.fromkeys(ids)
            for row in found:
                if row[3] in _STATUS:
                    self._heads[row[0]] = _head_of(row[0], row[1:])
                else:  # it is damaged: whose operation it is reads it again, and is told
                    del self._heads[row[0]]

    def _clock(self) -> Dialogue[float]:
        """The moment of this transaction on the database's clock. Most transactions need none."""
        if not self._now:
            ((self._now,),) = yield self._sql.now, ()
        return self._now

    def _apply_one(self, op: Operation, careful: bool) -> Dialogue[Outcome]:
        try:
            if not careful:
                return (yield from _APPLY[type(op)](self, op))
            yield "SAVEPOINT one", ()
            heads = dict(self._heads)
            try:
                outcome: Outcome = yield from _APPLY[type(op)](self, op)
            except REFUSED as error:
                yield "ROLLBACK TO SAVEPOINT one", ()
                self._heads = heads
                return unstorable(error)
            yield "RELEASE SAVEPOINT one", ()
            return outcome
        except NotTaken as error:
            return unstorable(error)
        except CorruptPayload as error:  # what it is about is damaged
            return Unstorable(error)

    # Runs --------------------------------------------------------------------------------------------------

    def _open_run(self, op: OpenRun) -> Dialogue[Outcome]:
        run = op.run
        _check_run(run)
        if run.dedup is not None:
            yield self._sql.lock_keys, ([_key_lock(f"dedup {run.workflow} {run.queue} {run.dedup}")],)
            rows = yield self._sql.same_work, (run.dedup, run.workflow, run.queue)
            if rows:
                found = columns.run_of(rows[0][1:])
                again = op.nonce and rows[0][0] == op.nonce and found.owner == run.owner
                return Opened(found) if again else Found((found,))
        if run.number is None:
            for _ in range(2):  # another process may insert it while we look
                rows = yield self._sql.run_by_id, (run.id,)
                if rows:
                    found = columns.run_of(rows[0][2:])
                    again = op.nonce and rows[0][1] == op.nonce and found.owner == run.owner
                    return Opened(found) if again else Found((found,))
                ((_, epoch, _, now),) = yield self._sql.opening, (run.key, "", run.owner, run.key)
                self._now = self._now or now
                opened = yield from self._insert_run(op, run.id, None, epoch)
                if opened is not None:
                    return opened
        same = (op.nonce, run.owner, run.key)
        ((highest, epoch, opened_before, now),) = yield self._sql.opening, (run.key, *same)
        self._now = self._now or now
        rows = (yield self._sql.run_by_nonce, same) if opened_before else []
        if rows:
            return Opened(columns.run_of(rows[0]))
        if highest and not op.fresh:
            rows = yield self._sql.continuable, (run.key, list(op.skip_owners), FOUND_AT_MOST)
            if rows:
                return Found(tuple(columns.run_of(row) for row in rows))
        for number in numbers_for(op.number, highest or 0):
            opened = yield from self._insert_run(op, f"{run.id}-{number}", number, epoch)
            if opened is not None:
                return opened
        return _MISSING

    def _insert_run(
        self, op: OpenRun, run_id: str, number: int | None, epoch: int
    ) -> Dialogue[Opened | None]:
        now = yield from self._clock()
        run = inserted(op.run, run_id, number, epoch + 1, now + op.lease)
        rows = yield self._sql.insert_run, (op.nonce, *checked(columns.run_values(run)))
        if not rows:
            return None
        no = rows[0][0]
        yield from self._add_tags(no, run)
        self._heads[run_id] = _Head(no, run.epoch, run.status, 0)
        return Opened(run)

    def _add_tags(self, no: int, run: Run) -> Dialogue[None]:
        if run.tags:
            names, values = zip(*columns.tag_items(run.tags), strict=True)
            yield self._sql.add_tags, (no, list(names), list(values))

    def _claim_run(self, op: ClaimRun) -> Dialogue[Outcome]:
        found = yield from self._run(op.run_id)
        if found is None:
            return _MISSING
        no, nonce, run = found
        if op.nonce and nonce == op.nonce and run.owner == op.owner:
            return Opened(run)
        now = yield from self._clock()
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
        yield from self._set_run(op.run_id, no, changes | {"nonce": op.nonce})
        found = yield from self._run(op.run_id)
        return Opened(found[2]) if found else _MISSING

    def _claim_next(self, op: ClaimNext) -> Dialogue[Outcome]:
        first = yield from look_first(self._sql, op)
        self._now = self._now or first.now
        again = (yield self._sql.claimed_by_nonce, (op.nonce, op.owner)) if first.claimed_before else []
        if again:
            return Claimed(tuple(columns.run_of(row) for row in again))
        if first.limited:
            yield self._sql.lock_claims, ()
            self._now = 0.0  # we may have waited for the lock
        found, damaged = yield from next_runs(self._sql, op, first, (yield from self._clock()))
        if not found:
            return Claimed((), tuple(damaged))
        now = yield from self._clock()
        runs = [changed(run, claimed_next(run, owner=op.owner, lease=op.lease, now=now)) for _, run in found]
        for run in runs:
            self._heads.pop(run.id, None)
        numbers, epochs = [no for no, _ in found], [run.epoch for run in runs]
        begun, recoveries = [run.claimed_at for run in runs], [run.recoveries for run in runs]
        (owner,) = checked((op.owner,))
        values = (owner, op.nonce, now + op.lease, numbers, epochs, begun, recoveries)
        yield self._sql.take_runs, values
        return Claimed(tuple(runs), tuple(damaged))

    def _update_run(self, op: UpdateRun) -> Dialogue[Outcome]:
        head = yield from self._head(op.run_id)
        if head is None:
            return _MISSING
        if not fits(head, op.epoch, op.if_status):
            found = yield from self._run(op.run_id)
            if found is not None and in_place(found[2], op.epoch, op.if_status, op.changes):
                return _EXISTED
            return Fenced(found[2]) if found else _MISSING
        now = (yield from self._clock()) if op.release or op.lease is not None else 0.0
        if changes := updated(op.changes, op.lease, op.release, now):
            yield from self._set_run(op.run_id, head.no, changes)
        return _DONE

    def _restart(self, op: Restart) -> Dialogue[Outcome]:
        head = yield from self._head(op.run_id)  # locks it
        found = yield from self._run(op.run_id)
        if head is None or found is None:
            return _MISSING
        run = found[2]
        if has_restarted(run, op.epoch, op.changes):
            return _EXISTED
        if not fits(run, op.epoch):
            return Fenced(run)
        yield from self._set_run(op.run_id, head.no, restarted(run, op.changes))
        yield self._sql.keep_last, (head.last, head.no)
        yield self._sql.drop_steps_of_run, (head.no,)
        yield self._sql.drop_taken, (head.no,)
        return _DONE

    def _set_run(self, run_id: str, no: int, changes: dict[str, Any]) -> Dialogue[None]:
        values = checked(
            [columns.encode_run_field(name, value) for name, value in changes.items()],
            [changes.get(name) for name in ("key", "workflow", "parent")],
        )
        yield self._sql.update_run(tuple(changes)), (*values, no)
        if "tags" in changes:
            yield self._sql.drop_tags, (no,)
            if items := columns.tag_items(changes["tags"]):
                names, texts = zip(*items, strict=True)
                yield self._sql.add_tags, (no, list(names), list(texts))
        if "status" in changes or "epoch" in changes:
            self._heads.pop(run_id, None)

    def _delete_run(self, op: DeleteRun) -> Dialogue[Outcome]:
        if not is_text(op.run_id):
            return _DONE
        rows = yield self._sql.run_by_id, (op.run_id,)
        if not rows:
            return _DONE
        no, run = rows[0][0], columns.run_of(rows[0][2:])
        if run.pruned and op.tombstone:
            return _DONE
        for statement in (
            self._sql.drop_steps_of_run,
            self._sql.drop_signals,
            self._sql.drop_items,
            self._sql.drop_tags,
        ):
            yield statement, (no,)
        if op.tombstone and run.number is None:
            yield self._sql.replace_run, (*columns.run_values(stub(run, op.seal)), no)
        else:
            yield self._sql.delete_run, (no,)
            yield self._sql.keep_epoch, (run.epoch,)
        self._heads[op.run_id] = None
        return _DONE

    # Steps -------------------------------------------------------------------------------------------------

    def _put_steps(self, operations: list[PutStep]) -> Dialogue[list[Outcome]]:
        """Many steps in one statement."""
        outcomes: list[Outcome] = []
        rows: list[list[Any]] = []
        for op in operations:
            try:
                head = yield from self._owned(op.step.run_id, op.epoch)
            except CorruptPayload as error:  # its run is damaged
                outcomes.append(Unstorable(error))
                continue
            if not isinstance(head, _Head):
                outcomes.append(head)
                continue
            try:
                rows.append([head.no, head.last + 1, *step_values(op.step)])
            except NotTaken as error:
                outcomes.append(unstorable(error))
                continue
            head.last += 1
            outcomes.append(Done(head.last))
        if rows:
            yield self._sql.append_steps, [list(column) for column in zip(*rows, strict=True)]
        return outcomes

    def _put_step(self, op: PutStep) -> Dialogue[Outcome]:
        head = yield from self._owned(op.step.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        if op.once and is_text(op.step.key):
            rows = yield self._sql.step_of_key, (head.no, op.step.key)
            if rows:
                return Done(rows[0][0], existed=True)
        return (yield from self._put(head, op.step))

    def _put(self, head: _Head, step: Step) -> Dialogue[Done]:
        row = [head.no, head.last + 1, *step_values(step)]
        yield self._sql.append_steps, [[value] for value in row]
        head.last += 1
        return Done(head.last)

    def _drop_steps(self, op: DropSteps) -> Dialogue[Outcome]:
        head = yield from self._owned(op.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        yield self._sql.keep_last, (head.last, head.no)
        yield self._sql.drop_steps, (head.no, [key for key in op.keys if is_text(key)])
        return _DONE

    # Messages, items ---------------------------------------------------------------------------------------

    def _add_signal(self, op: AddSignal) -> Dialogue[Outcome]:
        signal = op.signal
        head = yield from self._head(signal.run_id)
        if head is None:
            return _MISSING
        values = checked(columns.signal_values(head.no, signal), (signal.id, signal.name, signal.key))
        same = (head.no, signal.id, signal.name, signal.key, signal.id)
        rows = yield self._sql.same_signal, same
        if rows:
            return Done(rows[0][0], existed=True)
        if not takes_messages(head.status):
            return (yield from self._fenced(signal.run_id))
        ((seq,),) = yield self._sql.add_signal, values
        yield self._sql.pulse, (head.no,)
        return Done(seq)

    def _take_signal(self, op: TakeSignal) -> Dialogue[Outcome]:
        head = yield from self._owned(op.step.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        rows = (yield self._sql.signal_taken_by, (head.no, op.signal_id)) if is_text(op.signal_id) else []
        if not rows or not may_take(rows[0][0], op.step.key):
            return _MISSING
        done = yield from self._put(head, op.step)
        yield self._sql.take_signal, (op.step.key, head.no, op.signal_id)
        return done

    def _reply(self, op: Reply) -> Dialogue[Outcome]:
        head = yield from self._owned(op.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        rows = (yield self._sql.signal_reply, (head.no, op.signal_id)) if is_text(op.signal_id) else []
        if not rows:
            return _MISSING
        if rows[0][0]:
            return _EXISTED
        values = checked((op.payload, op.preview, op.failed, op.seal))
        yield self._sql.reply, (*values, head.no, op.signal_id)
        yield self._sql.pulse, (head.no,)
        return _DONE

    def _publish(self, op: Publish) -> Dialogue[Outcome]:
        head = yield from self._owned(op.item.run_id, op.epoch)
        if not isinstance(head, _Head):
            return head
        values = checked(columns.item_values(head.no, op.item), (op.item.channel,))
        rows = yield self._sql.add_item, values
        if not rows:
            return _EXISTED
        yield self._sql.pulse, (head.no,)
        return _DONE

    # What stands by itself ---------------------------------------------------------------------------------

    def _put_memo(self, op: PutMemo) -> Dialogue[Outcome]:
        yield self._sql.put_memo, checked(columns.values_of(op.memo), (op.memo.key,))
        return _DONE

    def _put_queue(self, op: PutQueue) -> Dialogue[Outcome]:
        values = checked(columns.values_of(op.row), (op.row.name,))
        if op.if_new and (yield self._sql.has_queue, (op.row.name,)):
            return _EXISTED
        yield self._sql.put_queue, values
        return _DONE

    def _put_schedule(self, op: PutSchedule) -> Dialogue[Outcome]:
        values = checked(columns.values_of(op.row), (op.row.name,))
        if op.if_new and (yield self._sql.has_schedule, (op.row.name,)):
            return _EXISTED
        if op.was is not None:
            found = yield self._sql.get_schedule, (op.row.name,)
            if not stands(ScheduleRow(*found[0]) if found else None, op.was):
                return _MISSING
        yield self._sql.put_schedule, values
        return _DONE

    def _put_worker(self, op: PutWorker) -> Dialogue[Outcome]:
        yield self._sql.put_worker, checked(columns.values_of(op.row), (op.row.id,))
        return _DONE

    def _drop(self, op: DropMemo | DropQueue | DropSchedule | DropWorker) -> Dialogue[Outcome]:
        found: dict[type[Operation], tuple[Sql, str]] = {
            DropMemo: (self._sql.drop_memo, "key"),
            DropQueue: (self._sql.drop_queue, "name"),
            DropSchedule: (self._sql.drop_schedule, "name"),
            DropWorker: (self._sql.drop_worker, "id"),
        }
        statement, name = found[type(op)]
        value = getattr(op, name)
        if is_text(value):
            yield statement, (value,)
        return _DONE

    def _rewrite(self, op: Rewrite) -> Dialogue[Outcome]:
        fields = tuple(op.now)
        if not all(is_text(part) for part in op.key if isinstance(part, str)):
            return _MISSING
        now = checked(op.now[name] for name in fields)
        rows = yield self._sql.rewrite(op.kind, fields), (*now, *op.key, *(op.was[name] for name in fields))
        return _DONE if rows else _MISSING

    # What stands there -------------------------------------------------------------------------------------

    def _head(self, run_id: str) -> Dialogue[_Head | None]:
        if run_id not in self._heads:
            rows = (yield self._sql.lock_run, (run_id,)) if is_text(run_id) else []
            self._heads[run_id] = _head_of(run_id, rows[0]) if rows else None
        return self._heads[run_id]

    def _owned(self, run_id: str, epoch: int | None) -> Dialogue[_Head | Fenced | Missing]:
        """The head of the run, if it has this epoch. Otherwise the outcome that says why not."""
        head = yield from self._head(run_id)
        if head is None:
            return _MISSING
        return head if fits(head, epoch) else (yield from self._fenced(run_id))

    def _run(self, run_id: str) -> Dialogue[tuple[int, str, Run] | None]:
        rows = (yield self._sql.run_by_id, (run_id,)) if is_text(run_id) else []
        if not rows:
            return None
        no, nonce, *values = rows[0]
        run = columns.run_of(tuple(values))
        return None if run.pruned else (no, nonce, run)

    def _fenced(self, run_id: str) -> Dialogue[Fenced | Missing]:
        found = yield from self._run(run_id)
        return Fenced(found[2]) if found else _MISSING


def _head_of(run_id: str, row: Row) -> _Head:
    no, epoch, status, last = row
    if status not in _STATUS:
        raise CorruptPayload(f"run {run_id!r} is damaged in the database: status {status!r}", run=run_id)
    return _Head(no, epoch, _STATUS[status], last)


def _check_run(run: Run) -> None:
    names = [text for item in columns.tag_items(run.tags) for text in item]
    checked([*columns.run_values(run), *names], (run.id, run.key, run.workflow, run.parent, *names))


def _key_lock(key: str) -> int:
    """The number that is locked while runs of *key* are numbered."""
    return int.from_bytes(
        blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )


def _about(op: Operation) -> Iterable[str]:
    """The ids of the runs that an operation needs to be locked."""
    match op:
        case OpenRun() | ClaimNext() | PutMemo() | DropMemo() | PutQueue() | DropQueue():
            return ()
        case PutSchedule() | DropSchedule() | PutWorker() | DropWorker() | Rewrite():
            return ()
        case PutStep() | TakeSignal():
            return (op.step.run_id,)
        case AddSignal():
            return (op.signal.run_id,)
        case Publish():
            return (op.item.run_id,)
        case _:
            return (op.run_id,)


_APPLY: dict[type, Callable[[Transaction, Any], Dialogue[Outcome]]] = {
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
    DropMemo: Transaction._drop,
    PutQueue: Transaction._put_queue,
    DropQueue: Transaction._drop,
    PutSchedule: Transaction._put_schedule,
    DropSchedule: Transaction._drop,
    PutWorker: Transaction._put_worker,
    DropWorker: Transaction._drop,
    Rewrite: Transaction._rewrite,
}
