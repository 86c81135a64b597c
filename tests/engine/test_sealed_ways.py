"""Every way into a sealed storage and out of it, and what workers do about records that were altered."""

import asyncio
import contextlib
import inspect
import re
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from attacker import Attacker
from paying import SECRET, did, pay
from postgres_server import postgres_url

from flowdsl import Queue, RunStatus, Runtime, Schedule, aio, step, wait_for, workflow
from flowdsl.engine.sealed import SealedStorage, sealed
from flowdsl.errors import CorruptPayload
from flowdsl.runtime import engine_of
from flowdsl.storage import open_storage
from flowdsl.storage.base import Attention, Storage, Unstorable, UpdateRun
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.relay import RelayStorage


@workflow
def paid(what: str) -> str:
    return pay(what)


def _work_until(runtime: Runtime, *run_ids: str) -> None:
    """Work until these runs have ended."""
    worker = threading.Thread(target=runtime.work)
    worker.start()
    for run_id in run_ids:
        runtime.run(run_id).result(60)  # type: ignore[union-attr]
    runtime.close()
    worker.join(60)


def test_a_copy_of_a_run_that_waits_for_a_worker_is_not_executed(tmp_path: Path, monkeypatch: Any) -> None:
    """A copy of a waiting run under another number is not executed."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db"
    did.clear()
    with Runtime(url) as runtime:
        first, second = runtime.enqueue(paid, "a").id, runtime.enqueue(paid, "a").id
        assert (first[-2:], second[-2:]) == ("-1", "-2")
    attacker = Attacker(url)
    names = attacker.columns["runs"]
    (row, *_), rows = attacker.rows("runs"), attacker.rows("runs")
    for number in (7, 8):
        copy = {
            **dict(zip(names, row, strict=True)),
            "no": number,
            "number": number,
            "id": f"{first[:-2]}-{number}",
        }
        rows.append(tuple(copy.values()))
    with attacker.instead("runs", rows), Runtime(url) as runtime:
        _work_until(runtime, first, second)
    attacker.close()
    assert did == ["a", "a"]


@workflow
def waits() -> Any:
    return wait_for("go")


class Toggled(RelayStorage):
    """Somebody writes a request to cancel into all runs, just for the moment in which requests are looked for."""

    attacker: Attacker
    looked = 0

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        self.attacker.connection.execute("UPDATE runs SET cancel_requested = 1.0")
        found = super().attention(run_ids)
        self.attacker.connection.execute("UPDATE runs SET cancel_requested = NULL")
        self.looked += bool(found)
        return found


def test_a_request_to_cancel_that_is_gone_when_it_is_checked(tmp_path: Path, monkeypatch: Any) -> None:
    """The request to cancel that is executed is the one that was checked."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db"
    with open_storage(url) as storage, Runtime(storage) as runtime:
        run = waits.start()
        toggled = Toggled(storage)
        toggled.attacker = Attacker(url)
        sealed_storage = sealed(toggled, runtime._engine.payloads)
        assert [item.cancel_requested for item in sealed_storage.attention([run.id])] == [None]
        assert toggled.looked == 1
        toggled.attacker.close()
        run.signal("go", 7)
        assert run.result(60) == 7


def test_one_altered_run_or_schedule_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    """A worker leaves out an altered run or schedule, and executes the others."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db"
    did.clear()
    with Runtime(url) as runtime:
        runtime.enqueue(paid.options(priority=1), "bad")
        good = runtime.enqueue(paid, "good").id
        for name in ("bad", "good"):
            runtime.schedules.put(Schedule(name, paid, cron="0 3 * * *", args=(name,), paused=True))
    with contextlib.closing(sqlite3.connect(tmp_path / "flow.db")) as attacker:
        attacker.execute("UPDATE runs SET priority = 7 WHERE priority = 1")
        attacker.execute("UPDATE schedules SET paused = 0 WHERE name = 'bad'")
        attacker.commit()
    with Runtime(url) as runtime:
        assert [one.name for one in runtime.schedules.list()] == ["good"]
        _work_until(runtime, good)
    assert did == ["good"]
    assert caplog.text.count("schedule 'bad' is not as it was written") == 1


def test_a_queue_whose_limits_were_altered_is_not_worked(
    tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    """A queue whose limits were altered is checked before the storage uses it, and not worked."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db"
    did.clear()
    with Runtime(url) as runtime:
        runtime.queues.put(Queue("stopped"))
        runtime.queues.pause("stopped")
        runtime.enqueue(paid.options(queue="stopped"), "a")
    with contextlib.closing(sqlite3.connect(tmp_path / "flow.db")) as attacker:
        attacker.execute("UPDATE queues SET paused = 0")
        attacker.commit()
    with Runtime(url) as runtime:
        (outcome,) = runtime.storage.commit([ClaimNext("me", 60.0, (("test_sealed_ways.paid", ""),))])
        assert isinstance(outcome, Unstorable)
        assert "queue 'stopped' is not as it was written" in str(outcome.error)
        with pytest.raises(CorruptPayload):
            runtime.queues.list()


