"""``flowdsl doctor``."""

import json
import os
import sqlite3
from importlib.metadata import PackageNotFoundError

import pytest

from flowdsl.cli._checks import file_system
from flowdsl.storage.migrations import migrations


@pytest.fixture
def report(invoke):
    """The exit code of ``doctor``, and its checks by name."""

    def run(*arguments):
        result = invoke("doctor", *arguments, "--json")
        document = json.loads(result.stdout)
        assert document["ok"] is (result.exit_code == 0)
        return result.exit_code, {check["name"]: check for check in document["checks"]}

    return run


@pytest.fixture(autouse=True)
def _fixed_sqlite(monkeypatch):
    """An SQLite without the race, so that warnings are those of the test."""
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.51.3")
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))


def test_all_is_well(shop, invoke, report):
    """A healthy storage gives no warning, and the report names every check."""
    shop.sell("apples")
    code, checks = report()
    assert code == 0
    assert list(checks) == [
        "flowdsl", "python", "sqlite", "storage", "permissions", "size", "write_ahead_log", "disk", "schema",
        "integrity", "synchronous", "runs", "payloads", "protection",
    ]  # fmt: skip
    assert {check["state"] for check in checks.values()} == {"ok"}
    assert checks["permissions"]["mode"] == "0600"
    assert checks["synchronous"]["mode"] == "full"
    stdout = invoke("doctor").stdout
    assert stdout.endswith("\n\nno problems, no warnings\n")
    assert "write-ahead log  ✓" in stdout
    assert "Python           ✓" in stdout


def test_a_source_tree_that_is_not_installed(shop, report, monkeypatch):
    """A source tree that is not installed is checked like an installed package."""

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("flowdsl.cli.doctor.version", version)
    code, checks = report()
    assert (code, checks["flowdsl"]["state"]) == (0, "ok")
    assert "not installed" in str(checks["flowdsl"])


