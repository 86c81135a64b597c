"""The parts that all commands share: common options, and opening a storage without making one."""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import define, field

from flowdsl.blocks import block
from flowdsl.cli._output import Output
from flowdsl.core.durations import seconds
from flowdsl.core.filters import written_moment
from flowdsl.core.words import nearest
from flowdsl.runtime import Runtime
from flowdsl.storage import Storage, open_storage
from flowdsl.storage.left_out import left_out
from flowdsl.storage.sqlite.url import sqlite_path
from flowdsl.storage.urls import DEFAULT_URL, default_url

__all__ = [
    "SHARED",
    "Cli",
    "Failure",
    "Missing",
    "Verbs",
    "Whole",
    "as_duration",
    "as_moment",
    "command",
    "existing_file",
    "missing_database",
    "opened",
    "opened_storage",
    "period",
    "verbs",
]


class Whole(click.IntRange):
    """A whole number, within bounds. Errors say so; click's own type calls itself an integer range."""

    name = "whole number"


class Failure(click.ClickException):
    """Ends the command with one line on standard error and exit code 1. *hint* says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Missing(click.UsageError):
    """Ends the command as wrong usage. *hint* is the whole right command."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, click.get_current_context())
        self.hint = hint


class Verbs(click.Group):
    """A group of commands. For an unknown command it suggests the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that *args* begin with."""
        names = self.list_commands(ctx)
        unknown = args[0] not in names and not args[0].startswith("-")
        if unknown and not ctx.resilient_parsing:  # while a shell completes a name, it is not complete yet
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], names)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the whole first sentence of its help."""
        names = self.list_commands(ctx)
        found = [(name, made) for name in names if (made := self.get_command(ctx, name)) is not None]
        with formatter.section("Commands"):
            formatter.write_dl([(name, made.get_short_help_str(1_000)) for name, made in found])


@define
class Cli:
    """The options that all commands have, whether they were given before or after the command's name."""

    storage: str | None = None
    as_json: bool = False
    traceback: bool = False
    out: Output = field(factory=Output)

    @property
    def explicit(self) -> bool:
        """Whether the storage was named on the command line."""
        return self.storage is not None

    @property
    def url(self) -> str:
        """The storage's URL."""
        return self.storage or default_url()

    @property
    def tail(self) -> list[str]:
        """The options with which another command finds the same storage. A URL with a password is not
        repeated."""
        if self.storage is None or "@" in self.storage:
            return []
        return ["--storage", self.storage]

    def update(self, storage: str | None, as_json: bool, traceback: bool) -> None:
        """Take options in. The last one given counts."""
        self.storage = storage or self.storage
        self.traceback = traceback or self.traceback
        if traceback:
            _keep_tracebacks_whole(click.get_current_context())
        if as_json and not self.as_json:
            self.as_json = True
            self.out = Output(as_json=True)


def _keep_tracebacks_whole(context: click.Context) -> None:
    """Ask for whole tracebacks until the command ends. Then the environment is as it was."""
    before = os.environ.get("FLOWDSL_TRACEBACK")
    os.environ["FLOWDSL_TRACEBACK"] = "full"

    def restore() -> None:
        if before is None:
            os.environ.pop("FLOWDSL_TRACEBACK", None)
        else:
            os.environ["FLOWDSL_TRACEBACK"] = before

    context.find_root().call_on_close(restore)


