"""A copy of an SQLite database that programs use meanwhile."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from flowdsl.core.records import Run
from flowdsl.errors import StorageError
from flowdsl.storage import SQLiteStorage, open_storage


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with a run in it."""
    with open_storage(f"sqlite:///{tmp_path}/flow.db") as storage:
        storage.set_run(Run("a", "shop.order", "k"))
    return tmp_path / "flow.db"


def back_up(database: Path, target: Path) -> None:
    """Copy *database* to *target*."""
    with SQLiteStorage(database) as storage:
        storage.backup(target)


def _runs(file: Path) -> list[str]:
    with open_storage(f"sqlite:///{file}") as storage:
        return [run.id for run in storage.list_runs()]


def test_the_copy_has_all_that_was_committed(database: Path, tmp_path: Path) -> None:
    """A backup has all commits, also those that are only in the log, while a program uses the database."""
    with open_storage(f"sqlite:///{database}") as storage:
        storage.set_run(Run("b", "shop.order", "k2"))
        back_up(database, tmp_path / "copy.db")
        storage.set_run(Run("c", "shop.order", "k3"))
    assert sorted(_runs(tmp_path / "copy.db")) == ["a", "b"]
    assert sorted(_runs(database)) == ["a", "b", "c"]


def test_the_copy_is_one_file_of_its_owner(database: Path, tmp_path: Path) -> None:
    """A backup is one file that only its owner can read."""
    (tmp_path / "copies").mkdir()
    back_up(database, tmp_path / "copies" / "copy.db")
    assert os.listdir(tmp_path / "copies") == ["copy.db"]
    assert stat.S_IMODE((tmp_path / "copies" / "copy.db").stat().st_mode) == 0o600


def test_nothing_is_overwritten(database: Path, tmp_path: Path) -> None:
    """A backup never overwrites a file."""
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(FileExistsError, match=r"copy\.db is there already"):
        back_up(database, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


def test_a_damaged_page_is_found(database: Path, tmp_path: Path) -> None:
    """A backup is checked before it gets its name, and a damaged page is found."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    bytes_ = bytearray(database.read_bytes())
    bytes_[size : 2 * size] = b"\xff" * size
    database.write_bytes(bytes_)
    with pytest.raises(StorageError):
        back_up(database, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
