"""``flowdsl delete``: delete runs."""

import click

from flowdsl.cli._command import Cli, Failure, command, opened
from flowdsl.cli._complete import RUNS
from flowdsl.cli._find import find_runs
from flowdsl.core.records import Run
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime

__all__ = ["delete"]


@command(
    epilog="""\b
Examples:
  flowdsl delete checkout-53b9
  flowdsl delete order-17 order-18 --yes"""
)
@RUNS
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(cli: Cli, runs: tuple[str, ...], yes: bool) -> None:
    """Delete runs with all their records.

    Their ids are free again: the same call executes everything again. Runs that they called are not deleted.
    """
    with opened(cli) as runtime:
        found = find_runs(runtime, runs)
        if not yes and not _confirmed(cli, runtime, found):
            raise Failure("nothing was deleted")
        for run in found:
            runtime.delete(run.id)
    for run in found:
        cli.out.line("deleted ", run.id)
    if cli.as_json:
        cli.out.document({"deleted": [run.id for run in found]})


def _confirmed(cli: Cli, runtime: Runtime, found: list[Run]) -> bool:
    for run in found:
        status = shown_status(runtime.storage, run)
        cli.out.note(run.id, "  ", (status, "bold red" if status == "running" else ""))
    what = "this run" if len(found) == 1 else f"these {len(found)} runs"
    try:
        return click.confirm(f"Delete {what} for ever?", err=True)
    except click.Abort as abort:
        cli.out.note("")  # end the line of the question
        if isinstance(abort.__context__, EOFError):
            return False
        raise
