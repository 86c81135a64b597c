"""What is particular about the SQLite storage; the rest is in the contract."""

import gc
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from storage_children import Child

from flowdsl.core.records import RunFilter, Signal
from flowdsl.core.status import RunStatus
from flowdsl.errors import StorageUnavailable
from flowdsl.storage import SQLiteStorage
from flowdsl.storage.base import (
    AddSignal,
    Done,
    Found,
    Opened,
    OpenRun,
    Operation,
    PutMemo,
    PutStep,
    TakeSignal,
    UpdateRun,
)
from flowdsl.storage.sqlite import statements as sql
from flowdsl.storage.sqlite.read_statements import ReadStatements as reads
from flowdsl.storage.sqlite.read_statements import attention
from flowdsl.testing.storage.samples import a_run, a_step, full_memo, full_step, open_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flow.db"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLiteStorage]:
    with SQLiteStorage(path, synchronous="normal") as storage:
        yield storage


def writer(storage: SQLiteStorage) -> sqlite3.Connection:
    (handles,) = storage._open
    return handles.writer.connection


def test_arguments() -> None:
    """Unknown levels, zero patience, in-memory databases and bad URLs are refused before anything is
    opened."""
    for arguments in ({"synchronous": "off"}, {"synchronous": None}, {"patience": -1}):
        with pytest.raises(ValueError):
            SQLiteStorage("flow.db", **arguments)  # type: ignore[arg-type]
    for path in ("", ":memory:"):
        with pytest.raises(ValueError, match="memory://"):
            SQLiteStorage(path)
    for url in ("sqlite:///flow.db", "memory://"):
        with pytest.raises(ValueError, match=r"open_storage\("):
            SQLiteStorage(url)


def test_repr(path: Path) -> None:
    """The repr of an SQLite storage says where it is."""
    with SQLiteStorage(path) as storage:
        assert repr(storage) == f"SQLiteStorage({str(path)!r}, synchronous='full')"


@pytest.mark.parametrize(("level", "number"), [("full", 2), ("normal", 1)])
def test_durability(path: Path, level: str, number: int) -> None:
    """SQLite uses the chosen level of ``synchronous``, after reopening too."""
    with SQLiteStorage(path, synchronous=level) as storage:
        for _ in range(2):
            assert writer(storage).execute("PRAGMA synchronous").fetchone() == (number,)
            assert writer(storage).execute("PRAGMA journal_mode").fetchone() == ("wal",)
            storage.before_fork()
            storage.after_fork(in_child=False)
            storage.list_runs()


def test_readers_cannot_write(storage: SQLiteStorage) -> None:
    """A reader's connection cannot write."""
    (handles,) = storage._open
    reader = handles.readers.lend()
    assert reader is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM runs")
    handles.readers.give_back(reader)


def test_few_connections_are_kept(storage: SQLiteStorage) -> None:
    """After many concurrent readers only a few connections stay open."""
    (handles,) = storage._open
    readers = [handles.readers.lend() for _ in range(50)]
    for reader in readers:
        assert reader is not None
        handles.readers.give_back(reader)
    assert len(handles.readers._members) == len(handles.readers._idle) == 8


def test_a_forgotten_storage_closes_itself(path: Path) -> None:
    """A storage that nobody closed closes with its last reference, and leaves no log."""
    storage = SQLiteStorage(path)
    open_run(storage)
    storage.list_runs()
    assert path.with_name("flow.db-wal").exists()
    del storage
    gc.collect()
    assert [entry.name for entry in path.parent.iterdir()] == ["flow.db"]


def test_an_exit_closes_what_is_open(path: Path) -> None:
    """A process that exits without closing its storage leaves no log, with or without threads."""
    script = """
import threading
storage = open_storage(url)
open_run(storage)
def work():
    while True:
        storage.list_steps("r")
        storage.commit([PutStep(a_step(), 1)])
threading.Thread(target=work, daemon=True).start()
storage.wait_for_change(storage.wait_for_change(0, 0), 30)
"""
    with Child(script, f"sqlite:///{path}") as child:
        assert child.rest() == []
    with SQLiteStorage(path) as storage:
        assert len(storage.list_steps("r")) == 1


# Cost: counted, not timed -----------------------------------------------------------------------------------


