"""flowdsl.testing as a user writes it, for mypy and pyright: nothing of it is executed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

from hypothesis import given
from hypothesis import strategies as st

from flowdsl import Runtime, step, workflow
from flowdsl.storage import MemoryStorage, SQLiteStorage, Storage
from flowdsl.testing import (
    CrashingStorage,
    EffectLog,
    Effects,
    HistoryReport,
    KillReport,
    ReplayReport,
    StorageContract,
    StorageMachine,
    VirtualClock,
    check_history,
    check_replay,
    effects,
    fresh_runtime,
    kill_after,
    replay_test,
    with_storage,
)


@step
def charge(amount: int) -> str:
    return f"paid {amount}"


@workflow
def checkout(amount: int) -> list[str]:
    return [charge(amount)]


@given(amount=st.integers())
@with_storage()
def test_any(amount: int) -> None:
    """A law over workflows is typed, with a storage for each example."""
    assert_type(checkout(amount), list[str])


@given(st.integers(0, 9))
@replay_test
def test_twice(amount: int) -> None:
    """A replay law is typed."""
    assert charge(amount) == charge(amount)


@replay_test(crashes=2, fakes={charge: lambda amount: "paid"})
async def test_async(tmp_path: Path) -> None:
    """An async replay test with fixtures is typed."""


@with_storage(lambda: SQLiteStorage("x.db"))
async def test_fixtures(flow_runtime: Runtime, flow_clock: VirtualClock, flow_storage: MemoryStorage) -> None:
    """Fixtures have types."""
    flow_clock.advance("3 days")
    await flow_clock.aadvance(5)


class TestMine(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return MemoryStorage()


class Machine(StorageMachine):
    def make_storages(self) -> tuple[Storage, Storage]:
        return MemoryStorage(), SQLiteStorage(self.directory / "flow.db")


TestMachine = Machine.TestCase


def test_the_rest(tmp_path: Path) -> None:
    """All other names of the kit have types."""
    assert_type(check_replay(checkout, 5, signals=[("ok", 1)], watch=[tmp_path]), ReplayReport)
    with fresh_runtime(name="x") as runtime, effects() as done:
        assert_type(runtime, Runtime)
        assert_type(done, Effects)
        assert_type(done.count(charge, 5), int)
        assert_type(done.names, list[str])
        assert_type(check_history(runtime.export("order-7")), HistoryReport)
    with Runtime(CrashingStorage(MemoryStorage(), at=2, when="after", outcome="acknowledged")):
        checkout(5)
    assert_type(kill_after("x.py", commits=[2, 3], env={"A": "b"}), KillReport)
    EffectLog(tmp_path / "effects").note("charge", 5)
    plain: Callable[[int], Any] = with_storage()(checkout.__wrapped__)
    plain(5)
