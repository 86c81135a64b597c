"""The part of the storage contract that is about keeping records. They are there when the storage is opened
again. No reader can change them. Whoever waits for one hears of it."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from attrs import evolve

from flowdsl.core.records import Item, QueueRow, RunFilter, ScheduleRow, Signal, WorkerRow
from flowdsl.core.status import RunStatus
from flowdsl.storage.base import Storage
from flowdsl.storage.operations import (
    AddSignal,
    DeleteRun,
    DropQueue,
    DropSchedule,
    DropWorker,
    Operation,
    Publish,
    PutMemo,
    PutQueue,
    PutSchedule,
    PutStep,
    PutWorker,
    Reply,
    Rewrite,
    UpdateRun,
)
from flowdsl.storage.outcomes import Done, Missing
from flowdsl.storage.topics import run_topic
from flowdsl.testing.storage.differences import differences, same
from flowdsl.testing.storage.samples import (
    a_step,
    full_item,
    full_memo,
    full_run,
    full_signal,
    full_step,
    open_run,
)

__all__ = ["KeepingContract"]

PATIENCE = 10.0  # seconds after which a storage counts as one that tells nothing
SCHEDULE = ScheduleRow("s", '{"cron": "0 2 * * *"}', b"\x00", True, 1.5, 2.5, b"\xff")


def everything(storage: Storage) -> dict[str, Any]:
    """All that can be read of the runs ``r`` and ``q``."""
    return {
        "runs": storage.list_runs(payloads=True),
        "steps": storage.list_steps("r"),
        "signals": storage.list_signals("r"),
        "items": storage.list_items("r", full_item().channel),
        "channels": storage.list_channels("r"),
        "memos": [storage.get_memo("m")],
        "queues": storage.list_queues(),
        "schedules": storage.list_schedules(),
        "workers": storage.list_workers(),
    }


def fill(storage: Storage) -> None:
    """Store something of each kind."""
    storage.set_run(full_run())
    open_run(storage, "q", tags={"a": "b"})
    open_run(storage, "pruned")
    storage.commit(
        [
            PutStep(a_step(preview="replaced")),
            PutStep(full_step()),
            PutStep(a_step(key="t")),
            AddSignal(full_signal()),
            Reply("r", "x", b"reply"),
            Publish(full_item()),
            PutMemo(full_memo()),
            PutQueue(QueueRow("q", "{}", True, b"\xff")),
            PutSchedule(SCHEDULE),
            PutWorker(WorkerRow("w", "{}", 1.5, 2.5)),
            DeleteRun("pruned", tombstone=True),
        ]
    )


class KeepingContract:
    """What holds for records once they are stored."""

    def test_what_was_written_is_there_when_it_is_opened_again(self, storage: Storage) -> None:
        """A storage that has a URL keeps its records when all that use it have closed it."""
        if storage.url is None:
            pytest.skip("this storage does not outlive its process")
        fill(storage)
        before = everything(storage)
        copy = pickle.dumps(storage)
        storage.close()
        with pickle.loads(copy) as again:
            same(everything(again), before)
            assert storage.url == again.url
            (done,) = again.commit([PutStep(a_step(key="later"))])
            assert done == Done(4), "numbers go on where they were"

    def test_what_is_read_belongs_to_the_reader(self, storage: Storage) -> None:
        """Changing what was read, or what was written, changes nothing that is stored."""
        tags = {"a": "1"}
        fill(storage)
        storage.commit([UpdateRun("q", {"tags": tags})])
        before = everything(storage)
        tags["a"] = "2"
        for read in everything(storage).values():
            read.clear()
        for run in storage.list_runs():
            if isinstance(run.tags, dict):
                run.tags.clear()
        same(everything(storage), before)

    @pytest.mark.parametrize(
        ("kind", "key", "was", "now"),
        [
            ("run", ("r",), {"args": bytes(range(256)), "result": b""}, {"args": b"new", "result": None}),
            ("run", ("r",), {"cancel_seal": b"\xff"}, {"cancel_seal": b""}),
            ("step", ("r", 3), {"payload": None, "seal": b""}, {"payload": b"new", "seal": b"s"}),
            ("step", ("r", 2), {"seal": b"\x00\xff"}, {"seal": b""}),
            (
                "signal",
                ("r", "x"),
                {"payload": b"\x00\xff", "reply": b"reply"},
                {"payload": b"", "reply": b""},
            ),
            (
                "item",
                ("r", full_item().channel, full_item().n),
                {"payload": b"\x00\xff"},
                {"payload": b"new"},
            ),
            ("memo", ("m",), {"payload": b"\x00\xff", "seal": b"\xff"}, {"payload": b"new", "seal": b""}),
            ("queue", ("q",), {"seal": b"\xff"}, {"seal": b""}),
            ("schedule", ("s",), {"args": b"\x00", "seal": b"\xff"}, {"args": b"", "seal": b"new"}),
        ],
    )
    def test_bytes_are_rewritten_in_place(
        self,
        storage: Storage,
        kind: str,
        key: tuple[Any, ...],
        was: dict[str, bytes | None],
        now: dict[str, bytes | None],
    ) -> None:
        """A rewrite changes only the named bytes, and only while they are as they were read."""
        fill(storage)
        before = everything(storage)
        assert storage.commit([Rewrite(kind, key, was, now)]) == [Done()]
        assert differences(everything(storage), before) != []
        assert storage.commit([Rewrite(kind, key, was, now)]) == [Missing()]
        assert storage.commit([Rewrite(kind, key, now, was)]) == [Done()]
        same(everything(storage), before)
        nowhere = ("nobody", *key[1:])
        assert storage.commit([Rewrite(kind, nowhere, was, now)]) == [Missing()]

    def test_memos_are_listed_by_key(self, storage: Storage) -> None:
        """Memos come by their keys, in pages."""
        memos = [evolve(full_memo(), key=key) for key in ("b", "é", "a")]
        storage.commit([PutMemo(memo) for memo in memos])
        found = storage.list_memos()
        assert [memo.key for memo in found] == ["a", "b", "é"]
        same(found[1], memos[0])
        assert storage.list_memos(after="a", limit=1) == [found[1]]
        assert storage.list_memos(after="é") == []

    def test_pending_runs_are_counted_by_queue(self, storage: Storage) -> None:
        """Only runs that wait in a queue count."""
        for number, queue in enumerate(["a", "a", "b", None]):
            open_run(storage, f"r{number}", queue=queue, status=RunStatus.PENDING)
        open_run(storage, "gone", queue="a", status=RunStatus.PENDING)
        open_run(storage, "begun", queue="c")
        open_run(storage, "done", queue="d", status=RunStatus.COMPLETED)
        storage.commit([DeleteRun("gone", tombstone=True)])
        assert storage.count_pending() == {"a": 2, "b": 1}
        counts = storage.queue_counts()
        assert {name: (each.pending, each.running) for name, each in counts.items()} == {
            "a": (2, 0),
            "b": (1, 0),
            "c": (0, 1),
        }
        assert counts["c"].oldest is None

    def test_stubs_of_pruned_runs_are_listed_on_request(self, storage: Storage) -> None:
        """Stubs are listed and rewritten as runs are, each with the seal that it was given."""
        for number, name in enumerate(("a", "b", "c", "left")):
            open_run(storage, name, created_at=float(number), status=RunStatus.COMPLETED)
        open_run(storage, key="numbered", number=1)
        storage.commit([DeleteRun(name, tombstone=True, seal=name.encode()) for name in "abc"])
        pruned = RunFilter(pruned=True, newest_first=False)
        assert [(run.id, run.seal) for run in storage.list_runs(pruned)] == [
            ("a", b"a"),
            ("b", b"b"),
            ("c", b"c"),
        ]
        assert [run.id for run in storage.list_runs(evolve(pruned, after="a", limit=1))] == ["b"]
        assert all(run.pruned for run in storage.list_runs(pruned))
        storage.commit([Rewrite("run", ("b",), {"seal": b"b"}, {"seal": b"new"})])
        assert [run.seal for run in storage.list_runs(pruned)] == [b"a", b"new", b"c"]

    def test_the_oldest_run_that_waits_is_known(self, storage: Storage) -> None:
        """The oldest waiting run of each queue is known. A run that has begun waits no more."""
        for number, status in enumerate([RunStatus.RUNNING, RunStatus.PENDING, RunStatus.PENDING]):
            open_run(storage, f"r{number}", queue="a", status=status, created_at=float(number))
        assert storage.queue_counts()["a"].oldest == 1.0

    def test_what_cannot_be_rewritten(self) -> None:
        """An address of no record, or a field without bytes, is refused when the operation is made."""
        for kind, key, was in (
            ("run", ("r",), {"status": b""}),
            ("run", ("r", 1), {"args": b""}),
            ("table", ("r",), {"args": b""}),
            ("run", ("r",), {}),
        ):
            with pytest.raises(ValueError):
                Rewrite(kind, key, was, was)

    def test_rows_of_queues_schedules_and_workers(self, storage: Storage) -> None:
        """Rows are read by name as they were put. They are replaced as a whole, or left as they are."""
        queues = [QueueRow("b"), QueueRow("a", "{}", True, b"\xff")]
        assert storage.commit([PutQueue(row) for row in queues]) == [Done()] * 2
        same(storage.list_queues(), queues[::-1])
        again: list[Operation] = [PutQueue(QueueRow("a"), if_new=True), PutSchedule(SCHEDULE, if_new=True)]
        assert storage.commit([*again, *again]) == [Done(existed=True), Done(), *[Done(existed=True)] * 2]
        same(storage.list_queues(), queues[::-1])
        same(storage.list_schedules(), [SCHEDULE])
        storage.commit([PutWorker(WorkerRow("w", "{}", 1.5, 2.5)), PutWorker(WorkerRow("w", "[]", 3.5, 4.5))])
        same(storage.list_workers(), [WorkerRow("w", "[]", 3.5, 4.5)])
        drops: list[Operation] = [DropQueue("a"), DropQueue("no"), DropSchedule("s"), DropWorker("w")]
        assert storage.commit(drops) == [Done()] * 4
        assert (storage.list_queues(), storage.list_schedules(), storage.list_workers()) == (
            [queues[0]],
            [],
            [],
        )

    def test_waiting_for_a_change(self, storage: Storage) -> None:
        """A waiter returns after a commit, at once if its version is old, and otherwise after its timeout."""
        version = storage.wait_for_change(0, PATIENCE)
        assert storage.wait_for_change(version, 0.0) == version
        assert storage.wait_for_change(version, 0.01) == version
        begun = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            waiters = [pool.submit(storage.wait_for_change, version, PATIENCE) for _ in range(3)]
            open_run(storage)
            versions = [waiter.result() for waiter in waiters]
        assert version not in versions, (
            "a commit happened, and those who waited for a change did not hear of it"
        )
        assert time.monotonic() - begun < PATIENCE
        assert storage.wait_for_change(version, PATIENCE) != version

    @pytest.mark.parametrize(
        "operation",
        [
            AddSignal(Signal("x", "r", "go")),
            Reply("r", "old", b""),
            Publish(Item("r", "c", 1)),
            UpdateRun("r", {"cancel_requested": 1.0}),
            UpdateRun("r", {"status": RunStatus.COMPLETED}, release=True),
            DeleteRun("r"),
        ],
        ids=["message", "reply", "item", "cancel", "end", "deletion"],
    )
    def test_waiting_for_a_run(self, storage: Storage, operation: Operation) -> None:
        """Whoever waits for one run hears of its messages, replies and items, of a cancel, and of its end."""
        open_run(storage)
        storage.commit([AddSignal(Signal("old", "r", "go"))])
        topics = [run_topic("r"), run_topic("nobody")]
        seen = storage.wait_for_change(0, PATIENCE, topics)
        for _ in range(1000):  # spurious returns are allowed
            if (version := storage.wait_for_change(seen, 0.05, topics)) == seen:
                break
            seen = version
        else:
            raise AssertionError("nothing happens, and there is always a change")
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(storage.wait_for_change, seen, PATIENCE, topics)
            storage.commit([operation])
            assert waiter.result() != seen, "nobody was told"
        assert storage.wait_for_change(seen, PATIENCE, topics) != seen
