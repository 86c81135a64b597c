"""``flowdsl worker``: claim runs and execute them."""

import os
import signal
import sys
import threading
from collections.abc import Iterator

import click

from flowdsl.blocks import block
from flowdsl.cli._command import Cli, Failure, Whole, as_duration, command
from flowdsl.cli._complete import queue_names
from flowdsl.cli._execute import stdout_reserved
from flowdsl.cli._modules import load_app
from flowdsl.core.queues import DEFAULT
from flowdsl.core.words import nearest
from flowdsl.declared import loaded_workflows
from flowdsl.runtime import Runtime, set_default

__all__ = ["worker"]

_PATIENCE = 3.0  # seconds for closing, after the drain


@command(
    epilog="""\b
Examples:
  flowdsl worker shop
  flowdsl worker --app jobs/shop.py --queue mail --queue slow --concurrency 4
  flowdsl worker --app shop --queues mail,slow --drain "2 min" """
)
@click.argument("module", required=False)
@click.option(
    "--app",
    metavar="MODULE",
    help="The module that defines the workflows: its name, or the path of its file.",
)
@click.option(
    "--queue",
    "single",
    multiple=True,
    metavar="NAME",
    shell_complete=queue_names,
    help="Take only from this queue; may be repeated. By default from all.",
)
@click.option("--queues", "several", metavar="NAMES", help="The same, with commas between the names.")
@click.option("--concurrency", type=Whole(1), metavar="N", help="Runs at a time; 16 by default.")
@click.option(
    "--drain",
    default="30 sec",
    show_default=True,
    metavar="DURATION",
    callback=as_duration,
    help="How long executing runs may take to end.",
)
@click.option(
    "--lease",
    metavar="DURATION",
    callback=as_duration,
    help="How long after a kill other workers take over; 10 sec by default.",
)
def worker(
    cli: Cli,
    module: str | None,
    app: str | None,
    single: tuple[str, ...],
    several: str | None,
    concurrency: int | None,
    drain: float,
    lease: float | None,
) -> int:
    """Claim runs and execute them, until SIGTERM or Ctrl-C.

    MODULE is imported; of a script, the `if __name__ == "__main__":` part is not executed. If it calls
    configure(…), the worker uses that runtime, unless --storage is given. At SIGTERM or Ctrl-C it takes no
    new runs, lets executing runs end, and gives the others back. The exit code is 0 after SIGTERM, 130 after
    Ctrl-C.
    """
    if (module is None) == (app is None):
        raise click.UsageError("name one module that defines the workflows: --app MODULE")
    names = list(dict.fromkeys([*single, *_names(several)]))
    with _leave_at_sigterm():
        with stdout_reserved(cli.as_json):
            load_app(module or app or "")
        if not loaded_workflows():
            raise Failure(f"{module or app} defines no workflow: there is nothing to execute")
        with _runtime(cli, lease) as runtime:
            _tell(cli, runtime, names, concurrency or 16)
            with stdout_reserved(cli.as_json), _ending():
                runtime.work(queues=names or None, concurrency=concurrency, drain=drain)
    return 0


@block
def _ending() -> Iterator[None]:
    """End the process although bodies have not ended after the drain. Then other workers take over their runs
    at once.
    """
    code, patience = 0, _PATIENCE
    try:
        yield
    except KeyboardInterrupt:
        code = 130
        raise
    except SystemExit:  # a second SIGTERM
        code, patience = 128 + signal.SIGTERM, 0.1
        raise
    finally:
        last = threading.Timer(patience, os._exit, (code,))
        last.daemon = True
        last.start()


def _names(text: str | None) -> list[str]:
    if text is None:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise click.UsageError(f"--queues takes names with commas between them, not {text!r}")
    return names


@block
def _leave_at_sigterm() -> Iterator[None]:
    """Exit with code 0 at SIGTERM, before the work begins and after it too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@block
def _runtime(cli: Cli, lease: float | None) -> Iterator[Runtime]:
    """The runtime that the module configured, or a runtime on the storage of this command. A worker may start
    before the first run, so it makes the database.
    """
    configured = set_default(None)
    set_default(configured)
    if configured is not None and not cli.explicit:
        if lease is not None:
            raise click.UsageError("the module configures its own lease: use --lease only with --storage")
        with configured:
            yield configured
        return
    try:
        runtime = Runtime(cli.url) if lease is None else Runtime(cli.url, lease=lease)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with runtime:
        yield runtime


def _tell(cli: Cli, runtime: Runtime, names: list[str], concurrency: int) -> None:
    """Print the workflows and queues, and note a queue name that is probably mistyped."""
    known = {DEFAULT, *(row.name for row in runtime.storage.list_queues())}
    for name in names:
        near = nearest(name, known) if name not in known else ""
        if near:
            cli.out.note(f"no queue {name!r} is declared{near}")
    workflows = loaded_workflows()
    if cli.as_json:
        cli.out.document(
            {
                "process": os.getpid(),
                "queues": names or None,
                "concurrency": concurrency,
                "workflows": workflows,
            }
        )
    else:
        taken = f"queues {', '.join(names)}" if names else "all queues"
        cli.out.line(f"working at {len(workflows)} workflows, from {taken}, {concurrency} runs at a time")
    cli.out.flush()
