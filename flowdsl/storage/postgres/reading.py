"""What the PostgreSQL storage reads."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
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
from flowdsl.storage.postgres.fragments import Sql
from flowdsl.storage.postgres.rows import Row, is_text, steps_of
from flowdsl.storage.postgres.statements import Statements

__all__ = ["PostgresReading"]


class PostgresReading(Storage):
    """The readers of the storage."""

    def __init__(self, sql: Statements) -> None:
        super().__init__()
        self._sql = sql
        self._reported: set[str] = set()  # what was said of damaged rows

    @abstractmethod
    def _read(self, statement: Sql, values: Sequence[Any]) -> list[Row]:
        """The rows of a statement."""

    def get_run(self, run_id: str, /) -> Run | None:
        require_id(run_id)
        found = self._read(self._sql.get_run, (run_id,))
        return columns.run_of(found[0]) if found else None

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        def read(page: RunFilter) -> list[Row]:
            return self._read(*self._sql.list_runs(page, payloads))

        return page_of(read, columns.run_of, where, self._reported)

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        require_id(run_id)
        require_id(key, "step key")
        steps = steps_of(run_id, self._read(self._sql.get_step, (run_id, key)))
        return steps[0] if steps else None

    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        require_id(run_id)
        require_limit(limit)
        statement = self._sql.list_steps if payloads else self._sql.list_steps_bare

        def read(after: int, limit: int | None) -> list[Step]:
            return steps_of(run_id, self._read(statement, (run_id, after, limit)))

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
        found = self._read(*self._sql.list_signals(run_id, name, unread, after, limit, payloads))
        return [columns.signal_of(run_id, row) for row in found]

    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        require_id(run_id)
        require_id(signal_id, "signal id")
        found = self._read(self._sql.get_signal, (run_id, signal_id))
        return columns.signal_of(run_id, found[0]) if found else None

    def list_items(
        self, run_id: str, channel: str, /, *, after: int = 0, limit: int | None = None
    ) -> list[Item]:
        require_id(run_id)
        require_id(channel, "channel")
        require_limit(limit)
        found = self._read(self._sql.list_items, (run_id, channel, after, limit))
        return [columns.item_of(run_id, row) for row in found]

    def last_item(self, run_id: str, channel: str, /) -> Item | None:
        require_id(run_id)
        require_id(channel, "channel")
        found = self._read(self._sql.last_item, (run_id, channel))
        return columns.item_of(run_id, found[0]) if found else None

    def list_channels(self, run_id: str, /) -> dict[str, int]:
        require_id(run_id)
        return {row[0]: row[1] for row in self._read(self._sql.list_channels, (run_id,))}

    def get_memo(self, key: str, /) -> Memo | None:
        require_id(key, "memo key")
        found = self._read(self._sql.get_memo, (key,))
        return Memo(*found[0]) if found else None

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        return [Memo(*row) for row in self._read(self._sql.list_memos, (after, limit))]

    def queue_counts(self) -> dict[str, QueueCounts]:
        return dict(map(columns.counts_of, self._read(self._sql.queue_counts, ())))

    def list_queues(self) -> list[QueueRow]:
        return [QueueRow(*row) for row in self._read(self._sql.list_queues, ())]

    def list_schedules(self) -> list[ScheduleRow]:
        found = self._read(self._sql.list_schedules, ())
        return list(readable(columns.schedule_of, found, self._reported))

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        asked = [list(workflows), *[None if queues is None else list(queues)] * 2]
        ((moment, now),) = self._read(self._sql.claims.next_due, asked * 2)
        return 0.0 if moment is not None and moment <= now else moment

    def list_workers(self) -> list[WorkerRow]:
        found = self._read(self._sql.list_workers, ())
        return list(readable(columns.worker_of, found, self._reported))

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        wanted = list(run_ids)
        for run_id in wanted:
            require_id(run_id)
        ids = [run_id for run_id in wanted if is_text(run_id)]
        rows = self._read(self._sql.attention, (ids,))
        found = {one.run_id: one for one in readable(columns.attention_of, rows, self._reported)}
        return [found[run_id] for run_id in wanted if run_id in found]
