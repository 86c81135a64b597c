"""Steps whose effects and record are committed in one transaction, on SQLite and PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transactions import Database, insert, insert_async, open_database

import flowdsl
from flowdsl import Retry, Runtime, step, workflow
from flowdsl.errors import LeaseLost, ResultNotStorable, StorageUnavailable
from flowdsl.storage import MemoryStorage, open_storage
from flowdsl.storage.operations import Operation
from flowdsl.storage.outcomes import Outcome
from flowdsl.storage.relay import RelayStorage
from flowdsl.storage.step_transactions import StepTransaction

QUICK = Retry(attempts=3, initial=0.001)


@pytest.fixture(params=["full", "normal", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """One of each kind."""
    return open_database(request.param, tmp_path)


@pytest.fixture
def postgres(tmp_path: Path) -> Database:
    """One that has what only PostgreSQL has."""
    return open_database("postgres", tmp_path)


def make_booking(database: Database, is_async: bool, body: Callable[..., Any] | None = None) -> Any:
    """A transactional step that books a name, then calls *body* with the connection; and a workflow of it."""
    calls: list[str] = []

    def book(name: str, *, connection: Any) -> str:
        calls.append(name)
        insert(connection, database.table, name)
        return body(connection) if body else name.upper()

    async def book_async(name: str, *, connection: Any) -> str:
        calls.append(name)
        await insert_async(connection, database.table, name)
        return body(connection) if body else name.upper()

    booking = step(book_async if is_async else book, name="book", transaction=True, retry=QUICK)

    def trip(name: str) -> Any:
        return booking(name)

    async def trip_async(name: str) -> Any:
        return await booking(name)

    made = workflow(trip_async if is_async else trip, name="trip", id="trip-{name}")
    made.calls = calls
    return made


def perform(trip: Any, name: str, is_async: bool) -> Any:
    """Call the workflow."""
    return asyncio.run(trip(name)) if is_async else trip(name)


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@both
def test_rows_and_record_are_committed_together(database: Database, is_async: bool) -> None:
    """The user's rows and the record exist when the call has returned, and a replay executes nothing."""
    trip = make_booking(database, is_async)
    with Runtime(database.url) as rt:
        assert perform(trip, "ann", is_async) == "ANN"
        assert database.rows() == ["ann"]
        assert [s.status for s in rt.run("trip-ann").steps()] == ["completed"]
    with Runtime(database.url):
        assert perform(trip, "ann", is_async) == "ANN"
    assert trip.calls == ["ann"]


@both
def test_an_attempt_that_fails_is_rolled_back(database: Database, is_async: bool) -> None:
    """Only rows of the successful attempt exist."""
    left = [2]

    def fails_twice(connection: Any) -> str:
        if left[0]:
            left[0] -= 1
            raise OSError("no seat")
        return "done"

    trip = make_booking(database, is_async, fails_twice)
    with Runtime(database.url) as rt:
        assert perform(trip, "ann", is_async) == "done"
        (record,) = rt.run("trip-ann").steps()
    assert record.attempts == 3
    assert trip.calls == ["ann"] * 3
    assert database.rows() == ["ann"]


@both
def test_undo_may_be_transactional_too(database: Database, is_async: bool) -> None:
    """An undo with ``transaction=True`` commits rows and record together, and a failed attempt is rolled
    back."""
    attempts: list[str] = []

    def cancel(name: str, *, connection: Any) -> None:
        attempts.append(name)
        insert(connection, database.table, f"{name} was cancelled")
        if len(attempts) == 1:
            raise OSError("again")

    async def cancel_async(name: str, *, connection: Any) -> None:
        attempts.append(name)
        await insert_async(connection, database.table, f"{name} was cancelled")
        if len(attempts) == 1:
            raise OSError("again")

    undo = step(cancel_async if is_async else cancel, name="cancel", transaction=True, retry=QUICK)

    @step(transaction=True, undo=undo)
    def book(name: str, *, connection: Any) -> str:
        insert(connection, database.table, name)
        return name

    @workflow(id="trip")
    def trip() -> None:
        book("ann")
        raise ValueError("no hotel")

    with Runtime(database.url) as rt:
        with pytest.raises(ValueError, match="no hotel"):
            trip()
        assert [s.status for s in rt.run("trip").steps() if s.path.endswith("book")] == ["undone"]
    assert attempts == ["ann", "ann"]
    assert database.rows() == ["ann", "ann was cancelled"]


