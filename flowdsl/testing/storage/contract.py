"""What every storage must do, as tests that a backend inherits.

A backend joins with one method::

    from flowdsl.testing import StorageContract

    class TestMyStorage(StorageContract):
        def make_storage(self, directory):
            return MyStorage(directory / "data")

``directory`` is empty and belongs to the test. A backend that needs a server may skip in ``make_storage``
where there is none. :class:`flowdsl.testing.StorageMachine` compares two backends on random
operations.
"""

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from flowdsl.core.records import Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.errors import RunConflict, StorageUnavailable
from flowdsl.storage.base import (
    AddSignal,
    ClaimRun,
    DeleteRun,
    Done,
    DropMemo,
    DropSteps,
    Opened,
    OpenRun,
    PutMemo,
    PutStep,
    Storage,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.urls import open_storage
from flowdsl.testing.storage.lists import ListContract
from flowdsl.testing.storage.records import RecordContract
from flowdsl.testing.storage.runs import RunContract
from flowdsl.testing.storage.samples import a_run, a_step, full_memo, full_run, full_step, open_run

__all__ = ["StorageContract"]

_THREADS = 8


class StorageContract(RunContract, ListContract, RecordContract):
    """Subclass it under a name that begins with ``Test`` and define :meth:`make_storage`."""

    def make_storage(self, directory: Path) -> Storage:
        """A new, empty storage, which may use *directory*."""
        raise NotImplementedError("define make_storage(self, directory) -> Storage")

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        """A new storage, closed after the test."""
        storage = self.make_storage(tmp_path)
        with storage:
            yield storage

    # Input -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "operation",
        [
            OpenRun(a_run(""), 60.0),
            OpenRun(a_run("", number=0), 60.0),
            ClaimRun("", 1, "me", 60.0),
            ClaimRun("r", 1, "", 60.0),
            ClaimRun("r", 1, "me", 60.0, changes={"epoch": 7}),
            UpdateRun(""),
            UpdateRun("r", {"id": "q"}),
            UpdateRun("r", {"epoch": 7}),
            UpdateRun("r", {"lease_until": 7.0}),
            UpdateRun("r", {"pruned": True}),
            UpdateRun("r", {"status = 'x'; --": "x"}),
            PutStep(a_step("")),
            PutStep(a_step(key="")),
            DropSteps("", ("s",)),
            DropSteps("r", ("s", "")),
            AddSignal(Signal("x", "", "go")),
            AddSignal(Signal("", "r", "go")),
            TakeSignal("", a_step()),
            TakeSignal("x", a_step("")),
            TakeSignal("x", a_step(key="")),
            DeleteRun(""),
            PutMemo(full_memo("")),
            DropMemo(""),
            "no operation",
            None,
        ],
        ids=lambda operation: type(operation).__name__,
    )
    def test_nonsense_is_refused_before_anything_is_applied(self, storage: Storage, operation: Any) -> None:
        """Empty ids and what is unknown raise ``ValueError``, and nothing of the commit happens."""
        open_run(storage)
        storage.commit([PutStep(a_step()), AddSignal(Signal("x", "r", "go"))])
        before = storage.get_run("r"), storage.list_steps("r"), storage.list_signals("r")
        for operations in ([operation], [UpdateRun("r", {"status": RunStatus.FAILED}), operation]):
            with pytest.raises(ValueError):
                storage.commit(operations)
        assert (storage.get_run("r"), storage.list_steps("r"), storage.list_signals("r")) == before

    @pytest.mark.parametrize(
        "read",
        [
            lambda storage: storage.get_run(""),
            lambda storage: storage.get_step("", "s"),
            lambda storage: storage.get_step("r", ""),
            lambda storage: storage.list_steps(""),
            lambda storage: storage.list_signals(""),
            lambda storage: storage.get_memo(""),
            lambda storage: storage.get_state(""),
            lambda storage: storage.attention(["r", ""]),
            lambda storage: storage.delete_run(""),
            lambda storage: storage.delete_step("r", ""),
            lambda storage: storage.list_runs(RunFilter(limit=-1)),
            lambda storage: storage.list_steps("r", limit=-1),
            lambda storage: storage.list_signals("r", limit=-1),
        ],
    )
    def test_readers_refuse_nonsense(self, storage: Storage, read: Callable[[Storage], object]) -> None:
        """Empty ids and negative limits raise ``ValueError``."""
        with pytest.raises(ValueError):
            read(storage)

    def test_an_empty_commit(self, storage: Storage) -> None:
        """Nothing to do is done."""
        assert storage.commit([]) == []
        assert storage.commit(()) == []

    # Verbs -------------------------------------------------------------------------------------------------

    def test_set_run(self, storage: Storage) -> None:
        """A run is inserted as it is, or replaced in all fields but its epoch and lease."""
        run = evolve(full_run(), number=7)
        storage.set_run(run)
        stored = storage.get_run("r")
        assert stored is not None
        assert stored == evolve(run, epoch=1, lease_until=stored.lease_until)
        plain = Run(id="r", workflow="w", key="k")
        storage.commit([PutStep(a_step())])
        storage.set_run(plain)
        replaced = storage.get_run("r")
        assert replaced is not None
        assert replaced == evolve(plain, epoch=1, lease_until=replaced.lease_until)
        assert len(storage.list_steps("r")) == 1

    def test_set_run_respects_tombstones(self, storage: Storage) -> None:
        """The id of a pruned run is not set again, and a stub is not made by hand."""
        open_run(storage)
        storage.commit([DeleteRun("r", tombstone=True)])
        with pytest.raises(RunConflict):
            storage.set_run(a_run())
        assert storage.get_run("r") is None
        with pytest.raises(ValueError):
            storage.set_run(a_run("q", pruned=True))

    def test_other_verbs(self, storage: Storage) -> None:
        """Steps and signals are set, sent and deleted one at a time; what is not there is said or ignored."""
        with pytest.raises(LookupError):
            storage.set_step(a_step())
        assert storage.add_signal(Signal("x", "r", "go")) is False
        storage.delete_step("r", "s")
        storage.set_run(a_run())
        storage.set_step(full_step())
        storage.set_step(a_step(key="t"))
        storage.delete_step("r", "s")
        assert [step.key for step in storage.list_steps("r")] == ["t"]
        assert storage.add_signal(Signal("x", "r", "go")) is True
        storage.set_run(a_run(status=RunStatus.COMPLETED))
        assert storage.add_signal(Signal("y", "r", "go")) is False
        storage.delete_run("r")
        storage.delete_run("r")
        assert storage.get_run("r") is None

    def test_state(self, storage: Storage) -> None:
        """The state of a run's store is its store operations, in order."""
        assert storage.get_state("r") == []
        open_run(storage)
        kinds = {"a": "store", "b": "step", "c": "store", "d": "sleep"}
        storage.commit([PutStep(a_step(key=key, kind=kind)) for key, kind in kinds.items()])
        storage.set_step(a_step(key="a", kind="store"))
        assert storage.get_state("r") == [step for step in storage.list_steps("r") if step.kind == "store"]
        assert [step.key for step in storage.get_state("r")] == ["c", "a"]

    # Threads -----------------------------------------------------------------------------------------------

    def test_threads_share_a_storage(self, storage: Storage) -> None:
        """Many threads write and read at once; nothing is lost, and each seq is given once."""
        for i in range(_THREADS):
            open_run(storage, f"r{i}")
        open_run(storage, "shared")

        def work(i: int) -> list[int]:
            seqs = []
            for j in range(25):
                outcomes = storage.commit([PutStep(a_step(f"r{i}", f"s{j}"), 1)])
                outcomes += storage.commit(
                    [PutStep(a_step("shared", f"s{i}-{j}")), AddSignal(Signal(f"{i}-{j}", "shared", "go"))]
                )
                seqs += [outcome.seq for outcome in outcomes[:2] if isinstance(outcome, Done)]
                assert len(storage.list_steps(f"r{i}")) == j + 1
            return seqs

        with ThreadPoolExecutor(_THREADS) as pool:
            seqs = [seq for result in pool.map(work, range(_THREADS)) for seq in result]
        assert len(set(seqs)) == _THREADS * 50
        assert len(storage.list_steps("shared")) == len(storage.list_signals("shared")) == _THREADS * 25

    def test_one_thread_gets_the_run(self, storage: Storage) -> None:
        """Of many that open or claim the same run at once, one gets it; of numbers, each gets its own."""
        barrier = threading.Barrier(_THREADS)

        def work(i: int) -> list[bool]:
            won = []
            for j in range(10):
                barrier.wait()
                opened = storage.commit([OpenRun(a_run(f"r{j}", owner=f"owner-{i}"), -1.0)])
                barrier.wait()
                claimed = storage.commit([ClaimRun(f"r{j}", 1, f"owner-{i}", 60.0)])
                storage.commit([OpenRun(a_run("n", number=0), 60.0, fresh=True)])
                won += [isinstance(outcome, Opened) for outcome in (*opened, *claimed)]
            return won

        with ThreadPoolExecutor(_THREADS) as pool:
            won = list(pool.map(work, range(_THREADS)))
        assert [sum(column) for column in zip(*won, strict=True)] == [1] * 20
        numbers = sorted(run.number or 0 for run in storage.list_runs() if run.id.startswith("n-"))
        assert numbers == list(range(1, _THREADS * 10 + 1))

    def test_waiting_for_a_change(self, storage: Storage) -> None:
        """A waiter returns after a commit, at once for an old version, and in vain after its timeout."""
        version = storage.wait_for_change(0, 60.0)
        assert storage.wait_for_change(version, 0.0) == version
        assert storage.wait_for_change(version, 0.01) == version
        waiting = [threading.Event() for _ in range(3)]

        def wait(event: threading.Event) -> int:
            event.set()
            return storage.wait_for_change(version, 60.0)

        with ThreadPoolExecutor(3) as pool:
            waiters = [pool.submit(wait, event) for event in waiting]
            for event in waiting:
                event.wait()
            open_run(storage)
            versions = [waiter.result(30) for waiter in waiters]
        assert version not in versions
        assert storage.wait_for_change(version, 60.0) != version

    # Life --------------------------------------------------------------------------------------------------

    def test_clear(self, storage: Storage) -> None:
        """Everything goes: runs, stubs, steps, signals, tags, memos."""
        open_run(storage, tags=("t",))
        open_run(storage, "pruned")
        storage.commit([PutStep(a_step()), AddSignal(Signal("x", "r", "go")), PutMemo(full_memo())])
        storage.commit([DeleteRun("pruned", tombstone=True)])
        storage.clear()
        assert storage.list_runs() == []
        assert storage.get_memo("m") is None
        open_run(storage)
        open_run(storage, "pruned")
        assert storage.list_steps("r") == []
        assert storage.list_signals("r") == []
        assert storage.list_runs(RunFilter(tags=("t",))) == []

    def test_closed(self, storage: Storage) -> None:
        """Closing twice is no error; whatever is asked afterwards raises ``StorageUnavailable``."""
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(storage.wait_for_change, storage.wait_for_change(0, 0.0), 60.0)
            storage.close()
            try:
                waiter.result(30)
            except StorageUnavailable:
                pass
        storage.close()
        calls: list[Callable[[], object]] = [
            lambda: storage.commit([OpenRun(a_run(), 60.0)]),
            lambda: storage.commit([PutStep(a_step())]),
            lambda: storage.commit([]),
            lambda: storage.get_run("r"),
            lambda: storage.list_runs(),
            lambda: storage.get_step("r", "s"),
            lambda: storage.list_steps("r"),
            lambda: storage.list_signals("r"),
            lambda: storage.get_memo("m"),
            lambda: storage.attention(["r"]),
            lambda: storage.wait_for_change(0, 0.0),
            lambda: storage.clear(),
        ]
        for call in calls:
            with pytest.raises(StorageUnavailable):
                call()

    def test_other_processes_open_it_by_url(self, storage: Storage) -> None:
        """What has a URL opens again from it or from a pickle; what has none cannot be copied."""
        if storage.url is None:
            for copier in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError):
                    copier(storage)
            return
        open_run(storage)
        storage.commit([PutStep(full_step())])
        for same in (open_storage(storage.url), pickle.loads(pickle.dumps(storage))):
            with same:
                assert same.url == storage.url
                assert same.inline == storage.inline
                assert same.list_runs() == storage.list_runs()
                steps: list[Step] = same.list_steps("r")
                assert steps == storage.list_steps("r")
                same.commit([PutStep(a_step(key=f"t{len(steps)}"), 1)])
                assert len(storage.list_steps("r")) == len(steps) + 1
