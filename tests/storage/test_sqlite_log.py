"""A damaged write-ahead log: SQLite would silently drop the commits after the damage."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from storage_children import Child

from flowdsl.errors import StorageError
from flowdsl.storage import SQLiteStorage
from flowdsl.storage.base import PutStep
from flowdsl.storage.sqlite.wal import lost_commits
from flowdsl.testing.storage.samples import a_step


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a process that was killed after forty acknowledged commits, none of them moved from the log."""
    directory = tmp_path_factory.mktemp("killed")
    script = """
storage = open_storage(url)
open_run(storage)
for i in range(40):
    storage.commit([PutStep(a_step(key=f"s{i}", payload=os.urandom(400)), 1)])
say("done")
hear()
"""
    with Child(script, f"sqlite:///{directory}/flow.db") as child:
        assert child.hear() == "done"
        child.kill()
    return directory


def damaged(directory: Path, copy: Path, place: float) -> Path:
    """A copy of a database with one bit of its log flipped, somewhere between its beginning (0) and its end (1)."""
    shutil.copytree(directory, copy)
    log = copy / "flow.db-wal"
    content = bytearray(log.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    log.write_bytes(content)
    return copy / "flow.db"


def test_no_acknowledged_commit_vanishes_from_a_damaged_log(left_behind: Path, tmp_path: Path) -> None:
    """With a flipped bit in the log the database opens with all but the last commit, or reports damage."""
    refused = 0
    for i in range(60):
        path = damaged(left_behind, tmp_path / str(i), i / 59)
        content = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
        try:
            with SQLiteStorage(path) as storage:
                keys = [step.key for step in storage.list_steps("r")]
                assert keys[:39] == [f"s{j}" for j in range(39)]
        except StorageError as error:
            assert "damaged" in str(error)
            assert {entry.name: entry.read_bytes() for entry in path.parent.iterdir()} == content
            refused += 1
    assert refused > 50


def test_going_on_without_what_was_lost(left_behind: Path, tmp_path: Path) -> None:
    """The advice in the message opens the storage again, with the commits before the damage."""
    path = damaged(left_behind, tmp_path / "copy", 0.75)
    with pytest.raises(StorageError) as caught:
        SQLiteStorage(path)
    command = str(caught.value).partition("sqlite3 ")[2]
    assert command == f"{path} 'PRAGMA wal_checkpoint(TRUNCATE)'"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(command.split("'")[1])
    with SQLiteStorage(path) as storage:
        assert 10 < len(storage.list_steps("r")) < 30


def test_without_waiting_for_the_disk_a_loss_is_a_warning(
    left_behind: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``synchronous=normal`` lost commits after a power failure are a warning, and work goes on."""
    path = damaged(left_behind, tmp_path / "copy", 0.75)
    with SQLiteStorage(path, synchronous="normal") as storage:
        assert 10 < len(storage.list_steps("r")) < 30
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "are lost" in caplog.text


def test_a_log_that_is_whole_is_no_reason_to_worry(left_behind: Path, tmp_path: Path) -> None:
    """A log after a kill, a log cut in its last commit, and a log in use are read without a warning."""
    for cut in (0, 100, 2000):
        path = damaged(left_behind, tmp_path / str(cut), 1.0)
        log = path.with_name("flow.db-wal")
        log.write_bytes((left_behind / "flow.db-wal").read_bytes()[: -cut or None])
        with SQLiteStorage(path) as storage, SQLiteStorage(path) as other:
            assert len(storage.list_steps("r")) == len(other.list_steps("r")) == (39 if cut else 40)
            storage.commit([PutStep(a_step(), 1)])


def test_a_log_in_use_is_no_reason_to_worry(tmp_path: Path) -> None:
    """A log that another process writes all the time is no reason for a warning."""
    script = """
storage = open_storage(url)
open_run(storage)
say("ready")
for i in range(10**6):
    storage.commit([PutStep(a_step(key=f"s{i}", payload=os.urandom(400)), 1)])
"""
    with Child(script, f"sqlite:///{tmp_path}/flow.db?synchronous=normal") as child:
        assert child.hear() == "ready"
        assert [lost_commits(tmp_path / "flow.db") for _ in range(15)] == [0] * 15


def test_no_log_no_loss(tmp_path: Path) -> None:
    """Without a log, with an empty log, and with a file that is no log, nothing is checked."""
    SQLiteStorage(tmp_path / "flow.db").close()
    assert lost_commits(tmp_path / "flow.db") == 0
    for content in (b"", b"x" * 40, b"x" * 10_000, bytes(10_000)):
        (tmp_path / "flow.db-wal").write_bytes(content)
        assert lost_commits(tmp_path / "flow.db") == 0
