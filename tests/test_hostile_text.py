"""Hostile text in a database: no terminal obeys it, no browser executes it, and no reader is misled."""

import logging
import re
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hostile import HOSTILE, columns, furnish, spoil

from flowdsl import Runtime
from flowdsl.cli._app import COMMANDS, cli
from flowdsl.errors import FlowError
from flowdsl.web import app

with warnings.catch_warnings():  # newer releases would rather have httpx2
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

SECRET = "only we know"
LISTS = (["runs"], ["top"], ["queues"], ["schedules"], ["workers"], ["doctor"])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Databases without hostile text, with a secret and without."""
    made: dict[bool, Path] = {}

    def find(signed: bool) -> Path:
        if signed not in made:
            made[signed] = tmp_path_factory.mktemp("clean") / "flow.db"
            with pytest.MonkeyPatch.context() as patch:
                if signed:
                    patch.setenv("FLOWDSL_SECRET_KEY", SECRET)
                furnish(f"sqlite:///{made[signed]}")
        return made[signed]

    return find


@pytest.fixture(params=[False, True], ids=["", "signed"])
def place(
    request: pytest.FixtureRequest,
    clean: Callable[[bool], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A copy of the database, in the directory where commands look."""
    if request.param:
        monkeypatch.setenv("FLOWDSL_SECRET_KEY", SECRET)
    (tmp_path / ".flowdsl").mkdir()
    monkeypatch.delenv("FLOWDSL_STORAGE")
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(clean(request.param), tmp_path / ".flowdsl" / "flow.db"))


def ids(place: Path) -> list[str]:
    """The ids of all runs, as they stand there."""
    with closing(sqlite3.connect(place)) as database:
        return [run_id for (run_id,) in database.execute("SELECT id FROM runs ORDER BY no")]


def printed(*arguments: str) -> Iterator[str]:
    """What is wrong with what a command prints, as text, as JSON, and with a traceback."""
    for how in ([], ["--json"], ["--traceback"]):
        with (
            pytest.MonkeyPatch.context() as patch
        ):  # log lines go to standard error, as in a program of its own
            patch.setattr(logging.getLogger("flowdsl"), "handlers", [logging.lastResort])
            done = CliRunner().invoke(cli, [*arguments, *how], env={"COLUMNS": "100"})
        said = " ".join([*arguments, *how])
        if not (done.exception is None or isinstance(done.exception, SystemExit)):
            yield f"{said}: {done.exception!r}"
        for line in done.output.split("\n"):
            if not line.isprintable() or line.startswith("forged"):
                yield f"{said}: {line!r}"


def pages(place: Path) -> Iterator[tuple[str, int, str]]:
    """Every page and document: its address, status, and text."""
    runs = [quote(run_id, safe="") for run_id in ids(place)]
    page = app(f"sqlite:///{place}", token=False, allow_actions=True)
    client = TestClient(page, "http://localhost", follow_redirects=False)
    addresses = ["/", "/?q=order", "/queues", "/schedules", "/workers", "/api/runs", "/runs/none"]
    addresses += [
        f"{above}{run}{rest}"
        for run in runs
        for above, rest in (("/runs/", ""), ("/api/runs/", ""), ("/api/runs/", "/history"))
    ]
    for address in addresses:
        answer = client.get(address)
        yield address, answer.status_code, answer.text
        for link in re.findall(r'<a data-show="[^"]*" href="(\?[^"#]*)', answer.text)[:2]:
            detail = client.get(address + link.replace("&amp;", "&"))
            yield address + link, detail.status_code, detail.text
    page.close()


def raw(text: str, *, is_markup: bool = True) -> Iterator[str]:
    """The lines of a page that hold anything hostile."""
    for line in text.split("\n"):
        if not line.isprintable() or ("<b onload" in line and is_markup):
            yield repr(line)


def notebook(place: Path) -> Iterator[str]:
    """What a notebook shows of the storage."""
    with Runtime(f"sqlite:///{place}") as runtime:
        yield runtime._repr_html_()
        runs: Any = runtime.runs()
        for shown in (runs, *runs):
            yield shown._repr_html_()
        for run in runs:
            with suppress(FlowError):  # of a record that is refused
                yield run.plot()._repr_svg_()


def plain(place: Path) -> Iterator[str]:
    """What a terminal shows of the same."""
    with Runtime(f"sqlite:///{place}") as runtime:
        for run in runtime.runs():
            yield f"{run!r} {run.progress()}"
            with suppress(FlowError):
                yield repr((run.steps(), run.logs(), run.audit()))


def faults(place: Path) -> Iterator[str]:
    """What lists, pages and pictures show that is hostile, and faults of the server."""
    for command in LISTS:
        yield from printed(*command)
    for run in ids(place)[:3]:
        yield from printed("show", "--", run)
    for address, status, text in pages(place):
        yield from (f"{address}: {line}" for line in raw(text, is_markup="/api/" not in address))
        if status >= 500:
            yield f"{address}: {status}"
    for text in notebook(place):
        yield from raw(text)
    for text in plain(place):
        yield from raw(text, is_markup=False)


@pytest.fixture
def spoilt(place: Path) -> Path:
    """A database with hostile text behind every text of every table; with a secret, all of that is refused."""
    for table, column in columns(place):
        if column not in ("status", "kind") and table != "counters":
            spoil(place, table, column, whole=False)
    return place


def test_every_face_shows_hostile_text_as_text(spoilt):
    """Lists and runs show hostile text as text: in text, JSON, pages, the API and notebooks."""
    assert list(faults(spoilt)) == []


OF_RUNS = {
    "order-1": (
        ["show", "--timeline"], ["show", "--all"], ["steps"], ["steps", "charge"], ["steps", "chrage"], ["logs"],
        ["watch"], ["export"], ["stream", "news"], ["stream", "news" + HOSTILE], ["tag", "x=y" + HOSTILE],
        ["fork", "--before", "charge"], ["retry", "--app", "hostile"], ["delete", "--yes"],
    ),
    "left": (
        ["steps"], ["resume", "--app", "hostile"], ["signal", "approved" + HOSTILE], ["resolve", "step3", "--rerun"],
        ["ask", "approved" + HOSTILE, "--timeout", "0"], ["cancel"],
    ),
}  # fmt: skip
OTHERS = (
    *LISTS, ["queues", "pause", "mail" + HOSTILE], ["queues", "pause", "mial" + HOSTILE], ["queues", "delete", "mail"],
    ["schedules", "pause", "nightly" + HOSTILE], ["schedules", "trigger", "nightly" + HOSTILE, "--app", "hostile"],
    ["schedules", "delete", "nihgtly" + HOSTILE], ["runs", "--workflow", "ordr" + HOSTILE], ["runs", "--tag", HOSTILE],
    ["backup", f"copy{HOSTILE[:3]}.db"], ["rekey"], ["completion", "bash"], ["prune", "--older-than", "0s"],
)  # fmt: skip


def test_every_command_is_tried(spoilt, monkeypatch):
    """No command prints control characters or a forged line."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    tried = {command for command, *_ in OTHERS} | {of[0] for every in OF_RUNS.values() for of in every}
    assert tried == set(COMMANDS) - {"ui", "worker"}
    found = []
    for run_id, commands in OF_RUNS.items():
        for command, *rest in commands:
            found += printed(command, run_id + HOSTILE, *rest)
    for command in OTHERS:
        found += printed(*command)
    assert found == []