SHARED = (
    click.option(
        "--storage", metavar="URL", help="Where the runs are, for example sqlite:///path/to/flow.db."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
    click.option("--traceback", "--debug", "traceback", is_flag=True, help="Show where an error came from."),
)
"""Options that every command has."""


def command(**attributes: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command of a function. It is called with the :class:`Cli` and its own options.

    What the function returns is the exit code; ``None`` is 0.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        return _with_shared(click.Command, function, attributes)

    return decorate


def verbs(**attributes: Any) -> Callable[[Callable[..., int | None]], Verbs]:
    """Make a group of commands of a function. The function is called if no command is named."""

    def decorate(function: Callable[..., int | None]) -> Verbs:
        @functools.wraps(function)
        def alone(cli: Cli, **options: Any) -> int | None:
            if click.get_current_context().invoked_subcommand is not None:
                return None
            return function(cli, **options)

        return _with_shared(Verbs, alone, {"invoke_without_command": True, **attributes})

    return decorate


_Made = TypeVar("_Made", bound=click.Command)


def _with_shared(kind: type[_Made], function: Callable[..., int | None], attributes: dict[str, Any]) -> _Made:
    made = click.command(cls=kind, **attributes)(shared(function))
    for option in SHARED:
        option(made)
    return made


def shared(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give the common options to the :class:`Cli`. *function* gets the ``Cli`` as its first argument."""

    @functools.wraps(function)
    @click.pass_obj
    def call(cli: Cli, /, storage: str | None, as_json: bool, traceback: bool, **options: Any) -> int | None:
        cli.update(storage, as_json, traceback)
        return function(cli, **options)

    return call


# -------------------------------------------------------------------------------------------- reading options


def as_duration(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read an option that is a duration such as ``"30 days"``; in seconds."""
    try:
        return None if value is None else seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


def as_moment(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read an option that is a time, or a duration before now. The result is in seconds since the epoch.

    A time without a zone is in local time.
    """
    if value is None:
        return None
    try:
        return written_moment(value, time.time())
    except ValueError:
        examples = '2026-01-31, "2026-01-31 14:00", "2 hours" or 30m'
        text = f"{value!r} is neither a time nor a duration, such as {examples}"
        raise click.BadParameter(text, param=param) from None


def period(since: str, until: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options ``--since`` and ``--until``, with these help texts."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option("--until", metavar="WHEN", callback=as_moment, help=until)(function)
        return click.option("--since", metavar="WHEN", callback=as_moment, help=since)(function)

    return decorate


# ---------------------------------------------------------------------------------------------------- opening


def missing_database(url: str) -> Path | None:
    """The file of an SQLite storage, if the file does not exist; else ``None``. Raises a usage error for a
    malformed URL.
    """
    if not url.startswith("sqlite:"):
        return None
    try:
        name, _ = sqlite_path(url)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    path = Path(name).absolute()
    return None if path.exists() else path


def existing_file(cli: Cli) -> Path:
    """The file of the SQLite storage of this command. Raises :class:`Failure` if it does not exist."""
    if not cli.url.startswith("sqlite:"):
        raise Failure("only an SQLite database is a file; use the tools of your database server")
    absent = missing_database(cli.url)
    if absent is not None:
        raise _no_database(cli.url, absent)
    return Path(sqlite_path(cli.url)[0]).absolute()


@block
def opened(cli: Cli) -> Iterator[Runtime]:
    """A runtime on the storage of this command. A missing SQLite file is not made, because commands are about
    existing runs.
    """
    _require_database(cli)
    try:
        runtime = Runtime(cli.url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with left_out() as refused, runtime:
        try:
            yield runtime
        finally:
            for text in refused:
                cli.out.note(("left out: ", "yellow"), text)


@block
def opened_storage(cli: Cli) -> Iterator[Storage]:
    """The storage of this command, as it is stored: nothing is checked against a secret."""
    _require_database(cli)
    try:
        storage = open_storage(cli.url)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with storage:
        yield storage


def _require_database(cli: Cli) -> None:
    absent = missing_database(cli.url)
    if absent is not None:
        raise _no_database(cli.url, absent)


def _no_database(url: str, path: Path) -> Failure:
    if url != DEFAULT_URL:
        return Failure(f"no database at {path}")
    nearest = next((up for up in _above(path) if (up / ".flowdsl" / "flow.db").exists()), None)
    if nearest is None:
        hint = "go where your program runs, or give --storage URL"
        return Failure(f"no database at {path}: nothing has run in this directory", hint)
    return Failure(f"no database at {path}", f"give --storage sqlite:///{nearest}/.flowdsl/flow.db")


def _above(path: Path) -> Sequence[Path]:
    """The directories above the working directory. *path* is the default database in the working
    directory."""
    return path.parents[2:]
