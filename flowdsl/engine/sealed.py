"""A storage with sealed rows: what the engine writes gets a seal here, and what it reads is checked here.

:func:`sealed` puts it in front of the storage of a runtime when ``FLOWDSL_SECRET_KEY`` is set. So the engine
knows nothing of seals, and never reads a row without one. A row that does not fit its seal raises
:class:`~flowdsl.errors.CorruptPayload`. Within a commit, that error is the outcome of one operation alone. In
a list of runs, the bad run is left out and reported, so that one does not hide the others.

The row of a run is changed piece by piece, so each change makes its seal anew. The new seal is made from the
row in the storage, and that row is checked first. Whoever may change it holds its epoch, or nobody executes
it.

**A row without a seal is refused**, whoever wrote it. Rows of earlier releases have none; ``flowdsl rekey
--unsealed`` gives them one. Nothing else can: a proof that stands in the row itself can be kept by somebody,
and put back beside other words.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

from attrs import evolve

from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.seals import Seals
from flowdsl.core.ownership import stub
from flowdsl.core.records import Item, Memo, QueueRow, Run, RunFilter, ScheduleRow, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.engine.user import Named, Value
from flowdsl.errors import CorruptPayload
from flowdsl.storage.base import (
    AddSignal,
    Attention,
    ClaimRun,
    DeleteRun,
    Fenced,
    Found,
    Missing,
    Opened,
    OpenRun,
    Operation,
    Outcome,
    Publish,
    PutMemo,
    PutStep,
    Reply,
    Restart,
    Storage,
    TakeSignal,
    Unstorable,
    UpdateRun,
)
from flowdsl.storage.operations import ClaimNext, PutQueue, PutSchedule
from flowdsl.storage.outcomes import Claimed
from flowdsl.storage.refused import page_of, readable
from flowdsl.storage.relay import RelayStorage
from flowdsl.storage.step_transactions import StepTransaction
from flowdsl.threads import in_thread

__all__ = ["SealedStorage", "sealed"]

_NEWEST = 16  # runs of a key that are searched for the highest number
_NEXT = 8  # numbers that are tried one after the other
_MOST = 2**62  # no run has such a number


def sealed(storage: Storage, payloads: Payloads) -> Storage:
    """Return *storage*, with sealed rows if there is a secret."""
    return storage if payloads.secret is None else SealedStorage(storage, payloads.secret)


class SealedStorage(RelayStorage):
    """Seals what is committed and checks what is read."""

    def __init__(self, storage: Storage, secret: bytes) -> None:
        super().__init__(storage)
        self.patience = storage.patience
        self._seals = Seals(secret)
        self._known: set[str] = set()  # what was reported of rows that are left out

    # Writing --------------------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        return self._commit_by(self.storage.commit, operations)

    def commit_within(self, connection: Value, operations: Sequence[Operation], /) -> list[Outcome]:
        return self._commit_by(partial(self.storage.commit_within, connection), operations)

    def _commit_by(
        self, commit: Callable[[Sequence[Operation]], list[Outcome]], operations: Sequence[Operation]
    ) -> list[Outcome]:
        ready = self._ready(operations)
        good = _good(ready)
        outcomes = commit(good)
        tries = count()
        while places := self._again(good, outcomes, next(tries)):
            _put(outcomes, places, commit([good[place] for place in places]))
        return self._finished(ready, outcomes)

    async def commit_within_async(
        self, connection: Value, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        commit = partial(self.storage.commit_within_async, connection)
        ready = await in_thread(self._ready, operations)
        good = _good(ready)
        outcomes = await commit(good)
        tries = count()
        while places := await in_thread(self._again, good, outcomes, next(tries)):
            _put(outcomes, places, await commit([good[place] for place in places]))
        return self._finished(ready, outcomes)

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        ready = self._ready(operations)
        if refused := _refusals(ready):
            return refused
        return self._finished(ready, self.storage.commit_transaction(transaction, _good(ready)))

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        ready = await in_thread(self._ready, operations)
        if refused := _refusals(ready):
            return refused
        committing = self.storage.commit_transaction_async(transaction, _good(ready))
        return self._finished(ready, await committing)

    def _ready(self, operations: Sequence[Operation]) -> list[Operation | CorruptPayload]:
        """*operations* with their seals. For one that concerns an altered record, the reason of its
        refusal."""
        changed: dict[str, Run | None] = {}  # rows as they will be after the operations before
        ready: list[Operation | CorruptPayload] = []
        for operation in operations:
            try:
                ready.append(self._sealed(operation, changed))
            except CorruptPayload as error:
                ready.append(error)
        return ready

    def _finished(
        self, ready: Sequence[Operation | CorruptPayload], committed: Sequence[Outcome]
    ) -> list[Outcome]:
        """The outcomes of all operations: those that were *committed*, and the others."""
        outcomes = iter(committed)
        return [
            Unstorable(one) if isinstance(one, CorruptPayload) else self._checked(next(outcomes))
            for one in ready
        ]

    def _sealed(self, op: Any, changed: dict[str, Run | None]) -> Any:  # any kind, and the same
        """*op* with the seal of what it writes."""
        match op:
            case PutStep(step=step):
                return PutStep(step._replace(seal=self._seals.of(step)), op.epoch, op.once)
            case TakeSignal(step=step):
                return evolve(op, step=step._replace(seal=self._seals.of(step)))
            case OpenRun(run=run):
                if run.number is not None:
                    return self._numbered(op, op.number or self._next_number(run.key))
                cancel = self._seals.of_cancel(run.id, run.cancel_requested)
                run = evolve(run, seal=self._seals.of_run(run), cancel_seal=cancel)
                if run.id not in changed:
                    changed[run.id] = self.get_run(run.id) or run
                return evolve(op, run=run)
            case ClaimRun():
                return self._with_seal(op, changed, {"status": RunStatus.RUNNING, "finished_at": None})
            case UpdateRun():
                return self._with_seal(op, changed, {}) if op.changes else op
            case DeleteRun(tombstone=True):
                gone = changed[op.run_id] if op.run_id in changed else self.get_run(op.run_id)
                return op if gone is None else evolve(op, seal=self._seals.of_run(stub(gone)))
            case Restart():
                return self._with_seal(op, changed, {}, next_generation=True)
            case AddSignal(signal=signal):
                return evolve(op, signal=evolve(signal, seal=self._seals.of(signal)))
            case Reply():
                reply = op.run_id, op.signal_id, op.preview, op.failed, op.payload
                return evolve(op, seal=self._seals.of_reply(*reply))
            case Publish(item=item):
                return evolve(op, item=evolve(item, seal=self._seals.of(item)))
            case PutMemo(memo=memo):
                return evolve(op, memo=evolve(memo, seal=self._seals.of(memo)))
            case ClaimNext():
                self.list_queues()  # the storage applies their limits, but cannot check them
            case PutQueue():
                return evolve(op, row=evolve(op.row, seal=self._seals.of(op.row)))
            case PutSchedule():
                return evolve(op, row=evolve(op.row, seal=self._seals.of(op.row)))
        return op

    def _next_number(self, key: str) -> int:
        """The number that the next run of *key* is likely to get."""
        newest = self.storage.list_runs(RunFilter(key=key, limit=_NEWEST))
        return 1 + max((run.number or 0 for run in newest), default=0)

    def _numbered(self, op: OpenRun, number: int) -> OpenRun:
        """The opening of a run that gets *number* or none. Its seal holds for this number only, so nobody can
        make two runs of one."""
        stored = evolve(op.run, id=f"{op.run.id}-{number}", number=number)
        cancel = self._seals.of_cancel(stored.id, stored.cancel_requested)
        run = evolve(op.run, seal=self._seals.of_run(stored), cancel_seal=cancel)
        return evolve(op, run=run, number=number)

    def _again(self, good: list[Operation], outcomes: list[Outcome], tries: int) -> list[int]:
        """Places in *good* of runs that did not get their number, because another process was quicker. These
        have the next number now. Numbers are not sealed: where somebody has written a large one, the steps to
        it grow."""
        places = []
        for place, (op, outcome) in enumerate(zip(good, outcomes, strict=True)):
            if isinstance(op, OpenRun) and op.number is not None and isinstance(outcome, Missing):
                number = max(op.number + 16 ** max(0, tries - _NEXT), self._next_number(op.run.key))
                if number >= _MOST:
                    outcomes[place] = Unstorable(_refused(f"the number of a run of {op.run.workflow}"))
                    continue
                good[place] = self._numbered(op, number)
                places.append(place)
        return places

    def _with_seal(
        self,
        op: Any,  # one that has changes
        changed: dict[str, Run | None],
        also: Named,
        *,
        next_generation: bool = False,
    ) -> Any:  # the same kind
        """An operation that changes a run, with the seal that the run will have."""
        changes = {name: value for name, value in op.changes.items() if name not in ("seal", "cancel_seal")}
        if "cancel_requested" in changes:
            changes["cancel_seal"] = self._seals.of_cancel(op.run_id, changes["cancel_requested"])
        row = changed[op.run_id] if op.run_id in changed else self.get_run(op.run_id)
        if row is None:
            return op
        if next_generation:
            also = {"generation": row.generation + 1}
        after = evolve(row, **{**also, **changes})
        seal = self._seals.of_run(after)
        if seal != row.seal:
            changes["seal"] = seal
            after = evolve(after, seal=seal)
        changed[op.run_id] = after
        return evolve(op, changes=changes)

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
            raise _refused(f"the memo of step {memo.path}")
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
            raise _refused(f"run {run.id}", run=run.id)
        if not self._seals.fits_cancel(run):
            raise _refused(f"the request to cancel run {run.id}", run=run.id)

    def _good_steps(self, run_id: str, steps: list[Step], bare: bool = False) -> list[Step]:
        for step in steps:
            if not self._seals.fits(step.seal, step, bare=bare):
                raise _refused(
                    f"step {step.path} ({step.key[:12]}) of run {run_id}", run=run_id, step=step.key
                )
        return steps

    def _check_signal(self, signal: Signal, bare: bool = False) -> None:
        where = f"message {signal.name!r} of run {signal.run_id}"
        if not self._seals.fits(signal.seal, signal, bare=bare):
            raise _refused(where, run=signal.run_id)
        if not self._seals.fits_reply(signal, bare=bare):
            raise _refused(f"the reply to {where}", run=signal.run_id)

    def _check_item(self, item: Item) -> bool:
        if not self._seals.fits(item.seal, item):
            raise _refused(f"item {item.n} of channel {item.channel!r} of run {item.run_id}", run=item.run_id)
        return True

    def _checked_row(self, row: Any, what: str) -> Any:  # any kind of row, and the same kind back
        if not self._seals.fits(row.seal, row):
            raise _refused(what)
        return row


def _good(ready: Iterable[Operation | CorruptPayload]) -> list[Operation]:
    """The operations to commit."""
    return [one for one in ready if not isinstance(one, CorruptPayload)]


def _put(outcomes: list[Outcome], places: Iterable[int], found: Iterable[Outcome]) -> None:
    for place, outcome in zip(places, found, strict=True):
        outcomes[place] = outcome


def _refusals(ready: Sequence[Operation | CorruptPayload]) -> list[Outcome]:
    """The outcomes if one operation is refused: all that go with it are refused too. Otherwise empty."""
    refused = next((one for one in ready if isinstance(one, CorruptPayload)), None)
    return [] if refused is None else [Unstorable(refused) for _ in ready]


def _refused(what: str, **facts: str) -> CorruptPayload:
    return CorruptPayload(
        f"{what} is not as it was written: its seal does not fit. Somebody who does not know "
        "FLOWDSL_SECRET_KEY has changed it, or it was written with another key or without one. It is not "
        "used. If it is of the time before the key, and you trust what is stored: flowdsl rekey --unsealed",
        **facts,
    )