@both
def test_a_storage_without_transactions_is_refused_before_the_body(is_async: bool) -> None:
    """A storage without transactions is refused before the body, nothing is recorded, and the error names
    suitable storages."""
    trip = make_booking(Database("memory", ""), is_async)
    with Runtime(MemoryStorage()) as rt:
        with pytest.raises(TypeError, match=r"MemoryStorage has no transactions.*SQLite or PostgreSQL"):
            perform(trip, "ann", is_async)
        assert rt.run("trip-ann").steps() == []
    assert trip.calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "send"},
        {"mode": "try"},
        {"executor": ThreadPoolExecutor(1)},
        {"heartbeat": "5 sec"},
        {"transaction": "yes"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_do_not_go_with_it(options: dict[str, Any]) -> None:
    """Options that do not go with ``transaction=True`` are refused, at the decorator and in ``options``."""
    with pytest.raises(TypeError, match="transaction"):
        step(**{"transaction": True, "name": "book", **options})(lambda *, connection: None)


def test_a_body_without_the_parameter_is_refused() -> None:
    """A body without the parameter ``connection`` is refused."""
    with pytest.raises(TypeError, match="give it a parameter `connection`"):

        @step(transaction=True)
        def book(name: str) -> None: ...


def test_it_executes_where_it_is_called(database: Database) -> None:
    """``submit`` and ``map`` of a transactional step are refused, inside a run and outside."""

    @step(transaction=True)
    def book(name: str, *, connection: Any = None) -> None: ...

    @workflow
    def trip(way: str) -> Any:
        return book.submit("ann") if way == "submit" else book.map(["ann"])

    with Runtime(database.url):
        for way in ("submit", "map"):
            with pytest.raises(TypeError, match="executed where it is called"):
                trip(way)
        with pytest.raises(TypeError, match="executed where it is called"):
            book.submit("ann")


@pytest.mark.parametrize(
    "ends",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.rollback(),
        lambda connection: connection.close(),
        lambda connection: connection.__enter__(),
        lambda connection: connection.execute("COMMIT"),
        lambda connection: connection.cursor().execute("ROLLBACK"),
        lambda connection: [connection.execute(word) for word in ("COMMIT", "BEGIN")].clear(),
    ],
    ids=["commit", "rollback", "close", "with", "COMMIT", "ROLLBACK", "COMMIT BEGIN"],
)
def test_a_body_cannot_end_its_transaction(database: Database, ends: Callable[[Any], Any]) -> None:
    """A body that ends its transaction gets an error, and no record is stored."""
    trip = make_booking(database, False, ends)
    with Runtime(database.url) as rt:
        with pytest.raises(TypeError, match="its transaction"):
            trip("ann")
        assert [s.status for s in rt.run("trip-ann").steps()] == ["failed"]
    assert trip.calls == ["ann"]
    if database.kind != "postgres":
        assert database.rows() == []


def test_the_connection_counts_for_no_key(database: Database) -> None:
    """``connection`` is not part of the key, and passing one in a run is refused."""

    def plain(name: str, seat: int = 1) -> None: ...
    def first(connection: Any, name: str, seat: int = 1) -> Any:
        return type(connection).__name__, name, seat

    def last(name: str, seat: int = 1, *, connection: Any) -> Any:
        return type(connection).__name__, name, seat

    key = step(plain, name="book").key("ann", 2)
    for fn in (first, last):
        book: Any = step(fn, name="book", transaction=True)
        assert book.key("ann", 2) == key

        @workflow
        def trip(**more: Any) -> Any:
            return book("ann", 2, **more)

        with Runtime(database.url) as rt:
            assert trip() == ("StepConnection", "ann", 2)
            assert rt.do(book, "bob") == ("StepConnection", "bob", 1)
            with pytest.raises(TypeError, match="unexpected keyword argument 'connection'"):
                trip(connection="mine")
    assert first("mine", "ann") == ("str", "ann", 1)


@both
def test_nothing_else_is_stored_by_the_body(database: Database, is_async: bool) -> None:
    """Steps, ``store``, ``publish`` and messages are refused in the body; values and log lines go with the
    record."""

    @step
    def other() -> None: ...

    refused: list[str] = []

    def calls(connection: Any) -> str:
        for call in (other, lambda: flowdsl.store.set("a", 1), lambda: flowdsl.publish("c", 1)):
            try:
                call()
            except TypeError as error:
                refused.append(str(error))
        flowdsl.log("booked", seat=3)
        return flowdsl.uuid4().hex + str(flowdsl.now().timestamp())

    trip = make_booking(database, is_async, calls)
    with Runtime(database.url) as rt:
        first = perform(trip, "ann", is_async)
        assert [line.message for line in rt.run("trip-ann").logs()] == ["booked"]
    assert len(refused) == 3
    assert all("transactional step" in text or "async" in text for text in refused)
    with Runtime(database.url):
        assert perform(trip, "ann", is_async) == first


