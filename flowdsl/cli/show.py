"""``flowdsl show``: one run, for people."""

from collections.abc import Sequence

import click

from flowdsl.cli._command import Cli, Whole, command, opened
from flowdsl.cli._complete import RUN
from flowdsl.cli._find import find_run
from flowdsl.cli._output import HIDDEN, Cell, Column, Output, status_cell
from flowdsl.cli._timeline import print_timeline
from flowdsl.cli._tree import counted, error_facts, forest, print_steps
from flowdsl.cli.logs import log_cells
from flowdsl.cli.runs import print_runs
from flowdsl.core.advice import advice
from flowdsl.core.kinds import AUDIT, BESIDE_STEPS, LOG, STORE
from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus, StepStatus, is_final
from flowdsl.core.timeline import Timeline, timeline_of
from flowdsl.core.views import scope_owner, scope_paths, show_view, tag_texts
from flowdsl.core.words import age, moment, owner_text, span, state_of
from flowdsl.entries import LogLine
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime

__all__ = ["show"]

LIMIT = 200
"""How many steps, children, messages and log lines are shown by default."""


@command(
    epilog="""\b
Examples:
  flowdsl show checkout-53b9
  flowdsl show order-17 --timeline
  flowdsl show order-17 --json"""
)
@RUN
@click.option(
    "--limit",
    metavar="N",
    type=Whole(min=1),
    help=f"Show at most N steps: failed and unfinished ones first, then the last. {LIMIT} by default.",
)
@click.option("--all", "everything", is_flag=True, help="Show all of them.")
@click.option("--timeline", is_flag=True, help="Draw the steps in time, instead of arguments and results.")
def show(cli: Cli, run: str, limit: int | None, everything: bool, timeline: bool) -> None:
    """Show a run: facts, steps as a tree, children.

    A step that was called inside another step is below it, indented. If the run needs you, the last lines are
    the commands to use next. With --json there is no limit unless you give one.
    """
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        journal = runtime.storage.list_steps(record.id, payloads=False)
        children = runtime.storage.list_runs(RunFilter(parent=record.id, newest_first=False))
        signals = runtime.storage.list_signals(record.id, payloads=False)
        status = shown_status(runtime.storage, record)
        commands = advice(record, status, journal, cli.tail)
        most = len(journal) if everything else limit or (len(journal) if cli.as_json else LIMIT)
        if cli.as_json:
            shown = [(child, shown_status(runtime.storage, child)) for child in children]
            document = show_view(record, status, _picked(journal, most), shown, signals)
            cli.out.document({**document, "next": commands})
            return
        _print_facts(cli.out, runtime, record, status)
        by_id = {child.id: child for child in children}
        now = runtime.storage.now()
        drawn = timeline_of(record, status, journal, now=now, children=by_id) if timeline else None
        _print_steps(cli.out, record, journal, children, most, drawn)
        _print_children(cli.out, runtime, children, most)
        _print_signals(cli.out, signals[-most:], len(signals))
        _print_beside(cli.out, record, journal, most)
    if commands:
        cli.out.line("")
    cli.out.next(commands)


def _picked(journal: Sequence[Step], most: int) -> list[Step]:
    """The records with at most *most* steps.

    Failed and unfinished steps are kept first, then the last ones. The steps that enclose a kept one are kept
    too.
    """
    steps = [step for step in journal if step.kind not in BESIDE_STEPS]
    if len(steps) <= most:
        return list(journal)
    unsettled = [s for s in steps if s.status in (StepStatus.FAILED, StepStatus.PENDING)]
    chosen = {step.key for step in [*unsettled, *reversed(steps)][: max(most, 1)]}
    by_key = {step.key: step for step in steps}
    for key in list(chosen):
        while (scope := by_key[key].scope) and (owner := scope_owner(scope, by_key)) is not None:
            chosen.add(owner)
            key = owner
    return [step for step in journal if step.key in chosen or step.kind in BESIDE_STEPS]


def _print_facts(out: Output, runtime: Runtime, run: Run, status: str) -> None:
    now = runtime.storage.now()
    out.line((run.id, "bold"), "  ", status_cell(status))
    facts: list[tuple[str, Cell]] = [("workflow", run.workflow)]
    if run.version:
        facts.append(("version", run.version))
    facts.append(("arguments", run.args_preview or (HIDDEN, "dim")))
    facts.append(("created", f"{moment(run.created_at, zone=True)} ({age(now - run.created_at)} ago)"))
    if run.finished_at is not None:
        took = span(max(run.finished_at - run.created_at, 0.0))
        facts.append(("ended", f"{moment(run.finished_at, zone=True)} (after {took})"))
    if run.owner and status in ("running", "interrupted"):
        gone = ", which is gone" if status == "interrupted" else ""
        facts.append(("executed by", owner_text(run.owner) + gone))
    if run.status is RunStatus.COMPLETED:
        facts.append(("result", run.result_preview or (HIDDEN, "dim")))
    elif run.error_preview and status != "running":
        facts += error_facts(run.error_preview, state_of(status).colour)
    if status == "failed" and not run.retryable:
        facts.append(("", "its steps were undone: only retry or fork execute it again"))
    out.facts([*facts, *_relations(run, status)])


