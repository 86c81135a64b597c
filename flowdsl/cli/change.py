"""``flowdsl cancel``, ``flowdsl delete`` and ``flowdsl prune``: what changes runs without executing them."""

import shlex

import click

from flowdsl.cli.common import Cli, Failure, app_of, command, every_run, find_runs, opened, shown_status
from flowdsl.cli.runs import as_duration, print_runs
from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus, is_final
from flowdsl.runtime import Runtime

__all__ = ["cancel", "delete", "prune"]

ENDED = tuple(str(status) for status in RunStatus if is_final(status))


@command(
    epilog="""\b
Example:
  flowdsl cancel order-17"""
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
def cancel(cli: Cli, runs: tuple[str, ...]) -> None:
    """Ask runs to stop.

    An interrupted run is cancelled at once; if it has steps to undo, the request waits for whoever resumes
    it with its code. One that is executing sees the request within a second, wherever that is, and stops at
    its next durable call.
    """
    with opened(cli) as runtime:
        found = find_runs(runtime, runs)
        for run in found:
            runtime.cancel(run.id)
        records = [runtime.record(run.id) for run in found]
        after = [(record.id, str(record.status)) for record in records]
        waiting = [record for record in records if runtime.interrupted(record)]
    for run_id, status in after:
        cli.out.line("cancelled " if status == "cancelled" else "asked to stop: ", run_id)
    for record in waiting:
        cli.out.note(f"{record.id} has steps to undo first, and their code is not loaded here:")
        cli.out.note(f"  flowdsl resume {shlex.quote(record.id)} --app {app_of(record)}")
    if cli.as_json:
        cli.out.document([{"id": run_id, "status": status} for run_id, status in after])


@command(
    epilog="""\b
Examples:
  flowdsl delete checkout-53b9
  flowdsl delete order-17 order-18 --yes"""
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(cli: Cli, runs: tuple[str, ...], yes: bool) -> None:
    """Delete runs with all their records, as if they had never been.

    Their ids are free again: the same call executes everything anew. Runs that they called are not deleted.
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
        status = shown_status(runtime, run)
        cli.out.note(run.id, "  ", (status, "bold red" if status == "running" else ""))
    what = "this run" if len(found) == 1 else f"these {len(found)} runs"
    try:
        return click.confirm(f"Delete {what} for ever?", err=True)
    except click.Abort as abort:
        cli.out.note("")  # the question still stands on the line
        if isinstance(abort.__context__, EOFError):
            return False
        raise


@command(
    epilog="""\b
Examples:
  flowdsl prune --older-than "30 days"
  flowdsl prune --older-than 12h --status failed --dry-run"""
)
@click.option(
    "--older-than",
    metavar="DURATION",
    callback=as_duration,
    required=True,
    help='How long ago a run has ended, such as "30 days".',
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(ENDED),
    default=("completed", "cancelled"),
    help="Only runs that ended so; may be repeated. By default, completed and cancelled.",
)
@click.option("--dry-run", is_flag=True, help="Only list the runs that would be deleted.")
def prune(cli: Cli, older_than: float, statuses: tuple[str, ...], dry_run: bool) -> None:
    """Delete runs that ended long ago.

    The id of a run that was given one stays taken: calling its workflow again says that the run was pruned.
    """
    with opened(cli) as runtime:
        found = _old(runtime, older_than, statuses) if dry_run or cli.as_json else []
        count = len(found) if dry_run else runtime.prune(older_than, statuses)
        if dry_run and found:
            print_runs(cli.out, [(run, str(run.status)) for run in found])
    did = "would delete" if dry_run else "deleted"
    cli.out.line(f"{did} {count} run{'' if count == 1 else 's'}")
    if cli.as_json:
        cli.out.document({"dry_run": dry_run, "count": count, "runs": [run.id for run in found]})


def _old(runtime: Runtime, older_than: float, statuses: tuple[str, ...]) -> list[Run]:
    """The runs that ``Runtime.prune`` would delete."""
    limit = runtime.storage.now() - older_than
    where = RunFilter(status=tuple(RunStatus(status) for status in statuses))
    return [
        run for run in every_run(runtime, where) if run.finished_at is not None and run.finished_at <= limit
    ]
