"""What the disk, the file system and other people do to a database file."""

import gc
import linecache
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from storage_children import Child, in_fork

import flowdsl.storage
from flowdsl.core.records import Signal
from flowdsl.errors import CorruptPayload, StorageError, StorageFull, StorageUnavailable
from flowdsl.storage import SQLiteStorage
from flowdsl.storage.base import (
    AddSignal,
    ClaimRun,
    Done,
    Missing,
    OpenRun,
    Operation,
    PutMemo,
    PutStep,
    TakeSignal,
    Unstorable,
    UpdateRun,
)
from flowdsl.testing.storage.samples import a_run, a_step, full_memo, open_run

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flow.db"


@pytest.fixture(params=["full", "normal"])
def storage(request: pytest.FixtureRequest, path: Path) -> Iterator[SQLiteStorage]:
    with SQLiteStorage(path, synchronous=request.param) as storage:
        open_run(storage)
        yield storage


# Killed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_a_kill_loses_nothing_acknowledged(path: Path, synchronous: str) -> None:
    """After SIGKILL during commits each acknowledged step and signal exists."""
    script = """
from concurrent.futures import ThreadPoolExecutor
storage = open_storage(url)
open_run(storage)
def work(thread):
    for i in range(10**6):
        name = f"{thread}-{i}"
        if i % 3:
            storage.commit([PutStep(a_step(key=name, payload=b"x" * 500), 1)])
        else:
            storage.commit([AddSignal(Signal(name, "r", "go")), PutStep(a_step(key=name), 1)])
        os.write(1, (name + "\\n").encode())
with ThreadPoolExecutor(2) as pool:
    list(pool.map(work, range(2)))
"""
    with Child(script, f"sqlite:///{path}?synchronous={synchronous}") as child:
        said = [child.hear() for _ in range(150)]
        said += child.kill()
    with SQLiteStorage(path) as storage:
        steps = {step.key for step in storage.list_steps("r")}
        signals = {signal.id for signal in storage.list_signals("r")}
    assert len(said) >= 150
    assert steps >= set(said)
    assert signals >= {name for name in said if int(name.partition("-")[2]) % 3 == 0}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_kill_leaves_all_of_a_commit_or_nothing(path: Path) -> None:
    """A commit of many operations exists as a whole or not at all after a kill."""
    script = """
storage = open_storage(url)
open_run(storage)
for i in range(10**6):
    storage.commit([PutStep(a_step(key=f"{i}-{j}"), 1) for j in range(50)])
    os.write(1, b"%d\\n" % i)
"""
    with Child(script, f"sqlite:///{path}?synchronous=normal") as child:
        for _ in range(10):
            child.hear()
        child.kill()
    with SQLiteStorage(path) as storage:
        batches = [step.key.partition("-")[0] for step in storage.list_steps("r")]
    assert {batches.count(batch) for batch in set(batches)} == {50}


# Full -------------------------------------------------------------------------------------------------------

FILL = """
with open_storage(url) as storage:
    acknowledged = []
    try:
        for i in range(10**6):
            storage.commit([PutStep(a_step(key=f"s{i}", payload=os.urandom(3000)), 1)])
            acknowledged.append(f"s{i}")
    except StorageFull as error:
        say(type(error).__name__, len(str(error)) > 50)
    for keys in ("t", "uv"):
        try:
            storage.commit([PutStep(a_step(key=key, payload=bytes(9000)), 1) for key in keys])
        except StorageFull:
            say("still full")
    say([step.key for step in storage.list_steps("r")] == acknowledged)
    make_room()
    say(type(storage.commit([PutStep(a_step(key="w", payload=bytes(9000)), 1)])[0]).__name__)
    say([step.key for step in storage.list_steps("r")] == [*acknowledged, "w"])
"""
FILLED = ["StorageFull True", "still full", "still full", "True", "Done", "True"]


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_a_file_size_limit_is_a_full_storage(path: Path, synchronous: str) -> None:
    """At a file size limit a commit raises ``StorageFull``, and works again without the limit."""
    with SQLiteStorage(path) as storage:
        open_run(storage)
    script = """
import resource
from flowdsl.errors import StorageFull
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
def make_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
"""
    with Child(script + FILL, f"sqlite:///{path}?synchronous={synchronous}") as child:
        assert child.rest() == FILLED


def test_a_full_disk(tmp_path: Path) -> None:
    """On a full disk a commit raises ``StorageFull``, reads work, and commits work when there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small file system needs rights that this user has not")
    try:
        (disk / "filler").write_bytes(bytes(300_000))
        with SQLiteStorage(disk / "flow.db") as storage:
            open_run(storage)
        script = """