def statements_of(storage: SQLiteStorage, work: Callable[[], object]) -> list[str]:
    """The first words of the statements that *work* executes on the writer."""
    seen: list[str] = []
    writer(storage).set_trace_callback(seen.append)
    try:
        work()
    finally:
        writer(storage).set_trace_callback(None)
    return [statement.split()[0] for statement in seen]


def instructions_of(storage: SQLiteStorage, work: Callable[[], object]) -> int:
    """How many instructions SQLite's machine executes for *work* on the writer."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    writer(storage).set_progress_handler(tick, 1)
    try:
        work()
    finally:
        writer(storage).set_progress_handler(None, 1)
    return count


def test_a_step_is_one_statement(storage: SQLiteStorage) -> None:
    """A new step, or an update of a run, is one statement that includes the fence."""
    open_run(storage)
    for operation, statement in [
        (PutStep(a_step(), 1), "INSERT"),
        (PutStep(full_step(key="t")), "INSERT"),
        (PutStep(a_step(preview="replaced"), 1), "INSERT"),
        (UpdateRun("r", epoch=1, lease=60.0), "UPDATE"),
        (
            UpdateRun(
                "r", {"status": RunStatus.FAILED}, epoch=1, if_status=(RunStatus.RUNNING,), release=True
            ),
            "UPDATE",
        ),
    ]:
        assert statements_of(storage, lambda operation=operation: storage.commit([operation])) == [statement]


def test_a_batch_is_one_transaction(storage: SQLiteStorage) -> None:
    """Operations of one commit are one transaction, and all its runs are read at once."""
    for run_id in "rq":
        open_run(storage, run_id)
    operations = [PutStep(a_step("rq"[i % 2], f"s{i}"), 1) for i in range(100)]
    seen = statements_of(storage, lambda: storage.commit(operations))
    assert seen == ["BEGIN", "SELECT", *["INSERT"] * 100, "COMMIT"]


def test_the_cost_of_a_step_does_not_grow(storage: SQLiteStorage) -> None:
    """The thousandth step, signal or replacement costs the same as the tenth."""
    open_run(storage)

    def costs(number: int) -> list[int]:
        name = f"{number:05}"
        operations: list[Operation] = [
            PutStep(a_step(key=name), 1),
            PutStep(a_step(key=name), 1),
            AddSignal(Signal(name, "r", "go", key=name)),
            TakeSignal(name, a_step(key=f"{name}-wait"), 1),
            PutMemo(full_memo(name)),
            UpdateRun("r", epoch=1, lease=60.0),
        ]
        return [instructions_of(storage, lambda op=op: storage.commit([op])) for op in operations]

    first = [costs(number) for number in range(10)][-1]
    storage.commit([PutStep(a_step(key=f"{number}-more"), 1) for number in range(3000)])
    storage.commit(
        [AddSignal(Signal(f"{number}-more", "r", "go", key=f"{number}")) for number in range(3000)]
    )
    last = costs(99_999)
    assert all(later <= earlier * 1.2 + 10 for later, earlier in zip(last, first, strict=True)), (first, last)


@pytest.mark.parametrize("owners", [1, 3])
def test_opening_among_many_runs_of_a_key(storage: SQLiteStorage, owners: int) -> None:
    """Opening a run costs the same with three and with three thousand live runs of its key."""

    def opened(number: int, nonce: str) -> int:
        skip = tuple(f"owner-{i}" for i in range(owners))
        run = a_run("n", number=0, owner=f"owner-{number % owners}")
        return instructions_of(
            storage, lambda: storage.commit([OpenRun(run, 60.0, skip_owners=skip, nonce=nonce)])
        )

    few = [opened(number, f"few-{number}") for number in range(5)][-1]
    storage.commit(
        [OpenRun(a_run("n", number=0, owner=f"owner-{i % owners}"), 60.0, fresh=True) for i in range(3000)]
    )
    many = opened(4, "many")
    assert many <= few * 1.3, (few, many)
    assert len(storage.list_runs(RunFilter(key="k"))) == 3006
    (found,) = storage.commit([OpenRun(a_run("n", number=0), 60.0)])
    assert isinstance(found, Found)
    assert [run.number for run in found.runs] == list(range(1, 17))


_NO_TABLE = ("CONSTANT ROW", "VIRTUAL TABLE INDEX 1:")  # a value, and the values of a list that is asked for


def test_nothing_is_searched_by_walking(storage: SQLiteStorage) -> None:
    """Each statement finds its rows by an index, and lists come in the order of an index."""
    statements: dict[str, Any] = {
        name: value
        for name, value in (*vars(sql).items(), *vars(reads).items())
        if isinstance(value, str)
        and not name.startswith("_")  # a part of statements
        and value.strip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE"))
    }
    assert len(statements) > 25
    for where in (
        RunFilter(workflow="w", limit=1),
        RunFilter(parent="r", limit=1),
        RunFilter(status=(RunStatus.FAILED,), limit=1),
        RunFilter(tags=("t",)),
        RunFilter(key="k"),
        RunFilter(after="r", limit=1),
        RunFilter(created_after=1.0, created_before=2.0),
    ):
        statements[str(where)] = reads.list_runs(where, False)[0]
    for unread in (True, False):
        statements[f"signals {unread}"] = reads.list_signals("r", "go", unread, 0, 1, True)[0]
    statements |= {"attention": attention(8), "run_heads": sql.run_heads(8)}
    queued = "coalesce(queue, 'default') IN (?)"
    for name, template in statements.items():
        statement = template.replace("{queues}", queued)
        if name in (
            "HIGHEST_EPOCH",
            "list_queues",
            "list_schedules",
            "list_workers",
        ):  # all of few, or of clear()
            continue
        numbered = [int(number) for number in re.findall(r"\?(\d)", statement)]
        marks = max(numbered) if numbered else statement.count("?")
        plan = writer(storage).execute(f"EXPLAIN QUERY PLAN {statement}", [None] * marks).fetchall()
        walks = [line for *_, line in plan if line.startswith("SCAN") and not line.endswith(_NO_TABLE)]
        assert not walks, (name, plan)
        if "limit=1" in name or name == "list_steps":
            assert not [line for *_, line in plan if "TEMP B-TREE" in line], (name, plan)


def test_runs_without_tags_cost_nothing_extra(storage: SQLiteStorage) -> None:
    """A run without tags stores none."""
    plain, tagged = OpenRun(a_run("plain"), 60.0), OpenRun(a_run("tagged", tags=("a", "b")), 60.0)
    seen = [
        statements_of(storage, lambda op=op: storage.commit([op])).count("INSERT") for op in (plain, tagged)
    ]
    assert seen == [1, 3]


def test_a_journal_is_read_in_one_statement(storage: SQLiteStorage) -> None:
    """Ten thousand steps are read by one statement, in order."""
    open_run(storage)
    storage.commit([PutStep(a_step(key=f"s{i}"), 1) for i in range(10_000)])
    assert [step.key for step in storage.list_steps("r")] == [f"s{i}" for i in range(10_000)]


# What people may see in the file ----------------------------------------------------------------------------


def test_the_file_can_be_read_by_people(storage: SQLiteStorage, path: Path) -> None:
    """Statuses, kinds, previews and tags are readable text for other tools."""
    open_run(storage, tags={"env": "prod"}, args_preview="(order=17)")
    storage.commit([PutStep(a_step(attempts=3, preview="ok"))])
    with closing(sqlite3.connect(path)) as connection:
        query = """SELECT runs.id, runs.status, tags, args_preview, kind, steps.status, preview, json_extract(more, '$.attempts')
            FROM runs JOIN steps ON steps.seq >> 32 = runs.no"""
        row = connection.execute(query).fetchone()
    assert row == ("r", "running", '{"env": "prod"}', "(order=17)", "step", "completed", "ok", 3)


def test_unusual_fields_share_a_column(storage: SQLiteStorage, path: Path) -> None:
    """A step without unusual fields stores nothing for them."""
    open_run(storage)
    steps = [
        a_step(key="usual"),
        a_step(key="concurrent", concurrent=True),
        a_step(key="extra", extra='{"a":1}'),
    ]
    storage.commit([PutStep(step) for step in steps])
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT more FROM steps ORDER BY seq").fetchall()
    assert stored == [(None,), ('{"concurrent":true}',), ('{"extra":"{\\"a\\":1}"}',)]
    assert [(step.concurrent, step.extra) for step in storage.list_steps("r")] == [
        (False, ""),
        (True, ""),
        (False, '{"a":1}'),
    ]


def test_many_threads_wait_and_one_looks(storage: SQLiteStorage) -> None:
    """Of many waiting threads one looks for foreign commits, and another takes over when it leaves."""
    version = storage.wait_for_change(0, 0.0)
    looks: list[int] = []
    looked = threading.Semaphore(0)
    original = storage._others_committed

    def look() -> bool:
        looks.append(threading.get_ident())
        looked.release()
        return original()

    storage._others_committed = look  # type: ignore[method-assign]
    with ThreadPoolExecutor(8) as pool:
        impatient = pool.submit(storage.wait_for_change, version, 0.0)
        assert impatient.result(60) == version
        short = pool.submit(storage.wait_for_change, version, 0.15)
        assert looked.acquire(timeout=60)
        waiters = [pool.submit(storage.wait_for_change, version, 60.0) for _ in range(6)]
        assert short.result(60) == version
        looks.clear()
        while looked.acquire(blocking=False):
            pass
        for _ in range(3):
            assert looked.acquire(timeout=60)
        assert len(set(looks)) == 1
        with SQLiteStorage(storage._path) as other:
            (opened,) = other.commit([OpenRun(a_run(), 60.0)])
        assert isinstance(opened, Opened)
        assert all(waiter.result(60) != version for waiter in waiters)
    assert not storage._watching.locked()
    assert isinstance(storage.commit([PutStep(a_step(), 1)])[0], Done)


def test_a_look_that_fails_wakes_all_who_wait(
    storage: SQLiteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the waiter that found a commit of others cannot read what it changed, the others look themselves."""
    version = storage.wait_for_change(0, 0.0, ["run:a", "run:b"])
    read, failed = storage._read_pulses, threading.Event()

    def fails_once(run_ids: list[str]) -> list[tuple[str, int]]:
        if failed.is_set():
            return read(run_ids)
        failed.set()
        raise StorageUnavailable("the disk is gone")

    with ThreadPoolExecutor(2) as pool, SQLiteStorage(storage._path) as other:
        waiters = [
            pool.submit(storage.wait_for_change, version, 60.0, [topic]) for topic in ("run:a", "run:b")
        ]
        while storage._changes.waited_for() != {"run:a", "run:b"}:
            assert not any(waiter.done() for waiter in waiters)
        monkeypatch.setattr(storage, "_read_pulses", fails_once)
        other.commit([OpenRun(a_run(), 60.0)])
        errors = [waiter.exception(60) for waiter in waiters]
    assert failed.is_set()
    assert sorted(str(error) for error in errors) == ["None", "the disk is gone"]
    assert all(waiter.result() != version for waiter in waiters if waiter.exception() is None)


