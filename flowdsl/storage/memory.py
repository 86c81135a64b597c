"""A storage in the memory of one process: for tests, and for runs that need not outlive it.

It is also the reference: short enough to be read as the meaning of each operation, and the other backends
must agree with it (see ``flowdsl.testing.storage.contract``).
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NoReturn, Self

from attrs import evolve

from flowdsl.core.records import Memo, Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.errors import StorageUnavailable
from flowdsl.storage.base import (
    AddSignal,
    Attention,
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
    Storage,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.checks import require_id, require_limit, validate
from flowdsl.storage.forking import rest_before_fork
from flowdsl.storage.make import as_inserted, own_tags, stub
from flowdsl.storage.memory_index import Entry, Line, matches, order

__all__ = ["MemoryStorage"]

_DONE = Done()
_MISSING = Missing()
_ENDED = (RunStatus.COMPLETED, RunStatus.CANCELLED)


class MemoryStorage(Storage):
    """Keeps everything in this process; nothing survives it.

    A commit costs microseconds, so ``inline`` is true. It cannot be opened from another process: pickling one
    raises ``TypeError``. A forked child gets a copy of its own.

    >>> with MemoryStorage() as storage:
    ...     storage.set_run(Run(id="order-17", workflow="shop.checkout", key="k"))
    ...     storage.get_run("order-17").status
    <RunStatus.PENDING: 'pending'>
    """

    inline = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # one lock for all: a fork needs to hold it
        self._closed = False
        self._seq = 0
        self._signal_seq = 0
        self._epoch = 0  # the highest of a deleted run
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
        validate(operations)
        with self._lock:
            if self._closed:
                self._require_open()
            outcomes = []
            for operation in operations:
                outcomes.append(_APPLY[type(operation)](self, operation))
        self.notify()
        return outcomes

    def _open_run(self, op: OpenRun) -> Outcome:
        run = op.run
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
        line = self._lines.setdefault(run.key, Line())
        if not op.fresh and (oldest := line.oldest(op.skip_owners)):
            return Found(tuple(_copy(self._entries[run_id].run) for run_id in oldest))
        number = line.numbers[-1] + 1 if line.numbers else 1
        while (run_id := f"{run.id}-{number}") in self._entries or run_id in self._stubs:
            number += 1
        return self._insert(op, run_id, number)

    def _insert(self, op: OpenRun, run_id: str, number: int | None) -> Outcome:
        run = as_inserted(op.run, run_id, number, self._epoch + 1, self.now() + op.lease)
        self._entries[run_id] = Entry(run, op.nonce)
        self._index(run)
        if op.nonce:
            self._nonces[op.nonce] = run_id
        return Opened(_copy(run))

    def _claim_run(self, op: ClaimRun) -> Outcome:
        entry = self._entries.get(op.run_id)
        if entry is None:
            return _MISSING
        run, now = entry.run, self.now()
        if op.nonce and entry.nonce == op.nonce and run.owner == op.owner:
            return Opened(_copy(run))
        free = op.force or run.owner is None or run.lease_until <= now
        if run.epoch != op.epoch or not free or (op.if_status and run.status not in op.if_status):
            return Fenced(_copy(run))
        claim = {"owner": op.owner, "status": RunStatus.RUNNING, "finished_at": None}
        self._change(entry, {**claim, **op.changes, "epoch": run.epoch + 1, "lease_until": now + op.lease})
        self._nonces.pop(entry.nonce, None)
        entry.nonce = op.nonce
        return Opened(_copy(entry.run))

    def _update_run(self, op: UpdateRun) -> Outcome:
        entry = self._entries.get(op.run_id)
        if entry is None:
            return _MISSING
        run = entry.run
        if op.epoch is not None and op.epoch != run.epoch:
            return Fenced(_copy(run))
        if op.if_status and run.status not in op.if_status:
            again = op.epoch is not None and bool(op.changes)
            if again and all(getattr(run, name) == value for name, value in op.changes.items()):
                return Done(existed=True)
            return Fenced(_copy(run))
        changes = dict(op.changes)
        if op.release:
            changes |= {"owner": None, "lease_until": self.now()}
        elif op.lease is not None:
            changes["lease_until"] = self.now() + op.lease
        self._change(entry, changes)
        return _DONE

    def _put_step(self, op: PutStep) -> Outcome:
        step = op.step
        entry = self._entries.get(step.run_id)
        if entry is None:
            return _MISSING
        if op.epoch is not None and op.epoch != entry.run.epoch:
            return Fenced(_copy(entry.run))
        return self._put(entry, step, op.once)

    def _put(self, entry: Entry, step: Step, once: bool = False) -> Done:
        steps, key = entry.steps, step.key
        if key in steps:
            if once:
                return Done(steps[key][0], True)
            del steps[key]  # so that the new one stands last
        self._seq = seq = self._seq + 1
        steps[key] = (seq, step)
        return Done(seq)

    def _drop_steps(self, op: DropSteps) -> Outcome:
        entry = self._entries.get(op.run_id)
        if entry is None:
            return _MISSING
        if op.epoch is not None and op.epoch != entry.run.epoch:
            return Fenced(_copy(entry.run))
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
        if entry.run.status in _ENDED:
            return Fenced(_copy(entry.run))
        self._signal_seq += 1
        entry.signals[signal.id] = evolve(signal, seq=self._signal_seq, taken_by=None)
        entry.unread += 1
        if signal.key is not None:
            entry.sent[signal.name, signal.key] = self._signal_seq
        return Done(self._signal_seq)

    def _take_signal(self, op: TakeSignal) -> Outcome:
        entry = self._entries.get(op.step.run_id)
        if entry is None:
            return _MISSING
        if op.epoch is not None and op.epoch != entry.run.epoch:
            return Fenced(_copy(entry.run))
        signal = entry.signals.get(op.signal_id)
        if signal is None or signal.taken_by not in (None, op.step.key):
            return _MISSING
        if signal.taken_by is None:
            entry.signals[signal.id] = evolve(signal, taken_by=op.step.key)
            entry.unread -= 1
        return self._put(entry, op.step)

    def _delete_run(self, op: DeleteRun) -> Outcome:
        if not op.tombstone and (pruned := self._stubs.pop(op.run_id, None)) is not None:
            self._epoch = max(self._epoch, pruned.epoch)
        entry = self._entries.pop(op.run_id, None)
        if entry is not None:
            run = entry.run
            self._nonces.pop(entry.nonce, None)
            self._unindex(run)
            if op.tombstone and run.number is None:
                self._stubs[run.id] = stub(run)
            else:
                self._epoch = max(self._epoch, run.epoch)
        return _DONE

    def _put_memo(self, op: PutMemo) -> Outcome:
        self._memos[op.memo.key] = op.memo
        return _DONE

    def _drop_memo(self, op: DropMemo) -> Outcome:
        self._memos.pop(op.key, None)
        return _DONE

    def _change(self, entry: Entry, changes: dict[str, Any]) -> None:
        if "tags" in changes:
            changes["tags"] = own_tags(changes["tags"])
        self._unindex(entry.run)
        entry.run = evolve(entry.run, **changes)
        self._index(entry.run)

    def _index(self, run: Run) -> None:
        if run.number is not None:
            self._lines.setdefault(run.key, Line()).add(run)

    def _unindex(self, run: Run) -> None:
        if run.number is not None:
            line = self._lines[run.key]
            line.remove(run)
            if not line.numbers:
                del self._lines[run.key]

    # Reading -----------------------------------------------------------------------------------------------

    def get_run(self, run_id: str, /) -> Run | None:
        require_id(run_id)
        with self._lock:
            self._require_open()
            entry = self._entries.get(run_id)
        return None if entry is None else _copy(entry.run)

    def list_runs(self, where: RunFilter = RunFilter(), /) -> list[Run]:  # noqa: B008 - frozen
        require_limit(where.limit)
        with self._lock:
            self._require_open()
            runs = [entry.run for entry in self._entries.values()]
            behind = None if where.after is None else self._entries.get(where.after)
        if where.after is not None:
            if behind is None:
                return []
            mark, newest = order(behind.run), where.newest_first
            runs = [run for run in runs if (order(run) < mark if newest else order(run) > mark)]
        found = sorted((run for run in runs if matches(run, where)), key=order, reverse=where.newest_first)
        return [_copy(run) for run in found[: where.limit]]

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        require_id(run_id)
        require_id(key, "step key")
        with self._lock:
            self._require_open()
            entry = self._entries.get(run_id)
            found = None if entry is None else entry.steps.get(key)
        # Numbered when it is read, not when it is put: that would be the larger half of a commit.
        return None if found is None else found[1]._replace(seq=found[0])

    def list_steps(self, run_id: str, /, *, after: int = 0, limit: int | None = None) -> list[Step]:
        require_id(run_id)
        require_limit(limit)
        with self._lock:
            self._require_open()
            entry = self._entries.get(run_id)
            steps = [] if entry is None else list(entry.steps.values())
        start = bisect_left(steps, after + 1, key=lambda numbered: numbered[0]) if after else 0
        return [
            step._replace(seq=seq)
            for seq, step in islice(steps, start, None if limit is None else start + limit)
        ]

    def list_signals(
        self, run_id: str, /, *, name: str | None = None, unread: bool = False, limit: int | None = None
    ) -> list[Signal]:
        require_id(run_id)
        require_limit(limit)
        with self._lock:
            self._require_open()
            entry = self._entries.get(run_id)
            signals = [] if entry is None else list(entry.signals.values())
        matching = (s for s in signals if (name is None or s.name == name) and not (unread and s.taken_by))
        return list(islice(matching, limit))

    def get_memo(self, key: str, /) -> Memo | None:
        require_id(key, "memo key")
        with self._lock:
            self._require_open()
            return self._memos.get(key)

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        found = []
        wanted = list(run_ids)
        with self._lock:
            self._require_open()
            for run_id in wanted:
                require_id(run_id)
                if (entry := self._entries.get(run_id)) is not None:
                    run = entry.run
                    found.append(Attention(run_id, run.epoch, run.status, run.cancel_requested, entry.unread))
        return found

    def wait_for_change(self, seen: int, timeout: float, /) -> int:
        self._require_open()
        return super().wait_for_change(seen, timeout)

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

    def after_fork(self, in_child: bool) -> None:
        self._lock.release()
        if in_child:
            self._changed, self._waiting = threading.Condition(self._lock), 0

    def _forget_all(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._stubs: dict[str, Run] = {}
        self._nonces: dict[str, str] = {}
        self._lines: dict[str, Line] = {}
        self._memos: dict[str, Memo] = {}

    def _require_open(self) -> None:
        if self._closed:
            raise StorageUnavailable("this MemoryStorage was closed; make a new one", lasting=True)


_APPLY: dict[type, Callable[[MemoryStorage, Any], Outcome]] = {
    OpenRun: MemoryStorage._open_run,
    ClaimRun: MemoryStorage._claim_run,
    UpdateRun: MemoryStorage._update_run,
    PutStep: MemoryStorage._put_step,
    DropSteps: MemoryStorage._drop_steps,
    AddSignal: MemoryStorage._add_signal,
    TakeSignal: MemoryStorage._take_signal,
    DeleteRun: MemoryStorage._delete_run,
    PutMemo: MemoryStorage._put_memo,
    DropMemo: MemoryStorage._drop_memo,
}


def _copy(run: Run) -> Run:
    # All else in a run is immutable.
    return evolve(run, tags=dict(run.tags)) if isinstance(run.tags, dict) else run
