"""``flowdsl resolve``: say how a step in doubt ended. No code of the user executes."""

from typing import Any

import click

from flowdsl.cli._command import Cli, Failure, command, opened
from flowdsl.cli._complete import RUN, step_names
from flowdsl.cli._find import find_run, named, near_step
from flowdsl.cli._options import NOTHING, as_json
from flowdsl.core.advice import module_of
from flowdsl.core.kinds import STEP
from flowdsl.core.preview import preview
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.errors import StepFailed
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime

__all__ = ["resolve"]


@command(
    epilog="""\b
Examples:
  flowdsl resolve order-17 charge --result '{"payment": "ch_5521"}'
  flowdsl resolve order-17 charge --error "the bank has no such payment"
  flowdsl resolve order-17 c6bacaaf --rerun"""
)
@RUN
@click.argument("step", shell_complete=step_names)
@click.option("--result", metavar="JSON", callback=as_json, help="It took effect, and this is its result.")
@click.option("--error", metavar="TEXT", help="It failed: its caller gets a StepFailed with this message.")
@click.option("--rerun", is_flag=True, help="It did not take effect: execute it again.")
def resolve(cli: Cli, run: str, step: str, result: Any, error: str | None, rerun: bool) -> None:
    """Say how a step in doubt ended.

    This is for a step with in_doubt="raise" that was executing when its process died. Its run stops, because
    nobody knows whether the step took effect. Find out, then say so. STEP is its name or the beginning of its
    key. The run's audit keeps what you said.
    """
    if (result is not NOTHING) + (error is not None) + rerun != 1:
        text = "say one of --result JSON, --error TEXT and --rerun"
        raise click.UsageError(text, click.get_current_context())
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        found = _in_doubt(runtime, record, step)
        if rerun:
            outcome, shown = "rerun", None
            runtime.resolve(record.id, found.key, rerun=True)
        elif error is not None:
            outcome, shown = "error", error
            runtime.resolve(record.id, found.key, error=StepFailed(error, run=record.id, step=found.key))
        else:
            outcome, shown = "result", preview(result)
            runtime.resolve(record.id, found.key, result=result)
    said = outcome if shown is None else f"{outcome} {shown}"
    command = ["flowdsl", "resume", record.id, "--app", module_of(record.workflow), *cli.tail]
    cli.out.line(f"resolved {found.path} of {record.id}: {said}")
    cli.out.next([command])
    if cli.as_json:
        said_of = {"step": found.key, "path": found.path, "outcome": outcome, "value": shown}
        cli.out.document({"run": record.id, **said_of, "next": [command]})


def _in_doubt(runtime: Runtime, run: Run, text: str) -> Step:
    """The one step without an outcome that *text* names."""
    if shown_status(runtime.storage, run) == "running":
        raise Failure(f"run {run.id} is executing, so no step of it is in doubt")
    steps = [step for step in runtime.storage.list_steps(run.id, payloads=False) if step.kind == STEP]
    matching = named(steps, text)
    found = [step for step in matching if step.status is StepStatus.PENDING]
    if len(found) == 1:
        return found[0]
    if found:
        keys = ", ".join(f"{step.key[:12]} ({step.args})" for step in found)
        raise Failure(f"{text!r} could be any of {keys}", "give the beginning of the key")
    if matching:
        raise Failure(f"step {matching[-1].path} of run {run.id} is {matching[-1].status}, not in doubt")
    doubtful = [f"{s.path} ({s.key[:12]})" for s in steps if s.status is StepStatus.PENDING]
    near = near_step(steps, text)
    raise Failure(f"run {run.id} has no step {text!r}{near}; in doubt are: {', '.join(doubtful) or 'none'}")
