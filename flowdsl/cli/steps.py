"""``flowdsl steps``: every field of the steps of a run."""

from typing import Any

import click

from flowdsl.cli._command import Cli, Failure, command, opened
from flowdsl.cli._complete import RUN, step_names
from flowdsl.cli._find import find_run, named, near_step
from flowdsl.cli._output import Cell, Output, status_cell
from flowdsl.cli._tree import error_facts
from flowdsl.core.advice import shell_line
from flowdsl.core.records import Run, Step
from flowdsl.core.views import step_view
from flowdsl.core.words import moment, span, state_of

__all__ = ["steps"]


@command(
    epilog="""\b
Examples:
  flowdsl steps checkout-53b9
  flowdsl steps checkout-53b9 c6bacaaf
  flowdsl steps checkout-53b9 --json"""
)
@RUN
@click.argument("step", required=False, shell_complete=step_names)
def steps(cli: Cli, run: str, step: str | None) -> None:
    """Show every field of the steps of a run.

    All kinds of records are shown, in recorded order. With STEP, only that one: give its name or the
    beginning of its key.
    """
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        journal = runtime.storage.list_steps(record.id, payloads=False)
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
    found = named(journal, text)
    if not found:
        near = near_step(journal, text)
        raise Failure(
            f"no step {text!r} is recorded of {run.id}{near}", shell_line(["flowdsl", "show", run.id])
        )
    return found


def _print_step(out: Output, step: Step) -> None:
    out.line((step.path, "bold"), "  ", status_cell(str(step.status)))
    view = step_view(step)
    facts: list[tuple[str, Cell]] = []
    for name, value in view.items():
        if name in ("path", "status") or value is None or (name == "extra" and not value):
            continue
        if name == "error":
            facts += error_facts(value, state_of("failed").colour)
        else:
            facts.append((name.replace("_", " "), _text(name, value, step)))
    out.facts(facts)


_TIMES = ("until", "deadline", "next", "begun")
"""Facts that are moments, in seconds since the epoch."""


def _fact(name: str, value: Any) -> str:
    if name not in _TIMES:
        return str(value)
    times = value if isinstance(value, list) else [value]
    return " and ".join(moment(at) if isinstance(at, int | float) else str(at) for at in times)


def _text(name: str, value: Any, step: Step) -> Cell:
    if name == "created_at":
        return moment(step.created_at, zone=True)
    if name == "completed_at":
        return moment(step.completed_at, zone=True)
    if name == "duration":
        return span(value)
    if name == "scope":
        return value or ("the run", "dim")
    if name == "extra":
        return ", ".join(f"{key}={_fact(key, item)}" for key, item in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
