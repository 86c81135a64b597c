"""``flowdsl runs``: a list of runs."""

import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

import click
from attrs import evolve, frozen

from flowdsl.cli.common import Cli, command, every_run, opened, shown_status
from flowdsl.cli.output import Cell, Column, Output, status_cell
from flowdsl.cli.text import age, cut_middle, cut_start, moment, span
from flowdsl.core.durations import seconds
from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.core.views import run_view, tag_texts
from flowdsl.runtime import Runtime

__all__ = ["as_duration", "as_moment", "print_runs", "runs"]

STATUSES = (*(str(status) for status in RunStatus), "interrupted")


def as_duration(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read an option that is a duration such as ``"30 days"``; in seconds."""
    try:
        return None if value is None else seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


def as_moment(_: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read an option that is a time, or a duration before now; in seconds since the epoch.

    A time without a zone is on the clock of the reader.
    """
    if value is None:
        return None
    try:
        # Times are shown in microseconds and stored finer: what is shown as this time counts as this.
        return datetime.fromisoformat(value).timestamp() - 5e-7
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return time.time() - seconds(value)
    except ValueError:
        examples = '2026-01-31, "2026-01-31 14:00", "2 hours" or 30m'
        text = f"{value!r} is neither a time nor a duration, such as {examples}"
        raise click.BadParameter(text, param=param) from None


@frozen(slots=True)
class Wanted:
    """Which runs are listed: what the storage can tell by itself, and the rest."""

    where: RunFilter
    statuses: frozenset[str]
    tags: tuple[str, ...]
    ending: str = ""

    def __call__(self, run: Run, status: str) -> bool:
        """Whether *run*, shown with *status*, is wanted."""
        if self.statuses and status not in self.statuses:
            return False
        if self.ending and not (run.workflow == self.ending or run.workflow.endswith("." + self.ending)):
            return False
        if self.tags:
            texts = tag_texts(run)
            have = {*texts, *(text.partition("=")[0] for text in texts)}
            return have.issuperset(self.tags)
        return True


@command(
    epilog="""\b
Examples:
  flowdsl runs
  flowdsl runs --status failed --status interrupted
  flowdsl runs --workflow checkout --tag env=prod --since "2 hours"
  flowdsl runs --since 2026-01-31 --until "2026-01-31 12:00" --json"""
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(STATUSES),
    help="Only runs of this status; may be repeated.",
)
@click.option(
    "--workflow", metavar="NAME", help="Only runs of this workflow: its dotted name, or the end of it."
)
@click.option(
    "--tag", "tags", multiple=True, metavar="NAME[=VALUE]", help="Only runs with this tag; may be repeated."
)
@click.option(
    "--since",
    metavar="WHEN",
    callback=as_moment,
    help="Only runs created at that time or later, or in the last so long.",
)
@click.option(
    "--until", metavar="WHEN", callback=as_moment, help="Only runs created before that time, or longer ago."
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Show at most so many runs.",
)
@click.option("--all", "everything", is_flag=True, help="Show all of them.")
def runs(
    cli: Cli,
    statuses: tuple[str, ...],
    workflow: str | None,
    tags: tuple[str, ...],
    since: float | None,
    until: float | None,
    limit: int,
    everything: bool,
) -> None:
    """List runs, newest first.

    A run that is `running` but that nobody executes any more is shown as `interrupted`: call its workflow
    again, or `flowdsl resume` it.
    """
    with opened(cli) as runtime:
        wanted = _wanted(runtime, statuses, workflow, tags, since, until)
        count = None if everything else limit + 1
        found = list(islice(_matching(runtime, wanted), count))
        more = not everything and len(found) > limit
        found = found[: limit if more else None]
        if cli.as_json:
            cli.out.document([run_view(run, status) for run, status in found])
        elif found:
            print_runs(cli.out, found)
        else:
            cli.out.note("no runs" if wanted == Wanted(RunFilter(), frozenset(), ()) else "no such runs")
        if more:
            cli.out.note((f"these are the newest {limit}; for more: --limit N or --all", "dim"))


def _wanted(
    runtime: Runtime,
    statuses: tuple[str, ...],
    workflow: str | None,
    tags: tuple[str, ...],
    since: float | None,
    until: float | None,
) -> Wanted:
    stored = {"running" if status == "interrupted" else status for status in statuses}
    where = RunFilter(
        status=tuple(RunStatus(status) for status in sorted(stored)),
        created_after=since,
        created_before=until,
    )
    wanted = Wanted(where, frozenset(statuses), tags)
    if workflow is None:
        return wanted
    exact = evolve(where, workflow=workflow)
    if runtime.storage.list_runs(RunFilter(workflow=workflow, limit=1)):
        return evolve(wanted, where=exact)
    return evolve(wanted, ending=workflow)


def _matching(runtime: Runtime, wanted: Wanted) -> Iterator[tuple[Run, str]]:
    for run in every_run(runtime, wanted.where):
        status = shown_status(runtime, run)
        if wanted(run, status):
            yield run, status


def print_runs(out: Output, found: list[tuple[Run, str]], indent: int = 0) -> None:
    """Print runs, given with their shown status, as a table."""
    now = time.time()
    columns = (
        Column("id", (99, 24, 20, 14), cut_middle),
        Column("workflow", (99, 16, 14, 10), cut_start),
        Column("status"),
        Column("age" if out.narrow else "created"),
        Column("took" if out.narrow else "duration", right=True),
        Column("arguments", (24, 14, 12, 0)),
    )
    rows: list[list[Cell]] = [
        [
            run.id,
            run.workflow,
            status_cell(status),
            (age(now - run.created_at) if out.narrow else moment(run.created_at), "dim"),
            _run_span(run, status, now),
            (run.args_preview, ""),
        ]
        for run, status in found
    ]
    out.table(columns, rows, indent)


def _run_span(run: Run, status: str, now: float) -> Cell:
    if run.finished_at is not None:
        return span(max(run.finished_at - run.created_at, 0.0))
    return (span(max(now - run.created_at, 0.0)), "cyan") if status == "running" else ""
