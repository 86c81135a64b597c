"""``flowdsl prune``: delete runs that ended long ago."""

import click

from flowdsl.cli._command import Cli, as_duration, command, opened, period
from flowdsl.cli._find import every_run
from flowdsl.cli.runs import print_runs
from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus, is_final
from flowdsl.runtime import Runtime
from flowdsl.storage.base import DeleteRun

__all__ = ["prune"]

ENDED = tuple(str(status) for status in RunStatus if is_final(status))
BATCH = 200  # runs deleted in one transaction


@command(
    epilog="""\b
Examples:
  flowdsl prune --older-than "30 days"
  flowdsl prune --until 2026-01-31 --status failed --dry-run
  flowdsl prune --since "2 days" --until "1 day" --status failed"""
)
@click.option(
    "--older-than",
    metavar="DURATION",
    callback=as_duration,
    help='Only runs that ended at least this long ago, such as "30 days".',
)
@period("Only runs that ended since: a time, or how long ago.", "Only runs that ended before.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(ENDED),
    metavar="STATUS",
    default=("completed", "cancelled"),
    help=f"Only this status: {', '.join(ENDED)}. May be repeated; completed and cancelled by default.",
)
@click.option("--dry-run", is_flag=True, help="Only list the runs that would be deleted.")
def prune(
    cli: Cli,
    older_than: float | None,
    since: float | None,
    until: float | None,
    statuses: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Delete runs that ended long ago.

    One of --older-than, --since and --until is needed. If a run was given an id, that id cannot be used
    again: calling its workflow says that the run was pruned.
    """
    if older_than is None and since is None and until is None:
        text = "say which runs: --older-than DURATION, --until WHEN or --since WHEN"
        raise click.UsageError(text, click.get_current_context())
    with opened(cli) as runtime:
        now = runtime.storage.now()
        if older_than is not None:
            until = min(now - older_than, now if until is None else until)
        found = _ended(runtime, since, now if until is None else until, statuses)
        for start in range(0, 0 if dry_run else len(found), BATCH):
            batch = found[start : start + BATCH]
            runtime.storage.commit([DeleteRun(run.id, tombstone=True) for run in batch])
        if dry_run and found:
            print_runs(cli.out, [(run, str(run.status)) for run in found], now)
    did = "would delete" if dry_run else "deleted"
    cli.out.line(f"{did} {len(found)} run{'' if len(found) == 1 else 's'}")
    if cli.as_json:
        cli.out.document({"dry_run": dry_run, "count": len(found), "runs": [run.id for run in found]})


def _ended(runtime: Runtime, since: float | None, until: float, statuses: tuple[str, ...]) -> list[Run]:
    """The runs that ended with one of these statuses, between these times."""
    where = RunFilter(status=tuple(RunStatus(status) for status in statuses))
    return [
        run
        for run in every_run(runtime, where)
        if run.finished_at is not None and (since or 0.0) <= run.finished_at <= until
    ]
