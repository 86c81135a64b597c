"""The group of all commands, and what becomes of errors: one line on standard error, and an exit code.

To add a command: a function decorated with :func:`flowdsl.cli.common.command` in a module of this package,
and its line in :data:`COMMANDS`. Its page stands in ``docs/cli.md``.
"""

import io
import os
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

import click

from flowdsl.cli.common import SHARED, Cli
from flowdsl.errors import FlowError

__all__ = ["COMMANDS", "cli"]

COMMANDS = {
    "runs": "flowdsl.cli.runs",
    "show": "flowdsl.cli.show",
    "steps": "flowdsl.cli.show",
    "logs": "flowdsl.cli.history",
    "watch": "flowdsl.cli.watch",
    "export": "flowdsl.cli.history",
    "resume": "flowdsl.cli.execute",
    "retry": "flowdsl.cli.execute",
    "fork": "flowdsl.cli.execute",
    "signal": "flowdsl.cli.tell",
    "resolve": "flowdsl.cli.tell",
    "cancel": "flowdsl.cli.change",
    "delete": "flowdsl.cli.change",
    "prune": "flowdsl.cli.change",
    "ui": "flowdsl.cli.ui",
    "doctor": "flowdsl.cli.doctor",
}
"""Name of a command → the module that has it, under the same name. Help lists them in this order."""

USAGE, FAILED, INTERRUPTED = 2, 1, 130


class Commands(click.Group):
    """Imports the module of a command when the command is asked for, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that *args* begin with; for one that there is not, the nearest that there is."""
        near = get_close_matches(args[0], COMMANDS, n=1) if args[0] not in COMMANDS else []
        if near:
            ctx.fail(f"No such command {args[0]!r} (did you mean {near[0]!r}?)")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and end with :class:`SystemExit`: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        options = extra["obj"] = Cli()
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            code = _explain(error, options)
        sys.exit(code if isinstance(code, int) else 0)


def _explain(error: BaseException, options: Cli) -> int:
    """Print *error* and return the exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):  # the latter is what click makes of the former
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # whoever read has seen enough, as in `flowdsl runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if options.debug:
        traceback.print_exception(error)
    message, code = _message(error)
    options.out.note(("error: ", "bold red"), message)
    return code


def _message(error: BaseException) -> tuple[str, int]:
    if isinstance(error, click.UsageError):
        hint = f"; see {error.ctx.command_path} --help" if error.ctx is not None else ""
        return " ".join(error.format_message().split()).removesuffix(".") + hint, USAGE
    if isinstance(error, click.ClickException):
        return error.format_message(), FAILED
    if isinstance(error, FlowError):
        return str(error), FAILED
    kind = type(error).__name__
    return f"{kind}: {error} (run it again with --debug to see where)", FAILED


@click.command(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Where the runs are: --storage URL, else the environment variable FLOWDSL_STORAGE, else
sqlite:///.flowdsl/flow.db in the working directory. RUN is the id of a run or the beginning of
it, as long as it is unambiguous.

\b
Examples:
  flowdsl runs --status failed --since "2 days"
  flowdsl show checkout-53b9
  flowdsl retry checkout-53b9 --app shop.py
  flowdsl doctor""",
)
@click.version_option(package_name="flowdsl", prog_name="flowdsl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, storage: str | None, as_json: bool, debug: bool) -> None:
    """Look at durable runs, continue them, clean up, and check their storage."""
    ctx.obj.update(storage, as_json, debug)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _option in SHARED:
    _option(cli)
