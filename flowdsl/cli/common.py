"""What all commands share: their options, opening a storage without making one, and finding a run by part of
its id.
"""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from attrs import define, evolve, field

from flowdsl.cli.output import Output
from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.runtime import Runtime
from flowdsl.storage.sqlite_urls import sqlite_path
from flowdsl.storage.urls import DEFAULT_URL, default_url

__all__ = [
    "Cli",
    "Failure",
    "app_of",
    "command",
    "every_run",
    "find_run",
    "find_runs",
    "missing_database",
    "opened",
    "shown_status",
]

PAGE = 500  # runs read at once while looking through all of them
_FEWEST_DIGITS = 4  # of a key, as in git
_SHOWN = 4  # candidates named in an error


class Failure(click.ClickException):
    """Ends the command with one line on standard error and exit code 1."""


@define
class Cli:
    """What a command is given: the options that all commands have, before or behind the command's name.

    *explicit*: the storage was named on the command line.
    """

    storage: str | None = None
    as_json: bool = False
    debug: bool = False
    out: Output = field(factory=Output)

    @property
    def explicit(self) -> bool:
        """Whether the storage was named on the command line."""
        return self.storage is not None

    @property
    def url(self) -> str:
        """The storage's URL."""
        return self.storage or default_url()

    def update(self, storage: str | None, as_json: bool, debug: bool) -> None:
        """Take options in; what is given last counts."""
        self.storage = storage or self.storage
        self.debug = debug or self.debug
        if as_json and not self.as_json:
            self.as_json = True
            self.out = Output(as_json=True)


SHARED = (
    click.option(
        "--storage", metavar="URL", help="Where the runs are, for example sqlite:///path/to/flow.db."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
    click.option("--debug", is_flag=True, help="Show tracebacks of errors."),
)
"""Options that every command has."""


def command(**attributes: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command of a function, which is called with the :class:`Cli` and its own options.

    What the function returns is the exit code; ``None`` is 0.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        @click.pass_obj
        def call(cli: Cli, /, storage: str | None, as_json: bool, debug: bool, **options: Any) -> int | None:
            cli.update(storage, as_json, debug)
            return function(cli, **options)

        made: click.Command = click.command(**attributes)(call)
        for option in SHARED:
            option(made)
        return made

    return decorate


# ---------------------------------------------------------------------------------------------------- opening


def missing_database(url: str) -> Path | None:
    """The file of an SQLite storage that is not there, or ``None``. Raises a usage error for a malformed
    URL.
    """
    if not url.startswith("sqlite:"):
        return None
    try:
        name, _ = sqlite_path(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    path = Path(name).absolute()
    return None if path.exists() else path


@contextmanager
def opened(cli: Cli) -> Iterator[Runtime]:
    """A runtime on the storage that is meant. A missing SQLite file is not made: commands are about runs that
    exist.
    """
    absent = missing_database(cli.url)
    if absent is not None:
        raise Failure(_no_database(cli.url, absent))
    try:
        runtime = Runtime(cli.url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with runtime:
        yield runtime


def _no_database(url: str, path: Path) -> str:
    if url != DEFAULT_URL:
        return f"no database at {path}"
    nearest = next((up for up in path.parents[2:] if (up / ".flowdsl" / "flow.db").exists()), None)
    hint = (
        f"there is one in {nearest}: go there, or give --storage sqlite:///{nearest}/.flowdsl/flow.db"
        if nearest
        else "nothing has run in this directory; go where your program runs, or give --storage URL"
    )
    return f"no database at {path}: {hint}"


def shown_status(runtime: Runtime, run: Run) -> str:
    """The status of a run, where a running one that nobody executes is ``interrupted``."""
    if run.status is RunStatus.RUNNING and runtime.interrupted(run):
        return "interrupted"
    return str(run.status)


# ----------------------------------------------------------------------------------------------- finding runs


def every_run(runtime: Runtime, where: RunFilter | None = None) -> Iterator[Run]:
    """All runs that match *where*, read page by page."""
    where = evolve(where or RunFilter(), limit=PAGE)
    while True:
        page = runtime.storage.list_runs(where)
        yield from page
        if len(page) < PAGE:
            return
        where = evolve(where, after=page[-1].id)


def find_run(runtime: Runtime, text: str) -> Run:
    """The one run that *text* means: its id, the beginning of its id or of its key, or an id shortened by
    ``…`` as tables show it.
    """
    found = runtime.storage.get_run(text) if text else None
    if found is not None:
        return found
    matches = [run for run in every_run(runtime) if _means(text, run)] if text else []
    # A child's id begins with its parent's: the beginning that they share means the parent.
    if matches:
        first = min(matches, key=lambda run: len(run.id))
        if all(run is first or run.id.startswith(first.id + "/") for run in matches):
            return first
        raise Failure(f"{text!r} could be any of {_some([run.id for run in matches])}; give more of the id")
    raise Failure(f"no run {text!r}; `flowdsl runs` lists them")


def find_runs(runtime: Runtime, texts: tuple[str, ...]) -> list[Run]:
    """The runs that *texts* mean, each once, in that order; raises before anything is done if one is not
    found.
    """
    return list({run.id: run for run in (find_run(runtime, text) for text in texts)}.values())


def app_of(run: Run) -> str:
    """The module that probably has the run's workflow, as ``--app`` takes it.

    >>> app_of(Run(id="a", workflow="shop.orders.Desk.checkout", key="k"))
    'shop.orders'
    """
    module: list[str] = []
    for part in run.workflow.split(".")[:-1]:
        if part == "__main__" or not part.isidentifier() or part[0].isupper():
            break
        module.append(part)
    return ".".join(module) or "MODULE"


def _means(text: str, run: Run) -> bool:
    if run.id.startswith(text):
        return True
    if len(text) >= _FEWEST_DIGITS and run.key.startswith(text):
        return True
    parts = re.split(r"…|\.\.\.", text)
    if len(parts) != 2:
        return False
    before, after = parts
    return len(run.id) > len(before) + len(after) and run.id.startswith(before) and run.id.endswith(after)


def _some(ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more
