"""Sealed rows: whatever somebody without the key changes in the database is refused, or changes nothing."""

import contextlib
import logging
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacker import Attacker

from flowdsl import Retry, Runtime, log, now, schedule, sleep, step, store, uuid4, wait_for, workflow
from flowdsl.codecs import envelope
from flowdsl.errors import CorruptPayload, FlowError, RunConflict
from flowdsl.rekeying import rekey
from flowdsl.storage import open_storage

did: list[str] = []  # every effect of every body


@step
def release(text: str) -> None:
    did.append(f"released {text}")


@step
def other(text: str) -> str:
    did.append(f"other {text}")
    return "other"


@step(undo=release)
def title(text: str) -> str:
    did.append(f"title {text}")
    return text


@step(memo=True)
def price(text: str) -> int:
    did.append(f"price {text}")
    return 7


@step(retry=Retry(attempts=1))
def publish(text: str) -> None:
    did.append(f"publish {text}")
    raise ConnectionError("down")


@workflow(id="child-{text}")
def child(text: str) -> str:
    return other(text)


@workflow(id="numbers")
def numbers() -> Any:
    return other("number")


@workflow(id="post-{text}")
def post(text: str) -> Any:
    store.set("seen", text)
    log("posting", text=text)
    now(), uuid4()
    title(text)
    price(text)
    child(text)
    schedule(other, "later").result()
    sleep(0)
    approved = wait_for("approval")
    if approved != {"by": "boss"}:
        return did.append(f"approved by {approved}")
    publish(text)
    return "published"


@workflow
def counted(text: str) -> str:
    return title(text)


