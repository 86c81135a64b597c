"""Several processes on one SQLite file: fenced, never locked out, never surprised by a fork."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from storage_children import Child, in_fork

from flowdsl.core.records import Signal
from flowdsl.core.status import RunStatus
from flowdsl.errors import StorageUnavailable
from flowdsl.storage import MemoryStorage, SQLiteStorage
from flowdsl.storage.base import AddSignal, ClaimRun, Done, Fenced, Found, Opened, OpenRun, PutStep, UpdateRun
from flowdsl.testing.storage.samples import a_run, a_step, open_run

# A fork of a process with threads is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(params=["full", "normal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLiteStorage]:
    with SQLiteStorage(tmp_path / "flow.db", synchronous=request.param) as storage:
        yield storage


def test_two_processes_fence_each_other(storage: SQLiteStorage) -> None:
    """Of two processes, each is refused when the other has taken over the run."""
    open_run(storage, lease=-1.0)
    script = """
with open_storage(url) as storage:
    (claimed,) = storage.commit([ClaimRun("r", 1, "child", 60.0)])
    say(claimed.run.epoch)
    hear()
    say(type(storage.commit([PutStep(a_step(key="late"), 2)])[0]).__name__)
"""
    with Child(script, storage.url or "") as child:
        assert child.hear() == "2"
        (fenced,) = storage.commit([PutStep(a_step(), 1)])
        assert isinstance(fenced, Fenced)
        assert fenced.run.owner == "child"
        (opened,) = storage.commit([ClaimRun("r", 2, "parent", 60.0, force=True)])
        assert isinstance(opened, Opened)
        child.tell()
        assert child.rest() == ["Fenced"]
    assert storage.list_steps("r") == []


def test_a_live_run_is_found_not_opened_again(storage: SQLiteStorage) -> None:
    """A second process that wants a run gets its owner and lease, and not the run."""
    open_run(storage, owner="parent")
    storage.commit([OpenRun(a_run("n", number=0, owner="parent"), 60.0)])
    script = """
with open_storage(url) as storage:
    for run in (a_run(), a_run("n", number=0)):
        (found,) = storage.commit([OpenRun(run, 60.0, skip_owners=("child",))])
        say(type(found).__name__, found.runs[0].owner, found.runs[0].lease_until > storage.now())
"""
    with Child(script, storage.url or "") as child:
        assert child.rest() == ["Found parent True"] * 2


def test_processes_and_threads_at_once(storage: SQLiteStorage) -> None:
    """Processes with threads that commit, claim and read at once lose nothing, and each claim is won once."""
    open_run(storage)
    for i in range(30):
        open_run(storage, f"c{i}", lease=-1.0, owner=None)
    script = """
from concurrent.futures import ThreadPoolExecutor
me = sys.argv[2]
with open_storage(url) as storage:
    def work(thread):
        won = 0
        for i in range(30):
            storage.commit([PutStep(a_step(key=f"{me}-{thread}-{i}"), 1)])
            (claimed,) = storage.commit([ClaimRun(f"c{i}", 1, f"{me}-{thread}", 60.0)])
            won += isinstance(claimed, Opened)
            name = f"{me}-{thread}-{i}"
            storage.commit([PutStep(a_step(key=f"{name}-b"), 1), AddSignal(Signal(name, "r", "go"))])
            assert len(storage.list_steps("r")) >= 2 * i
        return won
    say("ready")
    hear()
    with ThreadPoolExecutor(3) as pool:
        say(sum(pool.map(work, range(3))))
"""
    with Child(script, storage.url or "", "a") as one, Child(script, storage.url or "", "b") as two:
        for child in (one, two):
            assert child.hear() == "ready"
        for child in (one, two):
            child.tell()
        won = [int(line) for child in (one, two) for line in child.rest()]
    assert sum(won) == 30
    assert len(storage.list_steps("r")) == 2 * 3 * 30 * 2
    assert len(storage.list_signals("r")) == 2 * 3 * 30


def test_processes_create_the_same_files_at_once(tmp_path: Path) -> None:
    """Several processes can create the same databases at once."""
    script = """
say("ready")
hear()
for i in range(12):
    with SQLiteStorage(f"{url}/{i}/flow.db") as storage:
        storage.commit([OpenRun(a_run("n", number=0), 60.0, fresh=True)])
