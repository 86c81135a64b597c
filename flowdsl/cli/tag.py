"""``flowdsl tag``: give a run tags."""

import click

from flowdsl.cli._command import Cli, command, opened
from flowdsl.cli._complete import RUN
from flowdsl.cli._find import find_run, row_of
from flowdsl.core.views import run_view, tag_texts
from flowdsl.handle import shown_status

__all__ = ["tag"]


@command(
    epilog="""\b
Examples:
  flowdsl tag order-17 team=north
  flowdsl tag order-17 team=north reviewed=2026-01-31"""
)
@RUN
@click.argument("tags", nargs=-1, required=True, metavar="NAME=VALUE...")
def tag(cli: Cli, run: str, tags: tuple[str, ...]) -> None:
    """Add tags to a run, or change the values of its tags.

    `flowdsl runs --tag NAME=VALUE` finds the run at once.
    """
    wanted = dict(_pair(text) for text in tags)
    with opened(cli) as runtime:
        handle = runtime.run(find_run(runtime, run).id)
        assert handle is not None
        handle.tag(**wanted)
        record = row_of(runtime, handle.id)
        status = shown_status(runtime.storage, record)
    cli.out.line(f"{record.id} has the tags {', '.join(tag_texts(record))}")
    if cli.as_json:
        cli.out.document(run_view(record, status))


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.UsageError(f"a tag is NAME=VALUE, not {text!r}", click.get_current_context())
    return name, value
