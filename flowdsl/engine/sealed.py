"""A storage with sealed rows: what the engine writes gets a seal here, and what it reads is checked here.

:func:`sealed` puts it in front of the storage of a runtime when ``FLOWDSL_SECRET_KEY`` is set. So the engine
knows nothing of seals, and never reads a row without one. A row that does not fit its seal raises
:class:`~flowdsl.errors.CorruptPayload`. Within a commit, that error is the outcome of one operation alone. In
a list of runs, the bad run is left out and reported, so that one does not hide the others.

**A row without a seal is refused**, whoever wrote it. Rows of earlier releases have none; ``flowdsl rekey
--unsealed`` gives them one. Nothing in the row itself can replace a seal: whoever changes the row could keep
it, and put it beside other content.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

from attrs import evolve

from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.seals import Seals
from flowdsl.core.records import Item, Memo, QueueRow, Run, RunFilter, ScheduleRow, Signal, Step
from flowdsl.engine.sealing import Ready, Sealing, altered, refusals, to_commit
from flowdsl.engine.user import Value
from flowdsl.errors import CorruptPayload
from flowdsl.storage.base import Attention, Storage
from flowdsl.storage.left_out import page_of, readable
from flowdsl.storage.operations import Operation
from flowdsl.storage.outcomes import Claimed, Fenced, Found, Opened, Outcome, Unstorable
from flowdsl.storage.relay import RelayStorage
from flowdsl.storage.step_transactions import StepTransaction
from flowdsl.threads import in_thread

__all__ = ["SealedStorage", "sealed"]


def sealed(storage: Storage, payloads: Payloads) -> Storage:
    """Return *storage*, with sealed rows if there is a secret."""
    return storage if payloads.secret is None else SealedStorage(storage, payloads.secret)


class SealedStorage(RelayStorage):
    """Seals what is committed and checks what is read."""

    def __init__(self, storage: Storage, secret: bytes) -> None:
        super().__init__(storage)
        self.patience = storage.patience
        self._seals = Seals(secret)
        self._sealing = Sealing(self._seals, self)
        self._known: set[str] = set()  # what was reported of rows that are left out

    # Writing --------------------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        return self._commit_by(self.storage.commit, operations)

    def commit_within(self, connection: Value, operations: Sequence[Operation], /) -> list[Outcome]:
        return self._commit_by(partial(self.storage.commit_within, connection), operations)

    def _commit_by(
        self, commit: Callable[[Sequence[Operation]], list[Outcome]], operations: Sequence[Operation]
    ) -> list[Outcome]:
        ready = self._sealing.ready(operations)
        good = to_commit(ready)
        outcomes = commit(good)
        tries = count()
        while places := self._sealing.again(good, outcomes, next(tries)):
            _put(outcomes, places, commit([good[place] for place in places]))
        return self._finished(ready, outcomes)

    async def commit_within_async(
        self, connection: Value, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        commit = partial(self.storage.commit_within_async, connection)
        ready = await in_thread(self._sealing.ready, operations)
        good = to_commit(ready)
        outcomes = await commit(good)
        tries = count()
        while places := await in_thread(self._sealing.again, good, outcomes, next(tries)):
            _put(outcomes, places, await commit([good[place] for place in places]))
        return self._finished(ready, outcomes)

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        ready = self._sealing.ready(operations)
        if refused := refusals(ready):
            return refused
        return self._finished(ready, self.storage.commit_transaction(transaction, to_commit(ready)))

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        ready = await in_thread(self._sealing.ready, operations)
        if refused := refusals(ready):
            return refused
        committing = self.storage.commit_transaction_async(transaction, to_commit(ready))
        return self._finished(ready, await committing)

    def _finished(self, ready: Sequence[Ready], committed: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes of all operations: those that were *committed*, and the others."""
        outcomes = iter(committed)
        return [
            Unstorable(one) if isinstance(one, CorruptPayload) else self._checked(next(outcomes))
            for one in ready
        ]

    def _checked(self, outcome: Outcome) -> Outcome:
        """*outcome*, or the refusal of a run in it."""
        try:
            match outcome:
                case Opened(run=run) | Fenced(run=run):
                    self._check_run(run)
                case Found(runs=runs):
                    for run in runs:
                        self._check_run(run)
                case Claimed(runs=runs):  # the other runs of the batch are executed
                    return evolve(outcome, runs=tuple(run for run in runs if self._is_good(run)))
        except CorruptPayload as error:
            return Unstorable(error)
        return outcome

    # Reading --------------------------------------------------------------------------------------------

    def get_run(self, run_id: str, /) -> Run | None:
        run = self.storage.get_run(run_id)
        if run is not None:
            self._check_run(run)
        return run

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:  # noqa: B008 - frozen
        def read(page: RunFilter) -> list[Run]:
            return self.storage.list_runs(page, payloads=payloads)

        return page_of(read, partial(self._checked_run, bare=not payloads), where, self._known)

    def _is_good(self, run: Run) -> bool:
        return bool(list(readable(self._checked_run, [run], self._known)))

    def _checked_run(self, run: Run, bare: bool = False) -> Run:
        self._check_run(run, bare)
        return run

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        step = self.storage.get_step(run_id, key)
        return None if step is None else self._good_steps(run_id, [step])[0]

    def list_steps(
        self, run_id: str, /, *, after: int = 0, limit: int | None = None, payloads: bool = True
    ) -> list[Step]:
        steps = self.storage.list_steps(run_id, after=after, limit=limit, payloads=payloads)
        return self._good_steps(run_id, steps, not payloads)

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
        found = self.storage.list_signals(
            run_id, name=name, unread=unread, after=after, limit=limit, payloads=payloads
        )
        for signal in found:
            self._check_signal(signal, not payloads)
        return found

    def get_signal(self, run_id: str, signal_id: str, /) -> Signal | None:
        signal = self.storage.get_signal(run_id, signal_id)
        if signal is not None:
            self._check_signal(signal)
        return signal

    def list_items(
        self, run_id: str, channel: str, /, *, after: int = 0, limit: int | None = None
    ) -> list[Item]:
        items = self.storage.list_items(run_id, channel, after=after, limit=limit)
        return [item for item in items if self._check_item(item)]

    def last_item(self, run_id: str, channel: str, /) -> Item | None:
        item = self.storage.last_item(run_id, channel)
        return item if item is None or self._check_item(item) else None

    def get_memo(self, key: str, /) -> Memo | None:
        memo = self.storage.get_memo(key)
        return None if memo is None else self._checked_memo(memo)

    def _checked_memo(self, memo: Memo) -> Memo:
        if not self._seals.fits(memo.seal, memo):
            raise altered(f"the memo of step {memo.path}")
        return memo

    def list_memos(self, *, after: str = "", limit: int | None = None) -> list[Memo]:
        return [self._checked_memo(memo) for memo in self.storage.list_memos(after=after, limit=limit)]

    def list_queues(self) -> list[QueueRow]:
        return [self._checked_row(row, f"queue {row.name!r}") for row in self.storage.list_queues()]

    def list_schedules(self) -> list[ScheduleRow]:
        return list(readable(self._checked_schedule, self.storage.list_schedules(), self._known))

    def _checked_schedule(self, row: ScheduleRow) -> ScheduleRow:
        checked: ScheduleRow = self._checked_row(row, f"schedule {row.name!r}")
        return checked

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        return [self._requested(item) for item in self.storage.attention(run_ids)]

    def _requested(self, item: Attention) -> Attention:
        """A request to cancel counts only if it is sealed: what is acted on is what was checked, not what
        was read before."""
        if item.cancel_requested is None:
            return item
        (run,) = list(readable(self.get_run, [item.run_id], self._known)) or [None]
        return evolve(item, cancel_requested=None if run is None else run.cancel_requested)

    # Checks ---------------------------------------------------------------------------------------------

    def _check_run(self, run: Run, bare: bool = False) -> None:
        if not self._seals.fits_run(run, bare=bare):
            raise altered(f"run {run.id}", run=run.id)
        if not self._seals.fits_cancel(run):
            raise altered(f"the request to cancel run {run.id}", run=run.id)

    def _good_steps(self, run_id: str, steps: list[Step], bare: bool = False) -> list[Step]:
        for step in steps:
            if not self._seals.fits(step.seal, step, bare=bare):
                raise altered(
                    f"step {step.path} ({step.key[:12]}) of run {run_id}", run=run_id, step=step.key
                )
        return steps

    def _check_signal(self, signal: Signal, bare: bool = False) -> None:
        where = f"message {signal.name!r} of run {signal.run_id}"
        if not self._seals.fits(signal.seal, signal, bare=bare):
            raise altered(where, run=signal.run_id)
        if not self._seals.fits_reply(signal, bare=bare):
            raise altered(f"the reply to {where}", run=signal.run_id)

    def _check_item(self, item: Item) -> bool:
        if not self._seals.fits(item.seal, item):
            raise altered(f"item {item.n} of channel {item.channel!r} of run {item.run_id}", run=item.run_id)
        return True

    def _checked_row(self, row: Any, what: str) -> Any:  # any kind of row, and the same kind back
        if not self._seals.fits(row.seal, row):
            raise altered(what)
        return row


def _put(outcomes: list[Outcome], places: Iterable[int], found: Iterable[Outcome]) -> None:
    for place, outcome in zip(places, found, strict=True):
        outcomes[place] = outcome
