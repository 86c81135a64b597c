"""Memory and SQLite tell the same story."""

from hypothesis import HealthCheck, settings
from support import sqlite_storage

from flowdsl.storage import MemoryStorage, Storage
from flowdsl.testing.storage.agreement import StorageMachine


class Agreement(StorageMachine):
    def make_storages(self) -> tuple[Storage, Storage]:
        return MemoryStorage(), sqlite_storage(self.directory / "flow.db", synchronous="normal")


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
