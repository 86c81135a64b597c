"""The tables, sessions and notifications of the PostgreSQL storage, as the server sees them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from postgres_server import postgres_url

pytest.importorskip("psycopg")
import psycopg

from flowdsl import Runtime, step, workflow
from flowdsl.core.records import Signal
from flowdsl.storage.migrations import migrations
from flowdsl.storage.operations import AddSignal, PutStep, UpdateRun
from flowdsl.storage.postgres import PostgresStorage
from flowdsl.storage.postgres.rows import topic_key
from flowdsl.testing.storage.samples import a_step, open_run


def schema_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["schema"][0]


def asked(storage: PostgresStorage, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of *query*, on a connection as the storage makes them."""
    with storage._connections.connect() as connection:
        return connection.execute(query.encode(), values).fetchall()


def test_an_older_schema_is_migrated_by_one_of_many_that_start() -> None:
    """An older schema is migrated once, although many processes start."""
    url = postgres_url()
    quoted = f'"{schema_of(url)}"'
    dsn = url.replace(f"&schema={schema_of(url)}", "").replace(f"?schema={schema_of(url)}", "")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {quoted}".encode())
        connection.execute(migrations("postgres")[0].sql.replace("{schema}", quoted).encode())
        connection.execute(f"CREATE TABLE {quoted}.flowdsl_schema (version bigint NOT NULL)".encode())
        connection.execute(f"INSERT INTO {quoted}.flowdsl_schema VALUES (1)".encode())
        connection.execute(
            f"INSERT INTO {quoted}.runs (id, epoch, status, lease_until, workflow, key, created_at, retryable, "
            "undoing, floor, recoveries, version, args_preview, result_preview, error_preview, args) VALUES "
            "('old', 1, 'completed', 0, 'w', 'k', 1, false, '', 0, 0, '', '', '', '', '')".encode()
        )
    with ThreadPoolExecutor(6) as pool:
        storages = list(pool.map(PostgresStorage, [url] * 6))
    for storage in storages:
        with storage:
            assert storage.get_run("old") is not None
    with PostgresStorage(url) as storage:
        assert asked(storage, f"SELECT version FROM {quoted}.flowdsl_schema") == [
            (migrations("postgres")[-1].version,)
        ]


def test_room_for_leases_and_no_index_on_them() -> None:
    """Renewed leases stay in their page: fillfactor 85, and no index on ``lease_until``."""
    with PostgresStorage(url := postgres_url()) as storage:
        ((options,),) = asked(
            storage,
            "SELECT reloptions FROM pg_class WHERE relname = 'runs' AND relnamespace = to_regnamespace(%s)",
            schema_of(url),
        )
        assert "fillfactor=85" in options
        indexes = asked(storage, "SELECT indexdef FROM pg_indexes WHERE schemaname = %s", schema_of(url))
        assert len(indexes) > 10
        assert not [text for (text,) in indexes if "lease_until" in text]


def test_no_session_waits_for_ever() -> None:
    """Statements, locks and idle transactions have a time limit, and TCP notices a dead host."""
    with PostgresStorage(postgres_url()) as storage, storage._connections.connect() as connection:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        found = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in names}
        assert found == dict(zip(names, [("1min",), ("20s",), ("20s",)], strict=True))
        given = connection.info.get_parameters()
        assert {
            name: given[name] for name in ("keepalives_idle", "keepalives_interval", "keepalives_count")
        } == {
            "keepalives_idle": "5",
            "keepalives_interval": "2",
            "keepalives_count": "3",
        }
    with PostgresStorage(postgres_url(patience=3)) as storage:
        assert asked(storage, "SHOW lock_timeout") == [("3s",)]


def test_names_need_no_search_path() -> None:
    """The storage works with a search path that leads nowhere."""

    @step
    def charge(n: int) -> int:
        return n

    @workflow(id="order")
    def order() -> int:
        return sum(charge.map(range(3)))

    with Runtime(postgres_url(options="-csearch_path=nowhere")) as rt:
        assert asked(rt.storage, "SHOW search_path") == [("nowhere",)]  # type: ignore[arg-type]
        assert order() == 3
        order.options(id="again").enqueue()
        rt.signal("again", "go")
        assert len(rt.runs()) == 2


def test_only_what_is_waited_for_is_notified() -> None:
    """Only changes that somebody waits for are notified, and never a step."""
    with PostgresStorage(postgres_url()) as storage, storage._connections.connect() as ear:
        open_run(storage)
        open_run(storage, "q")
        ear.execute(f"LISTEN {storage._channel}".encode())
        storage.commit([PutStep(a_step(), 1), AddSignal(Signal("1", "r", "go"))])
        storage.commit([UpdateRun("q", {"priority": 1}, epoch=1)])
        storage.wait_for_change(0, 0.0, ["run:r"])  # enters the wait
        storage.commit([PutStep(a_step(key="more"), 1), PutStep(a_step("q"), 1)])
        storage.commit([AddSignal(Signal("2", "q", "go"))])
        storage.commit([AddSignal(Signal("3", "r", "go"))])
        storage.commit([AddSignal(Signal("4", "r", "go"))])
        heard: list[str] = []
        for note in ear.notifies(timeout=60):  # in the order of the commits
            heard += [note.payload] * (note.payload != "test")
            if len(heard) == 2:
                break
        assert heard == [topic_key("run:r")] * 2


def test_waits_that_ended_long_ago_are_forgotten() -> None:
    """The first wait of a process deletes the waits that ended long ago, and no others."""
    with PostgresStorage(postgres_url()) as storage, storage._connections.connect() as ear:
        waits = f"{storage._sql.schema}.waits"
        ear.execute(f"INSERT INTO {waits} VALUES ('old', 0), ('new', 1e12)".encode())
        ear.execute(f"LISTEN {storage._channel}".encode())
        storage.wait_for_change(0, 0.0, ["run:r"])
        next(ear.notifies(timeout=60))  # what its listener sends itself, once it has tidied up
        topics = {topic for (topic,) in ear.execute(f"SELECT topic FROM {waits}".encode())}
        assert topics == {"new", topic_key("run:r")}
