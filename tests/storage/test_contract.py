"""Every backend of ours keeps the contract that ships."""

from pathlib import Path

from flowdsl.storage import MemoryStorage, SQLiteStorage, Storage
from flowdsl.testing.storage.contract import StorageContract


class TestMemory(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return MemoryStorage()


class TestSQLiteFull(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return SQLiteStorage(directory / "flow.db")


class TestSQLiteNormal(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return SQLiteStorage(directory / "flow.db", synchronous="normal")
