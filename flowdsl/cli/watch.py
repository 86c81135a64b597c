"""``flowdsl watch``: a run while it executes. In a terminal the picture is updated; in a pipe there are
lines."""

from rich.console import Console
from rich.live import Live

from flowdsl.cli._command import Cli, command, opened
from flowdsl.cli._complete import RUN
from flowdsl.cli._find import find_run
from flowdsl.cli._follow import Follower, waits
from flowdsl.cli._output import HIDDEN, Cell, Column, Picture, status_cell
from flowdsl.cli._tree import pending_text, step_name
from flowdsl.cli.logs import log_cells
from flowdsl.core.advice import advice, shell_line
from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.core.views import log_view, run_view, scope_paths, step_view
from flowdsl.core.words import moment, span, state_of, status_text
from flowdsl.entries import LogLine
from flowdsl.following import Look

__all__ = ["watch"]

_LOG_LINES = 8  # at most, if the terminal is high enough
_TITLES = 8  # lines besides the rows of lists: titles, empty lines, how many more
_STATUS_WIDTH = len("! interrupted")


@command(
    epilog="""\b
Examples:
  flowdsl watch order-17
  flowdsl watch order-17 | tee order-17.txt
  flowdsl watch order-17 --json | jq 'select(.event == "step") | .path'"""
)
@RUN
def watch(cli: Cli, run: str) -> int:
    """Watch a run until it ends.

    In a terminal it shows the status, how many steps are done, the steps that are executing, and the last
    lines of the log. In a pipe there is one line for each change; with --json, each is a document of its own.
    The exit code is 0 only if the run completes. Ctrl-C ends the watching, not the run.
    """
    with opened(cli) as runtime:
        follower = Follower(runtime, find_run(runtime, run).id)
        console = cli.out.live
        last = _printed(cli, follower) if console is None else _drawn(cli, console, follower)
    if last.run.status is RunStatus.COMPLETED:
        return 0
    if not cli.as_json:
        cli.out.error(f"run {last.run.id} {_ended(last.run)}")
        for command in _advised(cli, follower, last):
            cli.out.hint(shell_line(command))
    return 1


def _ended(run: Run) -> str:
    if run.status is RunStatus.CANCELLED:
        return "was cancelled"
    return f"failed: {error_lines(run.error_preview)[0]}" if run.error_preview else "failed"


def _advised(cli: Cli, follower: Follower, look: Look) -> list[list[str]]:
    return advice(look.run, look.status, follower.unfinished(), cli.tail)


# -------------------------------------------------------------------------------------------------- terminals


def _drawn(cli: Cli, console: Console, follower: Follower) -> Look:
    """Draw the run until it ends; the last picture stays."""
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for look in follower.looks():
            live.update(_picture(cli, console, follower, look).whole, refresh=True)
            if look.ended:
                return look
    raise AssertionError("looking ends with the run")


def _picture(cli: Cli, console: Console, follower: Follower, look: Look) -> Picture:
    """The present picture. It fits into the terminal."""
    out = Picture(console)
    run = look.run
    out.line((run.id, "bold"), "  ", status_cell(look.status))
    out.facts(_facts(follower, look))
    commands = [] if look.ended else _advised(cli, follower, look)
    room = max(console.height - _TITLES - 5 - len(commands), 4)
    unfinished = 0 if look.ended else len(follower.unfinished())
    logged = min(len(follower.logs), _LOG_LINES, max(room - unfinished, room // 2))
    if not look.ended:
        _draw_unfinished(out, follower, look, max(room - logged, 2))
    if logged:
        out.heading("log")
        paths = scope_paths(follower.steps.values())
        for line in follower.logs[-logged:]:
            out.line("  ", *log_cells(line, paths, run))
    if commands:
        out.line("")
        out.next(commands)
    return out


def _facts(follower: Follower, look: Look) -> list[tuple[str, Cell]]:
    run = look.run
    end = look.now if run.finished_at is None else run.finished_at
    took = span(max(end - run.created_at, 0.0))
    facts: list[tuple[str, Cell]] = [
        ("workflow", f"{run.workflow}({run.args_preview})"),
        ("began", f"{moment(run.created_at)}, {took} ago") if run.finished_at is None else ("took", took),
        ("steps", _counted(follower.counts(), 0 if look.ended else len(follower.unfinished()))),
    ]
    if run.status is RunStatus.COMPLETED:
        facts.append(("result", run.result_preview or HIDDEN))
    return facts


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
        Column("step", least=14),
        Column("state"),
        Column("try", right=True),
        Column("for", right=True),
        Column("arguments", least=8, wide=76),
        Column("", least=8, wide=60),
    )
    rows: list[list[Cell]] = [
        [
            step_name(step, home),
            status_cell(_state(step, running)),
            str(step.attempts + 1),
            span(max(look.now - step.created_at, 0.0)) if running else "",
            step.args,
            (pending_text(step, running), "dim"),
        ]
        for step in steps[:room]
    ]
    out.table(columns, rows, indent=2)
    if len(steps) > room:
        out.line((f"  and {len(steps) - room} more", "dim"))


def _state(step: Step, running: bool) -> str:
    if step.status is not StepStatus.PENDING:
        return str(step.status)
    if not running:
        return "pending"
    return "waiting" if waits(step) else "running"


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
        document = {"event": "run", **run_view(run, look.status), "progress": counts}
        cli.out.entry({**document, "next": _advised(cli, follower, look)})
        return
    at = look.now if run.finished_at is None else run.finished_at
    outcome = run.result_preview if run.status is RunStatus.COMPLETED else error_lines(run.error_preview)[0]
    text = f" → {outcome}" if look.ended and outcome else ""
    unfinished = 0 if look.ended else len(follower.unfinished())
    cells: list[Cell] = [(run.id, "bold"), f"  {_counted(counts, unfinished)}{text}"]
    cli.out.line((moment(at), "dim"), "  ", _column(look.status), "  ", *cells)
    if not look.ended:
        cli.out.next(_advised(cli, follower, look))


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
        outcome = (
            pending_text(step, running)
            if pending
            else f"→ {error_lines(step.preview)[0]}"
            if step.preview
            else ""
        )
        name: Cell = (
            step_name(step, _home(look.run)),
            state_of("failed").colour if state == "failed" else "",
        )
        cli.out.line(at, "  ", _column(state), "  ", name, "  ", (step.args, "dim"), f"  {outcome}")


def _column(status: str) -> Cell:
    return status_text(status).ljust(_STATUS_WIDTH), state_of(status).colour
