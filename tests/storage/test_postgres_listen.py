"""How a process hears of what others have changed, on PostgreSQL."""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from postgres_server import postgres_url

pytest.importorskip("psycopg")
import psycopg

from flowdsl.core.records import Signal
from flowdsl.storage.changes import Changes
from flowdsl.storage.operations import AddSignal
from flowdsl.storage.postgres import PostgresStorage, listen
from flowdsl.storage.postgres.fragments import NOW
from flowdsl.testing.storage.samples import open_run

DEADLINE = 60.0  # seconds, for what ends at once when it has happened


def closed_listener() -> listen.Listener:
    """A listener that does not listen, and only knows who waits for what."""
    sql: Any = SimpleNamespace(wait="wait", number="number", under_way="under way")

    def connect() -> Any:
        raise AssertionError("it is closed, and does not listen")

    listener = listen.Listener(Changes(), sql, "channel", connect, lambda run_ids: [])
    listener.close()
    return listener


def test_a_wait_that_is_over_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has waited for lately takes no room. Who waits for it again is told to look once more."""
    entered: list[Any] = []
    listener = closed_listener()

    def execute(statement: str, values: Any) -> Any:
        entered.extend([values] if statement == "wait" else ())
        return ()

    def learn(topic: str) -> bool:
        return listener.learn(frozenset({topic}), execute)

    assert learn("run:a")
    assert not learn("run:a")
    monkeypatch.setattr(listen, "_KEPT", -120.0)  # as if all had been entered two minutes ago
    assert learn("run:b")
    monkeypatch.undo()
    assert learn("run:a")
    assert len(entered) == 3


def test_a_process_that_lives_long_takes_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who have waited for a day, only those of the last minutes are kept."""
    now = 1000.0
    monkeypatch.setattr(listen, "time", SimpleNamespace(monotonic=lambda: now))
    listener = closed_listener()
    for number in range(24 * 60):
        now += 60.0
        listener.learn(frozenset({f"run:{number}", "queues"}), lambda statement, values: ())
    assert max(len(listener._topics), len(listener._until)) < 6


def test_a_wait_that_was_not_renewed_looks_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes back after its wait has left the table is told to look: nobody was notified meanwhile."""
    listener, now = closed_listener(), 1000.0
    monkeypatch.setattr(listen, "time", SimpleNamespace(monotonic=lambda: now))

    def learn(passed: float) -> bool:
        nonlocal now
        now += passed
        return listener.learn(frozenset({"run:a"}), lambda statement, values: ())

    assert learn(0.0)
    assert not learn(listen._KEPT * 0.9)
    assert learn(listen._KEPT * 1.1)
    assert not learn(0.0)


def test_a_wait_that_is_lost_while_it_is_entered_is_entered_again() -> None:
    """Whoever comes back is told to look once more if the server crashed after its wait was entered."""
    listener = closed_listener()

    def execute(statement: str, values: Any) -> Any:
        if statement == "under way":
            listener.lost()
        return ()

    assert listener.learn(frozenset({"run:a"}), execute)
    assert listener.learn(frozenset({"run:a"}), lambda statement, values: ())
    assert not listener.learn(frozenset({"run:a"}), lambda statement, values: ())


def test_waits_are_entered_again_when_notifications_arrive_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks after waits that are entered while nothing arrives. So they are entered once more."""
    entered: list[bool] = []

    class Connection(nullcontext[Any]):
        def __init__(self, arriving: int) -> None:
            super().__init__(self)
            self.arriving = arriving

        def execute(self, statement: Any, values: Any = ()) -> None:
            if statement == "sweep" and len(entered) == 1 and not self.arriving:
                raise psycopg.OperationalError("the connection is lost")

        def notifies(self, timeout: float, stop_after: int) -> list[Any]:
            entered.append(listener.learn(frozenset({"queues"}), lambda statement, values: ()))
            if len(entered) == 3:
                listener.close()
            return [SimpleNamespace(payload="test")] * self.arriving

    monkeypatch.setattr(listen, "_SWEEP", -1.0)  # it looks at its connection each time
    sql: Any = SimpleNamespace(wait="wait", number="number", under_way="under way", forget_waits="sweep")
    connections: Any = iter([Connection(0), Connection(1)])
    listener = listen.Listener(Changes(), sql, "channel", lambda: next(connections), lambda run_ids: [])
    listener._thread = threading.current_thread()
    listener._run()
    assert entered == [True, False, True]