@both
def test_an_owner_that_was_overtaken_commits_nothing(database: Database, is_async: bool) -> None:
    """A former owner's rows are rolled back with its record."""
    runs = "runs" if database.kind != "postgres" else database.table.replace("booked", "runs")

    def overtaken(connection: Any) -> str:
        if is_async and database.kind == "postgres":
            database.execute(f"UPDATE {runs} SET epoch = epoch + 1")
        else:
            connection.execute(f"UPDATE {runs} SET epoch = epoch + 1")
        return "too late"

    trip = make_booking(database, is_async, overtaken)
    with Runtime(database.url), pytest.raises(LeaseLost):
        perform(trip, "ann", is_async)
    assert database.rows() == []


def test_a_result_that_cannot_be_stored_takes_its_rows_back(database: Database) -> None:
    """A result that cannot be stored rolls its rows back, and the run stays resumable."""
    results: list[Any] = [open_storage, lambda: 1]
    trip = make_booking(database, False, lambda connection: (x for x in ()) if results.pop() else 1)
    with Runtime(database.url), pytest.raises(ResultNotStorable):
        trip("ann")
    assert database.rows() == []


class Lossy(RelayStorage):
    """Loses the connection once, *before* or after the COMMIT of a body took effect."""

    def __init__(self, url: str, before: bool) -> None:
        super().__init__(open_storage(url))
        self.left = 1
        self.before = before

    def _lose(self) -> None:
        self.left = 0
        raise StorageUnavailable("lost", outcome_unknown=True, lasting=True) from ConnectionError("lost")

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        if self.left and self.before:
            self._lose()
        outcomes = super().commit_transaction(transaction, operations)
        if self.left:
            self._lose()
        return outcomes

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        if self.left and self.before:
            self._lose()
        outcomes = await super().commit_transaction_async(transaction, operations)
        if self.left:
            self._lose()
        return outcomes


@both
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_connection_lost_in_commit_is_never_guessed(
    database: Database, is_async: bool, before: bool
) -> None:
    """After a connection lost during COMMIT the database is asked, and the step has completed or is attempted
    again."""
    trip = make_booking(database, is_async)
    storage = Lossy(database.url, before)
    with Runtime(storage) as rt:
        assert perform(trip, "ann", is_async) == "ANN"
        (record,) = rt.run("trip-ann").steps()
        assert record.attempts == (2 if before else 1)
    storage.close()
    assert database.rows() == ["ann"]


@both
def test_a_server_that_cuts_the_connection_in_the_body(postgres: Database, is_async: bool) -> None:
    """If the server cuts the connection in the body, the attempt is rolled back and the next has a new
    connection."""
    pids: list[int] = []

    def cut(connection: Any) -> str:
        pids.append(connection.info.backend_pid)
        if len(pids) == 1:
            postgres.execute(f"SELECT pg_terminate_backend({pids[0]}, 10000)")
        return "done"

    trip = make_booking(postgres, is_async, cut)
    with Runtime(postgres.url):
        assert perform(trip, "ann", is_async) == "done"
    assert len(set(pids)) == 2
    assert postgres.rows() == ["ann"]


@both
def test_a_constraint_that_is_checked_at_the_end_is_the_steps_failure(
    postgres: Database, is_async: bool
) -> None:
    """A constraint that is checked at COMMIT is a failure of the step, which the caller can catch."""
    postgres.execute("ALTER TABLE booked ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    postgres.execute("INSERT INTO booked VALUES ('ann')")
    trip = make_booking(postgres, is_async)
    with Runtime(postgres.url) as rt:
        with pytest.raises(Exception, match="duplicate key"):
            perform(trip, "ann", is_async)
        assert [(s.status, s.attempts) for s in rt.run("trip-ann").steps()] == [("failed", 3)]
    assert postgres.rows() == ["ann"]


def test_a_failed_statement_that_the_body_passes_over(postgres: Database) -> None:
    """A failed statement that the body ignores fails the commit, unless a savepoint surrounds it."""
    import psycopg

    def passes_over(connection: Any) -> str:
        try:
            with connection.transaction():
                connection.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            pass
        if savepoint_only:
            return "done"
        try:
            connection.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero:
            pass
        return "done"

    savepoint_only = False
    trip = make_booking(postgres, False, passes_over)
    with Runtime(postgres.url):
        with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="the body went on"):
            trip("ann")
        assert postgres.rows() == []
        savepoint_only = True
        assert trip("bob") == "done"
    assert postgres.rows() == ["bob"]


