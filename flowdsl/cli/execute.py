"""``flowdsl resume``, ``flowdsl retry`` and ``flowdsl fork``: execute the rest of a run, or of a copy of it.

These are the only commands that execute the user's code, and so the only ones that load what it stored.
"""

import contextlib
import os
import shlex
import signal
import sys
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from typing import Any

import click

from flowdsl.cli.common import Cli, Failure, app_of, command, find_run, missing_database, opened, shown_status
from flowdsl.cli.modules import load_app
from flowdsl.cli.output import status_cell
from flowdsl.cli.text import clean, owner_text, span
from flowdsl.core.kinds import WITH_BODY
from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus
from flowdsl.core.views import run_view
from flowdsl.errors import FlowError
from flowdsl.handle import Run as Handle
from flowdsl.runtime import Runtime, set_default

__all__ = ["fork", "resume", "retry"]

APP = click.option(
    "--app", metavar="MODULE", help="The module that defines the workflow: its name, or the path of its file."
)


@command(
    epilog="""\b
Examples:
  flowdsl resume order-17 --app shop
  flowdsl resume order-17 --app jobs/shop.py"""
)
@click.argument("run")
@APP
def resume(cli: Cli, run: str, app: str | None) -> int:
    """Continue an interrupted or failed run.

    Recorded steps return what is recorded; the rest executes. MODULE is imported for that, a script without
    its `if __name__ == "__main__":` part. If it calls configure(…), the run executes on that runtime, unless
    --storage is given. The command waits for the end of the run; its exit code is 0 only if that completes.
    """
    return _continue(cli, run, app, Runtime.resume)


@command(
    epilog="""\b
Examples:
  flowdsl retry checkout-53b9 --app shop
  flowdsl retry checkout-53b9 --app shop.py --json"""
)
@click.argument("run")
@APP
def retry(cli: Cli, run: str, app: str | None) -> int:
    """Execute the failed steps of a run again.

    What follows them executes too, everything else is replayed. MODULE, waiting and the exit code are as for
    `flowdsl resume`.
    """
    return _continue(cli, run, app, Runtime.retry)


@command(
    epilog="""\b
Examples:
  flowdsl fork order-17 --before charge --app shop
  flowdsl fork checkout-53b9 --before c6bacaaf --id second-try"""
)
@click.argument("run")
@click.option("--before", metavar="STEP", required=True, help="A step's name or the beginning of its key.")
@click.option("--id", "new_id", metavar="ID", help="The id of the new run.")
@APP
def fork(cli: Cli, run: str, before: str, new_id: str | None, app: str | None) -> int:
    """Start a new run from the middle of another one.

    The new run has what RUN had recorded before STEP; from there on, everything executes anew. RUN itself
    stays as it is. Without --app the new run is only made, and `flowdsl resume` executes it. Otherwise
    MODULE, waiting and the exit code are as for `flowdsl resume`.
    """
    if not before:
        raise click.UsageError("a step's name is not empty", click.get_current_context())
    if app is not None:
        return _continue(cli, run, app, lambda runtime, of: runtime.fork(of, before, new_id))
    with opened(cli) as runtime:
        made = runtime.fork(find_run(runtime, run).id, before, new_id).record
        status = shown_status(runtime, made)
        steps = sum(step.kind in WITH_BODY for step in runtime.step_records(made.id))
    cli.out.line("made ", (made.id, "bold"), (f"  {steps} recorded before", "dim"))
    cli.out.facts([("next", (f"flowdsl resume {shlex.quote(made.id)} --app {app_of(made)}", "bold"))])
    if cli.as_json:
        cli.out.document(run_view(made, status))
    return 0


def _continue(cli: Cli, text: str, app: str | None, how: Callable[[Runtime, str], Handle]) -> int:
    known = _peek(cli, text)
    if app is None:
        hint = f", probably --app {app_of(known)}" if known is not None else ""
        raise click.UsageError(f"--app MODULE is needed, to execute the code of the run{hint}")
    with _stdout_reserved(cli.as_json):
        load_app(app, known.workflow if known is not None else "")
        with _runtime(cli) as runtime:
            run = find_run(runtime, text)
            before = max((step.seq for step in runtime.storage.list_steps(run.id)), default=0)
            began = time.monotonic()
            with _interruptible(cli, runtime):
                handle = how(runtime, run.id)
                if handle.id != run.id:
                    before = _forked_at(runtime, handle.id)
                elif shown_status(runtime, run) == "running" and run.owner is not None:
                    cli.out.note(f"it is executed by {owner_text(run.owner)}: waiting for it")
                error = _outcome(handle)
            took = time.monotonic() - began
            record = runtime.record(handle.id)
            status = shown_status(runtime, record)
            seqs = [step.seq for step in runtime.step_records(handle.id) if step.kind in WITH_BODY]
    executed = sum(seq > before for seq in seqs)
    replayed = len(seqs) - executed
    if cli.as_json:
        cli.out.document({**run_view(record, status), "executed": executed, "replayed": replayed})
    if error is not None:
        cli.out.note(("error: ", "bold red"), _told(record, status, error))
        return 1
    counts = f"{executed} executed, {replayed} recorded before, {span(took)}"
    cli.out.line(status_cell(status), f"  {record.id}  ", (counts, "dim"))
    cli.out.facts([("result", record.result_preview)])
    return 0


def _forked_at(runtime: Runtime, run_id: str) -> int:
    """The number of the record that says that this run is a fork: it follows all that was copied."""
    steps = runtime.storage.list_steps(run_id)
    return max((step.seq for step in steps if step.path == "flowdsl.fork"), default=0)


def _peek(cli: Cli, text: str) -> Run | None:
    """The run, if it is where the command line says; else the module may say where."""
    if not cli.explicit and missing_database(cli.url) is not None:
        return None
    try:
        with opened(cli) as runtime:
            return find_run(runtime, text)
    except Failure:
        if cli.explicit:
            raise
        return None


@contextlib.contextmanager
def _runtime(cli: Cli) -> Iterator[Runtime]:
    """The runtime that the imported module configured, or one on the storage of the command line."""
    configured = set_default(None)
    set_default(configured)
    if configured is None or cli.explicit:
        with opened(cli) as runtime:
            yield runtime
    else:
        with configured:
            yield configured


@contextlib.contextmanager
def _interruptible(cli: Cli, runtime: Runtime) -> Iterator[None]:
    """Code of the user executes in threads: Ctrl-C lets the run go, a second one leaves them behind."""
    try:
        yield
    except KeyboardInterrupt:
        # The threads that execute steps would hold the process, so the next Ctrl-C is not an exception.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        cli.out.note("interrupted; it can be resumed. Waiting for what is executing: Ctrl-C again leaves it")
        runtime.close()
        raise


def _outcome(run: Handle) -> BaseException | None:
    """Wait for the end of *run*; the error that it ended with."""
    try:
        run.result()
    except (Exception, SystemExit, CancelledError) as error:
        return error
    return None


def _told(record: Run, status: str, error: BaseException) -> str:
    # Messages of ours may have several lines, which show what to do; those of the user's code get one.
    what = str(error) if isinstance(error, FlowError) else clean(f"{type(error).__name__}: {error}")
    if record.status is RunStatus.FAILED:
        return f"run {record.id} failed: {what}"
    return what if record.id in what else f"run {record.id} is {status}: {what}"


@contextlib.contextmanager
def _stdout_reserved(wanted: bool) -> Iterator[None]:
    """While the user's code executes, what it prints goes to standard error, child processes included."""
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