from flowdsl.errors import StorageFull
def make_room():
    os.unlink(sys.argv[2])
"""
        with Child(script + FILL, f"sqlite:///{disk}/flow.db", disk / "filler") as child:
            assert child.rest() == FILLED
        (disk / "filler").write_bytes(b"")
        with open(disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError):
            while True:
                filler.write(bytes(4096))
        with pytest.raises(StorageFull):
            SQLiteStorage(disk / "new.db")
    finally:
        subprocess.run(["umount", disk], check=True)


# Not ours, not there, not allowed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"x", b"no database " * 1000, bytes(5000)], ids=["short", "text", "zeros"]
)
def test_not_a_database(path: Path, content: bytes) -> None:
    """A file that is no database is refused and left as it was."""
    path.write_bytes(content)
    with pytest.raises(StorageUnavailable, match="another path"):
        SQLiteStorage(path)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "setting", ["CREATE TABLE t (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"]
)
def test_the_database_of_another_application(path: Path, setting: str) -> None:
    """A database with tables, id or version of another application is refused and not changed."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(setting)
        connection.commit()
    content = path.read_bytes()
    with pytest.raises(StorageUnavailable, match="another application"):
        SQLiteStorage(path)
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == [path.name]


def test_an_empty_file_is_a_new_database(path: Path) -> None:
    """An empty file, as a process leaves that died early, is a new database."""
    path.touch()
    with SQLiteStorage(path) as storage:
        open_run(storage)


def test_a_directory(path: Path) -> None:
    """A directory is refused, and the message names a file in it."""
    path.mkdir()
    with pytest.raises(StorageUnavailable, match=r"directory.*flow\.db"):
        SQLiteStorage(path)


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    """A path below a file, or with a too long name, is refused by name."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "flow.db", tmp_path / ("x" * 300)):
        with pytest.raises(StorageUnavailable, match="cannot create"):
            SQLiteStorage(path)


def test_what_another_user_may_not_write(tmp_path: Path) -> None:
    """A read-only directory or file is refused, and the message says what to check."""
    directory = tmp_path / "locked"
    path = directory / "flow.db"
    with SQLiteStorage(path) as storage:
        open_run(storage)
    path.chmod(0o666)
    for place in (directory, tmp_path, *tmp_path.parents[:3]):
        if place.stat().st_mode & 0o777 == 0o700:  # as pytest makes them: the refusal would come from there
            place.chmod(0o755)

    def work(path: Path) -> str:
        if os.geteuid() == 0:  # root may write everywhere
            os.setuid(65534)
        with SQLiteStorage(path) as storage:
            storage.commit([PutStep(a_step(), 1)])
        return "written"

    if os.geteuid() != 0:
        directory.chmod(0o555)
    try:
        assert in_fork(lambda: work(directory / "new.db")).startswith("StorageUnavailable: cannot create")
        assert in_fork(lambda: work(path)).startswith("StorageUnavailable: cannot open")
        path.chmod(0o444)
        assert in_fork(lambda: work(path)).startswith("StorageUnavailable: cannot open")
    finally:
        directory.chmod(0o755)
    with SQLiteStorage(path) as storage:
        assert storage.get_run("r") is not None


# Moved, deleted, damaged ------------------------------------------------------------------------------------


def test_a_folder_that_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its folder was moved away, the storage writes nothing there, and the next call opens what
    exists."""
    monkeypatch.setattr("flowdsl.storage.sqlite.connections._LOOK", 0.0)
    path = tmp_path / "data" / "flow.db"
    with SQLiteStorage(path) as storage:
        open_run(storage)
        shutil.rmtree(path.parent)
        with pytest.raises(StorageUnavailable, match="moved, replaced or deleted"):
            storage.commit([PutStep(a_step(), 1)])
        assert storage.commit([PutStep(a_step(), 1)]) == [Missing()]
        assert storage.list_runs() == []