def test_no_database_yet(report, folder):
    """A missing default database is a warning, a missing named one is a problem, and none is made."""
    code, checks = report()
    assert (code, checks["storage"]["state"]) == (0, "warning")
    code, checks = report("--storage", "sqlite:///other.db")
    assert (code, checks["storage"]["state"]) == (1, "problem")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "race"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_old_sqlite(version, race, report, monkeypatch):
    """SQLite with the WAL-reset race is a warning that names the version with the fix."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    code, checks = report()
    assert code == 0
    assert checks["sqlite"]["wal_reset_race"] is race
    assert ("3.51.3" in checks["sqlite"]["message"]) or not race


def test_interrupted_runs(shop, report):
    """Runs that nobody executes are a warning that names them, and no problem."""
    run = shop.break_off("plums")
    shop.fail("pears")
    code, checks = report()
    assert code == 0
    assert checks["runs"]["state"] == "warning"
    assert (checks["runs"]["interrupted"], checks["runs"]["failed"]) == ([run.id], 1)
    assert run.id in checks["runs"]["message"]


@pytest.mark.parametrize(
    ("file", "directory", "state"),
    [
        (0o600, 0o755, "ok"),
        (0o644, 0o700, "warning"),
        (0o666, 0o700, "warning"),
        (0o644, 0o755, "warning"),
        (0o664, 0o755, "problem"),
        (0o600, 0o777, "problem"),
        (0o600, 0o1777, "ok"),
    ],
)
def test_permissions(shop, report, folder, file, directory, state):
    """It is a warning if other users can read the file, and a problem if they can change it."""
    shop.sell("apples")
    (folder / ".flowdsl" / "flow.db").chmod(file)
    (folder / ".flowdsl").chmod(directory)
    code, checks = report()
    assert checks["permissions"]["state"] == state
    assert code == (state == "problem")


@pytest.mark.parametrize("name", ["flow.db", ".flowdsl"])
def test_a_database_that_cannot_be_written(name, shop, report, monkeypatch):
    """A file or directory that this user cannot write is a problem (simulated, because root can)."""
    shop.sell("apples")
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != name and allowed(path, mode))
    code, checks = report()
    assert (code, checks["permissions"]["state"]) == (1, "problem")
    assert "runs" not in checks


def _change(folder, *statements):
    with sqlite3.connect(folder / ".flowdsl" / "flow.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_a_newer_schema(shop, report, folder):
    """A schema from the future is a problem that names both versions, and the storage is not opened."""
    shop.sell("apples")
    _change(folder, "PRAGMA user_version = 99")
    code, checks = report()
    newest = migrations("sqlite")[-1].version
    assert code == 1
    assert (checks["schema"]["version"], checks["schema"]["supported"]) == (99, newest)
    assert "99" in checks["schema"]["message"]
    assert str(newest) in checks["schema"]["message"]
    assert "runs" not in checks


def test_an_older_schema_is_not_migrated(shop, report, folder):
    """An older schema is a warning, and is not migrated."""
    shop.sell("apples")
    _change(folder, "PRAGMA user_version = 0")
    code, checks = report()
    assert (code, checks["schema"]["state"]) == (0, "warning")
    database = sqlite3.connect(folder / ".flowdsl" / "flow.db")
    assert database.execute("PRAGMA user_version").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize("kind", ["foreign", "junk", "directory"])
def test_what_is_no_database_of_ours(kind, report, folder):
    """The database of another application, a file that is no database, and a directory are problems."""
    path = folder / "other.db"
    if kind == "foreign":
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE t (x)")
        database.close()
    elif kind == "junk":
        path.write_bytes(b"no database " * 1000)
    else:
        path.mkdir()
    code, checks = report("--storage", "sqlite:///other.db")
    assert (code, checks["schema"]["state"]) == (1, "problem")


def test_a_damaged_database(shop, report, folder):
    """Damage of the database is a problem, and the report says what to do."""
    for order in range(40):
        shop.sell(f"{order}" * 50)
    path = folder / ".flowdsl" / "flow.db"
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for start in range(page * 4, len(data) - page, page):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    code, checks = report()
    assert code == 1
    found = checks.get("integrity", checks["schema"])
    assert found["state"] == "problem"


def test_synchronous_normal(shop, report, folder):
    """The report names the mode in the URL, and says what it means."""
    shop.sell("apples")
    code, checks = report("--storage", "sqlite:///.flowdsl/flow.db?synchronous=normal")
    assert (code, checks["synchronous"]["mode"]) == (0, "normal")
    assert "power failure" in checks["synchronous"]["message"]


def test_little_room(shop, report, monkeypatch):
    """A disk that is nearly full is a problem."""
    shop.sell("apples")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    code, checks = report()
    assert (code, checks["disk"]["state"], checks["disk"]["free"]) == (1, "problem", 1000)


def test_a_large_log(shop, report, monkeypatch):
    """A write-ahead log that is not merged is a warning."""
    shop.sell("apples")
    monkeypatch.setattr("flowdsl.cli._checks._LARGE_WAL", -1)
    code, checks = report()
    assert (code, checks["write_ahead_log"]["state"]) == (0, "warning")


def test_other_storages(report, invoke):
    """A database server is opened; if that fails it is a problem, and the password is not shown."""
    code, checks = report("--storage", "memory://")
    assert (code, checks["storage"]["state"], checks["runs"]["failed"]) == (0, "ok", 0)
    result = invoke("doctor", "--storage", "nosuchdb://me:secret@host/x", "--json")
    assert result.exit_code == 1
    assert "nosuchdb://me:***@host/x" in result.stdout
    assert json.loads(result.stdout)["checks"][3]["state"] == "problem"


def test_signed_payloads(shop, report, monkeypatch):
    """The report says whether payloads are signed, and does not show the secret."""
    shop.sell("apples")
    assert report()[1]["payloads"]["signed"] is False
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "hush")
    checks = report()[1]
    assert checks["payloads"]["signed"] is True
    assert "hush" not in str(checks)


def test_what_is_unprotected_is_said(shop, report, folder, monkeypatch, imports):
    """Without a secret and encryption the report says what others could do; --app uses the program's own
    codec."""
    shop.sell("x")
    assert len(report()[1]["protection"]["unprotected"]) == 2
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "a secret of this test")
    (said,) = report()[1]["protection"]["unprotected"]
    assert said == "whoever can read the storage can read all values: use Encrypted for what is secret"
    (folder / "plain.py").write_text(
        "import flowdsl\nflowdsl.configure('memory://', codec=flowdsl.codecs.JsonCodec(accept_pickle=False))"
    )
    monkeypatch.delenv("FLOWDSL_SECRET_KEY")
    first = report("--app", "plain")[1]["protection"]["unprotected"][0]
    assert first.startswith("whoever can write to the storage can change names")


def test_network_file_systems_are_recognised(tmp_path):
    """The file system of a file is that of its longest mount point."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 21 0:5 / /mnt/my\\040share rw,relatime shared:1 - nfs4 server:/x rw\n"
    )
    assert file_system(tmp_path / "mnt" / "x.db", mounts) == "ext4"
    assert file_system(type(tmp_path)("/mnt/my share/flow.db"), mounts) == "nfs4"
    assert file_system(tmp_path, tmp_path / "none") == ""
