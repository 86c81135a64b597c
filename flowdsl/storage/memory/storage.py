"""The storage in memory: a lock around tables, and what is read of them."""

import heapq
import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import NoReturn, Self, TypeVar

from attrs import evolve

from flowdsl.core.listing import matches, place_of
from flowdsl.core.ownership import free_at, may_come_from
from flowdsl.core.records import (
    Attention,
    Item,
    Memo,
    QueueRow,
    Run,
    RunFilter,
    ScheduleRow,
    Signal,
    Step,
    WorkerRow,
    step_of,
)
from flowdsl.errors import StorageUnavailable
from flowdsl.storage.base import Storage
from flowdsl.storage.forking import rest_before_fork
from flowdsl.storage.memory.apply import APPLY
from flowdsl.storage.memory.tables import RunData, Tables, copy_of
from flowdsl.storage.operations import Operation, require_id, require_limit, require_operations
from flowdsl.storage.outcomes import Outcome

__all__ = ["MemoryStorage"]

R = TypeVar("R")


class MemoryStorage(Storage):
    """Keeps everything in this process. Nothing survives it.

    A commit costs microseconds, so ``inline`` is true. No other process can open it: pickling one raises
    ``TypeError``. A forked child gets its own copy.

    >>> with MemoryStorage() as storage:
    ...     storage.set_run(Run(id="order-17", workflow="shop.checkout", key="k"))
    ...     storage.get_run("order-17").status
    <RunStatus.PENDING: 'pending'>
    """

    inline = merges_tags = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._closed = False
        self._tables = Tables(self.now)
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
        return f"MemoryStorage({len(self._tables.runs)} runs)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a MemoryStorage lives in one process and cannot be pickled or copied; "
            "give other processes a storage they can open, such as 'sqlite:///flow.db'"
        )

    # Writing -----------------------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        require_operations(operations)
        with self._lock:  # an interrupt that strikes between acquire() and ``try`` would leave it locked
            if self._closed:
                self._require_open()
            outcomes = []
            for operation in operations:
                outcomes.append(APPLY[type(operation)](self._tables, operation))
        self.announce(operations)
        return outcomes

    # Reading -----------------------------------------------------------------------------------------------

    def _data(self, run_id: str) -> RunData | None:
        """The run with all that belongs to it. The caller holds the lock."""
        require_id(run_id)
        self._require_open()
        return self._tables.runs.get(run_id)

    def get_run(self, run_id: str, /) -> Run | None:
        with self._lock:
            data = self._data(run_id)
        return None if data is None else copy_of(data.run)

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        with self._lock:
            self._require_open()
            runs = self._tables.all_runs(where.pruned)
        if where.after is not None:
            behind = next((run for run in runs if run.id == where.after), None)
            if behind is None:
                return []
            mark, newest = place_of(behind), where.newest_first
            runs = [run for run in runs if (place_of(run) < mark if newest else place_of(run) > mark)]
        found = (run for run in runs if matches(run, where))
        if where.limit is None:
            chosen = sorted(found, key=place_of, reverse=where.newest_first)
        else:  # so that a page of thousands of runs does not sort them all
            pick = heapq.nlargest if where.newest_first else heapq.nsmallest
            chosen = pick(where.limit, found, key=place_of)
        return [copy_of(run) if payloads else _bare(run) for run in chosen]

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        require_id(key, "step key")
        with self._lock:
            data = self._data(run_id)
            found = None if data is None else data.steps.get(key)
        # Numbered when it is read. At the time of a put, that would take most of a commit.
        return None if found is None else found[1]._replace(seq=found[0])

    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        require_limit(limit)
        with self._lock:
            data = self._data(run_id)
            steps = [] if data is None else list(data.steps.values())
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
            data = self._data(run_id)
            if data is None:
                return []
            # Even with thousands of messages, a wait looks only at unread ones, one page at a time.
            signals = map(data.signals.__getitem__, data.unread) if unread else data.signals.values()
            matching = (one for one in signals if one.seq > after and (name is None or one.name == name))
            page = list(islice(matching, limit))
        return page if payloads else [evolve(one, payload=b"", reply=None) for one in page]

    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        require_id(signal_id, "signal id")
        with self._lock:
            data = self._data(run_id)
            return None if data is None else data.signals.get(signal_id)

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
            data = self._data(run_id)
            channels = {} if data is None else data.channels
            return {name: len(channels[name]) for name in sorted(channels)}

    def _items(self, run_id: str, channel: str) -> dict[int, Item]:
        require_id(channel, "channel")
        with self._lock:
            data = self._data(run_id)
            return {} if data is None else dict(data.channels.get(channel, {}))

    def get_memo(self, key: str, /) -> Memo | None:
        require_id(key, "memo key")
        with self._lock:
            self._require_open()
            return self._tables.memos.get(key)

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        with self._lock:
            self._require_open()
            keys = sorted(key for key in self._tables.memos if key > after)
            return [self._tables.memos[key] for key in keys[:limit]]

    def list_queues(self) -> list[QueueRow]:
        return self._sorted(self._tables.queues)

    def list_schedules(self) -> list[ScheduleRow]:
        return self._sorted(self._tables.schedules)

    def list_workers(self) -> list[WorkerRow]:
        return self._sorted(self._tables.workers)

    def _sorted(self, rows: dict[str, R]) -> list[R]:
        with self._lock:
            self._require_open()
            return [rows[name] for name in sorted(rows)]

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        found = []
        wanted = list(run_ids)
        with self._lock:
            for run_id in wanted:
                if (data := self._data(run_id)) is not None:
                    run = data.run
                    found.append(
                        Attention(run_id, run.epoch, run.status, run.cancel_requested, len(data.unread))
                    )
        return found

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        with self._lock:
            self._require_open()
            runs = [data.run for data in self._tables.unfinished()]
        wanted = [run for run in runs if run.workflow in workflows and may_come_from(run, queues)]
        return min((moment for run in wanted if (moment := free_at(run)) is not None), default=None)

    def wait_for_change(self, seen: int, timeout: float, /, topics: Iterable[str] = ()) -> int:
        self._require_open()
        return super().wait_for_change(seen, timeout, topics)

    # Life --------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        with self._lock:
            self._require_open()
            for pruned in (False, True):
                for run in self._tables.all_runs(pruned):
                    self._tables.keep_epoch(run.epoch)
            self._tables.forget_all()
        self.notify()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._tables.forget_all()
        self.notify()

    def before_fork(self) -> None:
        self._lock.acquire()
        self._changes.before_fork()

    def after_fork(self, in_child: bool) -> None:
        self._changes.after_fork(in_child)
        self._lock.release()

    def _require_open(self) -> None:
        if self._closed:
            raise StorageUnavailable("this MemoryStorage was closed; make a new one", lasting=True)


def _bare(run: Run) -> Run:
    """A run as lists show it."""
    tags = dict(run.tags) if isinstance(run.tags, dict) else run.tags
    return evolve(run, tags=tags, args=b"", result=None, error=None)