@workflow(id="waiting")
def waiting() -> Any:
    title("waiting")
    letter = wait_for("letter")
    did.append(f"letter {letter}")
    return letter


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A database with a key: failed and undone, completed, cancelled and waiting runs, children, messages."""
    folder = tmp_path_factory.mktemp("sealed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FLOWDSL_SECRET_KEY", "only the application knows this")
        with Runtime(f"sqlite:///{folder}/flow.db") as runtime:
            run = post.start("a")
            run.signal("rumour", {"by": "somebody"}, sender="press")
            run.signal("approval", {"by": "boss"}, sender="boss", key="k")
            with pytest.raises(ConnectionError):
                run.result(timeout=60)
            counted("b"), counted("b"), numbers()
            wait = waiting.start()
            gone = waiting.options(id="gone").start()
            gone.cancel()
            with contextlib.suppress(FlowError):
                gone.result(timeout=60)
            runtime.signal("waiting", "reminder", "unread")
            while not any(one.kind == "step" for one in wait.steps()):
                pass
        yield folder / "flow.db"


def everything(path: Path) -> dict[str, Any]:
    """What can be seen of the database, and what calling everything in it again does and gives."""
    did.clear()
    seen: dict[str, Any] = {}
    with Runtime(f"sqlite:///{path}", lease=1000) as runtime:
        seen["runs"] = sorted((run.id, run.workflow, str(run.status)) for run in runtime.runs(limit=None))
        if len(seen["runs"]) < RUNS:
            raise CorruptPayload("a run is left out of the list, and reported")
        for run_id, _, _ in seen["runs"]:
            messages = runtime.storage.list_signals(run_id)
            seen[f"signals {run_id}"] = [(s.name, s.sender, s.preview) for s in messages]
            run = runtime.run(run_id)
            if run is not None:
                parts = (str(run.status), run.workflow, run.parent and run.parent.id)
                steps = [(s.path, str(s.status), s.kind, s.scope, s.attempts, s.args) for s in run.steps()]
                seen[run_id] = parts, steps, [line.message for line in run.logs()], run.state()
        for name, call in {
            "numbers": numbers,
            "child": lambda: child("a"),
            "counted": lambda: counted("b"),
            "post": lambda: post.start("a").result(timeout=60),
            "gone": lambda: waiting.options(id="gone").start().result(timeout=60),
        }.items():
            try:
                seen[f"call {name}"] = repr(call())
            except (ConnectionError, TimeoutError, FlowError) as error:
                if isinstance(error, CorruptPayload):
                    raise
                seen[f"call {name}"] = type(error).__name__
        wait = waiting.start()
        runtime.signal("waiting", "letter", "mine")
        seen["letter"] = wait.result(timeout=60)
        run = runtime.run("waiting")
        assert run is not None
        seen["waited"] = [(s.path, str(s.status)) for s in run.steps()]
    return {**seen, "did": list(did)}


CELLS = 1  # of each column under the seal; that none is believed is the matter of test_sealed_corpus.py
FREE_CELLS = 3
RUNS = 7

# What is not under the seal: who executes and when, the order of rows, read marks and labels. Altering these
# may stop a run, or have it executed again from what is recorded; it names no code and no value.
FREE = {
    "runs": {
        *("owner", "epoch", "lease_until", "recoveries", "not_before", "claimed_at", "number"),
        *("no", "base", "pulse", "nonce", "tags"),
    },
    "signals": {"seq", "taken_by"},
    "steps": {"seq"},
}


Cell = tuple[str, dict[str, Any], str, Any]
"""Table, what identifies the row, column, and the value that it gets."""


def alterations(path: Path) -> list[Cell]:
    """Of every column a few cells, changed in a few ways."""
    found: list[Cell] = []
    chance = random.Random(7)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        for table in ("runs", "steps", "signals", "memos"):
            facts = database.execute(f'PRAGMA table_info("{table}")').fetchall()
            keys = [fact["name"] for fact in facts if fact["pk"]]
            rows = database.execute(f'SELECT * FROM "{table}"').fetchall()
            assert rows
            for column in (fact["name"] for fact in facts):
                cells = []
                for row in rows:
                    others = [one[column] for one in rows if one[column] != row[column]][:1]
                    where = {key: row[key] for key in keys}
                    cells += [(table, where, column, value) for value in [*others, *changed(row[column])]]
                count = FREE_CELLS if column in FREE.get(table, ()) else CELLS
                found += chance.sample(cells, min(len(cells), count))
    return found


def changed(value: Any) -> list[Any]:
    match value:
        case bytes():
            return [value[:-1] + bytes([value[-1] ^ 1]) if value else b"x", b""]
        case str():
            return [f"{value}x", "os.system"]
        case int() | float():
            return [value + 1]
    return ["x", 1]


def attack(original: Path, folder: Path, cell: Cell) -> Path | None:
    """A copy of the database with one cell changed; ``None`` where the schema does not take it."""
    table, where, column, value = cell
    path = folder / "flow.db"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    shutil.copy(original, path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        try:
            condition = " AND ".join(f'"{key}" = ?' for key in where) or "1"
            database.execute(
                f'UPDATE "{table}" SET "{column}" = ? WHERE {condition}', (value, *where.values())
            )
            database.commit()
        except sqlite3.Error:
            return None
    return path


def test_every_alteration_is_refused_or_without_effect(
    original: Path, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    """Each altered cell of each table is refused with an error, or has no effect."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only the application knows this")
    shutil.copy(original, tmp_path / "flow.db")
    before = everything(tmp_path / "flow.db")
    assert len(before["runs"]) == RUNS
    assert "published" not in str(before)
    wrong, tried = [], 0
    for cell in alterations(original):
        table, _, column, _ = cell
        path = attack(original, tmp_path, cell)
        if path is None:
            continue
        tried += 1
        caplog.clear()
        try:
            with caplog.at_level(logging.ERROR, "flowdsl"):
                after = everything(path)
        except FlowError as error:  # refused by name
            if isinstance(error, RunConflict) and column not in ("id", "key"):
                wrong.append((cell, repr(error)))
            continue
        if after != before and "seal does not fit" not in caplog.text:
            allowed = column in FREE.get(table, ()) and set(after["did"]) <= set(before["did"])
            if not allowed:
                wrong.append((cell, {k: after[k] for k in after if after[k] != before.get(k)}))
    assert tried > 100
    assert not wrong, "\n".join(map(str, wrong[:10]))


