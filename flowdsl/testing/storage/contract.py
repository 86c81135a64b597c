"""What every storage must do. A backend inherits these tests.

A backend joins with one method::

    from flowdsl.testing import StorageContract

    class TestMyStorage(StorageContract):
        def make_storage(self, directory):
            return MyStorage(directory / "data")

``directory`` is empty, and belongs to the test. A backend that needs a server may skip in ``make_storage`` if
there is none. :class:`flowdsl.testing.StorageMachine` compares two backends on random
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

from flowdsl.core.records import Item, QueueRow, Run, RunFilter, ScheduleRow, Signal, Step, WorkerRow
from flowdsl.core.status import RunStatus
from flowdsl.errors import RunConflict, StorageUnavailable
from flowdsl.storage.base import Storage
from flowdsl.storage.operations import (
    AddSignal,
    AddTags,
    ClaimRun,
    DeleteRun,
    DropMemo,
    DropQueue,
    DropSchedule,
    DropSteps,
    DropWorker,
    OpenRun,
    Publish,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutStep,
    PutWorker,
    Reply,
    Restart,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.outcomes import Done, Opened
from flowdsl.storage.urls import open_storage
from flowdsl.testing.storage.keeping import KeepingContract
from flowdsl.testing.storage.lists import ListContract
from flowdsl.testing.storage.messages import MessageContract
from flowdsl.testing.storage.opening import OpeningContract
from flowdsl.testing.storage.records import RecordContract
from flowdsl.testing.storage.runs import RunContract
from flowdsl.testing.storage.samples import a_run, a_step, full_memo, full_run, full_step, open_run

__all__ = ["StorageContract"]

_THREADS = 8


class StorageContract(
    OpeningContract, RunContract, ListContract, RecordContract, MessageContract, KeepingContract
):
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
        "make",
        [
            lambda: OpenRun(a_run(""), 60.0),
            lambda: OpenRun(a_run("", number=0), 60.0),
            lambda: ClaimRun("", 1, "me", 60.0),
            lambda: ClaimRun("r", 1, "", 60.0),
            lambda: ClaimRun("r", 1, "me", 60.0, changes={"epoch": 7}),
            lambda: UpdateRun(""),
            lambda: UpdateRun("r", {"id": "q"}),
            lambda: UpdateRun("r", {"epoch": 7}),
            lambda: UpdateRun("r", {"lease_until": 7.0}),
            lambda: UpdateRun("r", {"pruned": True}),
            lambda: UpdateRun("r", {"status = 'x'; --": "x"}),
            lambda: AddTags("", {"a": "1"}),
            lambda: Restart("", None),
            lambda: Restart("r", None, {"epoch": 7}),
            lambda: PutStep(a_step("")),
            lambda: PutStep(a_step(key="")),
            lambda: DropSteps("", ("s",)),
            lambda: DropSteps("r", ("s", "")),
            lambda: AddSignal(Signal("x", "", "go")),
            lambda: AddSignal(Signal("", "r", "go")),
            lambda: TakeSignal("", a_step()),
            lambda: TakeSignal("x", a_step("")),
            lambda: TakeSignal("x", a_step(key="")),
            lambda: Reply("", "x", b""),
            lambda: Reply("r", "", b""),
            lambda: Publish(Item("", "c", 1)),
            lambda: Publish(Item("r", "", 1)),
            lambda: DeleteRun(""),
            lambda: PutQueue(QueueRow("")),
            lambda: DropQueue(""),
            lambda: PutSchedule(ScheduleRow("")),
            lambda: DropSchedule(""),
            lambda: PutWorker(WorkerRow("")),
            lambda: DropWorker(""),
            lambda: PutMemo(full_memo("")),
            lambda: DropMemo(""),
            lambda: "no operation",
            lambda: None,
        ],
    )
    def test_nonsense_is_refused_before_anything_is_applied(
        self, storage: Storage, make: Callable[[], Any]
    ) -> None:
        """An empty id or an unknown operation raises ``ValueError``, and nothing of the commit happens."""
        open_run(storage)
        storage.commit([PutStep(a_step()), AddSignal(Signal("x", "r", "go"))])
        before = storage.get_run("r"), storage.list_steps("r"), storage.list_signals("r")
        for others in ([], [UpdateRun("r", {"status": RunStatus.FAILED})]):
            with pytest.raises(ValueError):
                storage.commit([*others, make()])
        assert (storage.get_run("r"), storage.list_steps("r"), storage.list_signals("r")) == before

    @pytest.mark.parametrize(
        "read",
        [
            lambda storage: storage.get_run(""),
            lambda storage: storage.get_step("", "s"),
            lambda storage: storage.get_step("r", ""),
            lambda storage: storage.list_steps(""),
            lambda storage: storage.list_signals(""),
            lambda storage: storage.get_signal("", "x"),
            lambda storage: storage.get_signal("r", ""),
            lambda storage: storage.list_items("", "c"),
            lambda storage: storage.list_items("r", ""),
            lambda storage: storage.list_items("r", "c", limit=-1),
            lambda storage: storage.last_item("", "c"),
            lambda storage: storage.last_item("r", ""),
            lambda storage: storage.list_channels(""),
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
        """A commit without operations has no outcomes."""
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
        """Steps and signals are set, sent and deleted one at a time. A missing run is named or ignored."""
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
        """Many threads write and read at once. Nothing is lost, and each number is given once in a run."""
        for i in range(_THREADS):
            open_run(storage, f"r{i}")
        open_run(storage, "shared")

        def work(i: int) -> list[tuple[str, int]]:
            seqs = []
            for j in range(25):
                outcomes = storage.commit([PutStep(a_step(f"r{i}", f"s{j}"), 1)])
                outcomes += storage.commit(
                    [PutStep(a_step("shared", f"s{i}-{j}")), AddSignal(Signal(f"{i}-{j}", "shared", "go"))]
                )
                runs = (f"r{i}", "shared")
                seqs += [
                    (run, outcome.seq)
                    for run, outcome in zip(runs, outcomes, strict=False)
                    if isinstance(outcome, Done)
                ]
                assert len(storage.list_steps(f"r{i}")) == j + 1
            return seqs

        with ThreadPoolExecutor(_THREADS) as pool:
            seqs = [seq for result in pool.map(work, range(_THREADS)) for seq in result]
        assert len(set(seqs)) == _THREADS * 50
        assert len(storage.list_steps("shared")) == len(storage.list_signals("shared")) == _THREADS * 25

    def test_one_thread_gets_the_run(self, storage: Storage) -> None:
        """Of many threads that open or claim one run at once, one gets it. Numbers are given once."""
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
            waiter = pool.submit(storage.wait_for_change, storage.wait_for_change(0, 0.0), 10.0)
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
            lambda: storage.get_signal("r", "x"),
            lambda: storage.list_items("r", "c"),
            lambda: storage.last_item("r", "c"),
            lambda: storage.list_channels("r"),
            lambda: storage.get_memo("m"),
            lambda: storage.list_queues(),
            lambda: storage.list_schedules(),
            lambda: storage.list_workers(),
            lambda: storage.attention(["r"]),
            lambda: storage.wait_for_change(0, 0.0),
            lambda: storage.clear(),
        ]
        for call in calls:
            with pytest.raises(StorageUnavailable):
                call()

    def test_other_processes_open_it_by_url(self, storage: Storage) -> None:
        """A storage with a URL opens again from it or from a pickle. One without cannot be copied."""
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
