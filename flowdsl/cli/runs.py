"""``flowdsl runs``: a list of runs."""

from collections.abc import Iterator
from itertools import islice

import click
from attrs import evolve, frozen

from flowdsl.cli._command import Cli, Whole, command, opened, period
from flowdsl.cli._complete import workflow_names
from flowdsl.cli._find import every_run, recent_workflows
from flowdsl.cli._output import HIDDEN, Cell, Column, Output, status_cell
from flowdsl.cli._text import cut_middle, cut_start
from flowdsl.core.records import Run, RunFilter
from flowdsl.core.status import RunStatus
from flowdsl.core.views import run_view, tag_texts
from flowdsl.core.words import age, moment, nearest, span
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime

__all__ = ["print_runs", "run_span", "runs"]

STATUSES = (*(str(status) for status in RunStatus), "interrupted")


@frozen(slots=True)
class Wanted:
    """Which runs are listed. The storage applies *where*; the rest is applied here."""

    where: RunFilter
    statuses: frozenset[str]
    tags: tuple[str, ...]
    ending: str = ""

    def __call__(self, run: Run, status: str) -> bool:
        """Whether *run*, shown with *status*, is wanted."""
        if self.statuses and status not in self.statuses:
            return False
        if self.ending and not _named(run.workflow, self.ending):
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
    metavar="STATUS",
    help=f"Only runs of this status: {', '.join(STATUSES)}. May be repeated.",
)
@click.option(
    "--workflow",
    metavar="NAME",
    shell_complete=workflow_names,
    help="Only runs of this workflow: its dotted name, or the end of it.",
)
@click.option(
    "--tag", "tags", multiple=True, metavar="NAME[=VALUE]", help="Only runs with this tag; may be repeated."
)
@period("Only runs created since: a time, or how long ago.", "Only runs created before.")
@click.option(
    "--limit",
    metavar="N",
    type=Whole(min=1),
    default=50,
    show_default=True,
    help="Show at most this many runs.",
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

    A run that is `running`, but that nobody executes any more, is shown as `interrupted`. Call its workflow
    again, or use `flowdsl resume`.
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
            print_runs(cli.out, found, runtime.storage.now())
        else:
            cli.out.note(_nothing(runtime, wanted, workflow))
        if more:
            cli.out.note((f"these are the newest {limit}; --limit N or --all shows more", "dim"))


def _nothing(runtime: Runtime, wanted: Wanted, workflow: str | None) -> str:
    """Why the list is empty."""
    if workflow is not None:
        known = recent_workflows(runtime)
        if not any(_named(run, workflow) for run in known):
            return f"no runs of workflow {workflow!r}{nearest(workflow, known)}"
    return "no runs" if wanted == Wanted(RunFilter(), frozenset(), ()) else "no such runs"


def _named(path: str, text: str) -> bool:
    """Whether *text* is the dotted name *path*, or the end of it."""
    return path == text or path.endswith("." + text)


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
        status = shown_status(runtime.storage, run)
        if wanted(run, status):
            yield run, status


def print_runs(out: Output, found: list[tuple[Run, str]], now: float, indent: int = 0) -> None:
    """Print runs, given with their shown status, as a table; *now* is the storage's time."""
    columns = (
        Column("id"),
        Column("workflow", least=12, wide=76),
        Column("status"),
        Column("age" if out.narrower(120) else "created"),
        Column("took" if out.narrower(120) else "duration", right=True),
        Column("arguments", least=8, wide=76),
    )
    room = out.width or 10_000
    rows: list[list[Cell]] = [
        [
            cut_middle(run.id, max(room // 3, room - 36 if room < 76 else 0)),
            cut_start(run.workflow, max(room // 6, 12)),
            status_cell(status),
            (age(now - run.created_at) if out.narrower(120) else moment(run.created_at), "dim"),
            run_span(run, status, now),
            run.args_preview or HIDDEN,
        ]
        for run, status in found
    ]
    out.table(columns, rows, indent)


def run_span(run: Run, status: str, now: float) -> Cell:
    """How long a run took, or how long it has been executing."""
    if run.finished_at is not None:
        return span(max(run.finished_at - run.created_at, 0.0))
    return (span(max(now - run.created_at, 0.0)), "cyan") if status == "running" else ""
