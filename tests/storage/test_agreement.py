"""Memory and SQLite tell the same story."""

from hypothesis import HealthCheck, settings

from flowdsl.storage import MemoryStorage, SQLiteStorage, Storage
from flowdsl.testing.storage.agreement import StorageMachine


class Agreement(StorageMachine):
    def make_storages(self) -> tuple[Storage, Storage]:
        return MemoryStorage(), SQLiteStorage(self.directory / "flow.db", synchronous="normal")


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
