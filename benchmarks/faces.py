"""The faces: pages of the web page, a long run in a browser, and a run that is shown live.

Pages and live runs are measured in processor time of this process, which hardly depends on other programs.
The browser is measured in real time, because its reader waits.
"""

import asyncio
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any
from uuid import uuid4

from benchmarks import workflows as w
from benchmarks.measure import Budget, Figure, Scale, figure, quiet
from flowdsl import Runtime
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.hooks import installed
from flowdsl.notebook.frames import html
from flowdsl.notebook.watching import TerminalScreen, WatchedRun, Watcher
from flowdsl.storage import SQLiteStorage, Storage
from flowdsl.storage.base import OpenRun, PutStep
from flowdsl.web import Page, app
from flowdsl.web.server import server_of

__all__ = ["faces"]

_TOKEN = "a token of the benchmarks"
_FEW = 100  # runs and steps, as the small case for comparison
_BATCH = 1_000


def faces(scale: Scale) -> Iterator[Figure]:
    """The list of runs, a long run, and live progress."""
    with _listed(scale, scale.listed) as many, _listed(scale, _FEW) as few:
        yield _paged(scale, many, few)
    with _long(scale) as storage:
        yield from _opened(scale, storage)
        if scale.browser:
            yield _painted(scale, storage)
    yield _live(scale, "in a notebook", _Html)
    yield _live(scale, "in a terminal", lambda: TerminalScreen(io.StringIO()))


# Storages ---------------------------------------------------------------------------------------------------


def _storage(scale: Scale) -> SQLiteStorage:
    return SQLiteStorage(str(scale.directory / f"faces-{uuid4().hex}.db"), synchronous="normal")


def _listed(scale: Scale, number: int) -> Storage:
    """A storage with this many runs."""
    storage = _storage(scale)
    statuses = (RunStatus.COMPLETED, RunStatus.COMPLETED, RunStatus.FAILED)
    for start in range(0, number, _BATCH):
        runs = [
            Run(
                f"order-{n}",
                "shop.checkout",
                f"k{n}",
                status=statuses[n % 3],
                args_preview=f"order={n}",
                tags={"env": "prod"},
                created_at=1e9 + n,
                finished_at=1e9 + n + 1,
            )
            for n in range(start, min(start + _BATCH, number))
        ]
        storage.commit([OpenRun(run, 0.0) for run in runs])
    return storage


def _long(scale: Scale) -> Storage:
    """A storage with a long run and a short run."""
    storage = _storage(scale)
    for name, number in (("long", scale.journal), ("short", _FEW)):
        end = 1e9 + number
        run = Run(name, "shop.load", name, status=RunStatus.RUNNING, owner="me", created_at=1e9)
        storage.commit([OpenRun(run, 1e9)])
        for start in range(0, number, _BATCH):
            steps = [_step(name, n) for n in range(start, min(start + _BATCH, number))]
            storage.commit([PutStep(step) for step in steps])
        storage.set_run(
            Run(name, "shop.load", name, status=RunStatus.COMPLETED, created_at=1e9, finished_at=end)
        )
    return storage


def _step(run: str, n: int) -> Step:
    failed = n % 50 == 49
    return Step(
        run,
        f"{n:040x}",
        ("shop.reserve", "shop.charge", "shop.ship")[n % 3],
        args=f"order={n}, note='two of these'",
        preview="ConnectionError: no answer" if failed else f"{{'order': {n}, 'ok': True}}",
        status=StepStatus.FAILED if failed else StepStatus.COMPLETED,
        attempts=1 + failed,
        created_at=1e9 + n,
        completed_at=1e9 + n + 0.9,
    )


# Pages ------------------------------------------------------------------------------------------------------


