"""The group of all commands. It turns an error into one line on standard error, and an exit code.

To add a command: a module of its name in this package, with a function of its name that is decorated with
:func:`flowdsl.cli._command.command`; its name in :data:`COMMANDS`; its section in ``docs/cli.md``.
"""

import io
import logging
import os
import sys
import traceback
from importlib import import_module
from typing import Any, NoReturn

import click

from flowdsl.cli._command import SHARED, Cli, Failure, Missing, Verbs
from flowdsl.core.words import clean_lines
from flowdsl.errors import FlowError

__all__ = ["COMMANDS", "cli"]

COMMANDS = (
    "runs",
    "show",
    "steps",
    "logs",
    "watch",
    "top",
    "export",
    "resume",
    "retry",
    "fork",
    "signal",
    "ask",
    "stream",
    "tag",
    "resolve",
    "cancel",
    "delete",
    "prune",
    "backup",
    "worker",
    "workers",
    "queues",
    "schedules",
    "ui",
    "doctor",
    "rekey",
    "completion",
)
"""All commands, in the order of the help. Each is the function of its name in the module of its name."""

USAGE, FAILED, INTERRUPTED = 2, 1, 130


class Commands(Verbs):
    """Imports the module of a command when the command is asked for, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"flowdsl.cli.{cmd_name}"), cmd_name)
        return found

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and end with :class:`SystemExit`: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
        _fill_standard_streams()
        _clean_log_lines()
        options = extra["obj"] = Cli()
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
            options.out.flush()
        except (Exception, KeyboardInterrupt) as error:  # every error becomes a line and an exit code
            code = _explain(error, options)
        sys.exit(code if isinstance(code, int) else 0)


def _fill_standard_streams() -> None:
    """Make sure that all three standard streams exist. The program that started us may have closed some.

    Otherwise a file that is opened later gets the number of a missing stream, and our output goes into that
    file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - open until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _CleanLines(logging.Formatter):
    """Makes log lines and tracebacks that contain no control characters for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return clean_lines(super().format(record))


def _clean_log_lines() -> None:
    """Clean the warnings and errors that go to standard error if the user's code sets up no logging."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_CleanLines())


def _explain(error: BaseException, options: Cli) -> int:
    """Print *error* and return the exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):  # click turns the first into the second
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe, as in `flowdsl runs | head`
        _drop_output()
        return FAILED
    if options.traceback:
        for text in traceback.format_exception(error):
            sys.stderr.write(clean_lines(text.removesuffix("\n")) + "\n")
    message, hint, code = _message(error)
    try:
        options.out.error(message)
        if hint:
            options.out.hint(hint)
    except OSError:  # such as a full disk: then earlier output cannot be written either
        _drop_output()
    return code


def _drop_output() -> None:
    """Discard what is still to be written to standard output, even at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _message(error: BaseException) -> tuple[str, str, int]:
    """The error in one line, what to do about it, and the exit code."""
    if isinstance(error, Missing):
        return error.message, error.hint, USAGE
    if isinstance(error, click.UsageError):
        hint = f"{error.ctx.command_path} --help" if error.ctx is not None else ""
        return " ".join(error.format_message().split()).removesuffix("."), hint, USAGE
    if isinstance(error, Failure):
        return error.message, error.hint, FAILED
    if isinstance(error, click.ClickException | FlowError):
        return str(error), "", FAILED
    return f"{type(error).__name__}: {error}", "run it again with --traceback to see where", FAILED


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""Where the runs are: --storage URL, else the environment variable FLOWDSL_STORAGE, else
sqlite:///.flowdsl/flow.db in the working directory. RUN is the id of a run, or a beginning of it that no
other run has.

Exit codes: 0, all is well; 1, an error, a run that did not complete, or a problem that was found; 2, wrong
usage; 130, Ctrl-C.

\b
Examples:
  flowdsl runs --status failed --since "2 days"
  flowdsl show checkout-53b9
  flowdsl retry checkout-53b9 --app shop.py
  flowdsl doctor""",
)
@click.version_option(package_name="flowdsl", prog_name="flowdsl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, storage: str | None, as_json: bool, traceback: bool) -> None:
    """Look at durable runs, continue them, clean up, and check their storage."""
    ctx.obj.update(storage, as_json, traceback)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _option in SHARED:
    _option(cli)
