"""A storage in the memory of one process: for tests, and for runs that need not outlive it.

It is also the reference. It is short enough to be read as the meaning of each operation, and the other
backends must agree with it (see ``flowdsl.testing.storage.contract``).
"""

import heapq
import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any, NoReturn, Self, TypeVar

from attrs import evolve

from flowdsl.core.ownership import (
    claimed,
    claimed_next,
    fits,
    free_at,
    has_restarted,
    in_place,
    inserted,
    may_claim,
    may_come_from,
    may_take,
    numbers_for,
    own_tags,
    restarted,
    stands,
    stub,
    takes_messages,
    updated,
)
from flowdsl.core.queues import Candidate, Taken, choose, longest_window, queue_of
from flowdsl.core.records import (
    Item,
    Memo,
    QueueRow,
    Run,
    RunFilter,
    ScheduleRow,
    Signal,
    Step,
    WorkerRow,
    changed,
    step_of,
)
from flowdsl.core.status import RunStatus
from flowdsl.core.versions import is_known
from flowdsl.errors import StorageUnavailable
from flowdsl.storage.base import Attention, Storage
from flowdsl.storage.forking import rest_before_fork
from flowdsl.storage.memory_index import Entry, Line, matches, order
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
    require_id,
    require_limit,
    require_operations,
)
from flowdsl.storage.outcomes import Claimed, Done, Fenced, Found, Missing, Opened, Outcome

__all__ = ["MemoryStorage"]

R = TypeVar("R")

_DONE = Done()
_EXISTED = Done(existed=True)
_MISSING = Missing()