class _Asking:
    """Sends requests to the page without a server."""

    def __init__(self, storage: Storage) -> None:
        self.page = app(storage, token=_TOKEN)

    def get(self, path: str, first: bool = False) -> tuple[float, int]:
        """Milliseconds of processor time until the page, or its *first* piece, is complete; and its bytes."""
        begun, ended, size = process_time(), 0.0, 0

        async def send(message: Any) -> None:
            nonlocal ended, size
            if message["type"] == "http.response.start":
                assert message["status"] == 200, message
            else:
                size += len(message["body"])
                ended = ended if first and ended else process_time()

        async def receive() -> Any:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"", "more_body": False}

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {_TOKEN}".encode())]
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "http_version": "1.1", "method": "GET"}
        where = {"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b""}
        asyncio.run(self.page({**scope, **where, "scheme": "http", "headers": headers}, receive, send))
        return 1e3 * (ended - begun), size


def _paged(scale: Scale, many: Storage, few: Storage) -> Figure:
    pages = _Asking(many), _Asking(few)
    for page in pages:
        page.get("/")  # templates are compiled once
    rounds = range(max(scale.repeats, 2) * 3)
    samples = [[page.get("/")[0] for page in pages] for _ in rounds]
    return figure(
        f"page of 50 of {scale.listed:,} runs, on the server",
        [one for one, _ in samples],
        unit="ms",
        reference=[other for _, other in samples],
        reference_name=f"of {_FEW} runs",
        budget=Budget(100),
    )


def _opened(scale: Scale, storage: Storage) -> Iterator[Figure]:
    asking = _Asking(storage)
    asking.get("/runs/short")
    for what, first in (("first screenful", True), ("whole page", False)):
        with quiet():
            samples = [
                [asking.get(f"/runs/{run}", first)[0] for run in ("long", "short")]
                for _ in range(scale.repeats)
            ]
        yield figure(
            f"run of {scale.journal:,} steps, {what}, on the server",
            [one for one, _ in samples],
            unit="ms",
            reference=[other for _, other in samples],
            reference_name=f"of {_FEW} steps",
        )
    sizes = [asking.get(f"/runs/{run}")[1] / 1e3 for run in ("long", "short")]
    yield figure(
        f"run of {scale.journal:,} steps, HTML",
        sizes[:1],
        unit="kB",
        reference=sizes[1:],
        reference_name=f"of {_FEW} steps",
        budget=Budget(1_000),
    )


def _painted(scale: Scale, storage: Storage) -> Figure:
    """From the click to the first paint in Chromium, each time in a page of its own."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    from web.browser import Browser  # type: ignore[import-not-found,unused-ignore]

    page = app(storage, token=_TOKEN)
    with _Served(page) as url:
        browser = Browser()
        try:
            samples = [
                [_first_paint(browser, url, run) for run in ("long", "short")] for _ in range(scale.repeats)
            ]
        finally:
            browser.close()
    return figure(
        f"run of {scale.journal:,} steps, first paint in Chromium",
        [one for one, _ in samples],
        unit="ms",
        reference=[other for _, other in samples],
        reference_name=f"of {_FEW} steps",
        budget=Budget(1_000),
    )


def _first_paint(browser: Any, url: str, run: str) -> float:
    browser.new_page()
    browser.go(f"{url}/?token={_TOKEN.replace(' ', '%20')}")
    browser.go(f"{url}/runs/{run}")
    paints = "performance.getEntriesByName('first-contentful-paint')"
    browser.until(f"{paints}.length")
    return float(browser.run(f"{paints}[0].startTime"))


class _Served:
    """A page at a port of this machine, for a browser."""

    def __init__(self, page: Page) -> None:
        import socket

        self._page, ready = page, threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._server = server_of(page, ready.set)
        serving = self._server.serve(sockets=[self._listening])
        self._thread = threading.Thread(target=lambda: asyncio.run(serving))
        self._thread.start()
        ready.wait()

    def __enter__(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._page.close()
        self._server.should_exit = True
        self._thread.join()


# Live -------------------------------------------------------------------------------------------------------


class _Html:
    """Draws frames as a notebook does, and shows them nowhere."""

    def draw(self, shown: list[WatchedRun]) -> None:
        for one in shown:
            html(one.frame)

    def close(self) -> None:
        pass


def _live(scale: Scale, where: str, screen: Callable[[], Any]) -> Figure:
    """A run in memory that is drawn from the beginning, in turns with one that is not drawn."""
    looked_at, alone = [], []

    def run(times: list[float]) -> None:
        begun = process_time()
        with Runtime("memory://"):
            w.in_turns(1, scale.journal, lambda: None)
        times.append(1e3 * (process_time() - begun))

    with quiet():
        for turn in range(2 * scale.repeats):
            for look in (True, False) if turn % 2 else (False, True):
                if not look:
                    run(alone)
                    continue
                watcher = Watcher(screen(), 0.0)
                with installed(watcher):
                    run(looked_at)
                watcher.close()
    return figure(
        f"run of {scale.journal:,} steps, shown live {where}",
        looked_at,
        unit="ms",
        reference=alone,
        reference_name="nobody looks",
        budget=Budget(1.02, "ratio"),
    )
