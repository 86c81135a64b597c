"""Every backend of ours keeps the contract that ships."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support import sqlite_storage

from flowdsl.core.records import Run, RunFilter, Step
from flowdsl.storage import MemoryStorage, SQLiteStorage, Storage
from flowdsl.storage.operations import DeleteRun
from flowdsl.testing.storage.contract import StorageContract


class TestMemory(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return MemoryStorage()


class TestSQLiteFull(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return SQLiteStorage(directory / "flow.db")


class TestSQLiteNormal(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return sqlite_storage(directory / "flow.db", synchronous="normal")


class Restless(MemoryStorage):
    """Begins each page again, and always tells of a change."""

    def list_steps(self, run_id: str, /, *, after: int = 0, **options: Any) -> list[Step]:
        return super().list_steps(run_id, **options)

    def list_runs(self, where: RunFilter = RunFilter(), /, *, payloads: bool = False) -> list[Run]:
        return super().list_runs(evolve(where, after=None), payloads=payloads)

    def wait_for_change(self, seen: int, timeout: float, /, topics: Iterable[str] = ()) -> int:
        return seen + 1


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (StorageContract.test_pages_of_steps, "begins again"),
        (StorageContract.test_pages_of_replaced_steps, "begins again"),
        (StorageContract.test_pages, "begins again"),
        (
            lambda suite, storage: StorageContract.test_waiting_for_a_run(suite, storage, DeleteRun("r")),
            "always a change",
        ),
    ],
)
def test_a_storage_that_does_not_come_to_an_end_fails(check: Callable[..., None], said: str) -> None:
    """A storage that would make the contract suite read or wait for ever fails it."""
    with pytest.raises(AssertionError, match=said):
        check(TestMemory(), Restless())