class MemoryStorage(Storage):
    """Keeps everything in this process. Nothing survives it.

    A commit costs microseconds, so ``inline`` is true. No other process can open it: pickling one raises
    ``TypeError``. A forked child gets its own copy.

    >>> with MemoryStorage() as storage:
    ...     storage.set_run(Run(id="order-17", workflow="shop.checkout", key="k"))
    ...     storage.get_run("order-17").status
    <RunStatus.PENDING: 'pending'>
    """

    inline = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._closed = False
        self._signal_seq = 0
        self._epoch = 0  # the highest of all deleted runs
        self._forget_all()
        rest_before_fork(self)

    @classmethod
    def from_url(cls, url: str, /) -> Self:
        """A fresh, empty storage for ``memory://``. Raises ``ValueError`` for any other URL.

        >>> MemoryStorage.from_url("memory://").inline
        True
        """
        if url != "memory://":
            raise ValueError(f"a memory storage has no name or options: write 'memory://', not {url!r}")
        return cls()

    def __repr__(self) -> str:
        return f"MemoryStorage({len(self._entries)} runs)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a MemoryStorage lives in one process and cannot be pickled or copied; "
            "give other processes a storage they can open, such as 'sqlite:///flow.db'"
        )

    # Writing -----------------------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        require_operations(operations)
        with self._lock:
            if self._closed:
                self._require_open()
            outcomes = []
            for operation in operations:
                outcomes.append(_APPLY[type(operation)](self, operation))
        self.announce(operations)
        return outcomes

    def _open_run(self, op: OpenRun) -> Outcome:
        run = op.run
        if run.dedup is not None and (same := self._same_work(run, op.nonce)) is not None:
            return same
        if run.number is None:
            if (entry := self._entries.get(run.id)) is not None:
                again = op.nonce and entry.nonce == op.nonce and entry.run.owner == run.owner
                return Opened(_copy(entry.run)) if again else Found((_copy(entry.run),))
            if (pruned := self._stubs.get(run.id)) is not None:
                return Found((pruned,))
            return self._insert(op, run.id, None)
        entry = self._entries.get(self._nonces.get(op.nonce, ""))
        if entry is not None and (entry.run.owner, entry.run.key) == (run.owner, run.key):
            return Opened(_copy(entry.run))
        line = self._line(run.key)
        if not op.fresh and (oldest := line.oldest(op.skip_owners)):
            return Found(tuple(_copy(self._entries[run_id].run) for run_id in oldest))
        for number in numbers_for(op.number, line.numbers[-1] if line.numbers else 0):
            run_id = f"{run.id}-{number}"
            if run_id not in self._entries and run_id not in self._stubs:
                return self._insert(op, run_id, number)
        return _MISSING

    def _same_work(self, run: Run, nonce: str) -> Outcome | None:
        """The unfinished run of the same workflow, queue and ``dedup``."""
        for entry in self._live():
            if (entry.run.workflow, entry.run.queue, entry.run.dedup) == (run.workflow, run.queue, run.dedup):
                again = nonce and entry.nonce == nonce and entry.run.owner == run.owner
                return Opened(_copy(entry.run)) if again else Found((_copy(entry.run),))
        return None

    def _insert(self, op: OpenRun, run_id: str, number: int | None) -> Outcome:
        run = inserted(op.run, run_id, number, self._epoch + 1, self.now() + op.lease)
        self._entries[run_id] = Entry(run, op.nonce)
        self._index(run)
        if op.nonce:
            self._nonces[op.nonce] = run_id
        return Opened(_copy(run))

    def _claim_run(self, op: ClaimRun) -> Outcome:
        entry = self._entries.get(op.run_id)
        if entry is None:
            return _MISSING
        run = entry.run
        if op.nonce and entry.nonce == op.nonce and run.owner == op.owner:
            return Opened(_copy(run))
        changes = claimed(
            run,
            epoch=op.epoch,
            owner=op.owner,
            lease=op.lease,
            force=op.force,
            if_status=op.if_status,
            changes=op.changes,
            now=self.now(),
        )
        if changes is None:
            return Fenced(_copy(run))
        self._change(entry, changes)
        self._nonces.pop(entry.nonce, None)
        entry.nonce = op.nonce
        return Opened(_copy(entry.run))

    def _claim_next(self, op: ClaimNext) -> Outcome:
        now, known = self.now(), dict(op.workflows)
        if op.nonce and (
            again := [e for e in self._live() if e.nonce == op.nonce and e.run.owner == op.owner]
        ):
            return Claimed(tuple(_copy(entry.run) for entry in again))
        live = [entry.run for entry in self._live()]
        free = [
            run
            for run in live
            if run.workflow in known
            and is_known(run.version, known[run.workflow])
            and may_claim(run, now)
            and may_come_from(run, op.queues)
            and run.id not in op.skip
        ]
        lost = sorted((run for run in free if run.status is RunStatus.RUNNING), key=order)[: op.limit]
        queues = {row.name: queue_of(row) for row in self._queues.values()}
        since = now - longest_window(queues.values())
        taken = Taken.by(
            (run for run in live if run.owner is not None and run.lease_until > now),
            (entry.run for entry in self._entries.values() if (entry.run.claimed_at or since) > since),
        )
        pending = [Candidate.of(run) for run in free if run.status is RunStatus.PENDING]
        more = choose(pending, taken, queues, owner=op.owner, now=now, limit=op.limit - len(lost))
        claimed = [self._entries[run_id] for run_id in [run.id for run in lost] + [run.id for run in more]]
        for entry in claimed:
            self._change(entry, claimed_next(entry.run, owner=op.owner, lease=op.lease, now=now))
            self._nonces.pop(entry.nonce, None)
            entry.nonce = op.nonce
        return Claimed(tuple(_copy(entry.run) for entry in claimed))

    def _live(self) -> list[Entry]:
        return [self._entries[run_id] for run_id in self._unfinished]

    def _update_run(self, op: UpdateRun) -> Outcome:
        entry = self._entries.get(op.run_id)
        if entry is None:
            return _MISSING
        run = entry.run
        if not fits(run, op.epoch, op.if_status):
            if in_place(run, op.epoch, op.if_status, op.changes):
                return _EXISTED
            return Fenced(_copy(run))
        self._change(entry, updated(op.changes, op.lease, op.release, self.now()))
        return _DONE

    def _restart(self, op: Restart) -> Outcome:
        entry = self._entries.get(op.run_id)
        if entry is None:
            return _MISSING
        if has_restarted(entry.run, op.epoch, op.changes):
            return _EXISTED
        if not fits(entry.run, op.epoch):
            return Fenced(_copy(entry.run))
        self._change(entry, restarted(entry.run, op.changes))
        entry.steps.clear()
        for signal in [one for one in entry.signals.values() if one.taken_by and not one.asked]:
            del entry.signals[signal.id]
            if signal.key is not None:
                entry.sent.pop((signal.name, signal.key), None)
        return _DONE

    def _put_step(self, op: PutStep) -> Outcome:
        step = op.step
        entry = self._entries.get(step.run_id)
        if entry is None:
            return _MISSING
        if op.epoch is not None and op.epoch != entry.run.epoch:
            return Fenced(_copy(entry.run))
        if op.once and step.key in entry.steps:
            return Done(entry.steps[step.key][0], existed=True)
        return self._put(entry, step)

    def _put(self, entry: Entry, step: Step) -> Done:
        steps, key = entry.steps, step.key
        if key in steps:
            del steps[key]  # so that the new one stands last
        entry.last = seq = entry.last + 1
        steps[key] = (seq, step)
        return Done(seq)

    def _drop_steps(self, op: DropSteps) -> Outcome:
        entry = self._owned(op.run_id, op.epoch)
        if not isinstance(entry, Entry):
            return entry
        for key in op.keys:
            entry.steps.pop(key, None)
        return _DONE

    def _add_signal(self, op: AddSignal) -> Outcome:
        signal = op.signal
        entry = self._entries.get(signal.run_id)
        if entry is None:
            return _MISSING
        if (known := entry.signals.get(signal.id)) is not None:
            return Done(known.seq, existed=True)
        if signal.key is not None and (seq := entry.sent.get((signal.name, signal.key))) is not None:
            return Done(seq, existed=True)
        if not takes_messages(entry.run.status):
            return Fenced(_copy(entry.run))
        self._signal_seq += 1
        entry.signals[signal.id] = evolve(
            signal,
            seq=self._signal_seq,
            taken_by=None,
            reply=None,
            reply_preview="",
            reply_failed=False,
            reply_seal=b"",
        )
        entry.unread[signal.id] = None
        if signal.key is not None:
            entry.sent[signal.name, signal.key] = self._signal_seq
        return Done(self._signal_seq)

    def _take_signal(self, op: TakeSignal) -> Outcome:
        entry = self._owned(op.step.run_id, op.epoch)
        if not isinstance(entry, Entry):
            return entry
        signal = entry.signals.get(op.signal_id)
        if signal is None or not may_take(signal.taken_by, op.step.key):
            return _MISSING
        if signal.taken_by is None:
            entry.signals[signal.id] = evolve(signal, taken_by=op.step.key)
            del entry.unread[signal.id]
        return self._put(entry, op.step)

    def _reply(self, op: Reply) -> Outcome:
        entry = self._owned(op.run_id, op.epoch)
        if not isinstance(entry, Entry):
            return entry
        signal = entry.signals.get(op.signal_id)
        if signal is None:
            return _MISSING
        if signal.reply is not None:
            return _EXISTED
        entry.signals[signal.id] = evolve(
            signal,
            reply=op.payload,
            reply_preview=op.preview,
            reply_failed=op.failed,
            reply_seal=op.seal,
        )
        return _DONE

    def _publish(self, op: Publish) -> Outcome:
        entry = self._owned(op.item.run_id, op.epoch)
        if not isinstance(entry, Entry):
            return entry
        items = entry.channels.setdefault(op.item.channel, {})
        if op.item.n in items:
            return _EXISTED
        items[op.item.n] = op.item
        return _DONE

    def _delete_run(self, op: DeleteRun) -> Outcome:
        if not op.tombstone and (pruned := self._stubs.pop(op.run_id, None)) is not None:
            self._epoch = max(self._epoch, pruned.epoch)
        entry = self._entries.pop(op.run_id, None)
        if entry is not None:
            run = entry.run
            self._nonces.pop(entry.nonce, None)
            self._unindex(run)
            if op.tombstone and run.number is None:
                self._stubs[run.id] = stub(run, op.seal)
            else:
                self._epoch = max(self._epoch, run.epoch)
        return _DONE

    def _put_memo(self, op: PutMemo) -> Outcome:
        self._memos[op.memo.key] = op.memo
        return _DONE

    def _drop_memo(self, op: DropMemo) -> Outcome:
        self._memos.pop(op.key, None)
        return _DONE

    def _put_queue(self, op: PutQueue) -> Outcome:
        if op.if_new and op.row.name in self._queues:
            return _EXISTED
        self._queues[op.row.name] = op.row
        return _DONE

    def _drop_queue(self, op: DropQueue) -> Outcome:
        self._queues.pop(op.name, None)
        return _DONE

    def _put_schedule(self, op: PutSchedule) -> Outcome:
        if op.if_new and op.row.name in self._schedules:
            return _EXISTED
        if not stands(self._schedules.get(op.row.name), op.was):
            return _MISSING
        self._schedules[op.row.name] = op.row
        return _DONE

    def _drop_schedule(self, op: DropSchedule) -> Outcome:
        self._schedules.pop(op.name, None)
        return _DONE

    def _put_worker(self, op: PutWorker) -> Outcome:
        self._workers[op.row.id] = op.row
        return _DONE

    def _drop_worker(self, op: DropWorker) -> Outcome:
        self._workers.pop(op.id, None)
        return _DONE

    def _rewrite(self, op: Rewrite) -> Outcome:
        first = str(op.key[0])
        tables: dict[str, dict[str, Any]] = {
            "memo": self._memos,
            "queue": self._queues,
            "schedule": self._schedules,
        }
        if op.kind in tables:
            found = _rewritten(op, tables[op.kind].get(first))
            if found is not None:
                tables[op.kind][first] = found
            return _DONE if found is not None else _MISSING
        if op.kind == "run" and (rewritten := _rewritten(op, self._stubs.get(first))) is not None:
            self._stubs[first] = rewritten
            return _DONE
        entry = self._entries.get(first)
        if entry is None:
            return _MISSING
        rows: dict[Any, Any] = {}
        place: Any = op.key[-1]
        if op.kind == "run":
            rows, place = {first: entry.run}, first
        elif op.kind == "signal":
            rows = entry.signals
        elif op.kind == "item":
            rows = entry.channels.get(str(op.key[1]), {})
        else:
            rows = dict(entry.steps.values())
        row = _rewritten(op, rows.get(place))
        if row is None:
            return _MISSING
        if op.kind == "run":
            entry.run = row
        elif op.kind == "step":
            entry.steps[row.key] = (int(place), row)
        else:
            rows[place] = row
        return _DONE

    def _owned(self, run_id: str, epoch: int | None) -> Entry | Fenced | Missing:
        """The run, if it exists with this epoch. Otherwise the outcome that says why not."""
        entry = self._entries.get(run_id)
        if entry is None:
            return _MISSING
        return entry if epoch is None or epoch == entry.run.epoch else Fenced(_copy(entry.run))

    def _change(self, entry: Entry, changes: dict[str, Any]) -> None:
        if "tags" in changes:
            changes["tags"] = own_tags(changes["tags"])
        self._unindex(entry.run)
        entry.run = changed(entry.run, changes)
        self._index(entry.run)

    def _index(self, run: Run) -> None:
        if run.status in (RunStatus.PENDING, RunStatus.RUNNING):
            self._unfinished[run.id] = None
        if run.number is not None:
            self._line(run.key).add(run)

    def _line(self, key: str) -> Line:
        """The numbered runs of *key*. It is made at the first look."""
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line()
        return line

    def _unindex(self, run: Run) -> None:
        self._unfinished.pop(run.id, None)
        if run.number is not None:
            line = self._lines[run.key]
            line.remove(run)
            if not line.numbers:
                del self._lines[run.key]

    # Reading -----------------------------------------------------------------------------------------------

    def _entry(self, run_id: str) -> Entry | None:
        """The run with all that belongs to it. The caller holds the lock."""
        require_id(run_id)
        self._require_open()
        return self._entries.get(run_id)

    def get_run(self, run_id: str, /) -> Run | None:
        with self._lock:
            entry = self._entry(run_id)
        return None if entry is None else _copy(entry.run)

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        with self._lock:
            self._require_open()
            runs = list(self._stubs.values()) if where.pruned else [one.run for one in self._entries.values()]
        if where.after is not None:
            behind = next((run for run in runs if run.id == where.after), None)
            if behind is None:
                return []
            mark, newest = order(behind), where.newest_first
            runs = [run for run in runs if (order(run) < mark if newest else order(run) > mark)]
        found = (run for run in runs if matches(run, where))
        if where.limit is None:
            chosen = sorted(found, key=order, reverse=where.newest_first)
        else:  # so that a page of thousands of runs does not sort them all
            pick = heapq.nlargest if where.newest_first else heapq.nsmallest
            chosen = pick(where.limit, found, key=order)
        return [_copy(run) if payloads else _bare(run) for run in chosen]

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        require_id(key, "step key")
        with self._lock:
            entry = self._entry(run_id)
            found = None if entry is None else entry.steps.get(key)
        # Numbered when it is read. At the time of a put, that would take most of a commit.
        return None if found is None else found[1]._replace(seq=found[0])

    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        require_limit(limit)
        with self._lock:
            entry = self._entry(run_id)
            steps = [] if entry is None else list(entry.steps.values())
        start = bisect_left(steps, after + 1, key=lambda numbered: numbered[0]) if after else 0
        page = islice(steps, start, None if limit is None else start + limit)
        if payloads:
            return [step_of((*step[:3], seq, *step[4:])) for seq, step in page]
        return [step._replace(seq=seq, payload=None) for seq, step in page]

    def list_signals(
        self,
        run_id: str,
        /,
        *,
        name: str | None = None,
        unread: bool = False,
        after: int = 0,
        limit: int | None = None,
        payloads: bool = True,
    ) -> list[Signal]:
        require_limit(limit)
        with self._lock:
            entry = self._entry(run_id)
            if entry is None:
                return []
            # Even with thousands of messages, a wait looks only at unread ones, one page at a time.
            signals = map(entry.signals.__getitem__, entry.unread) if unread else entry.signals.values()
            matching = (one for one in signals if one.seq > after and (name is None or one.name == name))
            page = list(islice(matching, limit))
        return page if payloads else [evolve(one, payload=b"", reply=None) for one in page]

    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        require_id(signal_id, "signal id")
        with self._lock:
            entry = self._entry(run_id)
            return None if entry is None else entry.signals.get(signal_id)

    def list_items(
        self, run_id: str, channel: str, /, *, after: int = 0, limit: int | None = None
    ) -> list[Item]:
        require_limit(limit)
        items = self._items(run_id, channel)
        return list(islice((items[n] for n in sorted(items) if n > after), limit))

    def last_item(self, run_id: str, channel: str, /) -> Item | None:
        items = self._items(run_id, channel)
        return items[max(items)] if items else None

    def list_channels(self, run_id: str, /) -> dict[str, int]:
        with self._lock:
            entry = self._entry(run_id)
            channels = {} if entry is None else entry.channels
            return {name: len(channels[name]) for name in sorted(channels)}

    def _items(self, run_id: str, channel: str) -> dict[int, Item]:
        require_id(channel, "channel")
        with self._lock:
            entry = self._entry(run_id)
            return {} if entry is None else dict(entry.channels.get(channel, {}))

    def get_memo(self, key: str, /) -> Memo | None:
        require_id(key, "memo key")
        with self._lock:
            self._require_open()
            return self._memos.get(key)

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        with self._lock:
            self._require_open()
            keys = sorted(key for key in self._memos if key > after)
            return [self._memos[key] for key in keys[:limit]]

    def list_queues(self) -> list[QueueRow]:
        return self._sorted(self._queues)

    def list_schedules(self) -> list[ScheduleRow]:
        return self._sorted(self._schedules)

    def list_workers(self) -> list[WorkerRow]:
        return self._sorted(self._workers)

    def _sorted(self, rows: dict[str, R]) -> list[R]:
        with self._lock:
            self._require_open()
            return [rows[name] for name in sorted(rows)]

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        found = []
        wanted = list(run_ids)
        with self._lock:
            for run_id in wanted:
                if (entry := self._entry(run_id)) is not None:
                    run = entry.run
                    found.append(
                        Attention(run_id, run.epoch, run.status, run.cancel_requested, len(entry.unread))
                    )
        return found

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        with self._lock:
            self._require_open()
            runs = [entry.run for entry in self._live()]
        wanted = [run for run in runs if run.workflow in workflows and may_come_from(run, queues)]
        return min((moment for run in wanted if (moment := free_at(run)) is not None), default=None)

    def wait_for_change(self, seen: int, timeout: float, /, topics: Iterable[str] = ()) -> int:
        self._require_open()
        return super().wait_for_change(seen, timeout, topics)

    # Life --------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        with self._lock:
            self._require_open()
            epochs = [entry.run.epoch for entry in self._entries.values()]
            self._epoch = max([self._epoch, *epochs, *(run.epoch for run in self._stubs.values())])
            self._forget_all()
        self.notify()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._forget_all()
        self.notify()

    def before_fork(self) -> None:
        self._lock.acquire()
        self._changes.before_fork()

    def after_fork(self, in_child: bool) -> None:
        self._changes.after_fork(in_child)
        self._lock.release()

    def _forget_all(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._stubs: dict[str, Run] = {}
        self._nonces: dict[str, str] = {}
        self._lines: dict[str, Line] = {}
        self._unfinished: dict[str, None] = {}  # ids, in the order of their last change
        self._memos: dict[str, Memo] = {}
        self._queues: dict[str, QueueRow] = {}
        self._schedules: dict[str, ScheduleRow] = {}
        self._workers: dict[str, WorkerRow] = {}

    def _require_open(self) -> None:
        if self._closed:
            raise StorageUnavailable("this MemoryStorage was closed; make a new one", lasting=True)


_APPLY: dict[type, Callable[[MemoryStorage, Any], Outcome]] = {
    OpenRun: MemoryStorage._open_run,
    ClaimRun: MemoryStorage._claim_run,
    ClaimNext: MemoryStorage._claim_next,
    UpdateRun: MemoryStorage._update_run,
    Restart: MemoryStorage._restart,
    PutStep: MemoryStorage._put_step,
    DropSteps: MemoryStorage._drop_steps,
    AddSignal: MemoryStorage._add_signal,
    TakeSignal: MemoryStorage._take_signal,
    Reply: MemoryStorage._reply,
    Publish: MemoryStorage._publish,
    DeleteRun: MemoryStorage._delete_run,
    PutMemo: MemoryStorage._put_memo,
    DropMemo: MemoryStorage._drop_memo,
    PutQueue: MemoryStorage._put_queue,
    DropQueue: MemoryStorage._drop_queue,
    PutSchedule: MemoryStorage._put_schedule,
    DropSchedule: MemoryStorage._drop_schedule,
    PutWorker: MemoryStorage._put_worker,
    DropWorker: MemoryStorage._drop_worker,
    Rewrite: MemoryStorage._rewrite,
}


def _rewritten(op: Rewrite, row: Any) -> Any:
    """*row* with other bytes, if it has the bytes that it should have. Otherwise ``None``."""
    if row is None or any(getattr(row, name) != value for name, value in op.was.items()):
        return None
    changes: dict[str, Any] = dict(op.now)
    return row._replace(**changes) if isinstance(row, Step) else evolve(row, **changes)


def _copy(run: Run) -> Run:
    # Everything else in a run is immutable.
    return evolve(run, tags=dict(run.tags)) if isinstance(run.tags, dict) else run


def _bare(run: Run) -> Run:
    """A run as lists show it."""
    tags = dict(run.tags) if isinstance(run.tags, dict) else run.tags
    return evolve(run, tags=tags, args=b"", result=None, error=None)
