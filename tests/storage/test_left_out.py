"""One damaged row stops nobody: it is left out and named, and workers execute the others."""

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attacker import Attacker
from attrs import evolve
from postgres_server import postgres_url

from flowdsl import Queue, Runtime, Schedule, step, workflow
from flowdsl.core.records import WorkerRow
from flowdsl.errors import CorruptPayload, StorageError
from flowdsl.storage.left_out import left_out
from flowdsl.storage.operations import ClaimNext, PutSchedule, PutWorker
from flowdsl.storage.outcomes import Claimed


@step
def pay(what: int) -> int:
    return what


@workflow(id="r-{what}")
def paid(what: int) -> int:
    return pay(what)


@workflow
def told(what: str) -> str:
    return what


DEEP = "'" + "[" * 100_000 + "'"
NO_TEXT = "CAST(x'ff' AS TEXT)"
NO_TEXTS = ["x'ff'", NO_TEXT]
IN_ANY_TYPE = ["x'ff'", "'x'", NO_TEXT]
SQLITE = {
    "tags": ["'['", DEEP, "'[1]'", "'5'", "'{\"a\": [1]}'", "x'ff'", NO_TEXT, "1" + "0" * 18],
    "open_failures": [DEEP, "'{}x'", "'[1]'"],
    "status": ["'pending '", "x'ff'", NO_TEXT],
    "id": ["x'ff'", NO_TEXT],
    "version": ["'" + "9" * 5000 + "'", NO_TEXT],
    "queue": ["x'ff'", NO_TEXT],
    "recoveries": ["9223372036854775807", *IN_ANY_TYPE],
    "epoch": ["9223372036854775807", *IN_ANY_TYPE],
    **dict.fromkeys(["priority", "created_at", "not_before", "claimed_at", "lease_until"], IN_ANY_TYPE),
    **dict.fromkeys(["workflow", "key", "owner", "dedup", "partition", "serial"], NO_TEXTS),
}
POSTGRES = {
    "tags": ["'['", DEEP, "'[1]'", "'5'"],
    "open_failures": [DEEP, "'[1]'"],
    "status": ["'pending '"],
    "version": ["'" + "9" * 5000 + "'"],
    "epoch": ["9223372036854775807"],
    "recoveries": ["2147483647"],
    "created_at": ["'NaN'"],
    "lease_until": ["'NaN'"],
}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: Any, tmp_path: Path) -> tuple[str, dict[str, list[str]]]:
    """Where it is, and what its columns may be damaged to."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/flow.db", SQLITE
    return postgres_url(), POSTGRES


def alterations(damages: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Every column with every value, for a run that waits and for one whose owner is gone."""
    for column, values in damages.items():
        for value in values:
            for lost in ("", ", status = 'running', owner = 'gone:1:2', lease_until = 0"):
                if not (lost and column in ("status", "owner", "lease_until")):
                    yield column, f"{column} = {value}{lost}"


