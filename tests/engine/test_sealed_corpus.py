"""Sealed rows: a corpus of alterations that is made from the schema, so that no column and no table is forgotten.

Somebody who does not know the key writes to the database, on SQLite and on PostgreSQL. Whatever can be read afterwards
is what was written, or is refused, or is gone as if it had been deleted.
"""

import contextlib
import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from attacker import Attacker
from postgres_server import postgres_url
from support import examples

from flowdsl import (
    Queue,
    Retry,
    Runtime,
    Schedule,
    log,
    publish,
    receive,
    schedule,
    sleep,
    step,
    store,
    wait_for,
    workflow,
)
from flowdsl.core.records import WorkerRow
from flowdsl.errors import CorruptPayload, FlowError, RunFinished, RunNotFound
from flowdsl.storage.base import PutWorker

SECRET = "only the application knows this"
REFUSED = "refused"

# What is not under the seal; docs/guarantees.md says the same. Everything else is.
FREE = {
    "runs": {
        *("no", "epoch", "owner", "lease_until", "recoveries", "claimed_at", "not_before"),
        *("base", "pulse", "nonce", "number", "tags"),
    },
    "steps": {"seq"},
    "signals": {"seq", "taken_by"},
}


@step
def give_back(what: str) -> None:
    pass


@step(undo=give_back)
def take(what: str) -> dict[str, str]:
    return {"taken": what}


@step(memo=True)
def price(what: str) -> int:
    return 7


@step(retry=Retry(attempts=1))
def charge(cents: int) -> None:
    raise ConnectionError("down")


@workflow(id="part-{what}")
def part(what: str) -> str:
    return take(what)["taken"]


@workflow(id="order-{what}")
def order(what: str) -> None:
    store.set("approved", False)
    store.set("approved", True)
    store.push("lines", what)
    log("ordering", what=what)
    publish("news", "begun"), publish("news", "paid")
    take(what), price(what), part(what)
    schedule(take, "later").result()
    sleep(0)
    wait_for("approval")
    charge(5)


@workflow(id="talk")
def talk() -> str:
    for _ in range(2):
        message = receive("question")
        message.reply("yes") if message.payload else message.refuse(ValueError("no"))
    return "done"


@workflow
def counted(what: str) -> str:
    return take(what)["taken"]


@workflow(id="waiting")
def waiting() -> Any:
    take("room")
    store.set("approved", True)
    return wait_for("letter")


@workflow
def later(what: str) -> str:
    return what


def _play(runtime: Runtime) -> None:
    """Runs of every kind, and a row of every table."""
    part("pruned")
    assert runtime.prune(0) == 1
    run = order.start("a")
    run.signal("rumour", {"by": "press"}, sender="press")
    run.signal("approval", {"by": "boss"}, sender="boss", key="k")
    with pytest.raises(ConnectionError):
        run.result(60)
    asked = talk.start()
    assert asked.ask("question", True, timeout=60, key="yes") == "yes"
    with pytest.raises(ValueError, match="no"):
        asked.ask("question", False, timeout=60, key="no")
    assert asked.result(60) == "done"
    counted("b"), counted("b")
    gone = waiting.options(id="gone").start()
    gone.cancel()
    with contextlib.suppress(FlowError):
        gone.result(60)
    runtime.queues.put(Queue("narrow", concurrency=1))
    runtime.schedules.put(Schedule("nightly", later, cron="0 3 * * *", args=("s",), paused=True))
    place = {
        "queue": "narrow",
        "priority": 2,
        "partition": "p",
        "dedup": "d",
        "delay": 900,
        "tags": {"a": "b"},
    }
    later.options(**place).enqueue("x"), later.enqueue("y")
    left, seen = waiting.start(), 0
    left.signal("reminder", "unread")
    runtime.storage.commit([PutWorker(WorkerRow("host:1", "{}", 1.0, 2.0))])
    while not any(one.kind == "wait" for one in left.steps()):
        seen = runtime.storage.wait_for_change(seen, 60.0)


Seen = dict[tuple[Any, ...], Any]


