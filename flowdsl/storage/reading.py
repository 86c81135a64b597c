"""What a storage reads, for all backends that speak SQL. A backend gives the statements, sends them, and
makes steps of their rows."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

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
from flowdsl.storage.columns import Row
from flowdsl.storage.left_out import page_of, readable
from flowdsl.storage.operations import require_id, require_limit

__all__ = ["ReadStatements", "SQLReading"]

Sql = TypeVar("Sql", bound=str)


class ReadStatements(Protocol[Sql]):
    """The statements. Each takes its values in the order of the method of :class:`SQLReading` that sends it;
    where that has no limit, the value is ``None``. Steps come with their ``seq`` in front."""

    get_run: Sql
    get_step: Sql
    list_steps: Sql
    list_steps_bare: Sql
    get_signal: Sql
    list_items: Sql
    last_item: Sql
    list_channels: Sql
    get_memo: Sql
    list_memos: Sql
    queue_counts: Sql
    list_queues: Sql
    list_schedules: Sql
    list_workers: Sql

    def list_runs(self, where: RunFilter, payloads: bool) -> tuple[Sql, list[Any]]:
        """Statement and values for ``Storage.list_runs``."""
        ...

    def list_signals(
        self, run_id: str, name: str | None, unread: bool, after: int, limit: int | None, payloads: bool
    ) -> tuple[Sql, list[Any]]:
        """Statement and values for ``Storage.list_signals``."""
        ...


class SQLReading(Storage, Generic[Sql]):
    """The readers of a storage, over *statements*."""

    def __init__(self, statements: ReadStatements[Sql]) -> None:
        super().__init__()
        self._reads = statements
        self._reported: set[str] = set()  # what was said of damaged rows

    @abstractmethod
    def _read(self, statement: Sql, values: Sequence[Any], of: str = "") -> list[Row]:
        """The rows of a statement. *of*: the run that all of them belong to, for an error that names it."""

    @abstractmethod
    def _steps_of(self, run_id: str, rows: list[Row]) -> list[Step]:
        """The steps of a run from their rows, the last one of each key."""

    @abstractmethod
    def _read_attention(self, run_ids: list[str]) -> list[Row]:
        """For each of these runs that there is: id, epoch, status, request to cancel, unread messages."""

    def get_run(self, run_id: str, /) -> Run | None:
        require_id(run_id)
        found = self._read(self._reads.get_run, (run_id,))
        return columns.run_of(found[0]) if found else None

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        def read(page: RunFilter) -> list[Row]:
            return self._read(*self._reads.list_runs(page, payloads))

        return page_of(read, columns.run_of, where, self._reported)

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        require_id(run_id)
        require_id(key, "step key")
        steps = self._steps_of(run_id, self._read(self._reads.get_step, (run_id, key), run_id))
        return steps[0] if steps else None

    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        require_id(run_id)
        require_limit(limit)
        statement = self._reads.list_steps if payloads else self._reads.list_steps_bare

        def read(after: int, limit: int | None) -> list[Step]:
            return self._steps_of(run_id, self._read(statement, (run_id, after, limit), run_id))

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
        statement, values = self._reads.list_signals(run_id, name, unread, after, limit, payloads)
        return [columns.signal_of(run_id, row) for row in self._read(statement, values, run_id)]

    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        require_id(run_id)
        require_id(signal_id, "signal id")
        found = self._read(self._reads.get_signal, (run_id, signal_id), run_id)
        return columns.signal_of(run_id, found[0]) if found else None

    def list_items(
        self, run_id: str, channel: str, /, *, after: int = 0, limit: int | None = None
    ) -> list[Item]:
        require_id(run_id)
        require_id(channel, "channel")
        require_limit(limit)
        found = self._read(self._reads.list_items, (run_id, channel, after, limit), run_id)
        return [columns.item_of(run_id, row) for row in found]

    def last_item(self, run_id: str, channel: str, /) -> Item | None:
        require_id(run_id)
        require_id(channel, "channel")
        found = self._read(self._reads.last_item, (run_id, channel), run_id)
        return columns.item_of(run_id, found[0]) if found else None

    def list_channels(self, run_id: str, /) -> dict[str, int]:
        require_id(run_id)
        return {row[0]: row[1] for row in self._read(self._reads.list_channels, (run_id,), run_id)}

    def get_memo(self, key: str, /) -> Memo | None:
        require_id(key, "memo key")
        found = self._read(self._reads.get_memo, (key,))
        return Memo(*found[0]) if found else None

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        return [Memo(*row) for row in self._read(self._reads.list_memos, (after, limit))]

    def queue_counts(self) -> dict[str, QueueCounts]:
        return dict(map(columns.counts_of, self._read(self._reads.queue_counts, ())))

    def list_queues(self) -> list[QueueRow]:
        return [columns.queue_of(row) for row in self._read(self._reads.list_queues, ())]

    def list_schedules(self) -> list[ScheduleRow]:
        found = self._read(self._reads.list_schedules, ())
        return list(readable(columns.schedule_of, found, self._reported))

    def list_workers(self) -> list[WorkerRow]:
        found = self._read(self._reads.list_workers, ())
        return list(readable(columns.worker_of, found, self._reported))

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        wanted = list(run_ids)
        for run_id in wanted:
            require_id(run_id)
        rows = self._read_attention(wanted)
        found = {one.run_id: one for one in readable(columns.attention_of, rows, self._reported)}
        return [found[run_id] for run_id in wanted if run_id in found]