def test_a_database_that_is_moved_away_from_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No new database is made beside a log without a database, because that would destroy the log."""
    monkeypatch.setattr("flowdsl.storage.sqlite.connections._LOOK", 0.0)
    path = tmp_path / "flow.db"
    with SQLiteStorage(path) as storage:
        open_run(storage)
        path.rename(tmp_path / "moved.db")
        with pytest.raises(StorageError, match="its log"):
            SQLiteStorage(path)
        with pytest.raises(StorageUnavailable, match="moved, replaced or deleted"):
            storage.commit([PutStep(a_step(), 1)])
        with pytest.raises(StorageError, match="its log"):
            storage.commit([PutStep(a_step(), 1)])
        path.with_name("flow.db-wal").rename(tmp_path / "moved.db-wal")
        assert storage.list_runs() == []
    with SQLiteStorage(tmp_path / "moved.db") as moved:
        assert [run.id for run in moved.list_runs()] == ["r"]


def test_reading_makes_no_database(path: Path) -> None:
    """An open storage whose database was moved away makes no empty one beside its log."""
    with SQLiteStorage(path) as storage:
        open_run(storage)
        path.rename(path.with_name("moved.db"))
        with pytest.raises(StorageError):
            storage.get_run("r")
        assert not path.exists()
        assert path.with_name("flow.db-wal").stat().st_size


def test_a_log_that_is_taken_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write to a log that was deleted is refused."""
    monkeypatch.setattr("flowdsl.storage.sqlite.connections._LOOK", 0.0)
    with SQLiteStorage(path) as storage:
        open_run(storage)
        path.with_name("flow.db-wal").unlink()
        with pytest.raises(StorageUnavailable, match="taken away"):
            storage.commit([PutStep(a_step(), 1)])


@pytest.mark.parametrize("name", ["flow.db", "flow.db-shm", "flow.db-wal"])
def test_reading_the_own_files_costs_no_lock(path: Path, name: str) -> None:
    """A process that copies its own open files keeps its locks and its log."""
    with SQLiteStorage(path) as storage:
        open_run(storage)
        shutil.copy(path.with_name(name), path.with_name("copy"))
        with Child(
            "with open_storage(url) as storage: open_run(storage, 'other')", storage.url or ""
        ) as child:
            child.rest()
        assert path.with_name("flow.db-wal").exists()
        assert isinstance(storage.commit([PutStep(a_step(), 1)])[0], Done)
        script = "with open_storage(url) as storage: say(len(storage.list_steps('r')))"
        with Child(script, storage.url or "") as child:
            assert child.rest() == ["1"]
    assert not path.with_name("flow.db-wal").exists()


def test_a_damaged_page(path: Path) -> None:
    """Damage that SQLite finds is a ``StorageError`` that says how to save the rest."""
    with SQLiteStorage(path) as storage:
        open_run(storage)
        storage.commit([PutStep(a_step(key=f"s{i}", payload=bytes(100))) for i in range(500)])
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for page in range(40 * 2048, size, 2048):
            file.seek(page)
            file.write(b"\xff" * 64)
    with SQLiteStorage(path) as storage:
        for call in (lambda: storage.list_steps("r"), lambda: storage.commit([PutStep(a_step(), 1)])):
            with pytest.raises(StorageError, match="salvage"):
                call()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE runs SET status = 'runnong'",
        "UPDATE runs SET tags = '[broken'",
        "UPDATE runs SET open_failures = '7'",
        "UPDATE runs SET workflow = CAST(x'ff' AS TEXT)",
        "UPDATE steps SET status = 'done'",
        "UPDATE steps SET more = '[]'",
        "UPDATE steps SET more = '{broken'",
        "UPDATE steps SET path = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_damaged_row(path: Path, damage: str, caplog) -> None:
    """A damaged row is an error of the storage; lists name it and leave it out, and only its operations
    fail."""
    with SQLiteStorage(path) as storage:
        open_run(storage, tags=("t",), open_failures=("a",))
        storage.commit([PutStep(a_step(attempts=2))])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(damage)
            connection.commit()
        if "UPDATE steps" in damage:
            reads: list[Any] = [lambda: storage.get_step("r", "s"), lambda: storage.list_steps("r")]
        else:
            reads = [lambda: storage.get_run("r")]
            assert storage.list_runs() == []
            assert "run 'r' is damaged" in caplog.text
            for outcome in storage.commit([OpenRun(a_run(), 60.0), UpdateRun("r", epoch=9)]):
                assert isinstance(outcome, Unstorable)
                assert isinstance(outcome.error, CorruptPayload)
        for read in reads:
            with pytest.raises(CorruptPayload, match="damaged"):
                read()


# Rows that do not fit ---------------------------------------------------------------------------------------