def _look(runtime: Runtime, known: list[str]) -> Seen:
    """All that can be read, each thing by its name; ``REFUSED`` where reading refuses it."""
    seen: Seen = {}

    def put(name: tuple[Any, ...], read: Callable[[], Any]) -> None:
        try:
            seen[name] = repr(read())
        except CorruptPayload:
            seen[name] = REFUSED
        except (RunFinished, RunNotFound):  # a question that was not asked is not asked now
            pass

    def each(name: tuple[Any, ...], read: Callable[[], Any], one: Callable[[Any], Any]) -> None:
        try:
            for found in read():
                one(found)
        except CorruptPayload:
            seen[name] = REFUSED

    each(
        ("runs",), lambda: runtime.runs(limit=None), lambda run: put(("listed", run.id), lambda: _of_run(run))
    )
    for run_id in known:
        each(("run", run_id), lambda: [runtime.run(run_id)], lambda run: run and _look_at(run, put, each))
    put(("yes",), lambda: runtime.ask("talk", "question", True, key="yes", timeout=60))
    storage = runtime.storage
    each(
        ("queues",), storage.list_queues, lambda row: put(("queue", row.name), lambda: (row.spec, row.paused))
    )
    each(("schedules",), runtime.schedules.list, lambda one: put(("schedule", one.name), lambda: one))
    each(
        ("memos",),
        storage.list_memos,
        lambda memo: put(("memo", memo.path, memo.key), lambda: _of_memo(memo)),
    )
    return seen


def _of_run(run: Any) -> Any:
    return run.workflow, str(run.status), run.record.parent, run.generation, run.queue, run.record.priority


def _of_memo(memo: Any) -> Any:
    return memo.defaults, memo.expires_at, memo.preview


def _look_at(run: Any, put: Any, each: Any) -> None:
    row = run.record
    put(("run", run.id), lambda: (*_of_run(run), row.version, row.open_failures, row.retryable, row.undoing))
    put(
        ("more of", run.id), lambda: (row.deadline, row.cancel_requested, row.partition, row.dedup, row.floor)
    )
    put(("args", run.id), lambda: run.args)
    if run.finished_at is not None:
        put(("outcome", run.id), lambda: (run.exception(), None if run.exception() else run.result(0)))
    each(
        ("steps", run.id),
        run.steps,
        lambda one: put(
            ("step", run.id, one.key, one.path),
            lambda: (
                (
                    one.scope,
                    one.kind,
                    one.occurrence,
                    one.ordinal,
                    str(one.status),
                    one.attempts,
                    one.args,
                    one.error,
                )
                + (() if one.error else (one.result(),))
            ),
        ),
    )
    each(("logs", run.id), run.logs, lambda line: put(("log", run.id, line.message), lambda: line))
    each(("audit", run.id), run.audit, lambda entry: put(("audit", run.id, entry), lambda: ""))
    each(
        ("state", run.id),
        lambda: run.state().items(),
        lambda item: put(("state", run.id, item[0]), lambda: item[1]),
    )
    each(("news", run.id), lambda: run.stream("news"), lambda item: put(("item", run.id, item), lambda: ""))
    storage = run._engine.storage
    each(
        ("signals", run.id),
        lambda: storage.list_signals(run.id),
        lambda one: put(
            ("signal", run.id, one.id), lambda: (one.name, one.sender, one.key, one.asked, one.preview)
        ),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def attacked(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runtime, Attacker]]:
    """A database with a key, everything in it, and somebody who may write to it."""
    folder = tmp_path_factory.mktemp("attacked")
    url = f"sqlite:///{folder}/flow.db" if request.param == "sqlite" else postgres_url()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FLOWDSL_SECRET_KEY", SECRET)
        with Runtime(url) as runtime:
            _play(runtime)
        with Runtime(url) as runtime:
            attacker = Attacker(url)
            yield runtime, attacker
            attacker.close()


def _others(value: Any, column: list[Any]) -> list[Any]:
    """What a cell may be changed to: what stands in other rows of its *column*, and what never stood there."""
    found = [one for one in column if one != value][:2]
    match value:
        case bytes():
            found += [value[:-1] + bytes([value[-1] ^ 1]) if value else b"x", b"", None]
        case str():
            found += [f"{value}x", "", "os.system", "completed", None]
        case bool():
            found += [not value]
        case int() | float():
            found += [value + 1, 0, -1, 2**62, "x", None]
        case None:
            found += ["x", 1, True]
    return found


