"""Names that a shell completes: ids of runs, names of workflows, steps and messages.

Completing makes no database and raises nothing. An offered name goes onto the command line unchanged, so only
names that need no quotes are offered.
"""

import logging
import shlex
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import click
from click.shell_completion import CompletionItem

from flowdsl.blocks import block
from flowdsl.cli._command import Cli, missing_database
from flowdsl.cli._find import every_run, find_run, recent_workflows
from flowdsl.core.advice import awaited_names
from flowdsl.core.kinds import CALLS
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.core.words import clean
from flowdsl.errors import FlowError
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime
from flowdsl.storage.left_out import left_out

__all__ = [
    "RUN",
    "RUNS",
    "channel_names",
    "message_names",
    "queue_names",
    "schedule_names",
    "step_names",
    "workflow_names",
]

_MOST = 200  # runs that are offered, the newest

Offered = tuple[str, str]
"""An offered name, and a word about it."""


def _completes(
    find: Callable[[Runtime, click.Context], Iterable[Offered]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Make a completion function for click. It offers what *find* finds in the storage of this command."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        cli = Cli(storage=_storage_of(ctx))
        try:
            if missing_database(cli.url) is not None:
                return []
            with _silence(), left_out(), Runtime(cli.url) as runtime:
                found = dict(find(runtime, ctx))
        except (FlowError, click.ClickException, ValueError, ImportError, OSError, sqlite3.Error):
            return []
        return [
            CompletionItem(name, help=clean(about))
            for name, about in found.items()
            if name.startswith(incomplete) and _literal(name)
        ]

    return complete


@block
def _silence() -> Iterator[None]:
    """Log nothing, because it would appear in the line that somebody types."""
    logger = logging.getLogger("flowdsl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _storage_of(ctx: click.Context | None) -> str | None:
    while ctx is not None:
        if ctx.params.get("storage"):
            return str(ctx.params["storage"])
        ctx = ctx.parent
    return None


def _literal(name: str) -> bool:
    return name.isprintable() and not name.startswith("-") and shlex.quote(name) == name


def _runs(runtime: Runtime, _: click.Context) -> Iterator[Offered]:
    for run in islice(every_run(runtime), _MOST):
        yield run.id, f"{shown_status(runtime.storage, run)} {run.workflow}"


def _steps_of(runtime: Runtime, ctx: click.Context) -> list[Step]:
    text: Any = ctx.params.get("run") or next(iter(ctx.args), None)  # the second while an option is typed
    return runtime.storage.list_steps(find_run(runtime, text).id, payloads=False) if text else []


def _steps(runtime: Runtime, ctx: click.Context) -> Iterator[Offered]:
    for step in _steps_of(runtime, ctx):
        if step.kind in CALLS and not step.path.startswith("flowdsl."):
            yield step.path.rpartition(".")[2], str(step.status)


def _messages(runtime: Runtime, ctx: click.Context) -> Iterator[Offered]:
    for step in _steps_of(runtime, ctx):
        if step.status is StepStatus.PENDING:
            for name in awaited_names(step):
                yield name, "awaited"


def _workflows(runtime: Runtime, _: click.Context) -> Iterator[Offered]:
    for path in recent_workflows(runtime):
        yield path, ""


def _channels(runtime: Runtime, ctx: click.Context) -> Iterator[Offered]:
    text: Any = ctx.params.get("run")
    if text:
        for name, count in runtime.storage.list_channels(find_run(runtime, text).id).items():
            yield name, f"{count} items"


def _queues(runtime: Runtime, _: click.Context) -> Iterator[Offered]:
    for row in runtime.storage.list_queues():
        yield row.name, "paused" if row.paused else ""


def _schedules(runtime: Runtime, _: click.Context) -> Iterator[Offered]:
    for row in runtime.storage.list_schedules():
        yield row.name, "paused" if row.paused else ""


run_ids = _completes(_runs)
queue_names = _completes(_queues)
schedule_names = _completes(_schedules)
channel_names = _completes(_channels)
workflow_names = _completes(_workflows)
step_names = _completes(_steps)
message_names = _completes(_messages)

RUN = click.argument("run", shell_complete=run_ids)
"""The argument that says which run."""

RUNS = click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=run_ids)
"""The argument that says which runs."""
