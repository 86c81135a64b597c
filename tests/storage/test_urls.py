"""From URLs to storages."""

import os
import pickle
import stat
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from flowdsl.storage import DEFAULT_URL, MemoryStorage, SQLiteStorage, default_url, open_storage
from flowdsl.storage.sqlite.url import sqlite_path
from flowdsl.testing.storage.samples import HOSTILE, open_run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWDSL_STORAGE", raising=False)


def test_memory() -> None:
    """Each ``memory://`` is a new storage, and takes no options."""
    with open_storage("memory://") as one, open_storage("memory://") as two:
        assert isinstance(one, MemoryStorage)
        assert one.inline
        assert one.url is None
        open_run(one)
        assert two.list_runs() == []
    for url in ("memory://name", "memory:///", "memory://?synchronous=full"):
        with pytest.raises(ValueError, match="memory://"):
            open_storage(url)


def test_sqlite(tmp_path: Path) -> None:
    """Three slashes are a relative path, four an absolute one, and the storage's URL opens the same file from
    anywhere."""
    absolute = f"sqlite:///{tmp_path}/data/flow.db"
    for url in ("sqlite:///data/flow.db", absolute, "sqlite:///data/../data/flow.db"):
        with open_storage(url) as storage:
            assert isinstance(storage, SQLiteStorage)
            assert storage.url == f"sqlite:///{tmp_path}/data/flow.db"
            assert not storage.inline
    with open_storage("sqlite:///data/flow.db?synchronous=NORMAL&busy_timeout=2.5") as storage:
        assert storage.inline
        assert storage.url == f"sqlite:///{tmp_path}/data/flow.db?synchronous=normal&patience=2.5"
    assert (tmp_path / "data" / "flow.db").exists()


@pytest.mark.parametrize("name", ["50%", "a#b", "a?b=c", "a;b&c", os.fsdecode(b"no\xff utf-8"), *HOSTILE])
def test_any_file_name(tmp_path: Path, name: str) -> None:
    """The URL and the pickle of a storage open its file again, whatever its name."""
    path = tmp_path / name
    with SQLiteStorage(path) as storage:
        assert path.exists()
        for again in (open_storage(storage.url or ""), pickle.loads(pickle.dumps(storage))):
            with again:
                assert again.url == storage.url
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name}


def test_working_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage keeps its file when the working directory changes, and so do its copies."""
    with SQLiteStorage("flow.db") as storage:
        open_run(storage)
        (tmp_path / "other").mkdir()
        monkeypatch.chdir("other")
        with open_storage(storage.url or "") as again, pickle.loads(pickle.dumps(storage)) as copy:
            assert again.list_runs() == copy.list_runs() == storage.list_runs()
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("flow.db", "sqlite:///flow.db"),
        ("", "not a storage URL"),
        ("sqlite:", "not a storage URL"),
        ("sqlite://", "relative.db"),
        ("sqlite:///", "relative.db"),
        ("sqlite://host/flow.db", "relative.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///flow.db?synchronous=off", "full, normal"),
        ("sqlite:///flow.db?journal=x", "journal"),
        ("sqlite:///flow.db?synchronous", "full, normal"),
        ("sqlite:///flow.db?busy_timeout=soon", "busy_timeout"),
        ("sqlite:///flow.db?patience=-1", "patience"),
        ("sqlite:///flow.db?patience=nan", "patience"),
        ("sqlite:///flow.db#x", "%23"),
        ("sqlite:///a%00b", "NUL"),
        ("nosuch://host/db", "needs a storage plug-in for scheme 'nosuch'.*memory.*sqlite"),
        ("SQLITE:///flow.db", "plug-in for scheme 'SQLITE'"),
    ],
)
def test_what_is_no_url(tmp_path: Path, url: str, message: str) -> None:
    """An impossible URL is refused in one line that shows a right one, and nothing is created."""
    with pytest.raises(ValueError, match=message) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [7, b"sqlite:///flow.db", Path("flow.db"), MemoryStorage, ["memory://"]])
def test_what_is_neither_url_nor_storage(value: Any) -> None:
    """Another type raises ``TypeError``."""
    with pytest.raises(TypeError, match="a storage is a URL"):
        open_storage(value)


def test_a_storage_is_taken_as_it_is() -> None:
    """An instance is returned as it is, neither opened nor closed."""
    with MemoryStorage() as storage:
        assert open_storage(storage) is storage


def test_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL records are in a directory of the owner that version control ignores."""
    assert default_url() == DEFAULT_URL == "sqlite:///.flowdsl/flow.db"
    for _ in range(2):
        with open_storage() as storage:
            assert storage.url == f"sqlite:///{tmp_path}/.flowdsl/flow.db"
    directory = tmp_path / ".flowdsl"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (directory / ".gitignore").read_text() == "*\n"
    monkeypatch.setenv("FLOWDSL_STORAGE", "memory://")
    with open_storage() as storage:
        assert isinstance(storage, MemoryStorage)
    monkeypatch.setenv("FLOWDSL_STORAGE", "")
    assert default_url() == DEFAULT_URL


def test_a_default_directory_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """An existing ``.flowdsl`` keeps its mode and files, and another directory gets no ``.gitignore``."""
    (tmp_path / ".flowdsl").mkdir(mode=0o755)
    with open_storage(), open_storage("sqlite:///other/flow.db"):
        pass
    assert stat.S_IMODE((tmp_path / ".flowdsl").stat().st_mode) == 0o755
    assert not (tmp_path / ".flowdsl" / ".gitignore").exists()
    assert not (tmp_path / "other" / ".gitignore").exists()


def test_permissions(tmp_path: Path) -> None:
    """Only the owner can read a new database and the files beside it, with any umask."""
    mask = os.umask(0)
    try:
        with SQLiteStorage("flow.db") as storage:
            open_run(storage)
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    finally:
        os.umask(mask)
    assert modes == dict.fromkeys(["flow.db", "flow.db-wal", "flow.db-shm"], 0o600)


def test_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points of installed packages add schemes, and must return a storage."""
    module = type(sys)("storage_plugin")
    opened: list[str] = []

    def make(url: str) -> MemoryStorage:
        opened.append(url)
        return MemoryStorage()

    vars(module).update(make=make, wrong=lambda url: 7)
    monkeypatch.setitem(sys.modules, "storage_plugin", module)
    found = [
        EntryPoint("test", "storage_plugin:make", "flowdsl.storage"),
        EntryPoint("wrong", "storage_plugin:wrong", "flowdsl.storage"),
        EntryPoint("memory", "storage_plugin:wrong", "flowdsl.storage"),
    ]
    groups = {"flowdsl.storage": found}
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: groups.get(group, []))
    with open_storage("test://host/name?x=1") as storage:
        assert isinstance(storage, MemoryStorage)
    assert opened == ["test://host/name?x=1"]
    with pytest.raises(TypeError, match="not a Storage"):
        open_storage("wrong://")
    with open_storage("memory://") as storage:  # ours come first
        assert isinstance(storage, MemoryStorage)
    with pytest.raises(ValueError, match="test://"):
        open_storage("mysql://localhost/flow")


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    """``~`` is the home directory, an unknown user is refused, and ``./~`` is a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sqlite_path("sqlite:///~/flow.db")[0] == f"{tmp_path}/flow.db"
    assert sqlite_path("sqlite:///./~/flow.db")[0] == "./~/flow.db"
    with pytest.raises(ValueError, match="no such home directory"):
        sqlite_path("sqlite:///~nobody-of-that-name/flow.db")