@pytest.fixture
def storage() -> Iterator[PostgresStorage]:
    """A storage that hears notifications, with a run ``r``."""
    with PostgresStorage(postgres_url(application_name=uuid.uuid4().hex)) as storage:
        open_run(storage)
        settled(storage, "run:another")
        assert storage.listens
        yield storage


def settled(storage: PostgresStorage, topic: str) -> int:
    """The version after which somebody who waits for the topic sleeps."""
    seen = storage.wait_for_change(0, 0.0, [topic])
    while (now := storage.wait_for_change(seen, 1.0, [topic])) != seen or storage.listens is None:
        seen = now
    return seen


def test_a_commit_that_overlooked_a_wait_is_heard(storage: PostgresStorage) -> None:
    """A commit is heard although it looked for waits before this one was entered, and became visible later."""
    with ThreadPoolExecutor(1) as pool, psycopg.connect(storage._address.dsn) as connection:
        storage.commit_within(connection, [AddSignal(Signal("x", "r", "go"))])
        seen = settled(storage, "run:r")
        waiter = pool.submit(storage.wait_for_change, seen, DEADLINE, ["run:r"])
        while "run:r" not in storage._changes.waited_for():
            assert not waiter.done()
        connection.commit()
        assert waiter.result() != seen


def test_a_commit_that_began_while_a_wait_was_entered_is_heard(storage: PostgresStorage) -> None:
    """A commit is heard although its transaction is younger than the one that enters the wait, and looked for
    waits before that one had ended."""
    schema = storage._sql.schema
    with (
        psycopg.connect(storage._address.dsn, autocommit=True) as door,
        psycopg.connect(storage._address.dsn) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        door.execute(
            f"CREATE FUNCTION {schema}.passes() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_advisory_xact_lock_shared(17); RETURN NULL; END'"
        )
        door.execute(
            f"CREATE TRIGGER passes AFTER INSERT ON {schema}.waits "
            f"FOR EACH ROW EXECUTE FUNCTION {schema}.passes()"
        )
        door.execute("SELECT pg_advisory_lock(17)")
        entering = pool.submit(storage.wait_for_change, 0, 0.0, ["run:r"])
        while not door.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            assert not entering.done()
        storage.commit_within(connection, [AddSignal(Signal("x", "r", "go"))])
        door.execute("SELECT pg_advisory_unlock(17)")
        entering.result()
        seen = settled(storage, "run:r")
        waiter = pool.submit(storage.wait_for_change, seen, DEADLINE, ["run:r"])
        while "run:r" not in storage._changes.waited_for():
            assert not waiter.done()
        connection.commit()
        assert waiter.result() != seen


def test_a_commit_that_cannot_see_a_wait_is_heard(storage: PostgresStorage) -> None:
    """A commit is heard although its transaction is isolated from waits that were entered since it began."""
    with psycopg.connect(storage._address.dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        seen = settled(storage, "run:r")
        storage.commit_within(connection, [AddSignal(Signal("x", "r", "go"))])
        connection.commit()
        assert storage.wait_for_change(seen, DEADLINE, ["run:r"]) != seen


def test_waits_that_the_server_has_lost_are_entered_again(storage: PostgresStorage) -> None:
    """After a crash or a failover of the server nobody is in its table of waits. Whoever waits enters it
    again, and hears of what is committed then."""
    seen = settled(storage, "run:r")
    with PostgresStorage(storage.url or "") as other, psycopg.connect(storage._address.dsn) as connection:
        connection.execute(f"TRUNCATE {storage._sql.schema}.waits")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
        )
        connection.commit()
        assert storage.wait_for_change(seen, DEADLINE, ["run:r"]) != seen  # it listens again
        seen = settled(storage, "run:r")
        other.commit([AddSignal(Signal("x", "r", "go"))])
        assert storage.wait_for_change(seen, DEADLINE, ["run:r"]) != seen


def test_outdated_waits_leave_the_table(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a process lives, it deletes what nobody has waited for in the last hour from the table."""
    with psycopg.connect(storage._address.dsn, autocommit=True) as connection:
        table, of = f"{storage._sql.schema}.waits", f"until < {NOW} - 3600"
        connection.execute(f"INSERT INTO {table} SELECT 'old' || n, 0 FROM generate_series(1, 5) n")
        monkeypatch.setattr(listen, "_SWEEP", 0.0)
        end = time.monotonic() + DEADLINE
        while connection.execute(f"SELECT FROM {table} WHERE {of}").fetchall():
            assert time.monotonic() < end
        assert connection.execute(f"SELECT FROM {table}").fetchall()