def _relations(run: Run, status: str) -> list[tuple[str, Cell]]:
    """Related runs, tags, deadline, queue and the like."""
    facts: list[tuple[str, Cell]] = []
    if tags := tag_texts(run):
        facts.append(("tags", ", ".join(tags)))
    if run.deadline is not None:
        facts.append(("deadline", moment(run.deadline, zone=True)))
    if run.cancel_requested is not None and status != "cancelled":
        facts.append(("cancelling", f"asked for at {moment(run.cancel_requested, zone=True)}"))
    for name, other in (("parent", run.parent), ("started by", run.started_by), ("fork of", run.forked_from)):
        if other:
            facts.append((name, other))
    if run.generation > 1:
        facts.append(("generation", str(run.generation)))
    if run.queue is not None:
        facts.append(("queue", run.queue + (f", priority {run.priority}" if run.priority else "")))
    if run.not_before is not None and status == "pending":
        facts.append(("begins", f"not before {moment(run.not_before, zone=True)}"))
    if run.recoveries:
        facts.append(("taken over", f"{_count(run.recoveries, 'time')} from a process that was gone"))
    return facts


def _print_steps(
    out: Output,
    run: Run,
    journal: Sequence[Step],
    children: Sequence[Run],
    most: int,
    timeline: Timeline | None,
) -> None:
    steps, shown = (
        [step for step in records if step.kind not in BESIDE_STEPS]
        for records in (journal, _picked(journal, most))
    )
    if not steps:
        out.heading("steps", "none recorded")
        return
    out.heading("steps", counted(steps))
    nodes = forest(shown, is_final(run.status))
    if timeline is not None:
        print_timeline(out, run, nodes, timeline)
    else:
        print_steps(out, run, nodes, children)
    _left_out(out, len(shown), len(steps), "steps")


def _print_children(out: Output, runtime: Runtime, children: Sequence[Run], most: int) -> None:
    if children:
        out.heading("children", _count(len(children), "run"))
        shown = [(child, shown_status(runtime.storage, child)) for child in children[-most:]]
        print_runs(out, shown, runtime.storage.now(), indent=2)
        _left_out(out, len(shown), len(children), "children")


def _print_signals(out: Output, signals: Sequence[Signal], known: int) -> None:
    if not signals:
        return
    unread = sum(signal.taken_by is None for signal in signals)
    out.heading("signals", f"{unread} of {known} not taken yet")
    columns = (
        Column("name", least=8),
        Column("sent", wide=76),
        Column("by", least=6, wide=76),
        Column("state"),
        Column("payload", least=10),
        Column("reply", least=8, wide=76),
    )
    rows: list[list[Cell]] = [
        [
            signal.name,
            (moment(signal.created_at), "dim"),
            signal.sender or "",
            ("✓ taken", "green") if signal.taken_by else ("○ unread", "blue"),
            signal.preview or HIDDEN,
            (error_lines(signal.reply_preview)[0], state_of("failed").colour if signal.reply_failed else ""),
        ]
        for signal in signals
    ]
    out.table(columns, rows, indent=2)
    _left_out(out, len(signals), known, "signals")


def _print_beside(out: Output, run: Run, journal: Sequence[Step], most: int) -> None:
    logged = [LogLine.of(step) for step in journal if step.kind == LOG]
    if logged:
        out.heading("log")
        paths = scope_paths(journal)
        for line in logged[-most:]:
            out.line("  ", *log_cells(line, paths, run))
        _left_out(out, len(logged[-most:]), len(logged), "lines of the log")
    audit = [step for step in journal if step.kind == AUDIT]
    if audit:
        out.heading("audit")
        for step in audit[-most:]:
            did = f"{step.path.removeprefix('flowdsl.')} {step.args}"
            out.line("  ", (moment(step.created_at), "dim"), f"  {did}", (f"  by {step.preview}", "dim"))
    stored = sum(step.kind == STORE for step in journal)
    if stored:
        out.heading("store", _count(stored, "operation"))


def _left_out(out: Output, shown: int, known: int, what: str) -> None:
    if shown < known:
        out.note((f"these are {shown} of {known} {what}; --limit N or --all shows more", "dim"))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
