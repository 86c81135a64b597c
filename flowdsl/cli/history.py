"""``flowdsl logs`` and ``flowdsl export``: what a run said, and all that is recorded of it."""

from collections.abc import Mapping

import click

from flowdsl.cli.common import Cli, command, find_run, opened
from flowdsl.cli.output import Cell
from flowdsl.cli.text import moment
from flowdsl.core.records import Run
from flowdsl.core.views import log_view, scope_paths
from flowdsl.handle import LogLine

__all__ = ["export", "log_cells", "logs"]


@command(
    epilog="""\b
Examples:
  flowdsl logs order-17
  flowdsl logs order-17 --json"""
)
@click.argument("run")
def logs(cli: Cli, run: str) -> None:
    """Print what a run has logged.

    These are the lines of flowdsl.log(message, **fields), each with the step that logged it.
    """
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        lines = runtime.logs(record.id)
        paths = scope_paths(runtime.storage.list_steps(record.id)) if lines else {}
    if cli.as_json:
        cli.out.document([log_view(line, paths) for line in lines])
    elif not lines:
        cli.out.note(f"{record.id} has logged nothing")
    for line in lines:
        cli.out.line(*log_cells(line, paths, record))


def log_cells(line: LogLine, paths: Mapping[str, str], run: Run) -> list[Cell]:
    """One line of the log, as it is printed."""
    path = paths.get(line.step or "", "").removeprefix(run.workflow.rpartition(".")[0] + ".")
    fields = "".join(f" {name}={value}" for name, value in line.fields.items())
    where: Cell = (f"  {path}" if path else "", "cyan")
    return [(moment(line.at.timestamp()), "dim"), where, "  ", line.message, (fields, "dim")]


@command(
    epilog="""\b
Examples:
  flowdsl export order-17 > tests/histories/order-17.json
  flowdsl export order-17 | jq '.steps[].path'"""
)
@click.argument("run")
def export(cli: Cli, run: str) -> None:
    """Print a run as JSON, with its steps and signals.

    It is complete: with the code, the run can be replayed from it. Payloads are in it as they are stored, in
    base64; nothing is unpickled. Who can read the file can read arguments and results.
    """
    with opened(cli) as runtime:
        document = runtime.export(find_run(runtime, run).id)
    cli.out.document(document)