"""
    children = [Child(script, str(tmp_path)) for _ in range(3)]
    with children[0], children[1], children[2]:
        for child in children:
            assert child.hear() == "ready"
        for child in children:
            child.tell()
        for child in children:
            assert child.rest() == []
    for i in range(12):
        with SQLiteStorage(tmp_path / str(i) / "flow.db") as storage:
            assert [run.number for run in storage.list_runs()] == [3, 2, 1]


def test_a_lock_held_for_long_is_waited_for(storage: SQLiteStorage, tmp_path: Path) -> None:
    """While another connection holds the write lock, writers wait, readers do not, and no error occurs."""
    open_run(storage)
    with (
        closing(sqlite3.connect(tmp_path / "flow.db", isolation_level=None)) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        writers = [pool.submit(storage.commit, [PutStep(a_step(key=key), 1)]) for key in "ab"]
        for _ in range(20):
            assert storage.list_steps("r") == []
        assert not any(writer.done() for writer in writers)
        other.execute("COMMIT")
        assert [type(writer.result(60)[0]) for writer in writers] == [Done, Done]


def test_a_lock_held_for_ever_is_reported(tmp_path: Path) -> None:
    """After its patience a writer gets an error that says what to look for, and later writes work."""
    with SQLiteStorage(tmp_path / "flow.db", patience=0.1) as storage:
        open_run(storage)
        with closing(sqlite3.connect(tmp_path / "flow.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageUnavailable, match="another process") as caught:
                storage.commit([PutStep(a_step(), 1)])
            assert not caught.value.outcome_unknown
            assert storage.get_run("r") is not None
            with pytest.raises(StorageUnavailable, match="another process"):
                storage.commit([UpdateRun("r", {"tags": ("t",)}), PutStep(a_step(), 1)])
        assert storage.list_steps("r") == []
        assert isinstance(storage.commit([PutStep(a_step(), 1)])[0], Done)


def test_readers_do_not_wait_for_a_commit(storage: SQLiteStorage) -> None:
    """A reader gets its answer while a writer of the same process is inside its transaction."""
    open_run(storage)
    inside, proceed = threading.Event(), threading.Event()

    class SlowStorage(SQLiteStorage):
        def now(self) -> float:  # asked for while the writer's lock is held
            inside.set()
            proceed.wait(60)
            return super().now()

    with SlowStorage(storage._path) as slow, ThreadPoolExecutor(1) as pool:
        slow.get_run("r")
        writer = pool.submit(slow.commit, [PutStep(a_step(), 1)])
        assert inside.wait(60)
        assert slow.get_run("r") is not None
        assert slow.list_steps("r") == []
        assert not writer.done()
        proceed.set()
        assert isinstance(writer.result(60)[0], Done)


def test_commits_of_other_processes_are_noticed(storage: SQLiteStorage) -> None:
    """A process that waits for a change wakes at each commit of another process."""
    open_run(storage)
    script = """
with open_storage(url) as storage:
    say("ready")
    while number := hear():
        storage.commit([AddSignal(Signal(number, "r", "go"))])
"""
    with Child(script, storage.url or "") as child:
        assert child.hear() == "ready"
        for number in range(1, 4):
            version = storage.wait_for_change(0, 60.0)
            with ThreadPoolExecutor(3) as pool:
                waiters = [pool.submit(storage.wait_for_change, version, 60.0) for _ in range(3)]
                child.tell(str(number))
                assert all(waiter.result(60) != version for waiter in waiters)
            assert len(storage.list_signals("r")) == number
        child.tell()
        child.rest()


def test_a_foreign_commit_is_noticed_within_a_tenth_of_a_second(storage: SQLiteStorage) -> None:
    """A commit of another process is noticed within a tenth of a second."""
    open_run(storage)
    version = storage.wait_for_change(0, 60.0)
    with SQLiteStorage(storage._path) as other:
        look, paused = storage._watch, 0.0

        def watch(left: float) -> float:
            nonlocal paused
            pause = look(left)
            if not paused:
                other.commit([AddSignal(Signal("x", "r", "go"))])
            paused += pause
            return 0.0

        storage._watch = watch  # type: ignore[method-assign]
        assert storage.wait_for_change(version, 60.0) != version
        assert 0.0 < paused <= 0.1


def test_what_is_noticed_before_is_noticed_later(storage: SQLiteStorage) -> None:
    """A commit of another process between two waits ends the second, and an own commit wakes nobody twice."""
    open_run(storage)
    version = storage.wait_for_change(0, 60.0)
    with SQLiteStorage(storage._path) as other:
        other.commit([AddSignal(Signal("x", "r", "go"))])
        version = storage.wait_for_change(version, 60.0)
        storage.commit([AddSignal(Signal("y", "r", "go"))])
        version = storage.wait_for_change(version, 60.0)
        assert storage.wait_for_change(version, 0.1) == version
        assert other.wait_for_change(0, 60.0) == other.wait_for_change(0, 60.0)


# Forks ------------------------------------------------------------------------------------------------------


def test_a_fork_on_both_sides(storage: SQLiteStorage, tmp_path: Path) -> None:
    """After a fork, parent and child both write and read, and see each other's commits."""
    open_run(storage)
    storage.commit([PutStep(a_step(key="before"), 1)])

    def work() -> str:
        storage.commit([PutStep(a_step(key="child"), 1)])
        return " ".join(step.key for step in storage.list_steps("r"))

    assert in_fork(work) == "before child"
    storage.commit([PutStep(a_step(key="parent"), 1)])
    assert [step.key for step in storage.list_steps("r")] == ["before", "child", "parent"]


