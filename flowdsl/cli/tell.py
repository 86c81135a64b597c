"""``flowdsl signal`` and ``flowdsl resolve``: what a person tells a run. No code of the user executes."""

import json
import shlex
from typing import Any

import click

from flowdsl.cli.common import Cli, Failure, app_of, command, find_run, opened, shown_status
from flowdsl.core.kinds import STEP
from flowdsl.core.preview import preview
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.errors import StepFailed
from flowdsl.runtime import Runtime

__all__ = ["resolve", "signal"]

_SAID: Any = object()  # no result was given: `null` is one


def as_json(_: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Read an option that is JSON."""
    if value is None:
        return _SAID
    try:
        return json.loads(value, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        text = f"{preview(value, 40)} is not JSON ({error}); a text is in double quotes: '\"like this\"'"
        raise click.BadParameter(text, param=param) from None


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


# ----------------------------------------------------------------------------------------------------- signal


@command(
    epilog="""\b
Examples:
  flowdsl signal order-17 approved
  flowdsl signal order-17 approved --payload '{"by": "Eve", "limit": 500}' --sender eve
  flowdsl signal order-17 paid --payload 4990 --key payment-8812"""
)
@click.argument("run")
@click.argument("name")
@click.option(
    "--payload", metavar="JSON", callback=as_json, help="What wait_for returns; null if it is not given."
)
@click.option("--sender", metavar="TEXT", help="Who sends it; stored with the signal.")
@click.option("--key", metavar="TEXT", help="A second signal of this name and key is dropped.")
def signal(cli: Cli, run: str, name: str, payload: Any, sender: str | None, key: str | None) -> None:
    """Send a signal to a run.

    One wait_for(NAME) of the run takes it, now or later. The signal is stored; it does not matter whether the
    run is executing.
    """
    if not name.strip():
        raise click.UsageError("a signal's name is not empty", click.get_current_context())
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        value = None if payload is _SAID else payload
        sent = runtime.signal(record.id, name, value, sender=sender, key=key)
        known = runtime.storage.list_signals(record.id, name=name)
        dropped = sent not in {one.id for one in known}
        if dropped and (key is None or key not in {one.key for one in known}):
            raise Failure(f"the signal could not be stored: are {name!r}, the sender and the key Unicode?")
        status = shown_status(runtime, runtime.record(record.id))
    if dropped:
        cli.out.line(f"{record.id} had this signal before: nothing was sent")
    else:
        cli.out.line(f"sent {name} to {record.id}")
    if status != "running":
        cli.out.note(f"the run is {status}; it can take the signal when it is continued")
    if cli.as_json:
        stored = None if dropped else sent
        cli.out.document(
            {"run": record.id, "name": name, "id": stored, "sent": not dropped, "status": status}
        )


# ---------------------------------------------------------------------------------------------------- resolve


@command(
    epilog="""\b
Examples:
  flowdsl resolve order-17 charge --result '{"payment": "ch_5521"}'
  flowdsl resolve order-17 charge --error "the bank has no such payment"
  flowdsl resolve order-17 c6bacaaf --rerun"""
)
@click.argument("run")
@click.argument("step")
@click.option("--result", metavar="JSON", callback=as_json, help="It took effect, and this is its result.")
@click.option("--error", metavar="TEXT", help="It failed: its caller gets a StepFailed with this message.")
@click.option("--rerun", is_flag=True, help="It did not take effect: execute it again.")
def resolve(cli: Cli, run: str, step: str, result: Any, error: str | None, rerun: bool) -> None:
    """Say what came of a step in doubt.

    A step marked in_doubt="raise" whose process died in its body stops its run: nobody knows whether it took
    effect. Find out, then say so. STEP is its name or the beginning of its key. What is said stands in the
    run's audit log.
    """
    if (result is not _SAID) + (error is not None) + rerun != 1:
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
    cli.out.line(f"resolved {found.path} of {record.id}: {said}")
    cli.out.facts([("next", (f"flowdsl resume {shlex.quote(record.id)} --app {app_of(record)}", "bold"))])
    if cli.as_json:
        cli.out.document(
            {"run": record.id, "step": found.key, "path": found.path, "outcome": outcome, "value": shown}
        )


def _in_doubt(runtime: Runtime, run: Run, text: str) -> Step:
    """The one step without an outcome that *text* means."""
    if shown_status(runtime, run) == "running":
        raise Failure(f"run {run.id} is executing, so no step of it is in doubt")
    steps = [step for step in runtime.storage.list_steps(run.id) if step.kind == STEP]
    named = [s for s in steps if s.key.startswith(text) or s.path == text or s.path.endswith("." + text)]
    found = [step for step in named if step.status is StepStatus.PENDING] if text else []
    if len(found) == 1:
        return found[0]
    if found:
        keys = ", ".join(f"{step.key[:12]} ({step.args})" for step in found)
        raise Failure(f"{text!r} could be any of {keys}; give the beginning of the key")
    if named and text:
        raise Failure(f"step {named[-1].path} of run {run.id} is {named[-1].status}, not in doubt")
    doubtful = [f"{s.path} ({s.key[:12]})" for s in steps if s.status is StepStatus.PENDING]
    raise Failure(f"run {run.id} has no step {text!r}; in doubt are: {', '.join(doubtful) or 'none'}")
