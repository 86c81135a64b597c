"""Operations with the seals of what they write.

The row of a run is changed piece by piece, so each change makes its seal anew. The new seal is made from the
row in the storage, and that row is checked first. Whoever may change it holds its epoch, or nobody executes
it. An operation that concerns an altered row is refused, and the others of its commit are not.

The number of a run is sealed with it, but only the storage knows which one is next. So a run is sealed with
the number that is likely, and once more if another process was quicker.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve

from flowdsl.codecs.seals import Seals
from flowdsl.core.ownership import stub
from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.engine.user import Named
from flowdsl.errors import CorruptPayload
from flowdsl.storage.operations import (
    AddSignal,
    AddTags,
    ClaimNext,
    ClaimRun,
    DeleteRun,
    OpenRun,
    Operation,
    Publish,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutStep,
    Reply,
    Restart,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.outcomes import Missing, Outcome, Unstorable
from flowdsl.storage.relay import RelayStorage

__all__ = ["Ready", "Sealing", "altered", "refusals", "to_commit"]

_NEWEST = 16  # runs of a key that are searched for the highest number
_NEXT = 8  # numbers that are tried one after the other
_MOST = 2**62  # no run has such a number

Ready = Operation | CorruptPayload
"""An operation that is sealed, or why it is refused."""


class Sealing:
    """Puts *seals* on operations. The rows that they change are read from *checked*, a storage that checks
    what it reads."""

    def __init__(self, seals: Seals, checked: RelayStorage) -> None:
        self._seals = seals
        self._checked = checked

    def ready(self, operations: Sequence[Operation]) -> list[Ready]:
        """*operations* with their seals. For one that concerns an altered record, the reason of its
        refusal."""
        changed: dict[str, Run | None] = {}  # rows as they will be after the operations before
        ready: list[Ready] = []
        for operation in operations:
            try:
                ready.append(self._sealed(operation, changed))
            except CorruptPayload as error:
                ready.append(error)
        return ready

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
                    changed[run.id] = self._checked.get_run(run.id) or run
                return evolve(op, run=run)
            case ClaimRun():
                return self._with_seal(op, changed, {"status": RunStatus.RUNNING, "finished_at": None})
            case UpdateRun():
                return self._with_seal(op, changed, {}) if op.changes else op
            case AddTags() if op.run_id not in changed:  # a seal covers no tags, but an altered run gets none
                changed[op.run_id] = self._checked.get_run(op.run_id)
            case DeleteRun(tombstone=True):
                gone = changed[op.run_id] if op.run_id in changed else self._checked.get_run(op.run_id)
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
                self._checked.list_queues()  # the storage applies their limits, but cannot check them
            case PutQueue():
                return evolve(op, row=evolve(op.row, seal=self._seals.of(op.row)))
            case PutSchedule():
                return evolve(op, row=evolve(op.row, seal=self._seals.of(op.row)))
        return op

    def _next_number(self, key: str) -> int:
        """The number that the next run of *key* is likely to get."""
        newest = self._checked.storage.list_runs(RunFilter(key=key, limit=_NEWEST))
        return 1 + max((run.number or 0 for run in newest), default=0)

    def _numbered(self, op: OpenRun, number: int) -> OpenRun:
        """The opening of a run that gets *number* or none. Its seal holds for this number only, so nobody can
        make two runs of one."""
        stored = evolve(op.run, id=f"{op.run.id}-{number}", number=number)
        cancel = self._seals.of_cancel(stored.id, stored.cancel_requested)
        run = evolve(op.run, seal=self._seals.of_run(stored), cancel_seal=cancel)
        return evolve(op, run=run, number=number)

    def again(self, good: list[Operation], outcomes: list[Outcome], tries: int) -> list[int]:
        """Places in *good* of runs that did not get their number, because another process was quicker. These
        have the next number now. Numbers are not sealed: where somebody has written a large one, the steps to
        it grow."""
        places = []
        for place, (op, outcome) in enumerate(zip(good, outcomes, strict=True)):
            if isinstance(op, OpenRun) and op.number is not None and isinstance(outcome, Missing):
                number = max(op.number + 16 ** max(0, tries - _NEXT), self._next_number(op.run.key))
                if number >= _MOST:
                    outcomes[place] = Unstorable(altered(f"the number of a run of {op.run.workflow}"))
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
        row = changed[op.run_id] if op.run_id in changed else self._checked.get_run(op.run_id)
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


def to_commit(ready: Iterable[Ready]) -> list[Operation]:
    """The operations to commit."""
    return [one for one in ready if not isinstance(one, CorruptPayload)]


def refusals(ready: Sequence[Ready]) -> list[Outcome]:
    """The outcomes if one operation is refused: all that go with it are refused too. Otherwise empty."""
    refused = next((one for one in ready if isinstance(one, CorruptPayload)), None)
    return [] if refused is None else [Unstorable(refused) for _ in ready]


def altered(what: str, **facts: str) -> CorruptPayload:
    """The error of a row that does not fit its seal."""
    return CorruptPayload(
        f"{what} is not as it was written: its seal does not fit. Somebody who does not know "
        "FLOWDSL_SECRET_KEY has changed it, or it was written with another key or without one. It is not "
        "used. If it is of the time before the key, and you trust what is stored: flowdsl rekey --unsealed",
        **facts,
    )
