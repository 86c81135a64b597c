"""A storage in front of another one. Subclass it to see, change or refuse what passes."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from flowdsl.core.records import (
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
from flowdsl.storage.base import Attention, Storage
from flowdsl.storage.operations import Operation
from flowdsl.storage.outcomes import Outcome
from flowdsl.storage.step_transactions import StepTransaction

__all__ = ["RelayStorage"]


class RelayStorage(Storage):
    """Passes everything on to *storage*. All writes pass through ``commit`` or ``commit_async``. Writes that
    share a user's transaction pass through ``commit_transaction`` (and ``…_async``) or ``commit_within``.

    >>> from flowdsl.storage import MemoryStorage
    >>> RelayStorage(MemoryStorage()).list_runs()
    []
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self.storage = storage
        self.inline = storage.inline
        self.shares = storage.shares
        self.patience = storage.patience
        self.transacts = storage.transacts
        self.alone = storage.alone
        self.merges_tags = storage.merges_tags
        self.url = storage.url

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        return self.storage.commit(operations)

    def commit_within(self, connection: Any, operations: Sequence[Operation], /) -> list[Outcome]:
        return self.storage.commit_within(connection, operations)

    async def commit_within_async(self, connection: Any, operations: Sequence[Operation], /) -> list[Outcome]:
        return await self.storage.commit_within_async(connection, operations)

    def transaction(self) -> AbstractContextManager[StepTransaction]:
        return self.storage.transaction()

    def transaction_async(self) -> AbstractAsyncContextManager[StepTransaction]:
        return self.storage.transaction_async()

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        return self.storage.commit_transaction(transaction, operations)

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        return await self.storage.commit_transaction_async(transaction, operations)

    def get_run(self, run_id: str, /) -> Run | None:
        return self.storage.get_run(run_id)

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        return self.storage.list_runs(where, payloads=payloads)

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        return self.storage.get_step(run_id, key)

    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        return self.storage.list_steps(run_id, after=after, limit=limit, payloads=payloads)

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
        return self.storage.list_signals(
            run_id, name=name, unread=unread, after=after, limit=limit, payloads=payloads
        )

    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        return self.storage.get_signal(run_id, signal_id)

    def list_items(
        self, run_id: str, channel: str, /, *, after: int = 0, limit: int | None = None
    ) -> list[Item]:
        return self.storage.list_items(run_id, channel, after=after, limit=limit)

    def last_item(self, run_id: str, channel: str, /) -> Item | None:
        return self.storage.last_item(run_id, channel)

    def list_channels(self, run_id: str, /) -> dict[str, int]:
        return self.storage.list_channels(run_id)

    def get_memo(self, key: str, /) -> Memo | None:
        return self.storage.get_memo(key)

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        return self.storage.list_memos(after=after, limit=limit)

    def queue_counts(self) -> dict[str, QueueCounts]:
        return self.storage.queue_counts()

    def list_queues(self) -> list[QueueRow]:
        return self.storage.list_queues()

    def list_schedules(self) -> list[ScheduleRow]:
        return self.storage.list_schedules()

    def list_workers(self) -> list[WorkerRow]:
        return self.storage.list_workers()

    def now(self) -> float:
        return self.storage.now()

    def notify(self, topics: Iterable[str] = ()) -> None:
        self.storage.notify(topics)

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        return self.storage.next_due(workflows, queues)

    def wait_for_change(self, seen: int, timeout: float, /, topics: Iterable[str] = ()) -> int:
        return self.storage.wait_for_change(seen, timeout, topics)

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        return self.storage.attention(run_ids)

    def clear(self) -> None:
        self.storage.clear()

    def close(self) -> None:
        self.storage.close()