@step(transaction=True)
def book(what: str, *, connection: Any) -> str:
    connection.execute("CREATE TABLE IF NOT EXISTS booked (what TEXT)")
    connection.execute(connection_insert(connection), (what,))
    return what


@step(transaction=True)
async def book_async(what: str, *, connection: Any) -> str:
    done = connection.execute("CREATE TABLE IF NOT EXISTS booked (what TEXT)")
    if hasattr(done, "__await__"):
        await done
        await connection.execute(connection_insert(connection), (what,))
    else:
        connection.execute(connection_insert(connection), (what,))
    return what


def connection_insert(connection: Any) -> str:
    return f"INSERT INTO booked VALUES ({'?' if isinstance(connection, sqlite3.Connection) else '%s'})"


@workflow(id="booking-{what}")
def booking(what: str) -> Any:
    return book(what), wait_for("paid")


@workflow(id="booking-async-{what}")
async def booking_async(what: str) -> Any:
    return await book_async(what), await aio.wait_for("paid")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_shares_a_transaction_with_the_user_is_sealed(
    kind: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """Records of transactional steps, and runs enqueued on the user's connection, are sealed."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db" if kind == "sqlite" else postgres_url()
    did.clear()
    with Runtime(url) as runtime:
        for flow in (booking, booking_async):
            run = flow.start("a")
            run.signal("rumour")
            seen = 0
            while not any(one.kind == "wait" for one in run.steps()):
                seen = runtime.storage.wait_for_change(seen, 60.0)
    attacker = Attacker(url)
    with Runtime(url) as runtime:
        runtime.signal("booking-a", "paid", 5)
        runtime.signal("booking-async-a", "paid", 5)
        assert booking("a") == ("a", 5)
        assert asyncio.run(booking_async("a")) == ("a", 5)
        within = []
        for _ in range(2):
            attacker.connection.execute("BEGIN")
            within.append(runtime.enqueue(paid, "within", connection=attacker.connection).id)
            attacker.connection.execute("COMMIT")
        _work_until(runtime, *within)
    attacker.close()
    assert did == ["within", "within"]


def test_two_changes_of_a_run_in_one_commit(monkeypatch: Any) -> None:
    """The second is sealed upon the first, so the row fits its seal afterwards."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    with Runtime("memory://") as runtime:
        run = paid.options(id="twice").start("a")
        run.result()
        changes = {"status": RunStatus.FAILED}, {"retryable": False}
        engine_of(runtime).storage.commit([UpdateRun(run.id, change) for change in changes])
        found = runtime.run(run.id)
        assert found is not None
        assert found.status == "failed"


def test_every_way_into_the_storage_and_out_of_it_is_sealed() -> None:
    """The sealed storage defines each method that takes operations or returns records itself."""
    records = {
        "Run",
        "Step",
        "Signal",
        "Item",
        "Memo",
        "QueueRow",
        "ScheduleRow",
        "Attention",
        "Outcome",
        "Operation",
    }
    stands_on_others = {
        *("commit_async", "announce", "set_run", "set_step", "add_signal", "get_state", "transaction"),
    }
    for name, method in inspect.getmembers(Storage, inspect.isfunction):
        said = " ".join(map(str, inspect.signature(method).parameters.values())) + str(
            inspect.signature(method).return_annotation
        )
        if records & set(re.findall(r"\w+", said)) and name not in stands_on_others:
            assert name in vars(SealedStorage), name
