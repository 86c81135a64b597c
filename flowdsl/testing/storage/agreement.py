"""Random operations on two storages must have the same outcomes on both, and the same reads afterwards.

::

    class Agreement(StorageMachine):
        def make_storages(self):
            return MemoryStorage(), MyStorage(self.directory / "data")

    TestAgreement = Agreement.TestCase

A storage is free to choose some numbers. These are compared by what they mean: seqs by their order, epochs by
how often a run was taken over, leases by whether they hold. Needs hypothesis.
"""

import itertools
import pickle
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from flowdsl.core.records import Run, RunFilter, Step
from flowdsl.storage.base import Storage
from flowdsl.storage.operations import (
    AddSignal,
    AddTags,
    ClaimRun,
    DeleteRun,
    OpenRun,
    Operation,
)
from flowdsl.storage.outcomes import Done, Fenced, Found, Opened, Outcome
from flowdsl.testing.storage.differences import same
from flowdsl.testing.storage.generated import FILTERS, IDS, NAMES, OPERATIONS, RUNS, Epoch

__all__ = ["StorageMachine"]


class _Side:
    """One of the two storages, and how to read its own numbers."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._first_epochs: dict[str, int] = {}
        self._seqs: dict[int, int] = {}

    def commit(self, operations: Sequence[Any]) -> list[Any]:
        """Outcomes that can be compared with those of the other side."""
        ready = [self._with_epoch(operation) for operation in operations]
        return [
            self.outcome(op, outcome) for op, outcome in zip(ready, self.storage.commit(ready), strict=True)
        ]

    def _with_epoch(self, operation: Any) -> Operation:
        epoch = getattr(operation, "epoch", None)
        if not isinstance(epoch, Epoch):
            return operation  # type: ignore[no-any-return]
        about = getattr(operation, "step", None) or getattr(operation, "item", operation)
        run = self.storage.get_run(about.run_id)
        now = run.epoch if run is not None else 1
        if epoch.ahead is None:
            return evolve(operation, epoch=now if isinstance(operation, ClaimRun) else None)  # type: ignore[no-any-return]
        return evolve(operation, epoch=now + epoch.ahead)  # type: ignore[no-any-return]

    def outcome(self, operation: Operation, outcome: Outcome) -> Any:
        match outcome:
            case Opened(run):
                if isinstance(operation, OpenRun):
                    self._first_epochs.setdefault(run.id, run.epoch)
                return Opened(self.run(run))
            case Found(runs):
                return Found(tuple(map(self.run, runs)))
            case Fenced(run):
                return Fenced(self.run(run))
            case Done(seq, existed):
                if isinstance(operation, DeleteRun):
                    self._first_epochs.pop(operation.run_id, None)
                return Done(self.signal_seq(seq) if isinstance(operation, AddSignal) else seq, existed)
            case _:
                return outcome

    def signal_seq(self, seq: int) -> int:
        return self._seqs.setdefault(seq, len(self._seqs)) if seq else 0

    def run(self, run: Run) -> Run:
        holds = run.lease_until > self.storage.now()
        taken_over = run.epoch - self._first_epochs.get(run.id, run.epoch)
        return evolve(run, epoch=taken_over, lease_until=float(holds))

    def everything(self) -> dict[str, Any]:
        """All that can be read, in a form that can be compared with the other side's."""
        storage = self.storage
        runs = storage.list_runs(payloads=True)
        ids = [*(run.id for run in runs), "nobody"]
        return {
            "runs": [self.run(run) for run in runs],
            "each": [None if (run := storage.get_run(run_id)) is None else self.run(run) for run_id in ids],
            "steps": [storage.list_steps(run_id) for run_id in ids],
            "state": [[step.key for step in storage.get_state(run_id)] for run_id in ids],
            "signals": [
                [evolve(signal, seq=self.signal_seq(signal.seq)) for signal in storage.list_signals(run_id)]
                for run_id in ids
            ],
            "channels": [storage.list_channels(run_id) for run_id in ids],
            "items": [
                storage.list_items(run_id, channel)
                for run_id in ids
                for channel in storage.list_channels(run_id)
            ],
            "attention": [
                (item.run_id, item.status, item.cancel_requested, item.unread)
                for item in storage.attention(ids)
            ],
            "queues": storage.list_queues(),
            "memos": [storage.get_memo(key) for key in "abc"],
        }


