"""Runs to look at, and clients to look with."""

import asyncio
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jinja2
import pytest

from flowdsl import Runtime
from flowdsl.storage import MemoryStorage, Storage
from flowdsl.web import Page, app, rendering
from flowdsl.web.server import server_of

with warnings.catch_warnings():  # newer releases would rather have httpx2
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient
from web.browser import Browser, executable

TOKEN = "a token of this test, long enough"
URL = "http://localhost:8000"

Client = Callable[..., TestClient]


class _Compiled(jinja2.BytecodeCache):
    """Templates as they were compiled for the first page of this process: the others compile none."""

    def __init__(self) -> None:
        self._found: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Any) -> None:
        if bucket.key in self._found:
            bucket.bytecode_from_string(self._found[bucket.key])

    def dump_bytecode(self, bucket: Any) -> None:
        self._found[bucket.key] = bucket.bytecode_to_string()


_compiled = _Compiled()


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "Environment", partial(jinja2.Environment, bytecode_cache=_compiled))


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """A runtime on a memory of its own."""
    with Runtime(MemoryStorage()) as found:
        yield found


@pytest.fixture
def client(runtime: Runtime) -> Iterator[Client]:
    """Makes clients: ``client(allow_actions=True, headers={…})``; they show the token unless told not to."""
    pages: list[Page] = []

    def make(
        *, headers: dict[str, str] | None = None, show_token: bool = True, url: str = URL, **options: Any
    ):
        page = app(options.pop("of", runtime), token=options.pop("token", TOKEN), **options)
        pages.append(page)
        shown = {"Authorization": f"Bearer {TOKEN}"} if show_token else {}
        return TestClient(page, url, headers={**shown, **(headers or {})}, follow_redirects=False)

    yield make
    for page in pages:
        page.close()


class Served:
    """A page that a real server serves, at a port of its own, in a thread."""

    def __init__(self, page: Page) -> None:
        self.page = page
        ready = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = server_of(page, ready.set)
        work = self._server.serve(sockets=[self._listening])
        self._thread = threading.Thread(target=lambda: asyncio.run(work), name="served")
        self._thread.start()
        assert ready.wait(60)

    @property
    def link(self) -> str:
        """What a person opens."""
        return f"{self.url}/?token={TOKEN}"

    def raw(self, request: str | bytes, *, token: str | None = TOKEN) -> bytes:
        """Send bytes, and give all that comes back until the server hangs up."""
        given = request if isinstance(request, bytes) else request.replace("\n", "\r\n").encode("latin-1")
        if token is not None:
            head, gap, rest = given.partition(b"\r\n")
            given = head + gap + f"Authorization: Bearer {token}\r\n".encode() + rest
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(given)
            found = b""
            while chunk := connection.recv(1 << 16):
                found += chunk
            return found

    def close(self) -> None:
        """End the server."""
        self.page.close()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def serve(runtime: Runtime) -> Iterator[Callable[..., Served]]:
    """Makes servers: ``serve(allow_actions=True)``."""
    made: list[Served] = []

    def make(of: Runtime | Storage | None = None, **options: Any) -> Served:
        made.append(Served(app(of or runtime, token=TOKEN, **options)))
        return made[-1]

    yield make
    for served in made:
        served.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests; without Chromium they are skipped on a laptop, and fail in CI."""
    if executable() is None:
        reason = "no Chromium is installed here: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    found = Browser()
    yield found
    found.close()