def test_what_a_body_sets_on_its_connection_ends_with_it(database: Database) -> None:
    """Settings that a body makes on its connection do not reach the next body."""
    seen: list[Any] = []

    def sets(connection: Any) -> str:
        seen.append(connection.row_factory)
        connection.row_factory = lambda *_: None if database.kind != "postgres" else (lambda values: {})
        if database.kind == "postgres":
            connection.execute("SET search_path = nowhere")
        return "done"

    trip = make_booking(database, False, sets)
    with Runtime(database.url):
        assert trip("ann") == trip("bob") == "done"
    assert seen[0] is seen[1]
    assert database.rows() == ["ann", "bob"]


def test_a_body_that_its_timeout_leaves_behind_writes_nothing(database: Database) -> None:
    """A body that its timeout left behind is rolled back, and its connection is closed."""
    import threading

    late, ended = threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    @step(transaction=True, timeout=0.2, retry=Retry(attempts=1))
    def book(name: str, *, connection: Any) -> None:
        try:
            insert(connection, database.table, name)  # on a slow machine it may be late already
            late.wait(60)
            insert(connection, database.table, name)
        except Exception as error:
            outcome.append(error)
        ended.set()

    @workflow
    def trip() -> None:
        book("ann")

    with Runtime(database.url):
        with pytest.raises(TimeoutError):
            trip()
        late.set()
        assert ended.wait(60)
    assert "closed" in str(outcome[0])
    assert database.rows() == []


def test_others_write_while_an_async_body_is_in_its_transaction(database: Database) -> None:
    """Other steps of the event loop wait until an async body's transaction has ended, without blocking the
    loop."""

    @step
    async def plain(n: int) -> int:
        return n

    @step(transaction=True)
    async def book(name: str, *, connection: Any) -> str:
        await insert_async(connection, database.table, name)
        began.set()
        await asyncio.sleep(0)
        return name

    @workflow
    async def trip(name: str) -> str:
        return await book(name)

    @workflow
    async def other(n: int) -> int:
        await began.wait()
        return sum([await plain(i) for i in range(n)])

    async def all_of_them() -> list[Any]:
        nonlocal began
        began = asyncio.Event()
        return await asyncio.gather(*(other(4) for _ in range(10)), *(trip(str(n)) for n in range(10)))

    began = asyncio.Event()
    with Runtime(database.url):
        found = asyncio.run(all_of_them())
    assert found == [6] * 10 + [str(n) for n in range(10)]
    assert database.rows() == sorted(map(str, range(10)))


@both
def test_cancelling_in_a_body_rolls_back(database: Database, is_async: bool) -> None:
    """Cancelling in a body rolls back and leaves the run resumable."""
    interrupts: list[type[BaseException]] = [KeyboardInterrupt]

    def interrupted(connection: Any) -> str:
        if interrupts:
            raise interrupts.pop()
        return "done"

    trip = make_booking(database, is_async, interrupted)
    with Runtime(database.url), pytest.raises(KeyboardInterrupt):
        perform(trip, "ann", is_async)
    assert database.rows() == []
    with Runtime(database.url):
        assert perform(trip, "ann", is_async) == "done"
    assert database.rows() == ["ann"]


def test_a_task_that_is_cancelled_while_its_transaction_is_committed(database: Database) -> None:
    """A task that is cancelled during COMMIT learns whether its record was stored."""

    async def main() -> None:
        task = asyncio.create_task(trip("ann"))
        watched.task = task
        with pytest.raises(asyncio.CancelledError):
            await task

    class Watched(RelayStorage):
        task: Any = None

        async def commit_transaction_async(
            self, transaction: StepTransaction, operations: Sequence[Operation], /
        ) -> list[Outcome]:
            self.task.cancel()
            await asyncio.sleep(0)
            return await super().commit_transaction_async(transaction, operations)

    trip = make_booking(database, True)
    watched = Watched(open_storage(database.url))
    with Runtime(watched) as rt:
        asyncio.run(main())
        assert [s.status for s in rt.run("trip-ann").steps()] == ["completed"]
        assert rt.run("trip-ann").status == "running"
    watched.close()
    assert database.rows() == ["ann"]


def test_sqlite_gives_a_connection_of_its_own_kind(tmp_path: Path) -> None:
    """On SQLite the connection is an ``sqlite3.Connection``."""
    database = open_database("full", tmp_path)
    trip = make_booking(database, False, lambda connection: str(isinstance(connection, sqlite3.Connection)))
    with Runtime(database.url):
        assert trip("ann") == "True"
