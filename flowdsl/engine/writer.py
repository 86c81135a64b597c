"""What an executing run writes, under the epoch that makes it the owner.

A record goes to the journal when it is durable. Some go there at once, and into a buffer: these become
durable with the next commit of the run. A write that the storage refuses stops the run, because it is
another's by now.
"""

import math
import threading
import time
from collections.abc import Iterable

from flowdsl.core.journal import Journal
from flowdsl.core.records import Run, Step
from flowdsl.engine.engine import Engine
from flowdsl.engine.stop import Stop
from flowdsl.errors import FlowError, LeaseLost, Stopped, StorageError
from flowdsl.storage.operations import Operation, PutStep, TakeSignal, UpdateRun
from flowdsl.storage.outcomes import Done, Fenced, Missing, Outcome, Unstorable, not_storable

__all__ = ["Writer"]


class Writer:
    """What a run writes under its epoch. Its records go to the journal first, or are written at once. It also
    holds the failures that the retry of a failed run has yet to execute again.

    ``buffer`` holds records that become durable with the next commit, and before the next body begins.
    ``floor``: records up to this place in the order are no evidence of divergence any more. ``held_until``:
    when our lease is over, as far as we know, on the monotonic clock. After that moment no body begins
    before the storage has said that the run is still ours.
    """

    def __init__(
        self, engine: Engine, record: Run, journal: Journal, lock: threading.RLock, stop: Stop
    ) -> None:
        self.run_id = record.id
        self.epoch = record.epoch
        self.held_until = math.inf
        if not engine.virtual:
            try:
                self.held_until = time.monotonic() + record.lease_until - engine.storage.now()
            except StorageError:  # where that cannot be told now, it counts as over
                self.held_until = 0.0
        self.buffer: dict[str, Step] = {}
        self._beside: dict[str, tuple[Operation, ...]] = {}
        self.floor = record.floor
        self.reopened = set(record.open_failures)
        self._open_failures = record.open_failures
        self._owned = engine.owned
        self._journal = journal
        self._lock = lock
        self._stop = stop

    def add(self, record: Step) -> None:
        """Take a durable record into the journal."""
        self._journal.add(record)

    def keep(self, record: Step, *more: Operation, soon: bool = False) -> None:
        """Take *record* into the journal. It becomes durable with the next commit, and so does *more*.

        With *soon*, others wait for the record. If the run makes no commit within a tenth of a second, it is
        committed then.
        """
        with self._lock:
            self._journal.add(record)
            self.buffer[record.key] = record
            if more:
                self._beside[record.key] = more
        if soon:
            self._owned.look_soon()

    def put(self, record: Step) -> Operation:
        """The write of *record*."""
        return PutStep(record, self.epoch)

    def buffered(self) -> list[Operation]:
        """Writes of the records that are not durable yet. They stay in the buffer until :meth:`stored`.
        Otherwise another branch would take them for durable while their commit is under way. Writing a record
        twice does no harm."""
        if not self.buffer:
            return []
        with self._lock:
            found: list[Operation] = []
            for key, step in self.buffer.items():
                found += (PutStep(step, self.epoch), *self._beside.get(key, ()))
            return found

    def stored(self, operations: Iterable[Operation]) -> None:
        """These operations are durable, and so are the buffered records among them."""
        if not self.buffer:
            return
        with self._lock:
            for operation in operations:
                if isinstance(operation, PutStep) and self.buffer.get(operation.step.key) is operation.step:
                    del self.buffer[operation.step.key]  # it may hold a newer one by now
                    self._beside.pop(operation.step.key, None)

    def answers(self, key: str) -> tuple[Operation, ...]:
        """What has to be stored with the record of *key*, if its failure was open. The failure ends with it,
        so a process that dies afterwards does not execute it once more."""
        if key not in self.reopened:
            return ()
        with self._lock:
            self.reopened.discard(key)
            left = tuple(other for other in self._open_failures if other in self.reopened)
        return (UpdateRun(self.run_id, {"open_failures": left}, epoch=self.epoch),)

    def reopen(self, key: str) -> None:
        """The failure of *key* is open again, because what answered it was rolled back."""
        with self._lock:
            self.reopened.add(key)

    def holds(self, until: float) -> None:
        """The lease was renewed, and holds until then by ``time.monotonic()``."""
        self.held_until = until

    def raise_floor(self, seq: int) -> None:
        """Records up to *seq* are no evidence of divergence any more."""
        self.floor = max(self.floor, seq)

    def accept(self, outcome: Outcome, operation: Operation) -> int:
        """The ``seq`` of a write that took effect; raises :class:`Stopped` for one that was refused."""
        if isinstance(outcome, Done):
            return outcome.seq
        if isinstance(outcome, Unstorable):
            step = operation.step if isinstance(operation, PutStep | TakeSignal) else None
            error: FlowError = not_storable(outcome, run=self.run_id, step=step.key if step else "")
        elif isinstance(outcome, Fenced | Missing):
            error = self.lost(outcome)
        else:
            raise AssertionError(f"{outcome!r} answers {operation!r}")
        self._stop.halt(error)
        raise Stopped(error)

    def lost(self, outcome: Outcome) -> LeaseLost:
        """The error of a run that is no longer ours."""
        what = (
            f"another process owns it now (epoch {outcome.run.epoch}, ours was {self.epoch})"
            if isinstance(outcome, Fenced)
            else "it was deleted"
        )
        return LeaseLost(
            f"run {self.run_id} cannot be written from here: {what}. What this process was executing is "
            "discarded; "
            f"call the workflow again to follow the run",
            run=self.run_id,
        )
