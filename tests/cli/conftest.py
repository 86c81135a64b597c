"""Fixtures: a folder with a real database, a shop that uses it, and ways to run commands."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flowdsl import Retry, Runtime, step, workflow
from flowdsl.cli.app import cli
from flowdsl.core.records import Run

from .terminal import Terminal


class CardDeclined(Exception):
    """The failure of the shop."""


class Shop:
    """Decorated functions, and what they do this time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.card = True
        self.interrupt = False

        @step(name="shop.check")
        def check(item):
            return {"item": item, "left": 3}

        @step(name="shop.reserve")
        def reserve(order):
            if self.interrupt:
                check(order)
                raise KeyboardInterrupt
            return [check(order), check("wrapping paper")]

        @step(name="shop.charge", retry=Retry(attempts=2, initial=0))
        def charge(order):
            if not self.card:
                raise CardDeclined(f"no money for {order}")
            return f"paid {order}"

        @workflow(name="shop.ship", id="ship-{order}")
        def ship(order):
            return check("van")

        @workflow(name="shop.checkout", tags={"env": "prod", "region": "eu"})
        def checkout(order):
            return {"reserved": reserve(order), "paid": charge(order), "shipped": ship(order)}

        self.checkout, self.ship = checkout, ship

    def sell(self, order: str, **options: Any) -> Run:
        """Run a checkout that completes."""
        return self._run(self.checkout.options(**options), order)

    def fail(self, order: str, **options: Any) -> Run:
        """Run a checkout whose card is declined."""
        self.card = False
        try:
            return self._run(self.checkout.options(**options), order)
        finally:
            self.card = True

    def break_off(self, order: str, **options: Any) -> Run:
        """Run a checkout that Ctrl-C ends in the middle of its first step."""
        self.interrupt = True
        try:
            return self._run(self.checkout.options(**options), order)
        finally:
            self.interrupt = False

    def ship_only(self, order: str) -> None:
        """Run the child workflow by itself."""
        with Runtime(self.url):
            self.ship(order)

    def _run(self, called: Any, order: str) -> Run:
        with Runtime(self.url) as runtime:
            before = {run.id for run in runtime.runs()}
            try:
                called(order)
            except (CardDeclined, KeyboardInterrupt):
                pass
            fresh = [run for run in runtime.runs(workflow="shop.checkout") if run.id not in before]
            assert len(fresh) == 1
            return fresh[0].record


Invoke = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, without any setting that the tests' own environment makes."""
    for name in ("FLOWDSL_STORAGE", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def url(folder: Path) -> str:
    """The default storage, by its URL."""
    return "sqlite:///.flowdsl/flow.db"


@pytest.fixture
def shop(url: str) -> Shop:
    """The shop, whose runs are in the default storage."""
    return Shop(url)


@pytest.fixture
def invoke(folder: Path) -> Invoke:
    """Run a command in this process; it must not end with a traceback."""

    def run(*arguments: str, **options: Any) -> Result:
        result = CliRunner().invoke(cli, list(arguments), prog_name="flowdsl", **options)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output or "--debug" in arguments
        return result

    return run


@pytest.fixture
def answer(invoke: Invoke) -> Callable[..., Any]:
    """Run a command that succeeds with ``--json`` and return its document, which is all that it prints."""

    def run(*arguments: str) -> Any:
        result = invoke(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def spawn(folder: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a real ``flowdsl`` in a process of its own; whatever still executes in the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "flowdsl.cli", *arguments]
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **{**pipe, **options}))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def terminal(folder: Path) -> Iterator[Callable[..., Terminal]]:
    """Run ``flowdsl`` in a terminal of a given width, and see what is on it in the end."""
    opened: list[Terminal] = []

    def run(*arguments: str, width: int, **options: Any) -> Terminal:
        opened.append(Terminal([sys.executable, "-m", "flowdsl", *arguments], width, **options))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test imports."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
