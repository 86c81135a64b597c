"""``flowdsl show`` and ``flowdsl steps``: one run, for people and in full."""

import shlex
from collections.abc import Sequence
from typing import Any

import click

from flowdsl.cli.common import Cli, Failure, app_of, command, find_run, opened, shown_status
from flowdsl.cli.history import log_cells
from flowdsl.cli.output import Cell, Column, Output, status_cell
from flowdsl.cli.runs import print_runs
from flowdsl.cli.text import STYLES, age, moment, owner_text, span
from flowdsl.cli.tree import print_steps
from flowdsl.core.kinds import AUDIT, BESIDE_STEPS, LOG, STORE
from flowdsl.core.records import Run, RunFilter, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.core.views import scope_paths, show_view, step_view, tag_texts
from flowdsl.handle import LogLine
from flowdsl.runtime import Runtime

__all__ = ["show", "steps"]


# ------------------------------------------------------------------------------------------------------- show


@command(
    epilog="""\b
Examples:
  flowdsl show checkout-53b9
  flowdsl show order-17 --json"""
)
@click.argument("run")
def show(cli: Cli, run: str) -> None:
    """Show a run: facts, steps as a tree, children.

    A step called inside another step stands below it, indented.
    """
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        journal = runtime.storage.list_steps(record.id)
        children = runtime.storage.list_runs(RunFilter(parent=record.id, newest_first=False))
        signals = runtime.storage.list_signals(record.id)
        status = shown_status(runtime, record)
        if cli.as_json:
            shown = [(child, shown_status(runtime, child)) for child in children]
            cli.out.document(show_view(record, status, journal, shown, signals))
            return
        _print_facts(cli.out, runtime, record, status)
        print_steps(cli.out, record, [step for step in journal if step.kind not in BESIDE_STEPS], children)
        if children:
            cli.out.heading("children", _count(len(children), "run"))
            print_runs(cli.out, [(child, shown_status(runtime, child)) for child in children], 2)
        _print_signals(cli.out, signals)
        _print_beside(cli.out, record, journal)


def _print_facts(out: Output, runtime: Runtime, run: Run, status: str) -> None:
    now = runtime.storage.now()
    style = STYLES.get(status, "")
    out.line((run.id, "bold"), "  ", status_cell(status))
    facts: list[tuple[str, Cell]] = [("workflow", run.workflow)]
    if run.version:
        facts.append(("version", run.version))
    facts.append(("arguments", run.args_preview or ("none", "dim")))
    facts.append(("created", f"{moment(run.created_at, zone=True)} ({age(now - run.created_at)} ago)"))
    if run.finished_at is not None:
        took = span(max(run.finished_at - run.created_at, 0.0))
        facts.append(("ended", f"{moment(run.finished_at, zone=True)} (after {took})"))
    if run.owner and status in ("running", "interrupted"):
        facts.append(
            ("executed by", owner_text(run.owner) + (", which is gone" if status == "interrupted" else ""))
        )
    if run.status is RunStatus.COMPLETED:
        facts.append(("result", run.result_preview))
    elif run.error_preview and status != "running":
        facts.append(("error", (run.error_preview, style)))
    if tags := tag_texts(run):
        facts.append(("tags", ", ".join(tags)))
    if run.deadline is not None:
        facts.append(("deadline", moment(run.deadline, zone=True)))
    if run.cancel_requested is not None and status != "cancelled":
        facts.append(("cancelling", f"asked for at {moment(run.cancel_requested, zone=True)}"))
    for name, other in (("parent", run.parent), ("fork of", run.forked_from)):
        if other:
            facts.append((name, other))
    if run.recoveries:
        facts.append(("taken over", f"{_count(run.recoveries, 'time')} from a process that was gone"))
    out.facts([*facts, *_advice(run, status)])


