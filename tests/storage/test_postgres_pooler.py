"""PostgreSQL behind a pooler that lets no notification through, and over connections that are cut at a commit."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from postgres_proxy import Proxy
from postgres_server import postgres_url

pytest.importorskip("psycopg")
from flowdsl import Runtime, step, wait_for, workflow
from flowdsl.core.records import Signal
from flowdsl.storage.operations import AddSignal, PutStep
from flowdsl.storage.outcomes import Done
from flowdsl.storage.postgres import PostgresStorage, listen
from flowdsl.testing.storage.samples import a_step, open_run


@contextmanager
def proxied(url: str, fate: Callable[[], str] = lambda: "", mute: bool = False) -> Iterator[str]:
    """The URL of the same schema through a proxy."""
    host = parse_qs(urlsplit(url).query).get("host", [""])[0]
    if not host.startswith("/"):
        pytest.skip("the server of FLOWDSL_TEST_POSTGRES listens on no socket of this host")
    ready, port, over = threading.Event(), [0], threading.Event()

    async def serve() -> None:
        async with Proxy(f"{host}/.s.PGSQL.5432", fate=fate, mute=mute) as proxy:
            port[0] = proxy.port
            ready.set()
            await asyncio.to_thread(over.wait, 300)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        schema = parse_qs(urlsplit(url).query)["schema"][0]
        yield f"postgresql://postgres@127.0.0.1:{port[0]}/postgres?schema={schema}&prepare=no"
    finally:
        over.set()
        thread.join(60)


def test_where_notifications_do_not_arrive_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a pooler without notifications the storage notices, and looks for messages and ends of runs
    itself."""
    monkeypatch.setattr(listen, "_TEST", 0.1)
    url = postgres_url()
    with proxied(url, mute=True) as muted, PostgresStorage(muted) as storage, PostgresStorage(url) as other:
        open_run(storage)
        seen, deadline = storage.wait_for_change(0, 1.0, ["run:r"]), time.monotonic() + 60
        while storage.listens is None and time.monotonic() < deadline:
            seen = storage.wait_for_change(seen, 0.1, ["run:r"])
        assert storage.listens is False
        other.commit([AddSignal(Signal("x", "r", "go"))])
        assert storage.wait_for_change(seen, 60.0, ["run:r"]) != seen


def test_runs_and_workers_behind_a_pooler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a pooler a worker gets enqueued runs, and a run its message."""
    monkeypatch.setattr(listen, "_TEST", 0.1)

    @workflow
    def asked() -> str:
        found: str = wait_for("answer", timeout=60)
        return found

    url = postgres_url()
    with proxied(url, mute=True) as muted, Runtime(muted, lease=5) as rt:
        worker = threading.Thread(target=rt.work, kwargs={"drain": 1})
        worker.start()
        with Runtime(url) as other:
            run = other.enqueue(asked)
            other.signal(run.id, "answer", "yes")
            assert run.result(60) == "yes"
        rt.close()
        worker.join(60)
        assert not worker.is_alive()


def test_a_commit_whose_answer_is_lost_counts_once() -> None:
    """Commits whose connection is lost before or after the server has them count once."""
    turns = itertools.cycle(["", "", "before", "", "", "after"])
    url = postgres_url()

    @step
    def charge(n: int) -> int:
        charged.append(n)
        return n

    @workflow(id="order")
    def order() -> list[int]:
        return [charge(n) for n in range(6)]

    charged: list[int] = []
    with proxied(url, fate=lambda: next(turns)) as cut:
        with PostgresStorage(cut) as storage:
            open_run(storage)
            for number in range(9):
                assert isinstance(storage.commit([PutStep(a_step(key=f"{number}"), 1)])[0], Done)
            assert [one.key for one in storage.list_steps("r")] == [str(number) for number in range(9)]
        with Runtime(cut) as rt:
            assert order() == list(range(6))
            assert len(rt.run("order").steps()) == 6
    assert charged == list(range(6))