def test_a_row_that_is_too_large_fails_alone(storage: SQLiteStorage) -> None:
    """A row too large for SQLite is refused as ``Unstorable``, and the rest of the commit is stored."""
    (handles,) = storage._open
    handles.writer.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    large = bytes(10_001)
    for fits in (large, bytes(9_990)):  # the value is too large, or the row is
        huge = a_step(key="huge", payload=fits)
        (outcome,) = storage.commit([PutStep(huge, 1)])
        assert isinstance(outcome, Unstorable)
        assert isinstance(outcome.error, StorageError)
        operations = [PutStep(step, 1) for step in (a_step(key="a"), huge, a_step(key="b"), a_step(key="a"))]
        a, refused, b, again = storage.commit(operations)
        assert isinstance(refused, Unstorable)
        assert isinstance(a, Done)
        assert isinstance(b, Done)
        assert isinstance(again, Done)
        assert a.seq < b.seq < again.seq
        assert [(step.key, step.seq) for step in storage.list_steps("r")] == [("b", b.seq), ("a", again.seq)]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    "bad", ["\ud800", 2**70, object(), "large"], ids=["surrogate", "integer", "type", "large"]
)
def test_whatever_cannot_be_stored_fails_alone(storage: SQLiteStorage, bad: Any, alone: bool) -> None:
    """A value that no column can hold is refused alone, by each operation."""
    (handles,) = storage._open
    handles.writer.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
    bad = "x" * 20_000 if bad == "large" else bad
    storage.commit([AddSignal(Signal("x", "r", "go"))])
    before = storage.get_run("r"), storage.list_signals("r")
    operations: list[Operation] = [
        OpenRun(a_run("q", args_preview=bad, tags=("t",)), 60.0),
        OpenRun(a_run("n", number=0, args_preview=bad), 60.0),
        ClaimRun("r", 1, "me", 60.0, force=True, changes={"error_preview": bad}),
        UpdateRun("r", {"status": "failed", "error_preview": bad}, epoch=1),
        UpdateRun("r", {"error_preview": bad, "tags": ("t",)}, epoch=1),
        PutStep(a_step(preview=bad), 1),
        PutStep(a_step(preview=bad), 1, once=True),
        AddSignal(Signal("y", "r", "go", preview=bad)),
        TakeSignal("x", a_step(preview=bad), 1),
        PutMemo(evolve(full_memo(), preview=bad)),
    ]
    if isinstance(bad, str):
        operations += [OpenRun(a_run("q", tags=(bad,)), 60.0), UpdateRun("r", {"tags": {"a": bad}})]
    if alone:
        outcomes = [storage.commit([operation])[0] for operation in operations]
    else:
        *outcomes, last = storage.commit([*operations, PutStep(a_step(key="good"), 1)])
        assert isinstance(last, Done)
    if not (isinstance(bad, int) and not isinstance(bad, bool)):
        assert [type(outcome) for outcome in outcomes] == [Unstorable] * len(operations)
    assert (storage.get_run("r"), storage.list_signals("r")) == before
    assert [step.key for step in storage.list_steps("r")] == ([] if alone else ["good"])
    assert len(storage.list_runs()) == 1


class Interrupted(BaseException):
    """Stands for a Ctrl-C."""


def interrupted_at(line: int, work: Callable[[], object]) -> bool:
    """Do *work* with an interrupt before the *line*-th line of the storage; whether it came to it."""
    executed = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal executed
        if not frame.f_code.co_filename.startswith(os.path.dirname(flowdsl.storage.__file__)):
            return None
        # A trace strikes where a signal cannot: between a block and the exit of its "with", and at a "try".
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not source.lstrip().startswith(("with ", "try:")):
            executed += 1
            if executed == line:
                raise Interrupted
        return trace

    gc.disable()  # finalizers of earlier tests are not what is interrupted here
    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        return True
    finally:
        sys.settrace(None)
        gc.enable()
    return False


@pytest.mark.parametrize("count", [1, 3])
def test_an_interrupt_anywhere_in_a_commit(storage: SQLiteStorage, count: int) -> None:
    """Ctrl-C at any line of a commit leaves all of it or nothing, and the storage works."""
    line = 0
    interrupted = True
    while interrupted:
        line += 1
        operations = [PutStep(a_step(key=f"{line}-{i}"), 1) for i in range(count)]
        interrupted = interrupted_at(line, lambda operations=operations: storage.commit(operations))
        stored = [step.key for step in storage.list_steps("r") if step.key.startswith(f"{line}-")]
        assert stored in ([], [operation.step.key for operation in operations])
        assert isinstance(storage.commit([PutStep(a_step(key="next"), 1)])[0], Done)
    assert line > 20
    assert len(stored) == count


@pytest.mark.parametrize("read", ["get_run", "list_steps", "list_signals"])
def test_an_interrupt_anywhere_in_a_read(storage: SQLiteStorage, read: str) -> None:
    """Ctrl-C at any line of a read leaves a storage that works, with all its connections."""
    line = 1
    while interrupted_at(line, lambda: getattr(storage, read)("r")):
        line += 1
        assert storage.get_run("r") is not None
    assert line > 5
