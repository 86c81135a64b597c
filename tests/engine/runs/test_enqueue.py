"""Enqueueing in the user's own transaction: the run is there if, and only if, that is committed."""

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest

from flowdsl import Runtime, workflow

sys.path.insert(0, str(Path(__file__).parents[2] / "storage"))
from postgres_server import postgres_url


@workflow
def ship(order):
    """What is enqueued."""
    return order


@pytest.fixture
def url():
    """A schema of its own on a real server."""
    return postgres_url()


def test_postgres(url):
    """On PostgreSQL a rollback removes the enqueued run, a commit keeps it, and autocommit is refused."""
    import psycopg

    with Runtime(url) as rt, psycopg.connect(url.partition("?")[0] + host_of(url)) as mine:
        rt.enqueue(ship.options(id="gone"), 1, connection=mine)
        mine.rollback()
        run = rt.enqueue(ship.options(id="kept"), 2, connection=mine)
        assert rt.run("kept") is None
        mine.commit()
        assert (run.status, rt.run("gone")) == ("pending", None)
        mine.autocommit = True
        with pytest.raises(ValueError, match="autocommit"):
            rt.enqueue(ship, 3, connection=mine)
        with mine.transaction():
            assert rt.enqueue(ship, 3, connection=mine).id


def test_postgres_async(url):
    """``await rt.aio.enqueue`` takes an ``AsyncConnection``, and the plain call refuses it."""
    import psycopg

    async def main():
        async with Runtime(url) as rt:
            async with await psycopg.AsyncConnection.connect(url.partition("?")[0] + host_of(url)) as mine:
                with pytest.raises(TypeError, match=r"rt\.aio\.enqueue"):
                    rt.enqueue(ship, 1, connection=mine)
                await rt.aio.enqueue(ship.options(id="gone"), 1, connection=mine)
                await mine.rollback()
                run = await rt.aio.enqueue(ship.options(id="kept"), 2, connection=mine)
                await mine.commit()
            assert (run.status, await rt.aio.run("gone")) == ("pending", None)

    asyncio.run(main())


def test_sqlite_async(tmp_path):
    """With SQLite the awaited enqueue uses the connection on its own thread."""

    async def main():
        async with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
            mine = sqlite3.connect(tmp_path / "flow.db")
            await rt.aio.enqueue(ship.options(id="kept"), 1, connection=mine)
            mine.commit()
            await rt.aio.enqueue(ship.options(id="gone"), 1, connection=mine)
            mine.rollback()
            mine.close()
            assert (await rt.aio.run("kept")).status == "pending"
            assert await rt.aio.run("gone") is None
            with pytest.raises(TypeError, match="connection="):
                await rt.aio.enqueue(ship, 1, connection=object())

    asyncio.run(main())


def host_of(url):
    """The driver's own options of *url*."""
    from urllib.parse import parse_qsl, urlencode

    options = [(name, value) for name, value in parse_qsl(url.partition("?")[2]) if name != "schema"]
    return f"?{urlencode(options)}" if options else ""
