"""Schemas of other versions: migrated when older, refused when newer."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from storage_children import Child

from flowdsl.errors import SchemaMismatch, StorageUnavailable
from flowdsl.storage import SQLiteStorage
from flowdsl.storage.base import PutStep
from flowdsl.storage.migrations import Migration, migrations
from flowdsl.storage.sqlite import file as database
from flowdsl.testing.storage.samples import a_step, full_step, open_run

# What a later release could do: a new column, and a change of all rows, that must happen once.
LATER = """
from flowdsl.storage.migrations import Migration, migrations
first = migrations("sqlite")
LATER = [
    *first,
    Migration(len(first) + 1, "0002", "ALTER TABLE steps ADD COLUMN note TEXT NOT NULL DEFAULT 'none; yet';"),
    Migration(len(first) + 2, "0003", "-- ;\\nUPDATE runs SET floor = floor + 1; CREATE TABLE later (x);"),
]
import flowdsl.storage.sqlite.file
flowdsl.storage.sqlite.file.migrations = lambda dialect: LATER
"""


def later() -> list[Migration]:
    scope: dict[str, list[Migration]] = {}
    original = database.migrations
    try:
        exec(LATER, scope)
    finally:
        database.migrations = original
    return scope["LATER"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of this release with a run and a step in it."""
    path = tmp_path / "flow.db"
    with SQLiteStorage(path) as storage:
        open_run(storage, floor=5)
        storage.commit([PutStep(full_step())])
    return path


def user_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_numbers_have_no_gaps() -> None:
    """Migrations are numbered from 1, in order, and a database remembers the last."""
    found = migrations("sqlite")
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    assert migrations("sqlite", after=len(found)) == []


def test_a_new_database_has_the_newest_version(path: Path) -> None:
    """A new file gets all migrations, our mark, and the newest version."""
    assert user_version(path) == len(migrations("sqlite"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (database.APPLICATION_ID,)


def test_an_older_schema_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a database of an older release migrates it once, with its data."""
    monkeypatch.setattr(database, "migrations", lambda dialect: later())
    for _ in range(2):
        with SQLiteStorage(path) as storage:
            run = storage.get_run("r")
            assert run is not None
            assert run.floor == 6
            (step,) = storage.list_steps("r")
            assert step.path == full_step().path
            storage.commit([PutStep(full_step(), 1)])
    assert user_version(path) == len(later())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT note FROM steps").fetchall() == [("none; yet",)] * 3


def test_processes_migrate_once(path: Path) -> None:
    """Of several processes that open an older database, one migrates it, and all can use it."""
    script = """
say("ready")
hear()
with open_storage(url) as storage:
    say(storage.get_run("r").floor)
"""
    children = [Child(LATER + script, f"sqlite:///{path}") for _ in range(3)]
    with children[0], children[1], children[2]:
        for child in children:
            assert child.hear() == "ready"
        for child in children:
            child.tell()
        assert [child.rest() for child in children] == [["6"]] * 3
    assert user_version(path) == len(later())


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a migration fails, none of it is kept, and the older release can still open the file."""
    twice = "CREATE TABLE good (x); CREATE TABLE good (x);"
    broken = [*later(), Migration(len(later()) + 1, "0004", twice)]
    with monkeypatch.context() as patch:
        patch.setattr(database, "migrations", lambda dialect: broken)
        with pytest.raises(Exception, match="good"):
            SQLiteStorage(path)
    assert user_version(path) == len(migrations("sqlite"))
    with SQLiteStorage(path) as storage:
        run = storage.get_run("r")
        assert run is not None
        assert run.floor == 5
        storage.commit([PutStep(a_step(), 1)])


def test_a_newer_schema_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of a newer release is refused, naming both versions, and left as it is."""
    with monkeypatch.context() as patch:
        patch.setattr(database, "migrations", lambda dialect: later())
        SQLiteStorage(path).close()
    content = path.read_bytes()
    with pytest.raises(
        SchemaMismatch, match=rf"version {len(later())}.* up to {len(migrations('sqlite'))}.*upgrade"
    ) as caught:
        SQLiteStorage(path)
    assert (caught.value.found, caught.value.supported) == (len(later()), len(migrations("sqlite")))  # type: ignore[attr-defined]
    assert path.read_bytes() == content


def test_a_schema_that_changes_while_it_is_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of an older release that meets the newer schema later is refused then."""
    with SQLiteStorage(path) as storage:
        with monkeypatch.context() as patch:
            patch.setattr(database, "migrations", lambda dialect: later())
            SQLiteStorage(path).close()
        storage.before_fork()
        storage.after_fork(in_child=False)
        with pytest.raises(SchemaMismatch):
            storage.get_run("r")


def test_statements_are_split_where_they_end() -> None:
    """Semicolons in texts and comments do not end a statement, and a line may have several."""
    script = "-- a; b\nCREATE TABLE t (x DEFAULT ';');INSERT INTO t\nVALUES ('a;b'); SELECT 1"
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in database.statements(script):
            connection.execute(statement)
        assert connection.execute("SELECT x FROM t").fetchall() == [("a;b",)]


def test_no_database_of_another_application_is_migrated(tmp_path: Path) -> None:
    """A file with our version number but without our mark is not migrated."""
    with closing(sqlite3.connect(tmp_path / "flow.db")) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(StorageUnavailable):
        SQLiteStorage(tmp_path / "flow.db")


def test_a_schema_that_is_made_while_somebody_looks(tmp_path: Path) -> None:
    """A process that opens a new file while another makes its schema sees all of it or nothing."""
    path = tmp_path / "flow.db"

    class Looking:
        """A connection during whose look the other process comes."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection
            self.in_transaction = False

        def execute(self, statement: str) -> sqlite3.Cursor:
            if "user_version" in statement:
                try:
                    SQLiteStorage(path, patience=0).close()
                except StorageUnavailable:  # it has to wait
                    pass
            return self.connection.execute(statement)

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert database._version(Looking(connection), path, 1) == 0  # type: ignore[arg-type]
    with SQLiteStorage(path) as storage:
        open_run(storage)
