"""``flowdsl cancel``: ask runs to stop."""

from flowdsl.cli._command import Cli, command, opened
from flowdsl.cli._complete import RUNS
from flowdsl.cli._find import find_runs, row_of
from flowdsl.core.advice import module_of
from flowdsl.handle import shown_status

__all__ = ["cancel"]


@command(
    epilog="""\b
Example:
  flowdsl cancel order-17"""
)
@RUNS
def cancel(cli: Cli, runs: tuple[str, ...]) -> None:
    """Ask runs to stop.

    An interrupted run is cancelled at once. If it has steps to undo, the request waits until a process with
    its code resumes the run. A run that is executing, in any process, sees the request within a second. It
    stops at its next durable call.
    """
    with opened(cli) as runtime:
        found = find_runs(runtime, runs)
        for run in found:
            runtime.cancel(run.id)
        records = [row_of(runtime, run.id) for run in found]
        waiting = [record for record in records if shown_status(runtime.storage, record) == "interrupted"]
    for record in records:
        cancelled = str(record.status) == "cancelled"
        cli.out.line("cancelled " if cancelled else "asked to stop: ", record.id)
    for record in waiting:
        cli.out.note(f"{record.id} has steps to undo first, and their code is not loaded here")
    cli.out.next(
        ["flowdsl", "resume", record.id, "--app", module_of(record.workflow), *cli.tail] for record in waiting
    )
    if cli.as_json:
        cli.out.document([{"id": record.id, "status": str(record.status)} for record in records])
