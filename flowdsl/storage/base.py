"""The storage port: records in, records out.

A storage keeps :mod:`flowdsl.core.records` whose payloads are opaque bytes. It never sees a function and
never unpickles. Everything that writes is an *operation* (:mod:`flowdsl.storage.operations`). The only way to
write is ``commit(operations)``:

* All operations of one ``commit`` share one transaction. When ``commit`` returns, they are durable.
* Operations of many runs may share a commit. Each operation with an ``epoch`` is checked by itself against
  the epoch of its run. If it is fenced, or its run does not exist, it *fails alone*: its outcome says so, and
  the others take effect.
* Order counts: an operation sees what the ones before it did.
* If the transaction cannot be made durable, ``commit`` raises a :class:`~flowdsl.errors.StorageError`, and
  nothing took effect — unless ``StorageUnavailable.outcome_unknown`` is set. After an unknown outcome, every
  operation may be sent a second time. It then has the outcome of the first time, except for the ``seq`` of a
  step. (``OpenRun`` and ``ClaimRun`` need a ``nonce`` for that.)
* If the storage cannot take a row (too large, a text that is not Unicode, a number beyond 64 bits), the
  outcome of any operation is ``Unstorable``, and nothing of that operation takes effect.

The journal of a run is a log: records are appended, and the last record of a key counts. So a storage keeps
its rows in the order (run, seq), without a second index by key.

Leases use the storage's own clock (the database's, if there is one), so hosts need not agree on the time.

A backend implements ``commit``, the readers, ``clear`` and ``close``. ``commit_async``, ``wait_for_change``,
``attention`` and ``now`` have defaults that work in one process. The verbs ``set_… delete_… add_signal
get_state`` use ``commit`` and need no implementation.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Self

from attrs import evolve

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
from flowdsl.core.status import RunStatus
from flowdsl.storage.changes import Changes
from flowdsl.storage.operations import (
    AddSignal,
    AddTags,
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
from flowdsl.storage.outcomes import (
    Claimed,
    Done,
    Fenced,
    Found,
    Missing,
    Opened,
    Outcome,
    Unstorable,
    raise_not_storable,
    raise_unstorable,
)
from flowdsl.storage.step_transactions import StepTransaction, in_threads
from flowdsl.storage.topics import topics_of
from flowdsl.storage.verbs import Verbs
from flowdsl.threads import in_thread

__all__ = [
    "AddSignal",
    "AddTags",
    "Attention",
    "ClaimNext",
    "ClaimRun",
    "Claimed",
    "DeleteRun",
    "Done",
    "DropMemo",
    "DropQueue",
    "DropSchedule",
    "DropSteps",
    "DropWorker",
    "Fenced",
    "Found",
    "Missing",
    "OpenRun",
    "Opened",
    "Operation",
    "Outcome",
    "Publish",
    "PutMemo",
    "PutQueue",
    "PutSchedule",
    "PutStep",
    "PutWorker",
    "Reply",
    "Restart",
    "Rewrite",
    "Storage",
    "TakeSignal",
    "Unstorable",
    "UpdateRun",
    "raise_not_storable",
    "raise_unstorable",
]


class Storage(Verbs):
    """Base class of all storages. Many threads may use one. Values that it returns are never shared.

    * ``url``: how another process opens the same storage; ``None`` if that is impossible (memory).
    * ``patience``: for how many seconds the engine sends operations again while the storage is unavailable
      (:class:`~flowdsl.errors.StorageUnavailable`, unless that is ``lasting``).
    * ``inline``: whether a commit takes microseconds, so async code may call it on its event loop.
    * ``shares``: for an ``inline`` storage: whether callers pay much less if they commit together than one by
      one.
    * ``awaits``: whether ``commit_async`` happens on the event loop, and itself waits as long as *patience*
      says.
    * ``transacts``: whether a body can share a transaction with its record (:meth:`transaction`).
      ``alone``: whether such a transaction keeps all other writers waiting.
    * ``merges_tags``: whether it applies ``AddTags``, as it should. If not, the engine reads the tags and
      writes them all with the new ones. Then a tag may be lost that another process adds at the same time.
    """

    url: str | None = None
    inline: bool = False
    shares: bool = False
    awaits: bool = False
    transacts: bool = False
    alone: bool = False
    merges_tags: bool = False
    patience: float = 30.0

    def __init__(self) -> None:
        self._changes = Changes()

    # What a backend implements -----------------------------------------------------------------------------

    @abstractmethod
    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        """Apply *operations* in order in one transaction. Returns one outcome for each, in order.

        An empty sequence returns ``[]``. Raises ``ValueError`` for anything that is no operation, before
        anything is applied. Raises :class:`~flowdsl.errors.StorageError` if the transaction fails.
        """

    @abstractmethod
    def get_run(self, run_id: str, /) -> Run | None:
        """The run of this id. ``None`` if there is none or it was pruned. ``ValueError`` for an empty id."""

    @abstractmethod
    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        """The runs that match, by ``(created_at, id)``. None is pruned, unless *where* asks for those. An
        unknown ``after`` gives none.

        Unless *payloads* are asked for, ``args`` is ``b""``, and ``result`` and ``error`` are ``None``.
        """

    @abstractmethod
    def get_step(self, run_id: str, key: str, /) -> Step | None:
        """The record of this address, or ``None``. This looks through the journal of the run."""

    @abstractmethod
    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        """The records of a run with ``seq > after``, in order of ``seq``. An unknown run has none.

        With *limit*, only that many are returned, the first ones. A record in a page may be replaced by one
        in a later page, by its key. A page shorter than *limit* is the last. Without *payloads*, ``payload``
        is ``None``.
        """

    @abstractmethod
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
        """Messages of a run with ``seq > after``, in order of arrival. With *name*, only of that name; with
        *unread*, only those not taken. Without *payloads*, ``payload`` is ``b""`` and ``reply`` is
        ``None``."""

    @abstractmethod
    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        """The message of this id, or ``None``."""

    @abstractmethod
    def list_items(
        self, run_id: str, channel: str, /, *, after: int = 0, limit: int | None = None
    ) -> list[Item]:
        """The items of a channel with ``n > after``, in order."""

    @abstractmethod
    def last_item(self, run_id: str, channel: str, /) -> Item | None:
        """The item of a channel with the highest ``n``, or ``None``."""

    @abstractmethod
    def list_channels(self, run_id: str, /) -> dict[str, int]:
        """The channels of a run, by name, each with the number of its items."""

    @abstractmethod
    def get_memo(self, key: str, /) -> Memo | None:
        """The memo of this key, or ``None``. The caller judges whether it has expired."""

    @abstractmethod
    def list_queues(self) -> list[QueueRow]:
        """All declared queues, by name."""

    @abstractmethod
    def list_schedules(self) -> list[ScheduleRow]:
        """All schedules, by name."""

    @abstractmethod
    def list_workers(self) -> list[WorkerRow]:
        """All workers, by id."""

    @abstractmethod
    def clear(self) -> None:
        """Delete everything: runs, tombstones and what belongs to them, memos, queues, schedules, workers."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections and files. Closing twice is fine. Other calls then raise
        ``StorageUnavailable``."""

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        """Memos with a key above *after*, by key. With *limit*, only the first ones. Only re-keying asks."""
        raise NotImplementedError(f"{type(self).__name__} lists no memos, which re-keying needs")

    def queue_counts(self) -> dict[str, QueueCounts]:
        """How many runs of each queue wait and have begun, by its name. Queues without such runs are left
        out.

        By default this reads all unfinished runs. A storage that can count does better.
        """
        found: dict[str, QueueCounts] = {}
        for run in self.list_runs(RunFilter(status=(RunStatus.PENDING, RunStatus.RUNNING))):
            if run.queue is None:
                continue
            so_far = found.get(run.queue, QueueCounts())
            if run.status is RunStatus.RUNNING:
                found[run.queue] = evolve(so_far, running=so_far.running + 1)
            else:  # the newest comes first
                found[run.queue] = evolve(so_far, pending=so_far.pending + 1, oldest=run.created_at)
        return found

    def count_pending(self) -> dict[str, int]:
        """How many runs wait in each queue, by its name. Queues without waiting runs are left out."""
        return {name: counts.pending for name, counts in self.queue_counts().items() if counts.pending}

    # Defaults that work in one process ---------------------------------------------------------------------

    async def commit_async(self, operations: Sequence[Operation], /) -> list[Outcome]:
        """``commit`` from a coroutine: directly if the storage is *inline*, otherwise in a thread."""
        if self.inline:
            return self.commit(operations)
        return await in_thread(self.commit, operations)

    def commit_within(self, connection: Any, operations: Sequence[Operation], /) -> list[Outcome]:
        """Apply *operations* in the transaction that the caller has open on *connection*, and leave it open.

        Raises ``TypeError`` for a connection of another database driver, and if the storage has none.
        """
        raise TypeError(
            f"{type(self).__name__} has no transactions to share; connection= needs SQLite or PostgreSQL"
        )

    async def commit_within_async(self, connection: Any, operations: Sequence[Operation], /) -> list[Outcome]:
        """``commit_within`` from a coroutine. The connection may be one that is awaited."""
        return self.commit_within(connection, operations)

    def transaction(self) -> AbstractContextManager[StepTransaction]:
        """A transaction with a connection of its own. It is open from entering on.

        :meth:`commit_transaction` commits it. Leaving it without that rolls it back. Raises ``TypeError`` if
        the storage has no transactions (``transacts`` is false).
        """
        raise TypeError(f"{type(self).__name__} has no transactions; that needs SQLite or PostgreSQL")

    def transaction_async(self) -> AbstractAsyncContextManager[StepTransaction]:
        """As :meth:`transaction`, for an async body. By default it is made and ended in threads."""
        return in_threads(self.transaction())

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        """Apply *operations* in *transaction* and commit it, if every one of them takes effect. Otherwise
        nothing does. Returns one outcome for each.

        Raises :class:`~flowdsl.storage.step_transactions.NotCommitted` if the body is to blame. Raises
        ``StorageError`` too, with ``outcome_unknown`` if the connection was lost.
        """
        outcomes = transaction.commit(operations)
        if transaction.committed:
            self.announce(operations)
        return outcomes

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        """As :meth:`commit_transaction`, from a coroutine. By default it uses the transaction's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            transaction.thread, self.commit_transaction, transaction, operations
        )

    def now(self) -> float:
        """The storage's clock, in seconds since the epoch. All durable times use it, leases too."""
        return time.time()

    def announce(self, operations: Iterable[Operation]) -> None:
        """Tell those who wait what *operations*, now durable, are about. (``commit`` calls it.)"""
        self._changes.say(topics_of(operations))

    def notify(self, topics: Iterable[str] = ()) -> None:
        """Wake all who wait here for a change of these *topics*. Without topics, wake everybody."""
        wanted = tuple(topics)
        if wanted:
            self._changes.say(wanted)
        else:
            self._changes.say_all()

    def next_due(self, workflows: Collection[str], queues: Sequence[str] | None = None, /) -> float | None:
        """When ``ClaimNext`` may find a run of *workflows* (paths) in *queues*, in seconds on the storage's
        clock. That is when the first pending run is due, or the first lease ends, whichever is earlier. 0.0
        if there is one already. ``None`` if there is none. Limits and versions do not count.

        Idle workers ask this, so it should cost little and lock nothing. By default: in two seconds.
        """
        return self.now() + 2.0

    def wait_for_change(self, seen: int, timeout: float, /, topics: Iterable[str] = ()) -> int:
        """Wait until something may have changed since version *seen*, at most *timeout* seconds.

        *topics* say what the caller wants to hear of: ``run:<id>`` (a message, a reply, an item, a request to
        cancel, the end) or ``queue:<name>`` (a run to be claimed). A change of anything else does not wake
        it. Without topics, any change does, steps included.

        Returns the version to pass the next time: the present one, or *seen* if nothing of the topics
        changed. 0 is older than any. It may return for no reason. If processes share the backend, it
        overrides this so that their commits are seen too: within a tenth of a second by topic, and within a
        second without.
        """
        return self._changes.wait(seen, timeout, topics)

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        """What the given runs must know. Runs that do not exist are left out."""
        found = []
        for run_id in run_ids:
            run = self.get_run(run_id)
            if run is not None:
                unread = len(self.list_signals(run_id, unread=True, payloads=False))
                found.append(Attention(run_id, run.epoch, run.status, run.cancel_requested, unread))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
