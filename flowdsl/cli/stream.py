"""``flowdsl stream``: what a run publishes on a channel."""

from collections.abc import Iterator

import click

from flowdsl.cli._command import Cli, Whole, command, opened
from flowdsl.cli._complete import RUN, channel_names
from flowdsl.cli._find import find_run, row_of
from flowdsl.cli._output import Column
from flowdsl.core.records import Item
from flowdsl.core.status import is_final
from flowdsl.core.words import iso, moment, nearest
from flowdsl.runtime import Runtime
from flowdsl.storage.topics import run_topic

__all__ = ["stream"]

_PAGE = 500  # items read at once
_TICK = 1.0  # seconds between two looks, at most


@command(
    epilog="""\b
Examples:
  flowdsl stream agent-3
  flowdsl stream agent-3 tokens --follow
  flowdsl stream agent-3 tokens --after 100 --json"""
)
@RUN
@click.argument("channel", required=False, shell_complete=channel_names)
@click.option("--after", metavar="N", type=Whole(min=0), default=0, help="Skip the first N items.")
@click.option("--follow", is_flag=True, help="Wait for more items, until the run has ended.")
def stream(cli: Cli, run: str, channel: str | None, after: int, follow: bool) -> None:
    """Print what a run has published on a channel.

    Without CHANNEL, the channels of the run are listed. Items are shown as readable previews. With --follow
    and --json, each item is a document of its own.
    """
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        known = runtime.storage.list_channels(record.id)
        if channel is None:
            _list(cli, record.id, known)
            return
        if channel not in known and not follow:
            near = nearest(channel, known)
            cli.out.note(f"{record.id} has published nothing on {channel!r}{near}")
        found = []
        for item in _items(runtime, record.id, channel, after, follow):
            view = {"n": item.n, "at": iso(item.created_at), "item": item.preview}
            if not cli.as_json:
                cli.out.line((f"{moment(item.created_at)}  ", "dim"), item.preview)
                cli.out.flush()
            elif follow:
                cli.out.entry(view)
            else:
                found.append(view)
    if cli.as_json and not follow:
        cli.out.document(found)


def _list(cli: Cli, run_id: str, known: dict[str, int]) -> None:
    if cli.as_json:
        cli.out.document([{"channel": name, "items": count} for name, count in known.items()])
    elif known:
        rows = [[name, str(count)] for name, count in known.items()]
        cli.out.table((Column("channel", least=12), Column("items", right=True)), rows)
    else:
        cli.out.note(f"{run_id} has published nothing")


def _items(runtime: Runtime, run_id: str, channel: str, after: int, follow: bool) -> Iterator[Item]:
    storage, topics = runtime.storage, (run_topic(run_id),)
    seen = storage.wait_for_change(0, 0.0, topics)
    while True:
        ended = is_final(row_of(runtime, run_id).status)  # first: after the end nothing is published
        page = storage.list_items(run_id, channel, after=after, limit=_PAGE)
        yield from page
        if page:
            after = page[-1].n
        elif ended or not follow:
            return
        else:
            seen = storage.wait_for_change(seen, _TICK, topics)