@pytest.mark.parametrize("plant", ["fits", "fits_run", "fits_reply"])
def test_the_corpus_notices_a_seal_that_is_not_checked(
    original: Path, tmp_path: Path, monkeypatch: Any, plant: str
) -> None:
    """Without the check of a seal, an altered record has an effect, so the corpus can notice it."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only the application knows this")
    monkeypatch.setattr(f"flowdsl.codecs.seals.Seals.{plant}", lambda *_, **__: True)
    cells: list[Cell] = {
        "fits": [("signals", {}, "name", "approval"), ("steps", {}, "path", "os.system")],
        "fits_run": [("runs", {"id": "numbers"}, "workflow", "os.system")],
        "fits_reply": [("signals", {}, "reply_failed", 1)],
    }[plant]
    for table, where, column, value in cells:
        path = attack(original, tmp_path, (table, where, column, value))
        assert path is not None
        with Runtime(f"sqlite:///{path}") as runtime:
            runs = {run.id: run.workflow for run in runtime.runs()}
            if table == "runs":
                assert runs["numbers"] == "os.system"
            elif table == "steps":
                assert {step.path for step in runtime.run("numbers").steps()} == {"os.system"}  # type: ignore[union-attr]
            else:
                assert runtime.storage.list_signals("post-a")


@contextlib.contextmanager
def earlier_release(monkeypatch: Any) -> Iterator[None]:
    """While the context lasts, payloads are keyed and rows have no seal, as an earlier release wrote them."""
    with monkeypatch.context() as earlier:
        earlier.setattr("flowdsl.codecs.envelope._ROW_SEALED", 0)
        earlier.setattr("flowdsl.runtime.sealed", lambda storage, payloads: storage)
        envelope.sealer.cache_clear(), envelope.opener.cache_clear()
        yield
    envelope.sealer.cache_clear(), envelope.opener.cache_clear()


def test_what_an_earlier_release_wrote_is_sealed_on_request_only(tmp_path: Path, monkeypatch: Any) -> None:
    """Rows without a seal are refused until ``--unsealed`` seals them, and kept copies are refused later."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only the application knows this")
    url = f"sqlite:///{tmp_path}/flow.db"
    with earlier_release(monkeypatch), Runtime(url) as runtime:
        waiting.start()
        runtime.signal("waiting", "rumour", "heard")
        assert counted("b") == "b"
        (counted_id,) = (run.id for run in runtime.runs(workflow=counted))
        failing = post.start("old")
        failing.signal("approval", {"by": "boss"})
        with pytest.raises(ConnectionError):
            failing.result(timeout=60)
    attacker = Attacker(url)
    kept = {table: attacker.rows(table) for table in attacker.columns}
    with Runtime(url) as runtime:
        assert runtime.runs() == []
        with pytest.raises(CorruptPayload, match=r"its seal does not fit.*flowdsl rekey --unsealed"):
            runtime.run("waiting")
    with open_storage(url) as storage:
        assert rekey(storage, secret="only the application knows this").rewritten == 0
        assert rekey(storage, secret="only the application knows this", unsealed=True).refused == ()
    with Runtime(url) as runtime:
        assert [run.id for run in runtime.runs(workflow=counted)] == [counted_id]
        assert [one.preview for one in runtime.storage.list_signals("waiting")] == ["'heard'"]
        assert len(runtime.storage.list_memos()) == 1
    for table, read in {
        "signals": lambda rt: rt.storage.list_signals("waiting"),
        "memos": lambda rt: rt.storage.list_memos(),
        "steps": lambda rt: rt.run(counted_id).steps(),
        "runs": lambda rt: rt.run(counted_id),
    }.items():
        renamed = {"signals": "name", "memos": "expires_at", "steps": "path", "runs": "workflow"}[table]
        place = attacker.columns[table].index(renamed)
        other = 9e9 if table == "memos" else "approval"
        for rows in (kept[table], [(*row[:place], other, *row[place + 1 :]) for row in kept[table]]):
            with attacker.instead(table, rows), Runtime(url) as runtime, pytest.raises(CorruptPayload):
                read(runtime)
    attacker.close()


def test_a_new_run_cannot_be_passed_off_as_an_old_one(
    original: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """A run of today is refused without its seals, because its arguments say that its rows are sealed."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only the application knows this")
    path = attack(original, tmp_path, ("runs", {"id": "numbers"}, "seal", b""))
    assert path is not None
    with Runtime(f"sqlite:///{path}") as runtime:
        with pytest.raises(CorruptPayload, match="run numbers"):
            runtime.run("numbers")
        assert "numbers" not in [run.id for run in runtime.runs()]