class StorageMachine(RuleBasedStateMachine):
    """Subclass it, define :meth:`make_storages`, and collect ``YourMachine.TestCase``.

    ``directory`` is an empty directory of this example, deleted after it.
    """

    directory: Path

    def make_storages(self) -> tuple[Storage, Storage]:
        """Two new, empty storages: one to trust, and one to compare with it."""
        raise NotImplementedError("define make_storages(self) -> (Storage, Storage)")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="flowdsl-"))
        self.sides = [_Side(storage) for storage in self.make_storages()]
        self._nonces = itertools.count()

    def teardown(self) -> None:
        try:
            self.look()
        finally:
            for side in self.sides:
                side.storage.close()
            shutil.rmtree(self.directory)

    def _is_known(self, operation: Any) -> bool:
        return not isinstance(operation, AddTags) or all(side.storage.merges_tags for side in self.sides)

    def _with_nonces(self, operations: list[Any]) -> list[Any]:
        return [
            evolve(operation, nonce=f"nonce-{next(self._nonces)}")
            if getattr(operation, "nonce", "")
            else operation
            for operation in operations
        ]

    @rule(operations=st.lists(OPERATIONS, min_size=1, max_size=4))
    def commit(self, operations: list[Any]) -> None:
        """The same operations have the same outcomes."""
        operations = self._with_nonces([one for one in operations if self._is_known(one)])
        first, second = (side.commit(operations) for side in self.sides)
        same(second, first)

    @rule(operation=OPERATIONS)
    def commit_twice(self, operation: Any) -> None:
        """An operation that is sent again has the same outcome on both sides."""
        operations = self._with_nonces([operation] if self._is_known(operation) else [])
        for _ in range(2):
            first, second = (side.commit(operations) for side in self.sides)
            same(second, first)

    @rule(where=FILTERS)
    def list_runs(self, where: RunFilter) -> None:
        """The same filter finds the same runs."""
        first, second = ([run.id for run in side.storage.list_runs(where)] for side in self.sides)
        assert first == second

    @rule(run_id=IDS, name=st.none() | NAMES, unread=st.booleans(), limit=st.none() | st.integers(0, 2))
    def list_signals(self, run_id: str, name: str | None, unread: bool, limit: int | None) -> None:
        """The same question finds the same signals."""
        first, second = (
            [signal.id for signal in side.storage.list_signals(run_id, name=name, unread=unread, limit=limit)]
            for side in self.sides
        )
        assert first == second

    @rule(run_id=IDS, limit=st.integers(1, 3))
    def pages_of_steps(self, run_id: str, limit: int) -> None:
        """The pages of a journal, folded by key, are the journal."""
        for side in self.sides:
            folded: dict[str, Step] = {}
            after, page = 0, None
            while page is None or len(page) == limit:
                page = side.storage.list_steps(run_id, after=after, limit=limit)
                for step in page:
                    assert step.seq > after, "a page begins again before `after`"
                    folded.pop(step.key, None)
                    folded[step.key] = step
                    after = step.seq
            same(list(folded.values()), side.storage.list_steps(run_id))

    @rule(run_id=IDS, skip=st.integers(0, 3))
    def steps_from(self, run_id: str, skip: int) -> None:
        """What stands behind a number is the same."""
        rests = []
        for side in self.sides:
            seqs = [0, *(step.seq for step in side.storage.list_steps(run_id))]
            rests.append(side.storage.list_steps(run_id, after=seqs[min(skip, len(seqs) - 1)]))
        same(rests[1], rests[0])

    @rule(run=RUNS)
    def set_run(self, run: Run) -> None:
        """A run that is set, or refused, is so on both sides."""
        results = []
        for side in self.sides:
            try:
                side.storage.set_run(run)
                results.append("set")
            except Exception as error:  # both have to raise the same
                results.append(type(error).__name__)
        assert results[0] == results[1]

    @rule()
    def clear(self) -> None:
        """Nothing is left on either side."""
        for side in self.sides:
            side.storage.clear()

    @rule()
    def reopen(self) -> None:
        """What another process would see is the same."""
        for side in self.sides:
            if side.storage.url is not None:
                again = pickle.loads(pickle.dumps(side.storage))
                side.storage.close()
                side.storage = again

    # This is no invariant: if everything is read after each rule, a failure shrinks ten times as slowly.
    @rule()
    def look(self) -> None:
        """All that can be read is the same."""
        first, second = (side.everything() for side in self.sides)
        same(second, first)
