"""``flowdsl workers``: list the workers that are alive."""

from flowdsl.cli._command import Cli, command, opened
from flowdsl.cli._output import Cell, Column
from flowdsl.core.words import age, owner_text
from flowdsl.declared import WorkerInfo

__all__ = ["workers"]


@command(
    epilog="""\b
Examples:
  flowdsl workers
  flowdsl workers --json"""
)
def workers(cli: Cli) -> None:
    """List the workers that are alive, with what they execute.

    A worker that was not seen for the time of a lease is left out.
    """
    with opened(cli) as runtime:
        found, now = runtime.workers(), runtime.storage.now()
    if cli.as_json:
        cli.out.document([_view(one) for one in found])
    elif not found:
        cli.out.note("no worker is alive: `flowdsl worker --app MODULE` starts one")
    else:
        columns = (
            Column("worker", least=12),
            Column("queues", least=8),
            Column("runs", right=True),
            Column("of at most", right=True, wide=76),
            Column("began", right=True),
            Column("seen", right=True, wide=76),
            Column("executes", least=10, wide=90),
        )
        cli.out.table(columns, [_row(one, now) for one in found])


def _row(one: WorkerInfo, now: float) -> list[Cell]:
    return [
        owner_text(one.id),
        "all" if one.queues is None else ", ".join(one.queues),
        str(len(one.executing)),
        str(one.concurrency),
        (age(max(now - one.started_at.timestamp(), 0.0)), "dim"),
        (age(max(now - one.seen_at.timestamp(), 0.0)), "dim"),
        ", ".join(one.executing),
    ]


def _view(one: WorkerInfo) -> dict[str, object]:
    return {
        "id": one.id,
        "queues": None if one.queues is None else list(one.queues),
        "concurrency": one.concurrency,
        "started_at": one.started_at.isoformat(),
        "seen_at": one.seen_at.isoformat(),
        "executing": list(one.executing),
    }
