"""``flowdsl watch``: a run while it executes, drawn anew in a terminal, line by line elsewhere."""

import click
from rich.console import Console
from rich.live import Live

from flowdsl.cli.common import Cli, app_of, command, find_run, opened
from flowdsl.cli.follow import Follower, Look
from flowdsl.cli.history import log_cells
from flowdsl.cli.output import Cell, Column, Picture, status_cell
from flowdsl.cli.text import STYLES, cut_start, moment, span, status_text
from flowdsl.cli.tree import pending_text, step_name
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.core.views import extra_of, log_view, run_view, scope_paths, step_view
from flowdsl.handle import LogLine

__all__ = ["watch"]

_LOG_LINES = 8  # at most, in a terminal that is high enough
_TITLES = 7  # lines that lists have besides their rows: titles, empty ones, how many more there are
_WAITING = ("until", "deadline", "signal", "next")  # what records of waiting steps say


@command(
    epilog="""\b
Examples:
  flowdsl watch order-17
  flowdsl watch order-17 | tee order-17.txt
  flowdsl watch order-17 --json | jq 'select(.event == "step") | .path'"""
)
@click.argument("run")
def watch(cli: Cli, run: str) -> int:
    """Watch a run until it ends.

    In a terminal: its status, how many steps are done, those that are executing, and the last lines of its
    log. Piped: one line for each change; with --json, each is a document of its own. The exit code is 0 only
    if the run completes. Ctrl-C ends the watching, not the run.
    """
    with opened(cli) as runtime:
        follower = Follower(runtime, find_run(runtime, run).id)
        console = None if cli.as_json else cli.out.console
        last = _printed(cli, follower) if console is None else _drawn(console, follower)
    if last.run.status is RunStatus.COMPLETED:
        return 0
    if not cli.as_json:
        cli.out.note(("error: ", "bold red"), f"run {last.run.id} {_ended(last.run)}")
    return 1


def _ended(run: Run) -> str:
    if run.status is RunStatus.CANCELLED:
        return "was cancelled"
    return f"failed: {run.error_preview}" if run.error_preview else "failed"


# -------------------------------------------------------------------------------------------------- terminals


def _drawn(console: Console, follower: Follower) -> Look:
    """Draw the run until it ends; the last picture stays."""
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for look in follower.looks():
            live.update(_picture(console, follower, look).text, refresh=True)
            if look.ended:
                return look
    raise AssertionError("looking ends with the run")


