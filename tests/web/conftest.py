"""Runs to look at, and clients to look with."""

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flowdsl import Runtime
from flowdsl.storage import MemoryStorage
from flowdsl.web import Page, app

with warnings.catch_warnings():  # newer releases would rather have httpx2
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient
from web.browser import Browser, executable

TOKEN = "a token of this test, long enough"
URL = "http://localhost:8000"

Client = Callable[..., TestClient]


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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests; without Chromium they are skipped on a laptop, and fail in CI."""
    if executable() is None:
        reason = "no Chromium is installed here: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    found = Browser()
    yield found
    found.close()
