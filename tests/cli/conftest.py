"""Fixtures: a folder with a real database, a shop that uses it, and ways to run commands."""

import json
import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from click.testing import CliRunner, Result

from flowdsl import Retry, Runtime, log, now, step, store, uuid4, workflow
from flowdsl.cli._app import cli
from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus
from flowdsl.storage import open_storage

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
        assert "Traceback" not in result.output or {"--debug", "--traceback"} & set(arguments)
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
def spawn(folder: Path) -> Iterator[Callable[..., forked.Popen]]:
    """Start a real ``flowdsl`` in a process of its own; whatever still executes in the end is killed."""
    started: list[forked.Popen] = []

    def run(*arguments: str, **options: Any) -> forked.Popen:
        command = [sys.executable, "-m", "flowdsl.cli", *arguments]
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(forked.Popen(command, **{**pipe, **options}))
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


SCRIPT = """
    import os, sys
    from dataclasses import dataclass
    from pathlib import Path
    from flowdsl import Retry, step, workflow

    @dataclass
    class Order:
        number: int

    class CardDeclined(Exception):
        pass

    def note(line):
        with open("effects.txt", "a") as file:
            file.write(line + "\\n")

    @step
    def reserve(order):
        note(f"reserve {order.number}")
        return order

    @step(retry=Retry(attempts=1))
    def charge(order):
        note("charge")
        print("the body prints")
        os.system("echo and so does its child")
        if Path("die").exists():
            Path("die").unlink()
            os.kill(os.getpid(), 9)
        if not Path("card").exists():
            raise CardDeclined("no money\\nat all")
        return "paid"

    @workflow(id="order-{order.number}")
    def checkout(order):
        reserved = reserve(order)
        assert type(reserved) is Order
        return [reserved, charge(reserved)]

    if __name__ == "__main__":
        note("main")
        checkout(Order(int(sys.argv[1])))
"""


@pytest.fixture
def script(folder):
    """A script, and what calling it leaves in the file of effects."""
    path = folder / "jobs" / "shop-v2.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(SCRIPT))

    def run(number):
        done = forked.run([sys.executable, str(path), str(number)], capture_output=True, text=True)
        return done.returncode

    return run


@pytest.fixture
def effects(folder):
    """What the bodies of the script did, in order."""
    return lambda: (folder / "effects.txt").read_text().split("\n")[:-1]


BANK = """
    import os, sys
    from pathlib import Path
    from flowdsl import step, wait_for, workflow
    from flowdsl.errors import StepFailed

    @step(in_doubt="raise")
    def charge(order):
        with open("effects.txt", "a") as file:
            file.write(order + "\\n")
        if Path("die").exists():
            Path("die").unlink()
            os._exit(9)
        return "paid " + order

    @step
    def note(text):
        return text

    @workflow(id="order-{order}")
    def checkout(order):
        note("begin")
        try:
            paid = charge(order)
        except StepFailed as error:
            return note(str(error))
        return [paid, wait_for("approved", timeout=0)] if order == "signalled" else paid

    if __name__ == "__main__":
        checkout(sys.argv[1])
"""


@pytest.fixture
def doubtful(folder):
    """Make a run whose step is in doubt."""
    (folder / "bank.py").write_text(textwrap.dedent(BANK))

    def run(order):
        (folder / "die").touch()
        done = forked.run([sys.executable, "bank.py", order], capture_output=True)
        assert done.returncode == 9
        return f"order-{order}"

    return run


@pytest.fixture
def waiting(url, folder):
    """A storage with one interrupted run, ``a``, in it."""
    (folder / ".flowdsl").mkdir()
    with open_storage(url) as storage:
        storage.set_run(Run("a", "shop.wait", "k", status=RunStatus.RUNNING))
        yield storage


class Diary:
    """A workflow that logs, and what its step executed."""

    def __init__(self, url):
        self.url = url
        self.executed = []

        @step(name="diary.write")
        def write(page):
            self.executed.append(page)
            log("writing\x1b[31m", page=page, ink=[1, 2])
            return page * 2

        @workflow(name="diary.keep", id="diary-{pages}", tags={"team": "日本"})
        def keep(pages):
            log("begins", part=math.inf)
            store.set("pages", pages)
            return [[write(page) for page in range(pages)], str(uuid4()), now().year]

        self.keep = keep

    def __call__(self, pages):
        with Runtime(self.url):
            return self.keep(pages)


@pytest.fixture
def diary(url):
    """The diary, whose runs are in the default storage."""
    return Diary(url)


@pytest.fixture
def fault(invoke: Invoke) -> Callable[..., str]:
    """Run a command that goes wrong: one line says how, and at most a second one what to do. Both are
    returned.
    """

    def run(*arguments: str, code: int = 1) -> str:
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        first, *more = result.stderr.splitlines()
        assert first.startswith("error: ")
        assert len(more) <= 1
        assert all(line.startswith("next: ") for line in more)
        return result.stderr

    return run
