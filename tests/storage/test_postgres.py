"""The storage on PostgreSQL: the contract that ships, agreement with memory, and what is particular about it."""

import asyncio
import inspect
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import emptied_postgres, postgres_url

import flowdsl.storage
from flowdsl import Runtime, step, workflow
from flowdsl.core.records import Run, Signal
from flowdsl.core.status import RunStatus
from flowdsl.engine.commit import Committer
from flowdsl.errors import StorageUnavailable
from flowdsl.storage import MemoryStorage, Storage, open_storage
from flowdsl.storage.operations import AddSignal, ClaimNext, ClaimRun, OpenRun, Operation, PutStep, UpdateRun
from flowdsl.storage.outcomes import Claimed, Done, Fenced, Missing, Outcome
from flowdsl.testing.storage.agreement import StorageMachine
from flowdsl.testing.storage.contract import StorageContract
from flowdsl.testing.storage.samples import a_step, open_run

pytest.importorskip("psycopg")
from flowdsl.storage.postgres import PostgresStorage


def postgres(**options: object) -> Storage:
    return open_storage(postgres_url(**options))


class TestContract(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return postgres()


class Agreement(StorageMachine):
    def make_storages(self) -> tuple[Storage, Storage]:
        return MemoryStorage(), emptied_postgres()


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def storage() -> Iterator[PostgresStorage]:
    """A storage in a schema of its own."""
    with PostgresStorage(postgres_url()) as storage:
        yield storage


def _terminate_others(storage: PostgresStorage) -> None:
    """End all sessions of the server but the one that asks, as a restart does."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    with storage._connections.connect() as connection:
        connection.execute(query)


def test_lost_connections_are_nobodys_fault(storage: PostgresStorage) -> None:
    """After a lost connection operations and reads are sent again, and count once."""
    open_run(storage)
    for number in range(5):
        _terminate_others(storage)
        assert isinstance(storage.commit([PutStep(a_step(key=f"lone-{number}"), 1)])[0], Done)
        _terminate_others(storage)
        storage.commit([PutStep(a_step(key=f"{number}-{half}"), 1) for half in "ab"])
        _terminate_others(storage)
        assert storage.get_run("r") is not None
    assert len(storage.list_steps("r")) == 15


def test_a_run_is_enqueued_and_claimed_in_few_statements(storage: PostgresStorage) -> None:
    """Enqueueing and claiming a run take few round trips to the server."""
    import psycopg

    sent: list[str] = []

    class Counted(psycopg.Connection[Any]):
        def execute(self, query: Any, *values: Any, **how: Any) -> Any:
            sent.append(str(query))
            return super().execute(query, *values, **how)

    run = Run(id="r", workflow="w", key="k", number=0, status=RunStatus.PENDING, queue="default")
    with Counted.connect(storage._address.dsn) as connection:
        storage.commit_within(connection, [OpenRun(run, 0.0, fresh=True, nonce="n")])
        assert len(sent) == 4, sent  # the lock of its key, what is there, the row, who waits for it
        sent.clear()
        (claimed,) = storage.commit_within(connection, [ClaimNext("o", 60.0, (("w", ""),), nonce="m")])
        assert isinstance(claimed, Claimed)
        assert [run.id for run in claimed.runs] == ["r-1"]
        assert len(sent) == 4, sent  # what is there, interrupted runs, pending runs, the update


def test_a_server_that_does_not_answer_is_unavailable_after_its_patience(tmp_path: Path) -> None:
    """If the server does not answer, callers wait until a deadline and then get a lasting error."""
    pytest.importorskip("psycopg")
    begun = time.monotonic()
    with pytest.raises(StorageUnavailable, match="did not answer") as caught:
        PostgresStorage(f"postgresql:///x?host={tmp_path}&patience=0.2")
    assert caught.value.lasting
    assert time.monotonic() - begun < 10


def test_waiting_for_the_server_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Waiting for the server is logged once, at the first failure."""
    with pytest.raises(StorageUnavailable):
        PostgresStorage(f"postgresql:///x?host={tmp_path}&patience=0.5")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "does not answer" in record.getMessage()
    assert record.getMessage().endswith("waiting for it, 0.5 s at most")


def test_an_async_commit_asks_no_thread(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An async commit, alone or in a group, uses one connection on the event loop, and no thread."""
    monkeypatch.setattr(asyncio, "to_thread", None)
    open_run(storage)

    async def commits() -> list[Outcome]:
        found = await storage.commit_async([PutStep(a_step(key="a"), 1)])
        found += await storage.commit_async([PutStep(a_step(key=key), 1) for key in "bc"])
        found += await storage.commit_async([PutStep(a_step(key="d"), 7)])
        for part in await asyncio.gather(
            *(storage.commit_async([PutStep(a_step(key=f"g{i}"), 1)]) for i in range(5))
        ):
            found += part
        return found

    outcomes = asyncio.run(commits())
    assert [outcome.seq for outcome in outcomes if isinstance(outcome, Done)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert isinstance(outcomes[3], Fenced)
    assert len(storage.list_steps("r")) == 8


def test_async_runs_commit_on_their_loop(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of async runs commit on their loop without a thread, and other readers see them."""
    sent: list[int] = []
    commit_async = storage.commit_async

    async def counted(operations: Sequence[Operation]) -> list[Outcome]:
        sent.append(len(operations))
        return await commit_async(operations)

    monkeypatch.setattr(storage, "commit_async", counted)

    @step
    async def square(n: int) -> int:
        return n * n

    @workflow(id="sum-{n}")
    async def sum_of(n: int) -> int:
        return sum([await square(i) for i in range(n)])

    async def many() -> list[int]:
        return [await sum_of(3), *await asyncio.gather(*(sum_of(n) for n in range(4, 24)))]

    with Runtime(storage) as rt:
        assert asyncio.run(many()) == [sum(i * i for i in range(n)) for n in range(3, 24)]
        assert len(rt.run("sum-23").steps()) == 23
    assert sum(sent) >= sum(range(3, 24))
    assert max(sent) > 1
    assert len(sent) < sum(range(3, 24))


def test_a_blocked_loop_keeps_no_lock() -> None:
    """A body that blocks its loop never waits for locks of an async commit of that loop."""

    async def main(storage: PostgresStorage) -> None:
        for number in range(5):
            two = [PutStep(a_step(key=f"{number}"), 1), UpdateRun("r", {"tags": {"n": number}}, epoch=1)]
            beside = asyncio.create_task(storage.commit_async(two))
            while not beside.done():
                await asyncio.sleep(0)
                assert storage.commit([UpdateRun("r", {"priority": number}, epoch=1)]) == [Done()]
            await beside

    with PostgresStorage(postgres_url(patience=10)) as storage:
        open_run(storage)
        asyncio.run(main(storage))


def test_groups_are_one_statement(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of many runs are one statement, the renewal of leases too, and refused ones are explained."""
    for name in "abc":
        open_run(storage, name)
    storage.commit([UpdateRun("b", {}, epoch=1, release=True), ClaimRun("b", 1, "other", 30.0)])
    steps = [PutStep(a_step(run, f"{run}{n}"), 1) for n in range(2) for run in ("a", "b", "c", "none")]
    renewals = [UpdateRun(run, {}, epoch=1, lease=50.0) for run in ("a", "b", "c", "none")]
    asked: list[int] = []
    whole = PostgresStorage._in_transaction

    def in_transaction(
        self: PostgresStorage, connection: object, operations: list[Operation]
    ) -> list[Outcome]:
        asked.append(len(operations))
        return whole(self, connection, operations)  # type: ignore[arg-type]

    monkeypatch.setattr(PostgresStorage, "_in_transaction", in_transaction)
    found = storage.commit(steps)
    assert [type(one) for one in found] == [Done, Fenced, Done, Missing] * 2
    assert [one.seq for one in found if isinstance(one, Done)] == [1, 1, 2, 2]
    assert [one.key for one in storage.list_steps("c")] == ["c0", "c1"]
    renewed = storage.commit(renewals)
    assert [type(one) for one in renewed] == [Done, Fenced, Done, Missing]
    assert storage.get_run("a").lease_until > storage.now() + 40  # type: ignore[union-attr]
    assert asked == [4, 2]
    assert len(storage.commit([steps[0], steps[2]])) == 2
    assert asked == [4, 2]


def test_no_number_of_async_callers_makes_an_outage_longer(storage: PostgresStorage) -> None:
    """During an outage all async callers wait together, each gets its error, and runs stay resumable."""
    open_run(storage)

    async def callers() -> list[object]:
        async def gone(operations: Sequence[Operation]) -> list[Outcome]:
            calls.append(len(operations))
            await asyncio.sleep(0)
            raise StorageUnavailable("gone", lasting=True)

        storage.commit_async = gone  # type: ignore[method-assign]
        put = [PutStep(a_step(key="a"), 1)]
        return await asyncio.gather(
            *(committer.commit_async(put) for _ in range(500)), return_exceptions=True
        )

    calls: list[int] = []
    committer = Committer(storage)
    errors = asyncio.run(callers())
    assert len(calls) == 1
    assert len({id(error) for error in errors}) == 500
    assert all(isinstance(error, StorageUnavailable) for error in errors)


def test_other_processes_are_heard(storage: PostgresStorage) -> None:
    """A message, reply or cancel from another storage wakes the waiting run, and a step does not."""
    open_run(storage)
    open_run(storage, "q")
    seen = storage.wait_for_change(0, 10.0, ["run:r"])
    deadline = time.monotonic() + 60
    while storage.listens is None and time.monotonic() < deadline:
        seen = storage.wait_for_change(seen, 0.2, ["run:r"])
    while (version := storage.wait_for_change(seen, 0.3, ["run:r"])) != seen:
        seen = version
    with PostgresStorage(storage.url or "") as other:
        other.commit([PutStep(a_step(), 1), AddSignal(Signal("x", "q", "go"))])
        assert storage.wait_for_change(seen, 0.3, ["run:r"]) == seen
        other.commit([AddSignal(Signal("x", "r", "go"))])
        assert storage.wait_for_change(seen, 60.0, ["run:r"]) != seen


def test_many_start_at_once() -> None:
    """Of several processes that open a missing schema, one makes it, and all can use it."""
    url = postgres_url()
    with ThreadPoolExecutor(6) as pool:
        storages = list(pool.map(PostgresStorage, [url] * 6))
    for number, one in enumerate(storages):
        with one:
            open_run(one, f"r{number}")
            assert len(one.list_runs()) == number + 1


def test_runs_go_on_in_another_runtime() -> None:
    """A run that one process recorded goes on in another."""

    @step
    def charge(n: int) -> int:
        charged.append(n)
        return n

    charged: list[int] = []
    broken = [True]

    @workflow(id="order")
    def order() -> int:
        first = charge(1)
        if broken:
            raise KeyboardInterrupt
        return first + charge(2)

    url = postgres_url()
    with Runtime(url), pytest.raises(KeyboardInterrupt):
        order()
    broken.clear()
    with Runtime(url) as rt:
        assert order() == 3
        assert rt.run("order").status == "completed"
    assert charged == [1, 2]


def test_the_clock_is_the_servers(storage: PostgresStorage) -> None:
    """The server's clock counts, kept as an offset from the monotonic clock."""
    ((there,),) = storage._read(storage._sql.now, ())
    assert abs(storage.now() - there) < 5
    statements: list[object] = []
    storage._read = statements.append  # type: ignore[method-assign,assignment]
    storage.now()
    assert statements == []


@pytest.mark.parametrize(
    "url", ["postgresql://h/d?schema=", "postgresql://h/d?patience=soon", "postgresql://h/d?prepare=maybe"]
)
def test_malformed_urls(url: str) -> None:
    """A malformed URL is refused, and the message says what the option takes."""
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match="schema|patience|prepare"):
        open_storage(url)


def test_a_storage_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing driver is one line that says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=r"pip install 'flowdsl\[postgres\]'"):
        open_storage("postgresql://host/database")


def test_a_missing_driver_does_not_keep_anybody_from_looking_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at everything in the package, such as ``inspect``, needs no driver."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(vars(flowdsl.storage), "PostgresStorage", raising=False)
    assert {"MemoryStorage", "SQLiteStorage"} <= dict(inspect.getmembers(flowdsl.storage)).keys()