def _alterations(
    attacker: Attacker, chance: random.Random, count: int
) -> Iterator[tuple[str, str, list[Any]]]:
    """Of every column of every table: a few cells, each changed."""
    for table, columns in attacker.columns.items():
        rows = attacker.rows(table)
        for place, column in enumerate(columns):
            cells = [
                (n, other)
                for n, row in enumerate(rows)
                for other in _others(row[place], [r[place] for r in rows])
            ]
            for n, other in chance.sample(cells, min(count, len(cells))):
                row = (*rows[n][:place], other, *rows[n][place + 1 :])
                yield (
                    table,
                    f"{column}: {rows[n][place]!r:.40} -> {other!r:.40}",
                    [*rows[:n], row, *rows[n + 1 :]],
                )


def _moves(attacker: Attacker, chance: random.Random, count: int) -> Iterator[tuple[str, str, list[Any]]]:
    """In every table: rows that change places, a row in the place of another, copies, and missing rows."""
    for table in attacker.columns:
        rows = attacker.rows(table)
        places = attacker.places(table)
        for _ in range(count if rows else 0):
            n, m = chance.randrange(len(rows)), chance.randrange(len(rows))
            others = [row for k, row in enumerate(rows) if k not in (n, m)]
            here, there = _at(rows[n], rows[m], places), _at(rows[m], rows[n], places)
            yield table, f"swap {n} and {m}", [*others, here, there]
            yield table, f"{n} in the place of {m}", [*others, here]
            yield table, f"without {n}", [row for k, row in enumerate(rows) if k != n]
            for place in places:
                for copy in (_at(rows[n], rows[m], [place]), _moved_on(rows[n], place)):
                    yield table, f"a copy of {n} in {place} of {m}", [*rows, copy]


def _at(row: tuple[Any, ...], other: tuple[Any, ...], places: list[int]) -> tuple[Any, ...]:
    """*row* where *other* stands."""
    return tuple(other[n] if n in places else value for n, value in enumerate(row))


def _moved_on(row: tuple[Any, ...], place: int) -> tuple[Any, ...]:
    """*row* at a place where none stands."""
    value = row[place]
    other = value + 1000 if isinstance(value, int) else f"{str(value).rpartition('-')[0] or value}-7"
    return (*row[:place], other, *row[place + 1 :])


def _wrong(runtime: Runtime, seen: Seen, known: list[str], table: str, what: str) -> list[Any]:
    """What is believed now, and was not written. Where records of steps change places, an older one of the same step
    may count, and what a store holds is what it held at another time."""
    places_change = table == "steps" and (what.startswith("seq:") or ":" not in what)
    return [
        (table, what, name, seen.get(name), value)
        for name, value in _look(runtime, known).items()
        if value not in (seen.get(name), REFUSED)
        and not (places_change and name[0] in ("step", "state", "item", "log", "audit"))
    ]


@pytest.fixture
def before(attacked: tuple[Runtime, Attacker], caplog: Any) -> tuple[Seen, list[str]]:
    runtime, _ = attacked
    caplog.set_level("CRITICAL", "flowdsl")
    known = [run.id for run in runtime.runs(limit=None)]
    seen = _look(runtime, known)
    assert REFUSED not in seen.values()
    return seen, known


def test_every_table_holds_something(attacked: tuple[Runtime, Attacker]) -> None:
    """The corpus has a row of every table."""
    _, attacker = attacked
    empty = {table for table in attacker.columns if not attacker.rows(table)}
    assert empty <= {"waits"}


@pytest.mark.parametrize("changes", [_alterations, _moves])
def test_nothing_altered_is_believed(attacked: Any, before: Any, changes: Any) -> None:
    """Altered cells of each column, and moved, copied and deleted rows of each table, are never believed."""
    (runtime, attacker), (seen, known) = attacked, before
    wrong: list[Any] = []
    tried = 0
    every = 1 if attacker.quick else max(5 // examples(1), 1)
    for table, what, rows in islice(changes(attacker, random.Random(7), examples(1)), 0, None, every):
        with attacker.instead(table, rows) as taken:
            tried += taken
            if taken:
                wrong += _wrong(runtime, seen, known, table, what)
    assert tried > 3  # a row that stands as it stood, or that the database refuses, is not tried
    assert not wrong, "\n".join(map(str, wrong[:10]))
    assert _look(runtime, known) == seen