def test_a_child_outlives_its_parents_storage(storage: SQLiteStorage, tmp_path: Path) -> None:
    """Commits of a forked child are kept although the parent closes its storage."""
    open_run(storage)
    told, tell = os.pipe()
    heard, hear = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            storage.commit([PutStep(a_step(key="first"), 1)])
            os.write(hear, b"1")
            os.read(told, 1)
            storage.commit([PutStep(a_step(key="second"), 1)])
        finally:
            os._exit(0)
    os.read(heard, 1)
    assert len(storage.list_steps("r")) == 1
    storage.close()
    with SQLiteStorage(tmp_path / "flow.db") as again:
        again.commit([PutStep(a_step(key="between"), 1)])
    os.write(tell, b"1")
    os.waitpid(child, 0)
    for descriptor in (told, tell, heard, hear):
        os.close(descriptor)
    with SQLiteStorage(tmp_path / "flow.db") as again:
        assert [step.key for step in again.list_steps("r")] == ["first", "between", "second"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_forks_while_threads_commit(kind: str, tmp_path: Path) -> None:
    """A fork while other threads commit and read blocks neither side."""
    storage = (
        MemoryStorage() if kind == "memory" else SQLiteStorage(tmp_path / "flow.db", synchronous="normal")
    )
    with storage:
        open_run(storage)
        done = threading.Event()

        def keep_busy(thread: int) -> int:
            count = 0
            while not done.is_set():
                storage.commit([PutStep(a_step(key=f"{thread}-{count}"), 1)])
                storage.list_steps("r", limit=3)
                storage.wait_for_change(0, 0.0)
                count += 1
            return count

        with ThreadPoolExecutor(3) as pool:
            workers = [pool.submit(keep_busy, thread) for thread in range(3)]
            for fork in range(8):

                def work(fork: int = fork) -> str:
                    (done,) = storage.commit([PutStep(a_step(key=f"fork-{fork}"), 1)])
                    storage.wait_for_change(storage.wait_for_change(0, 0.0), 0.001)
                    return f"{type(done).__name__} {len(storage.list_steps('r')) > 0}"

                assert in_fork(work) == "Done True"
            done.set()
            count = sum(worker.result(60) for worker in workers)
        forks = 8 if kind == "sqlite" else 0
        assert len(storage.list_steps("r")) == count + forks


def test_a_fork_inside_a_commit_is_refused_in_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that was forked inside a commit refuses to use the file."""
    monkeypatch.setattr("flowdsl.storage.sqlite.storage._REST", 0.01)
    with SQLiteStorage(tmp_path / "flow.db") as storage:
        open_run(storage)
        with storage._lock:
            assert "spawn" in in_fork(lambda: str(storage.get_run("r")))
        assert storage.get_run("r") is not None
        assert isinstance(storage.commit([UpdateRun("r", {"status": RunStatus.FAILED})])[0], Done)


def test_two_storages_of_one_process(tmp_path: Path) -> None:
    """Two storages on one file in one process do not release each other's locks."""
    with SQLiteStorage(tmp_path / "flow.db") as one:
        open_run(one)
        with SQLiteStorage(tmp_path / "flow.db") as two:
            assert isinstance(two.commit([OpenRun(a_run(), 60.0)])[0], Found)
            two.commit([AddSignal(Signal("x", "r", "go"))])
        with Child("open_storage(url).close()", one.url or "") as child:
            child.rest()
        one.commit([PutStep(a_step(), 1)])
        assert (tmp_path / "flow.db-wal").exists()
    with SQLiteStorage(tmp_path / "flow.db") as again:
        assert len(again.list_steps("r")) == len(again.list_signals("r")) == 1
