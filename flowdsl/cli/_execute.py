"""Executing the rest of a run, for ``flowdsl resume``, ``retry`` and ``fork``.

Only these commands, ``worker`` and ``schedules`` import the user's code. So only they load stored values.
"""

import contextlib
import os
import signal
import sys
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from flowdsl.blocks import block
from flowdsl.cli._command import Cli, Failure, Missing, missing_database, opened
from flowdsl.cli._find import find_run, row_of
from flowdsl.cli._modules import load_app
from flowdsl.cli._output import HIDDEN, status_cell
from flowdsl.core.advice import advice, module_of, shell_line
from flowdsl.core.kinds import WITH_BODY
from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus
from flowdsl.core.views import run_view
from flowdsl.core.words import owner_text, span
from flowdsl.errors import FlowError, RunConflict, StepOutcomeUnknown
from flowdsl.handle import Run as Handle
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime, set_default

__all__ = ["APP", "app_runtime", "execute", "stdout_reserved"]

APP = click.option(
    "--app", metavar="MODULE", help="The module that defines the workflow: its name, or the path of its file."
)


def execute(cli: Cli, text: str, app: str | None, how: Callable[[Runtime, str], Handle]) -> int:
    """Continue the run that *text* names with the code of module *app*, and wait for its end. *how* continues
    it."""
    known = _peek(cli, text)
    if app is None:
        raise _app_missing(cli, known)
    with stdout_reserved(cli.as_json):
        load_app(app, known.workflow if known is not None else "")
        with app_runtime(cli) as runtime:
            run = find_run(runtime, text)
            before = max((step.seq for step in runtime.storage.list_steps(run.id, payloads=False)), default=0)
            began = time.monotonic()
            with _interruptible(cli, runtime):
                handle = _begun(cli, runtime, run, app, how)
                if handle.id != run.id:
                    before = _forked_at(runtime, handle.id)
                elif shown_status(runtime.storage, run) == "running" and run.owner is not None:
                    cli.out.note(f"it is executed by {owner_text(run.owner)}: waiting for it")
                error = _outcome(handle)
            took = time.monotonic() - began
            record = row_of(runtime, handle.id)
            status = shown_status(runtime.storage, record)
            steps = runtime.storage.list_steps(handle.id, payloads=False)
            commands = _advised(cli, runtime, record, status, steps, error)
    seqs = [step.seq for step in steps if step.kind in WITH_BODY]
    executed = sum(seq > before for seq in seqs)
    commands = [_with_app(one, app) for one in commands]
    if cli.as_json:
        counts = {"executed": executed, "replayed": len(seqs) - executed}
        cli.out.document({**run_view(record, status), **counts, "next": commands})
    if error is not None:
        cli.out.error(_error_text(record, status, error))
        for command in commands:
            cli.out.hint(shell_line(command))
        return 1
    counted = f"{executed} executed, {len(seqs) - executed} recorded before, {span(took)}"
    cli.out.line(status_cell(status), f"  {record.id}  ", (counted, "dim"))
    cli.out.facts([("result", record.result_preview or HIDDEN)])
    return 0


def _begun(cli: Cli, runtime: Runtime, run: Run, app: str, how: Callable[[Runtime, str], Handle]) -> Handle:
    """What *how* gives. If it refuses an undone run, the error names the command that executes it again."""
    try:
        return how(runtime, run.id)
    except RunConflict:
        if run.status is not RunStatus.FAILED or run.retryable:
            raise
        command = ["flowdsl", "retry", run.id, "--app", app, *cli.tail]
        said = f"run {run.id} has failed and its steps were undone: only retry or fork execute it again"
        raise Failure(said, shell_line(command)) from None


def _app_missing(cli: Cli, run: Run | None) -> click.UsageError:
    """The error for a missing ``--app``. If the run is known, the hint is the whole command."""
    said = "--app MODULE is needed to execute the code of the run"
    if run is None:
        return click.UsageError(said)
    module = module_of(run.workflow)
    command = ["flowdsl", str(click.get_current_context().info_name), run.id, "--app", module, *cli.tail]
    return Missing(f"{said}, probably --app {module}", shell_line(command))


def _advised(
    cli: Cli, runtime: Runtime, run: Run, status: str, steps: Sequence[Step], error: BaseException | None
) -> list[list[str]]:
    """The commands to use next. If a child is in doubt, they are about the child, because its parent waits
    for it."""
    if isinstance(error, StepOutcomeUnknown) and error.run not in (None, run.id):
        child = runtime.storage.get_run(error.run)
        if child is not None:
            shown = shown_status(runtime.storage, child)
            return advice(child, shown, runtime.storage.list_steps(child.id, payloads=False), cli.tail)
    return advice(run, status, steps, cli.tail)


def _with_app(command: list[str], app: str) -> list[str]:
    """The command with the module that the user named, instead of the one in the workflow's name."""
    place = command.index("--app") + 1 if "--app" in command else len(command)
    return [*command[:place], app, *command[place + 1 :]] if place < len(command) else command


def _forked_at(runtime: Runtime, run_id: str) -> int:
    """The number of the record of the fork itself. It comes after all copied records."""
    steps = runtime.storage.list_steps(run_id, payloads=False)
    return max((step.seq for step in steps if step.path == "flowdsl.fork"), default=0)


def _peek(cli: Cli, text: str) -> Run | None:
    """The run, if it is in the storage of the command line. If not, the module may name another storage."""
    if not cli.explicit and missing_database(cli.url) is not None:
        return None
    try:
        with opened(cli) as runtime:
            return find_run(runtime, text)
    except Failure:
        if cli.explicit:
            raise
        return None


@block
def app_runtime(cli: Cli) -> Iterator[Runtime]:
    """The runtime that the imported module configured, or a runtime on the storage of the command line."""
    configured = set_default(None)
    set_default(configured)
    if configured is None or cli.explicit:
        with opened(cli) as runtime:
            yield runtime
    else:
        with configured:
            yield configured


@block
def _interruptible(cli: Cli, runtime: Runtime) -> Iterator[None]:
    """The first Ctrl-C interrupts the run. A second one ends the process without waiting for the user's
    threads."""
    try:
        yield
    except KeyboardInterrupt:
        # An exception would wait for the threads that execute steps, so the next Ctrl-C ends the process at
        # once.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        cli.out.note("interrupted; it can be resumed. Waiting for its steps; Ctrl-C again ends at once")
        runtime.close()
        raise


def _outcome(run: Handle) -> BaseException | None:
    """Wait for the end of *run*. Return the error with which it ended, or ``None``."""
    try:
        run.result()
    except (Exception, SystemExit, CancelledError) as error:  # whatever the run has raised
        return error
    return None


def _error_text(record: Run, status: str, error: BaseException) -> str:
    what = str(error) if isinstance(error, FlowError) else f"{type(error).__name__}: {error}"
    if record.status is RunStatus.FAILED:
        return f"run {record.id} failed: {what}"
    return what if record.id in what else f"run {record.id} is {status}: {what}"


@block
def stdout_reserved(wanted: bool) -> Iterator[None]:
    """Send the output of the user's code to standard error while it executes, that of child processes too."""
    if not wanted:
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        with contextlib.suppress(OSError, ValueError, AttributeError):
            real: Any = sys.__stdout__
            real.flush()
            number, errors = real.fileno(), sys.stderr.fileno()
            kept = os.dup(number)
            os.dup2(errors, number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
        yield
