"""A database with every kind of record, and hostile text put into its columns."""

import json
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from flowdsl import Queue, Retry, Runtime, Schedule, log, publish, receive, step, store, workflow
from flowdsl.core.records import Run, Step, WorkerRow
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage import open_storage
from flowdsl.storage.operations import PutWorker

HOSTILE = "\x1b[31m\x9b2J\u202e\u2066\u200b\x7f\x07\u2028\r\nforged: \x85<b onload=x>'\""
"""What terminals obey, what turns text around, what ends a line, and markup."""

WORDS = ("cron", "timezone", "overlap", "catch_up", "rate", "op", "kind")
"""What stands in a JSON text under these names is a word of ours; another text there makes the row void."""


@step(memo=True)
def price(item: str) -> str:
    log("asked for", item=item)
    return item * 2


@step(retry=Retry(attempts=2, initial=0))
def charge(order: str) -> None:
    raise ValueError("declined")


@workflow(id="part-{item}")
def part(item: str) -> str:
    return price(item)


@workflow(id="order-{number}", tags={"team": "north"})
def order(number: int, fails: bool) -> str:
    log("begins", part=1)
    store.set("stage", "one")
    publish("news", {"number": number})
    receive("question").reply("an answer")
    part(f"{number}")
    if fails:
        charge("x")
    return price("y")


@workflow(version="2")
def letter(to: str) -> str:
    return to


def furnish(url: str) -> None:
    """Make the database."""
    nightly = Schedule("nightly", letter, cron="0 0 1 1 *", kwargs={"to": "you"})
    with Runtime(url, queues=[Queue("mail", rate="100/min")], schedules=[nightly]):
        for number, fails in ((1, True), (2, False)):
            run = order.start(number, fails)
            run.signal("remark", "a word", sender="somebody")
            run.ask("question", "may I?", timeout=60)
            with suppress(ValueError):
                run.result(60)
            run.tag(more="tags")
        letter.options(queue="mail", partition="p", dedup="d", id="queued", tags=("one",)).enqueue("me")
    with open_storage(url) as storage:
        owner = "vm|boot|namespace|4711|started|token"
        (key,) = {run.key for run in storage.list_runs() if run.id == "order-1"}
        facts: dict[str, Any] = {"parent": "order-1", "started_by": "order-2", "forked_from": "order-2"}
        storage.set_run(Run("left", "shop.left", key, status=RunStatus.RUNNING, owner=owner, **facts))
        for number, kind, extra in (
            ("1", "wait", {"signal": "approved", "deadline": 2e9}),
            ("2", "step", {"next": 2e9, "error": "OSError: no"}),
            ("3", "step", {"intent": True}),
        ):
            at = {"kind": kind, "status": StepStatus.PENDING, "extra": json.dumps(extra), "args": "a=1"}
            storage.set_step(Step("left", number * 40, f"shop.step{number}", **at))
        spec = {"queues": ["mail"], "concurrency": 2, "executing": ["left"]}
        storage.commit(
            [PutWorker(WorkerRow("vm|b|n|7|s|t", json.dumps(spec), time.time(), time.time() + 3600))]
        )


def columns(path: Path) -> list[tuple[str, str]]:
    """Every column of text of every table."""
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [
            (table, row[1])
            for table in sorted(tables)
            if not table.startswith("sqlite_")
            for row in database.execute(f"PRAGMA table_info({table})")
            if row[2] in ("TEXT", "")
        ]


def spoiled(value: Any, under: str = "") -> Any:
    """*value* with hostile text at the end of every text in it; JSON stays JSON."""
    if isinstance(value, dict):
        return {name: spoiled(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [spoiled(inner) for inner in value]
    return value + HOSTILE if isinstance(value, str) and under not in WORDS else value


def spoil(path: Path, table: str, column: str, *, whole: bool) -> None:
    """Put hostile text into one column of all rows: instead of what is there if *whole*, else behind it."""
    with closing(sqlite3.connect(path)) as database:
        keys = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[5]]
        key = ", ".join(f'"{name}"' for name in keys)
        for *at, value in database.execute(f'SELECT {key}, "{column}" FROM {table}').fetchall():
            if not isinstance(value, str) or (not value and not whole):
                continue
            where = " AND ".join(f'"{name}" IS ?' for name in keys)
            given = HOSTILE + value if whole else _behind(value)
            database.execute(f'UPDATE {table} SET "{column}" = ? WHERE {where}', (given, *at))
        database.commit()


def _behind(value: str) -> str:
    try:
        found = json.loads(value)
    except ValueError:
        return value + HOSTILE
    if not isinstance(found, dict | list):
        return value + HOSTILE
    # The facts of a step are JSON in JSON.
    if isinstance(found, dict) and isinstance(found.get("extra"), str):
        found["extra"] = json.dumps(spoiled(json.loads(found["extra"] or "{}")))
    return json.dumps(spoiled(found, "") if "extra" not in found else found)
