"""Sealed rows and their payloads: what belongs together cannot be taken apart and mixed."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from attacker import Attacker
from paying import SECRET, did, pay
from postgres_server import postgres_url

from flowdsl import Runtime, Schedule, publish, receive, step, workflow
from flowdsl.errors import CorruptPayload, RunFinished
from flowdsl.rekeying import rekey
from flowdsl.storage import MemoryStorage


class Order:
    """Two orders of one number have one key, whatever they cost."""

    def __init__(self, number: int, cents: int) -> None:
        self.number, self.cents = number, cents

    def __flow_key__(self) -> int:
        return self.number


@step(memo=True)
def price(what: str) -> int:
    return next(_prices)


@workflow(id="settled")
def settle(order: Order) -> int:
    publish("news", order.cents)
    price("tea")
    return receive("how").payload + int(pay(str(order.cents)))


@workflow
def told(cents: int) -> int:
    return cents


_prices = itertools.count()


def _one_life(runtime: Runtime, cents: int) -> None:
    """A run, a memo and a schedule that have had the same places before."""
    if runtime.run("settled"):
        runtime.delete("settled")
        price.forget("tea")
        runtime.schedules.delete("nightly")
    run = settle.start(Order(7, cents))
    run.signal("how", cents)
    assert run.result(60) == 2 * cents
    runtime.schedules.put(Schedule("nightly", told, cron="0 3 * * *", args=(cents,), paused=True))


def _read(runtime: Runtime, table: str) -> Any:
    """What a program reads of a table."""
    run, storage = runtime.run("settled"), runtime.storage
    assert run is not None
    match table:
        case "runs":
            return run.args["order"].cents, run.result(60)
        case "steps":
            return [one.result() for one in run.steps()]
        case "signals":
            return storage.list_signals(run.id)
        case "items":
            return storage.list_items(run.id, "news")
        case "memos":
            return storage.list_memos()
    return [one.args for one in runtime.schedules.list()]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_payload_of_another_time_is_refused(database: str, tmp_path: Path, monkeypatch: Any) -> None:
    """A payload of another time of the same place is refused in a newer row."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db" if database == "sqlite" else postgres_url()
    with Runtime(url) as runtime, contextlib.closing(Attacker(url)) as attacker:
        _one_life(runtime, 1)
        before = {table: attacker.rows(table) for table in attacker.columns}
        _one_life(runtime, 1000)
        now = {table: _read(runtime, table) for table in attacker.columns}
        tried = {("schedules", "args")}  # a schedule that is refused is left out
        for table, columns in attacker.columns.items():
            for place, column in enumerate(columns):
                if column not in ("args", "result", "payload") or (table, column) == ("steps", "args"):
                    continue
                rows = attacker.rows(table)
                pairs = [(n, old) for n in range(len(rows)) for old in {row[place] for row in before[table]}]
                for n, old in pairs:
                    if not old or not rows[n][place] or old == rows[n][place]:
                        continue
                    row = (*rows[n][:place], old, *rows[n][place + 1 :])
                    with attacker.instead(table, [*rows[:n], row, *rows[n + 1 :]]) as taken:
                        assert taken
                        try:
                            assert _read(runtime, table) in (now[table], [])
                        except CorruptPayload:
                            tried.add((table, column))
    assert len(tried) == 7, tried


def test_arguments_of_another_run_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    """Two runs of one key execute with their own arguments, or not at all."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db"
    did.clear()
    with Runtime(url) as runtime, contextlib.closing(Attacker(url)) as attacker:
        for name, cents in (("A", 1), ("B", 1000)):
            settle.options(id=name).enqueue(Order(7, cents))
            runtime.signal(name, "how", cents)
        place = attacker.columns["runs"].index("args")
        (a, b) = attacker.rows("runs")
        swapped = [(*a[:place], b[place], *a[place + 1 :]), (*b[:place], a[place], *b[place + 1 :])]
        with attacker.instead("runs", swapped):
            for name in "AB":
                with pytest.raises(CorruptPayload, match=f"run {name} is not as it was written"):
                    runtime.resume(name)
    assert did == []


@workflow(id="parent-{what}")
def parent(what: str) -> str:
    reserve(what)
    return child(what)


@step(undo=lambda what: did.append(f"undone {what}"))
def reserve(what: str) -> str:
    return what


@workflow(id="child-{what}")
def child(what: str) -> str:
    return pay(what)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_nobody_prunes_without_the_key(database: str, tmp_path: Path, monkeypatch: Any) -> None:
    """A forged stub of a pruned run, and a run marked as pruned, end nothing."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    url = f"sqlite:///{tmp_path}/flow.db" if database == "sqlite" else postgres_url()
    did.clear()
    with Runtime(url) as runtime:
        child("pruned"), child("a")
        runtime.delete("child-a")
        assert runtime.prune(0, status="completed") == 1
        child("b")
        with contextlib.closing(Attacker(url)) as attacker:
            names, rows = attacker.columns["runs"], attacker.rows("runs")
            (stub,) = (
                dict(zip(names, row, strict=True)) for row in rows if row[names.index("id")] == "child-pruned"
            )
            (good,) = (
                dict(zip(names, row, strict=True)) for row in rows if row[names.index("id")] == "child-b"
            )
            key = runtime.storage.get_run("child-b").key  # type: ignore[union-attr]
            for forged in (
                {**stub, "id": "child-a", "no": stub["no"] + 100},
                {**good, "id": "child-a", "no": good["no"] + 100, "pruned": True},
                {**stub, "id": "child-a", "no": stub["no"] + 100, "key": key, "seal": b""},
            ):
                with attacker.instead("runs", [*rows, tuple(forged.values())]) as taken:
                    assert taken
                    with pytest.raises(CorruptPayload, match="run child-a"):
                        child("a")
                    with pytest.raises(CorruptPayload, match="run child-a"):
                        parent("a")
                    assert runtime.run("parent-a").status == "running"  # type: ignore[union-attr]
            marked = [
                tuple({**good, "pruned": True}.values()),
                *(row for row in rows if row != tuple(good.values())),
            ]
            with attacker.instead("runs", marked), pytest.raises(CorruptPayload, match="run child-b"):
                child("b")
        with pytest.raises(RunFinished, match="pruned"):
            child("pruned")
        assert parent("a") == "a"
    assert did == ["pruned", "a", "b", "a"]


def test_stubs_have_the_new_secret_too(monkeypatch: Any) -> None:
    """After a change of the secret the id of a pruned run is still known as used."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    with MemoryStorage() as storage:
        with Runtime(storage) as runtime:
            child("pruned")
            runtime.prune(0)
        assert rekey(storage, secret="another", old_secret=SECRET).refused == ()
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", "another")
        with Runtime(storage), pytest.raises(RunFinished, match="pruned"):
            child("pruned")