# Copies -----------------------------------------------------------------------------------------------------


def test_a_backup_is_a_whole_database(storage: SQLiteStorage, path: Path) -> None:
    """A backup has all commits, also those in the log, in one file of its owner."""
    open_run(storage)
    storage.commit([PutStep(full_step(), 1)])
    copy = path.with_name("copy.db")
    storage.backup(copy)
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "copy.db",
        "flow.db",
        "flow.db-shm",
        "flow.db-wal",
    ]
    assert copy.stat().st_mode & 0o777 == 0o600
    storage.commit([PutStep(a_step(key="later"), 1)])
    with SQLiteStorage(copy) as again:
        assert [step.key for step in again.list_steps("r")] == ["s"]
        assert again.list_runs(payloads=True) == storage.list_runs(payloads=True)
    with pytest.raises(FileExistsError, match="new file"):
        storage.backup(copy)


def test_a_backup_while_others_write(storage: SQLiteStorage, path: Path) -> None:
    """A backup during a commit has all of it or nothing."""
    open_run(storage)
    stop = threading.Event()

    def write() -> int:
        number = 0
        while not stop.is_set():
            storage.commit([PutStep(a_step(key=f"{number}-{half}"), 1) for half in "ab"])
            number += 1
        return number

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for copy in range(5):
                storage.backup(path.with_name(f"{copy}.db"))
        finally:
            stop.set()
        assert writing.result(60) > 0
    for copy in range(5):
        with SQLiteStorage(path.with_name(f"{copy}.db")) as again:
            keys = [step.key for step in again.list_steps("r")]
            assert keys == [f"{number}-{half}" for number in range(len(keys) // 2) for half in "ab"]