@pytest.mark.parametrize("secret", ["", "only we know"])
def test_a_damaged_run_stops_no_other(database: Any, secret: str, monkeypatch: Any, caplog: Any) -> None:
    """A damaged run is left out, and the other runs are listed and claimed."""
    if secret:
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", secret)
    caplog.set_level("CRITICAL", "flowdsl")
    url, damages = database
    wrong = []
    with Runtime(url) as runtime, contextlib.closing(Attacker(url)) as attacker:
        for number, priority in ((1, 9), (0, 0), (2, 0)):
            paid.options(priority=priority).enqueue(number)
        before = attacker.rows("runs")
        for column, change in alterations(damages):
            with attacker.instead("runs", before):
                attacker.execute(f"UPDATE {{}}runs SET {change} WHERE id = 'r-1'")
                claim = ClaimNext("me:1:2", 60.0, ((paid.path, ""),), None, 1, nonce=change[:60])
                with left_out() as refused:
                    listed = {run.id for run in runtime.runs(limit=2)}
                    runtime.storage.next_due([paid.path])
                    runtime.storage.queue_counts()
                    (outcome,) = runtime.storage.commit([claim])
                assert isinstance(outcome, Claimed), (change, outcome)
                claimed = {run.id for run in outcome.runs}
                if refused and (listed != {"r-0", "r-2"} or not claimed <= {"r-0"}):
                    wrong.append((change[:60], listed, claimed, list(refused)))
                elif not refused and len(claimed) != 1:
                    wrong.append((change[:60], listed, claimed))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("schedules", "spec = '{'"),
        ("schedules", f"spec = {DEEP}"),
        ("schedules", "args = x'f16f770103'"),
        ("schedules", "created_at = 'x'"),
        ("schedules", f"name = {NO_TEXT}"),
        ("schedules", "paused = 'x'"),
        ("workers", f"spec = {DEEP}"),
        ("workers", "seen_at = 'x'"),
        ("workers", f"id = {NO_TEXT}"),
        ("workers", "id = x'ff'"),
        ("workers", "seen_at = 9e999"),
    ],
)
def test_a_damaged_schedule_or_worker_stops_nobody(
    table: str, change: str, tmp_path: Path, caplog: Any
) -> None:
    """A damaged schedule or worker is left out of lists, and workers execute the other runs."""
    url = f"sqlite:///{tmp_path}/flow.db"
    with Runtime(url) as runtime:
        for name in ("a", "b"):
            runtime.schedules.put(Schedule(name, told, cron="0 3 * * *", args=("x",)))
        runtime.storage.commit(
            [PutWorker(WorkerRow("h:1:2", '{"queues": null, "concurrency": 1}', 1.0, 2.0))]
        )
        run = paid.enqueue(7)
        with contextlib.closing(Attacker(url)) as attacker:
            attacker.execute(
                f"UPDATE {{}}{table} SET {change} WHERE {'name' if table == 'schedules' else 'id'} < 'b'"
            )
        with left_out() as refused:
            schedules = [one.name for one in runtime.schedules.list()]
            runtime.workers()
        assert schedules == (["b"] if table == "schedules" else ["a", "b"])
        assert all("damaged" in text for text in refused)
        worker = threading.Thread(target=runtime.work)
        worker.start()
        assert run.result(60) == 7
        runtime.close()
        worker.join(60)


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
def test_nothing_is_decided_by_the_row_of_a_worker(database: Any, monkeypatch: Any) -> None:
    """The row of a worker decides nothing: whatever it says, the same runs are claimed with the same
    limits."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only we know")
    url, _ = database
    with Runtime(url, queues=[Queue("default", concurrency=2, per_worker=1)]) as runtime:
        for number in range(3):
            paid.enqueue(number)
        with contextlib.closing(Attacker(url)) as attacker:
            before = attacker.rows("runs")
            for specs in (
                [],
                ["{}"],
                ['{"queues": ["default"], "concurrency": 99}', '{"queues": [], "concurrency": 0}'],
            ):
                rows = [(f"me:1:{n}", spec, 1.0, 9e9) for n, spec in enumerate(specs)]
                with attacker.instead("workers", rows), attacker.instead("runs", before):
                    claimed = []
                    for owner in ("me:1:0", "me:1:1", "me:1:2"):
                        claim = ClaimNext(owner, 60.0, ((paid.path, ""),), None, 5, nonce=f"{specs}{owner}")
                        (outcome,) = runtime.storage.commit([claim])
                        assert isinstance(outcome, Claimed)
                        claimed.append([run.id for run in outcome.runs])
                    assert claimed == [["r-0"], ["r-1"], []]


@workflow
def counted(what: str) -> str:
    return what


@pytest.mark.parametrize("secret", ["", "only we know"])
def test_a_forged_number_ends(database: Any, secret: str, monkeypatch: Any) -> None:
    """A forged number makes the next run get another number, or an error says so."""
    if secret:
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", secret)
    url, damages = database
    numbers = ["10000000000000", "4611686018427387900", "9223372036854775807"]
    numbers += ["1e300", "'x'"] if damages is SQLITE else []
    with Runtime(url) as runtime, contextlib.closing(Attacker(url)) as attacker:
        for number in numbers:
            assert counted(number) == counted(number) == number
            attacker.execute(f"UPDATE {{}}runs SET number = {number}, pruned = '1' WHERE number = 1")
            with contextlib.suppress(StorageError):
                assert counted(number) == number
        assert counted("b") == "b"
        assert [run.id for run in runtime.runs(workflow=counted) if run.args == {"what": "b"}]


def test_a_damaged_counter_of_epochs_is_named(tmp_path: Path) -> None:
    """With a damaged counter of epochs no run begins, and the error names it."""
    url = f"sqlite:///{tmp_path}/flow.db"
    with Runtime(url), contextlib.closing(Attacker(url)) as attacker:
        paid(1)
        attacker.execute("UPDATE {}counters SET value = 'x'")
        with pytest.raises(CorruptPayload, match="the counter of epochs is damaged in the database: 'x'"):
            paid(2)
        assert paid(1) == 1


def test_a_forged_run_of_a_tick_holds_up_no_other(database: Any, monkeypatch: Any, caplog: Any) -> None:
    """A forged run of a future tick stops this tick, and nothing else."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only we know")
    url, _ = database
    with Runtime(url) as runtime, contextlib.closing(Attacker(url)) as attacker:
        for name in ("a", "b"):
            runtime.schedules.put(Schedule(name, told, cron="* * * * *", args=(name,)))
        rows = runtime.storage.list_schedules()
        hour_ago = runtime.storage.now() - 600.0
        runtime.storage.commit([PutSchedule(evolve(row, created_at=hour_ago, last=hour_ago)) for row in rows])
        paid(1)
        (done,), names = attacker.rows("runs"), attacker.columns["runs"]
        start = hour_ago - hour_ago % 60
        forged = []
        for n in range(12):
            tick = datetime.fromtimestamp(start + 60 * n, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            cells = dict(zip(names, done, strict=True))
            forged.append(tuple({**cells, "no": cells["no"] + 1000 + n, "id": f"a@{tick}"}.values()))
        with attacker.instead("runs", [done, *forged]) as taken:
            assert taken
            run = paid.enqueue(7)
            worker = threading.Thread(target=runtime.work)
            worker.start()
            assert run.result(60) == 7
            seen = 0
            while not (fired := runtime.runs(workflow=told)):
                seen = runtime.storage.wait_for_change(seen, 60.0)
            assert {one.args["what"] for one in fired} == {"b"}
            runtime.close()
            worker.join(60)


@pytest.mark.parametrize("secret", ["", "only we know"])
def test_attention_is_paid_to_the_others(database: Any, secret: str, monkeypatch: Any, caplog: Any) -> None:
    """A damaged run among executing ones does not stop cancels of the others."""
    if secret:
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", secret)
    url, damages = database
    with Runtime(url) as runtime, contextlib.closing(Attacker(url)) as attacker:
        for number in (0, 1):
            paid.enqueue(number)
        runtime.cancel("r-0")
        before = attacker.rows("runs")
        for value in damages["status"]:
            with attacker.instead("runs", before):
                attacker.execute(
                    f"UPDATE {{}}runs SET status = {value}, cancel_requested = 1.0 WHERE id = 'r-1'"
                )
                heard = {
                    one.run_id: one.cancel_requested for one in runtime.storage.attention(["r-0", "r-1"])
                }
                assert heard["r-0"]
                assert "r-1" not in heard


def test_a_text_that_is_none_names_its_run(tmp_path: Path) -> None:
    """A text column of a run, step, message or item that is no text is an error that names the run."""
    url = f"sqlite:///{tmp_path}/flow.db"
    with Runtime(url) as runtime, contextlib.closing(Attacker(url)) as attacker:
        paid(1)
        attacker.execute(f"UPDATE {{}}steps SET path = {NO_TEXT}")
        with pytest.raises(CorruptPayload, match="a text of run 'r-1' is damaged") as caught:
            runtime.run("r-1").steps()  # type: ignore[union-attr]
        assert caught.value.run == "r-1"
