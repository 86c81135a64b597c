"""The law of closing: at any moment, for any caller, it ends, and another runtime continues every run.

It is tested with the programs of ``stopped.py``, and with concurrent runs that wait for something.
"""

import asyncio
import contextlib
import logging
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bodies import to_its_end
from grammar import STOPPED
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import fresh
from stopped import RUN, Moments, Stop, standing
from stopped_bodies import PLAYERS, Failed, World
from support import examples
from worlds import meet

from flowdsl import (
    Retry,
    Runtime,
    aio,
    continue_as_new,
    publish,
    race,
    schedule,
    sleep,
    step,
    store,
    wait_for,
    workflow,
)
from flowdsl.errors import FlowError
from flowdsl.storage import MemoryStorage, SQLiteStorage


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("flowdsl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@settings(max_examples=examples(12), deadline=None)
@given(
    program=STOPPED.strategy,
    at=st.integers(0, 12),
    after=st.booleans(),
    body=st.booleans(),
    called=st.booleans(),
)
def test_a_runtime_closed_at_any_moment_leaves_every_run_resumable(
    is_async, program, at, after, body, called
):
    """A runtime that is closed at any commit or body leaves each run resumable by the next runtime."""
    closed("memory", is_async, program, at, after, body, called)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@settings(max_examples=examples(2), deadline=None)
@given(program=STOPPED.strategy, at=st.integers(0, 12), after=st.booleans(), body=st.booleans())
def test_a_runtime_on_postgresql_closed_at_any_moment_leaves_every_run_resumable(
    is_async, program, at, after, body
):
    """A runtime on PostgreSQL that is closed at any commit or body leaves each run resumable."""
    closed("postgres", is_async, program, at, after, body)


def closed(kind: str, is_async: bool, program, at: int, after: bool, body: bool, called: bool = False):
    """Close a runtime on a storage of that *kind* at that moment, and go on in another one."""
    child = PLAYERS[is_async].child.options(id=RUN)
    closing: list[threading.Thread] = []

    def close(_: Stop) -> None:
        closing.append(threading.Thread(target=runtime.close, daemon=True))
        closing[0].start()

    with fresh(kind) as storage:
        moments = Moments(storage, [Stop(at, "close", after, body)], close, 0, 0)
        world = meet(World(on_body=moments.body))
        runtime = Runtime(moments)
        with runtime, contextlib.suppress(FlowError, Failed):
            if called:
                to_its_end(partial(child, (), program), is_async)
            else:
                run = child.start((), program)
                if at % 2:  # else it is left at once
                    run.result(60)
        for thread in closing:
            thread.join(60)
            assert not thread.is_alive()
        world.on_body = lambda: None
        with Runtime(storage) as later:
            for left in later.runs(status="running"):
                assert left.record.owner is None, left.id
            with contextlib.suppress(FlowError, Failed):
                later.run(RUN) and later.resume(RUN).result(60)
        assert standing(storage, world) == []


# Runs that wait -----------------------------------------------------------------------------------------------


@step(name="closing.note")
def note(text: str) -> str:
    return text


@step(name="closing.fails", retry=Retry(attempts=None, initial=1000.0))
def fails() -> None:
    raise Failed


@workflow(name="closing.waits")
def waits(name: str) -> Any:
    try:
        return wait_for("letter")
    finally:
        note(name)


@workflow(name="closing.waits_async")
async def waits_async(name: str) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(aio.sleep("1 day"))
        group.create_task(aio.wait_for("letter"))


@workflow(name="closing.sleeps")
def sleeps(name: str) -> None:
    note(name)
    sleep("1 day")


@workflow(name="closing.retries")
def retries(name: str) -> None:
    fails()


@workflow(name="closing.calls")
def calls(name: str) -> Any:
    return waits.options(id=f"{name}/called")(name)


@workflow(name="closing.starts")
async def starts(name: str) -> Any:
    return await aio.gather(waits.start(f"{name}-1"), waits_async.start(f"{name}-2"))


@workflow(name="closing.detaches")
def detaches(name: str) -> None:
    sleeps.options(detached=True, id=f"{name}/detached").start(name)
    note.options(mode="send")(name)


@workflow(name="closing.schedules")
def schedules(name: str) -> None:
    schedule(note, name, delay=1000)
    schedule(note, name)


@workflow(name="closing.races")
def races(name: str) -> Any:
    return race(waits.start(f"{name}-1"), sleeps.start(f"{name}-2"), note.submit(name))


@workflow(name="closing.asks")
def asks(name: str) -> Any:
    note(name)
    return waits.options(id=f"{name}/asked").start(name).ask("question", name)


@workflow(name="closing.publishes")
def publishes(name: str) -> None:
    while True:
        publish("news", name)
        store.increment("told")


def _then(run: Any) -> None:
    waits.options(id=f"{run.id}/then").start("then")


@workflow(name="closing.ends", on_complete=_then)
def ends(name: str) -> Any:
    return note.map([name, name])


@workflow(name="closing.again")
def again(name: str) -> None:
    note(name)
    continue_as_new(name)


KINDS = [
    *(
        waits,
        waits_async,
        sleeps,
        retries,
        calls,
        starts,
        detaches,
        schedules,
        races,
        asks,
        publishes,
        ends,
        again,
    )
]


@settings(max_examples=examples(15), deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    by=st.sampled_from(["thread", "body", "both", "leaving", "worker"]),
    at=st.integers(0, 25),
    after=st.booleans(),
)
def test_whatever_waits_a_runtime_closes_and_another_one_takes_it_up(kinds, by, at, after):
    """A runtime with waiting, sleeping, retrying, calling, racing, asking and publishing runs closes, and the
    next goes on."""
    closing: list[threading.Thread] = []

    def close(_: Stop) -> None:
        if by in ("body", "both"):
            runtime.close()  # in the middle of a commit, as a handler of a signal would
        if by in ("thread", "both", "worker"):
            for _ in range(2):
                closing.append(threading.Thread(target=runtime.close, daemon=True))
                closing[-1].start()

    with MemoryStorage() as storage:
        moments = Moments(storage, [] if by == "leaving" else [Stop(at, "close", after)], close, 0, 0)
        runtime = Runtime(moments)
        with runtime, contextlib.suppress(FlowError):
            for number, kind in enumerate(kinds):
                if by == "worker":
                    runtime.enqueue(kind.options(id=f"run-{number}"), f"run-{number}")
                else:
                    kind.options(id=f"run-{number}").start(f"run-{number}")
            if by == "worker":
                closing.append(threading.Thread(target=_work, args=(runtime,), daemon=True))
                closing[-1].start()
        for thread in closing:
            thread.join(60)
            assert not thread.is_alive()
        assert [run.id for run in storage.list_runs() if run.owner is not None] == []
        _end_all(storage)


# Transactions -------------------------------------------------------------------------------------------------


def _insert(name: str, connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS booked (name)")
    connection.execute("INSERT INTO booked VALUES (?)", (name,))


@step(name="closing.books", transaction=True)
def books(name: str, *, connection: sqlite3.Connection) -> None:
    _insert(name, connection)


@step(name="closing.books_async", transaction=True)
async def books_async(name: str, *, connection: sqlite3.Connection) -> None:
    _insert(name, connection)
    await asyncio.sleep(0)


@workflow(name="closing.transacts")
def transacts(name: str) -> None:
    books(name)
    note.submit(name).result()
    books(f"{name}/more")


@workflow(name="closing.transacts_async")
async def transacts_async(name: str) -> None:
    await aio.gather(books_async(name), books_async(f"{name}/more"))


@settings(max_examples=examples(8), deadline=None)
@given(
    kinds=st.lists(st.sampled_from([transacts, transacts_async]), min_size=1, max_size=3),
    at=st.integers(0, 15),
    after=st.booleans(),
)
def test_a_runtime_closed_in_transactions_leaves_every_run_resumable(kinds, at, after):
    """A runtime that is closed during transactions leaves each run resumable, and each row exists once."""
    closing: list[threading.Thread] = []

    def close(_: Stop) -> None:
        closing.append(threading.Thread(target=runtime.close, daemon=True))
        closing[-1].start()

    names = [f"run-{number}" for number in range(len(kinds))]
    with tempfile.TemporaryDirectory() as folder, SQLiteStorage(Path(folder) / "flow.db") as storage:
        runtime = Runtime(Moments(storage, [Stop(at, "close", after)], close, 0, 0))
        with runtime, contextlib.suppress(FlowError):
            for kind, name in zip(kinds, names, strict=True):
                kind.options(id=name).start(name)
        for thread in closing:
            thread.join(60)
            assert not thread.is_alive()
        assert [run.id for run in storage.list_runs() if run.owner is not None] == []
        with Runtime(storage):
            for kind, name in zip(kinds, names, strict=True):
                kind.options(id=name).start(name).result(60)
        with contextlib.closing(sqlite3.connect(Path(folder) / "flow.db")) as connection:
            booked = [name for (name,) in connection.execute("SELECT name FROM booked")]
    assert sorted(booked) == sorted([*names, *(f"{name}/more" for name in names)])


def _work(runtime: Runtime) -> None:
    with contextlib.suppress(FlowError):  # it is closed already
        runtime.work()


def _end_all(storage: MemoryStorage) -> None:
    """Take up what is left, and cancel it: it ends."""
    with Runtime(storage) as later:
        for left in later.runs(status=["pending", "running"], limit=None):
            with contextlib.suppress(FlowError):  # it has ended meanwhile, with its parent
                later.resume(left.id)
        while open_runs := later.runs(status=["pending", "running"], limit=None):
            for left in open_runs:
                with contextlib.suppress(FlowError):
                    later.cancel(left.id)
                    left.result(60)
