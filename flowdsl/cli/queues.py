"""``flowdsl queues``: list, declare, pause and delete queues."""

from collections.abc import Iterable, Iterator
from typing import Any

import click
from attrs import frozen

from flowdsl.cli._command import Cli, Failure, Whole, command, opened, verbs
from flowdsl.cli._complete import queue_names
from flowdsl.cli._output import HIDDEN, Cell, Column
from flowdsl.core.queues import DEFAULT, Queue
from flowdsl.core.records import QueueCounts
from flowdsl.core.words import age, iso, nearest
from flowdsl.runtime import Runtime

__all__ = ["queues"]

NAME = click.argument("name", shell_complete=queue_names)


@frozen(slots=True)
class Line:
    """A queue, whether it was declared, and how many runs it has."""

    queue: Queue
    declared: bool
    counts: QueueCounts


@verbs(
    epilog="""\b
Examples:
  flowdsl queues
  flowdsl queues put mail --concurrency 10 --rate 100/min
  flowdsl queues pause mail"""
)
def queues(cli: Cli) -> None:
    """List the queues, or declare, pause, resume or delete one.

    Without a command it lists the queues that were declared or have runs.
    """
    _list(cli)


@command(name="list")
def list_(cli: Cli) -> None:
    """List the queues that were declared or have runs."""
    _list(cli)


@command()
@NAME
@click.option("--concurrency", type=Whole(1), metavar="N", help="Runs at once, in all workers.")
@click.option("--per-worker", type=Whole(1), metavar="N", help="Runs at once in one worker.")
@click.option("--per-partition", type=Whole(1), metavar="N", help="Runs at once of one partition.")
@click.option("--rate", metavar="RATE", help="Runs that may begin in a window of time, such as 100/min.")
def put(cli: Cli, name: str, **limits: Any) -> None:
    """Declare a queue, or replace its limits.

    A limit that is not given is removed. A paused queue stays paused.
    """
    with opened(cli) as runtime:
        there = {queue.name: queue for queue in runtime.queues.list()}.get(name)
        try:
            queue = Queue(name, paused=there is not None and there.paused, **limits)
        except ValueError as error:
            raise click.UsageError(str(error), click.get_current_context()) from None
        runtime.queues.put(queue)
        _done(cli, runtime, name, "replaced" if there else "declared")


@command()
@NAME
def pause(cli: Cli, name: str) -> None:
    """Let workers take nothing from a queue."""
    with opened(cli) as runtime:
        _require(name, (line.queue.name for line in _lines(runtime)))
        runtime.queues.pause(name)
        _done(cli, runtime, name, "paused")


@command()
@NAME
def resume(cli: Cli, name: str) -> None:
    """Let workers take from a queue again."""
    with opened(cli) as runtime:
        _require(name, (line.queue.name for line in _lines(runtime)))
        runtime.queues.resume(name)
        _done(cli, runtime, name, "resumed")


@command()
@NAME
def delete(cli: Cli, name: str) -> None:
    """Delete a queue and its limits; its runs stay."""
    with opened(cli) as runtime:
        _require(name, (queue.name for queue in runtime.queues.list()))
        runtime.queues.delete(name)
    cli.out.line(f"deleted queue {name}")
    if cli.as_json:
        cli.out.document({"deleted": [name]})


for _one in (list_, put, pause, resume, delete):
    queues.add_command(_one)


def _require(name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        raise Failure(f"no queue {name!r}{nearest(name, names)}", "flowdsl queues")


def _done(cli: Cli, runtime: Runtime, name: str, what: str) -> None:
    cli.out.line(f"{what} queue {name}")
    if cli.as_json:
        (line,) = (line for line in _lines(runtime) if line.queue.name == name)
        cli.out.document(_view(line, runtime.storage.now()))


def _lines(runtime: Runtime) -> Iterator[Line]:
    """All queues that were declared or have runs, and the default one, by name."""
    counts = runtime.storage.queue_counts()
    declared = {queue.name: queue for queue in runtime.queues.list()}
    for name in sorted({DEFAULT, *declared, *counts}):
        queue = declared.get(name) or Queue(name)
        yield Line(queue, name in declared, counts.get(name) or QueueCounts())


def _list(cli: Cli) -> None:
    with opened(cli) as runtime:
        lines, now = list(_lines(runtime)), runtime.storage.now()
    if cli.as_json:
        cli.out.document([_view(line, now) for line in lines])
        return
    columns = (
        Column("queue", least=10),
        Column("pending", right=True),
        Column("running", right=True),
        Column("oldest", right=True),
        Column("state"),
        Column("limits", least=12),
    )
    cli.out.table(columns, [_row(line, now) for line in lines])


def _row(line: Line, now: float) -> list[Cell]:
    queue = line.queue
    limits = {
        "at once": queue.concurrency,
        "per worker": queue.per_worker,
        "per partition": queue.per_partition,
    }
    said = [f"{limit} {name}" for name, limit in limits.items() if limit is not None]
    return [
        queue.name,
        str(line.counts.pending),
        str(line.counts.running),
        HIDDEN if line.counts.oldest is None else age(max(now - line.counts.oldest, 0.0)),
        ("paused", "yellow") if queue.paused else ("open", "green"),
        ", ".join([*said, *([queue.rate] if queue.rate else [])]) or ("none", "dim"),
    ]


def _view(line: Line, now: float) -> dict[str, Any]:
    queue = line.queue
    return {
        "name": queue.name,
        "declared": line.declared,
        "paused": queue.paused,
        "concurrency": queue.concurrency,
        "per_worker": queue.per_worker,
        "per_partition": queue.per_partition,
        "rate": queue.rate,
        "pending": line.counts.pending,
        "running": line.counts.running,
        "oldest": iso(line.counts.oldest),
        "oldest_age": None if line.counts.oldest is None else max(now - line.counts.oldest, 0.0),
    }
