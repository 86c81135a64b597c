"""``flowdsl fork``: start a new run from the middle of another one."""

import click

from flowdsl.cli._command import Cli, Failure, command, opened
from flowdsl.cli._complete import RUN, step_names
from flowdsl.cli._execute import APP, execute
from flowdsl.cli._find import find_run, named, near_step, row_of
from flowdsl.core.advice import module_of, shell_line
from flowdsl.core.kinds import BESIDE_STEPS, WITH_BODY
from flowdsl.core.views import run_view
from flowdsl.handle import Run as Handle
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime

__all__ = ["fork"]


@command(
    epilog="""\b
Examples:
  flowdsl fork order-17 --before charge --app shop
  flowdsl fork checkout-53b9 --before c6bacaaf --id second-try"""
)
@RUN
@click.option(
    "--before",
    metavar="STEP",
    required=True,
    shell_complete=step_names,
    help="A step's name or the beginning of its key.",
)
@click.option("--id", "new_id", metavar="ID", help="The id of the new run.")
@APP
def fork(cli: Cli, run: str, before: str, new_id: str | None, app: str | None) -> int:
    """Start a new run from the middle of another one.

    The new run gets the records that RUN has from before STEP. From STEP on, everything executes. RUN itself
    stays as it is. Without --app the new run is only made, and `flowdsl resume` executes it. With --app,
    waiting and the exit code are as for `flowdsl resume`.
    """
    if not before:
        raise click.UsageError("a step's name must not be empty", click.get_current_context())

    def make(runtime: Runtime, of: str) -> Handle:
        steps = [
            step for step in runtime.storage.list_steps(of, payloads=False) if step.kind not in BESIDE_STEPS
        ]
        if not named(steps, before):
            near = near_step(steps, before)
            raise Failure(
                f"no step {before!r} is recorded of {of}{near}", shell_line(["flowdsl", "show", of])
            )
        return runtime.fork(of, before, new_id)

    if app is not None:
        return execute(cli, run, app, make)
    with opened(cli) as runtime:
        made = row_of(runtime, make(runtime, find_run(runtime, run).id).id)
        status = shown_status(runtime.storage, made)
        steps = sum(step.kind in WITH_BODY for step in runtime.storage.list_steps(made.id, payloads=False))
    command = ["flowdsl", "resume", made.id, "--app", module_of(made.workflow), *cli.tail]
    cli.out.line("made ", (made.id, "bold"), (f"  {steps} recorded before", "dim"))
    cli.out.next([command])
    if cli.as_json:
        cli.out.document({**run_view(made, status), "next": [command]})
    return 0