def _picture(console: Console, follower: Follower, look: Look) -> Picture:
    """What is to be seen in this terminal now. It is never higher than the terminal."""
    out = Picture(console)
    run = look.run
    out.line((run.id, "bold"), "  ", status_cell(look.status))
    counts = follower.counts()
    end = look.now if run.finished_at is None else run.finished_at
    facts: list[tuple[str, Cell]] = [
        ("workflow", f"{run.workflow}({run.args_preview})"),
        ("began", f"{moment(run.created_at)}, {span(max(end - run.created_at, 0.0))} ago"),
        ("steps", _counted(counts, len(follower.unfinished()))),
    ]
    if run.finished_at is not None:
        facts[1] = ("took", span(max(end - run.created_at, 0.0)))
    if look.status == "interrupted":
        facts.append(("next", (f"flowdsl resume {run.id} --app {app_of(run)}", "bold")))
    elif run.status is RunStatus.COMPLETED:
        facts.append(("result", run.result_preview))
    out.facts([(name, cell) for name, cell in facts])
    room = max(console.height - len(out.lines) - _TITLES, 4)
    unfinished = 0 if look.ended else len(follower.unfinished())
    logged = min(len(follower.logs), _LOG_LINES, max(room - unfinished, room // 2))
    if not look.ended:
        _draw_unfinished(out, follower, look, max(room - logged, 2))
    if logged:
        out.heading("log")
        paths = scope_paths(follower.steps.values())
        for line in follower.logs[-logged:]:
            out.line("  ", *log_cells(line, paths, run))
    del out.lines[max(console.height - 1, 1) :]
    return out


def _counted(counts: dict[str, int], unfinished: int) -> str:
    parts = [f"{counts['done']} done"]
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    if unfinished:
        parts.append(f"{unfinished} begun")
    return ", ".join(parts)


def _draw_unfinished(out: Picture, follower: Follower, look: Look, room: int) -> None:
    steps = follower.unfinished()
    if not steps:
        return
    running = look.status == "running"
    home = _home(look.run)
    out.heading("now" if running else "begun")
    columns = (
        Column("step", (99, 30, 12), cut_start),
        Column("state"),
        Column("try", right=True),
        Column("for", right=True),
        Column("arguments", (50, 20, 0)),
        Column("", (60, 30, 0)),
    )
    hidden = len(steps) - room if len(steps) > room else 0
    rows: list[list[Cell]] = [
        [
            step_name(step, home),
            status_cell(_state(step, running)),
            str(step.attempts + 1),
            span(max(look.now - step.created_at, 0.0)) if running else "",
            step.args,
            (pending_text(step, running), "dim"),
        ]
        for step in steps[: len(steps) - hidden]
    ]
    out.table(columns, rows, indent=2)
    if hidden:
        out.line((f"  and {hidden} more", "dim"))


def _state(step: Step, running: bool) -> str:
    if step.status is not StepStatus.PENDING:
        return str(step.status)
    if not running:
        return "pending"
    return "waiting" if any(name in extra_of(step) for name in _WAITING) else "running"


def _home(run: Run) -> str:
    return run.workflow.rpartition(".")[0] + "."


# ------------------------------------------------------------------------------------------------------ lines


def _printed(cli: Cli, follower: Follower) -> Look:
    """Print the run's status, then each change, until it ends."""
    shown = ""
    looks = follower.looks()
    look = next(looks)
    while True:
        first = not shown
        steps = [step for step in look.fresh if not first or step.status is StepStatus.PENDING]
        if first and not look.ended:
            _print_run(cli, follower, look)
        for step in steps:
            _print_step(cli, follower, look, step)
        if look.ended or (not first and look.status != shown):
            _print_run(cli, follower, look)
        cli.out.flush()
        if look.ended:
            return look
        shown, look = look.status, next(looks)


def _print_run(cli: Cli, follower: Follower, look: Look) -> None:
    run = look.run
    counts = follower.counts()
    if cli.as_json:
        cli.out.entry({"event": "run", **run_view(run, look.status), "progress": counts})
        return
    at = look.now if run.finished_at is None else run.finished_at
    outcome = run.result_preview if run.status is RunStatus.COMPLETED else run.error_preview
    text = f" → {outcome}" if look.ended and outcome else ""
    unfinished = 0 if look.ended else len(follower.unfinished())
    cells: list[Cell] = [(run.id, "bold"), f"  {_counted(counts, unfinished)}{text}"]
    cli.out.line((moment(at), "dim"), "  ", _column(look.status), "  ", *cells)


def _print_step(cli: Cli, follower: Follower, look: Look, step: Step) -> None:
    """Print one record that is new or has changed."""
    at = (moment(step.created_at if step.completed_at is None else step.completed_at), "dim")
    if step.kind == "log":
        line, paths = LogLine.of(step), scope_paths(follower.steps.values())
        if cli.as_json:
            cli.out.entry({"event": "log", **log_view(line, paths)})
        else:
            when, *rest = log_cells(line, paths, look.run)
            cli.out.line(when, f"  {'log':{_STATUS_WIDTH}}", *rest)
    elif cli.as_json:
        if step.kind not in ("store", "value"):
            cli.out.entry({"event": "audit" if step.kind == "audit" else "step", **step_view(step)})
    elif step.kind == "audit":
        did = f"{step.path.removeprefix('flowdsl.')} {step.args}"
        cli.out.line(at, f"  {'audit':{_STATUS_WIDTH}}  {did}", (f"  by {step.preview}", "dim"))
    elif step.kind not in ("store", "value"):
        running = look.status == "running"
        state = _state(step, running)
        pending = step.status is StepStatus.PENDING
        outcome = pending_text(step, running) if pending else f"→ {step.preview}" if step.preview else ""
        name: Cell = (step_name(step, _home(look.run)), STYLES["failed"] if state == "failed" else "")
        cli.out.line(at, "  ", _column(state), "  ", name, "  ", (step.args, "dim"), f"  {outcome}")


_STATUS_WIDTH = len("! interrupted")


def _column(status: str) -> Cell:
    return status_text(status).ljust(_STATUS_WIDTH), STYLES.get(status, "")
