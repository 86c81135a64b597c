"""``flowdsl logs``: print what a run has logged."""

from collections.abc import Mapping

from flowdsl.cli._command import Cli, command, opened, period
from flowdsl.cli._complete import RUN
from flowdsl.cli._find import find_run
from flowdsl.cli._output import Cell
from flowdsl.core.kinds import LOG
from flowdsl.core.records import Run
from flowdsl.core.views import log_view, scope_paths
from flowdsl.core.words import moment
from flowdsl.entries import LogLine

__all__ = ["log_cells", "logs"]


@command(
    epilog="""\b
Examples:
  flowdsl logs order-17
  flowdsl logs order-17 --since "10 min"
  flowdsl logs order-17 --json"""
)
@RUN
@period("Only lines logged since: a time, or how long ago.", "Only lines logged before.")
def logs(cli: Cli, run: str, since: float | None, until: float | None) -> None:
    """Print what a run has logged.

    These are the lines of flowdsl.log(message, **fields), each with the step that logged it.
    """
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        journal = runtime.storage.list_steps(record.id, payloads=False)
    lines = [LogLine.of(step) for step in journal if step.kind == LOG]
    shown = [line for line in lines if _within(line.at.timestamp(), since, until)]
    paths = scope_paths(journal) if shown else {}
    if cli.as_json:
        cli.out.document([log_view(line, paths) for line in shown])
    elif not shown:
        what = f"in that time, of {len(lines)} lines" if lines else "so far"
        cli.out.note(f"{record.id} has logged nothing {what}")
    for line in shown:
        cli.out.line(*log_cells(line, paths, record))


def _within(at: float, since: float | None, until: float | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)


def log_cells(line: LogLine, paths: Mapping[str, str], run: Run) -> list[Cell]:
    """One line of the log, as it is printed."""
    path = paths.get(line.step or "", "").removeprefix(run.workflow.rpartition(".")[0] + ".")
    fields = "".join(f" {name}={value}" for name, value in line.fields.items())
    where: Cell = (f"  {path}" if path else "", "cyan")
    return [(moment(line.at.timestamp()), "dim"), where, "  ", line.message, (fields, "dim")]