def _advice(run: Run, status: str) -> list[tuple[str, Cell]]:
    """What a person would do now; a command stands on a line of its own, to be copied."""
    arguments = f"{shlex.quote(run.id)} --app {app_of(run)}"
    if status == "interrupted":
        return [("next", "call the workflow again, or"), ("", (f"flowdsl resume {arguments}", "bold"))]
    if status == "failed" and run.retryable:
        command = (f"flowdsl retry {arguments}", "bold")
        return [("next", "mend the cause and call the workflow again, or"), ("", command)]
    if status == "failed":
        return [("next", "durable calls followed the failure, so it cannot be continued")]
    return []


def _print_signals(out: Output, signals: Sequence[Signal]) -> None:
    if not signals:
        return
    out.heading(
        "signals", f"{sum(signal.taken_by is None for signal in signals)} of {len(signals)} not taken yet"
    )
    columns = (
        Column("name", (20, 10)),
        Column("sent"),
        Column("by", (16, 0)),
        Column("state"),
        Column("payload", (30, 10)),
    )
    rows: list[list[Cell]] = [
        [
            signal.name,
            (moment(signal.created_at), "dim"),
            signal.sender or "",
            ("✓ taken", "green") if signal.taken_by else ("○ unread", "blue"),
            signal.preview,
        ]
        for signal in signals
    ]
    out.table(columns, rows, indent=2)


def _print_beside(out: Output, run: Run, journal: Sequence[Step]) -> None:
    logged = [LogLine.of(step) for step in journal if step.kind == LOG]
    if logged:
        out.heading("log")
        paths = scope_paths(journal)
        for line in logged:
            out.line("  ", *log_cells(line, paths, run))
    audit = [step for step in journal if step.kind == AUDIT]
    if audit:
        out.heading("audit")
        for step in audit:
            did = f"{step.path.removeprefix('flowdsl.')} {step.args}"
            out.line("  ", (moment(step.created_at), "dim"), f"  {did}", (f"  by {step.preview}", "dim"))
    stored = sum(step.kind == STORE for step in journal)
    if stored:
        out.heading("store", f"{_count(stored, 'operation')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# ------------------------------------------------------------------------------------------------------ steps


@command(
    epilog="""\b
Examples:
  flowdsl steps checkout-53b9
  flowdsl steps checkout-53b9 c6bacaaf
  flowdsl steps checkout-53b9 --json"""
)
@click.argument("run")
@click.argument("step", required=False)
def steps(cli: Cli, run: str, step: str | None) -> None:
    """Show every field of the steps of a run.

    All kinds of records are shown, in recorded order.
    STEP, the beginning of a key or the name of a step, leaves the others out.
    """
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        journal = runtime.storage.list_steps(record.id)
        if step is not None:
            journal = _matching(journal, step, record)
        if cli.as_json:
            cli.out.document([step_view(one) for one in journal])
            return
        if not journal:
            cli.out.note(f"no steps are recorded of {record.id}")
        for number, one in enumerate(journal):
            if number:
                cli.out.line("")
            _print_step(cli.out, one)


def _matching(journal: list[Step], text: str, run: Run) -> list[Step]:
    found = [s for s in journal if s.key.startswith(text) or s.path == text or s.path.endswith("." + text)]
    if not found:
        raise Failure(f"no step {text!r} is recorded of {run.id}; `flowdsl show` lists them")
    return found


def _print_step(out: Output, step: Step) -> None:
    out.line((step.path, "bold"), "  ", status_cell(str(step.status)))
    view = step_view(step)
    facts: list[tuple[str, Cell]] = []
    for name, value in view.items():
        if name in ("path", "status") or value is None or (name == "extra" and not value):
            continue
        facts.append((name.replace("_", " "), _text(name, value, step)))
    out.facts(facts)


def _text(name: str, value: Any, step: Step) -> Cell:
    if name == "created_at":
        return moment(step.created_at, zone=True)
    if name == "completed_at":
        return moment(step.completed_at, zone=True)
    if name == "duration":
        return span(value)
    if name == "scope":
        return value or ("the run", "dim")
    if name == "error":
        return str(value), STYLES["failed"]
    if name == "extra":
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
