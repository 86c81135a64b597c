"""What the SQLite storage reads."""

import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from flowdsl.core.records import (
    Attention,
    Item,
    Memo,
    QueueCounts,
    QueueRow,
    Run,
    RunFilter,
    ScheduleRow,
    Signal,
    Step,
    WorkerRow,
)
from flowdsl.storage import columns
from flowdsl.storage.base import Storage
from flowdsl.storage.left_out import page_of, readable
from flowdsl.storage.operations import require_id, require_limit
from flowdsl.storage.sqlite import claim_statements as claims
from flowdsl.storage.sqlite import rows
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.fragments import chunks_of, limited

__all__ = ["SQLiteReading"]


class SQLiteReading(Storage):
    """The readers of the storage."""

    def __init__(self) -> None:
        super().__init__()
        self._reported: set[str] = set()  # what was said of damaged rows

    @abstractmethod
    def _read(
        self, statement: str, values: Sequence[Any], text: Callable[[bytes], Any] = str, of: str = ""
    ) -> list[rows.Row]:
        """The rows of a statement. *text* makes text of the bytes of one that is no UTF-8: by default, no row
        is read then, and the error names the run *of* which they are."""

    def get_run(self, run_id: str, /) -> Run | None:
        require_id(run_id)
        found = self._read(sql.GET_RUN, (run_id,), text=rows.or_bytes)
        return columns.run_of(found[0]) if found else None

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        def read(page: RunFilter) -> list[rows.Row]:
            return self._read(*sql.list_runs(page, payloads), text=rows.or_bytes)

        return page_of(read, columns.run_of, where, self._reported)

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        require_id(run_id)
        require_id(key, "step key")
        steps = rows.steps_of(run_id, self._read(sql.GET_STEP, (run_id, key), of=run_id))
        return steps[0] if steps else None

    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        require_id(run_id)
        require_limit(limit)
        statement = sql.LIST_STEPS if payloads else sql.LIST_STEPS_BARE

        def read(after: int, limit: int | None) -> list[Step]:
            return rows.steps_of(run_id, self._read(statement, (run_id, after, limited(limit)), of=run_id))

        return columns.page_of_steps(read, after, limit)

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
        require_id(run_id)
        require_limit(limit)
        found = self._read(*sql.list_signals(run_id, name, unread, after, limit, payloads), of=run_id)
        return [columns.signal_of(run_id, row) for row in found]

    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        require_id(run_id)
        require_id(signal_id, "signal id")
        found = self._read(sql.GET_SIGNAL, (run_id, signal_id), of=run_id)
        return columns.signal_of(run_id, found[0]) if found else None

    def list_items(
        self, run_id: str, channel: str, /, *, after: int = 0, limit: int | None = None
    ) -> list[Item]:
        require_id(run_id)
        require_id(channel, "channel")
        require_limit(limit)
        found = self._read(sql.LIST_ITEMS, (run_id, channel, after, limited(limit)), of=run_id)
        return [columns.item_of(run_id, row) for row in found]

    def last_item(self, run_id: str, channel: str, /) -> Item | None:
        require_id(run_id)
        require_id(channel, "channel")
        found = self._read(sql.LAST_ITEM, (run_id, channel), of=run_id)
        return columns.item_of(run_id, found[0]) if found else None

    def list_channels(self, run_id: str, /) -> dict[str, int]:
        require_id(run_id)
        return dict(self._read(sql.LIST_CHANNELS, (run_id,), of=run_id))

    def get_memo(self, key: str, /) -> Memo | None:
        require_id(key, "memo key")
        found = self._read(sql.GET_MEMO, (key,), text=rows.or_bytes)
        return Memo(*found[0]) if found else None

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        values = (after, -1 if limit is None else limit)
        return [Memo(*row) for row in self._read(sql.LIST_MEMOS, values, text=rows.or_bytes)]

    def queue_counts(self) -> dict[str, QueueCounts]:
        return dict(map(columns.counts_of, self._read(sql.QUEUE_COUNTS, (), text=rows.or_bytes)))

    def list_queues(self) -> list[QueueRow]:
        return [columns.queue_of(row) for row in self._read(sql.LIST_QUEUES, (), text=rows.or_bytes)]

    def list_schedules(self) -> list[ScheduleRow]:
        found = self._read(sql.LIST_SCHEDULES, (), text=rows.or_bytes)
        return list(readable(columns.schedule_of, found, self._reported))

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        names, known = tuple(queues or ()), json.dumps(list(workflows))
        count = None if queues is None else len(names)
        first = self._read(
            claims.of_queues(claims.FIRST_DUE, count, False), (*names, known), text=rows.or_bytes
        )
        lost = self._read(
            claims.of_queues(claims.LEASE_ENDS, count, True), (known, *names), text=rows.or_bytes
        )
        moment = min((one for (one,) in (*first, *lost) if isinstance(one, int | float)), default=None)
        return 0.0 if moment is not None and moment <= self.now() else moment

    def list_workers(self) -> list[WorkerRow]:
        found = self._read(sql.LIST_WORKERS, (), text=rows.or_bytes)
        return list(readable(columns.worker_of, found, self._reported))

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        wanted = list(run_ids)
        for run_id in wanted:
            require_id(run_id)
        found: dict[str, Attention] = {}
        for chunk in chunks_of(wanted):
            read = self._read(sql.attention(len(chunk)), chunk, text=rows.or_bytes)
            found.update((one.run_id, one) for one in readable(columns.attention_of, read, self._reported))
        return [found[run_id] for run_id in wanted if run_id in found]
