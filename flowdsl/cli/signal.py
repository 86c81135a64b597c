"""``flowdsl signal``: send a message to a run. No code of the user executes."""

from typing import Any

import click

from flowdsl.cli._command import Cli, Failure, command, opened
from flowdsl.cli._complete import RUN, message_names
from flowdsl.cli._find import find_run, row_of
from flowdsl.cli._options import NOTHING, as_json
from flowdsl.core.advice import awaited_names
from flowdsl.handle import shown_status

__all__ = ["signal"]


@command(
    epilog="""\b
Examples:
  flowdsl signal order-17 approved
  flowdsl signal order-17 approved --payload '{"by": "Eve", "limit": 500}' --sender eve
  flowdsl signal order-17 paid --payload 4990 --key payment-8812"""
)
@RUN
@click.argument("name", shell_complete=message_names)
@click.option(
    "--payload", metavar="JSON", callback=as_json, help="What wait_for returns; null if it is not given."
)
@click.option("--sender", metavar="TEXT", help="Who sends it; stored with the signal.")
@click.option("--key", metavar="TEXT", help="A second signal of this name and key is dropped.")
def signal(cli: Cli, run: str, name: str, payload: Any, sender: str | None, key: str | None) -> None:
    """Send a message to a run.

    One wait_for(NAME) or receive(NAME) of the run takes it, now or later. The message is stored, so the run
    need not be executing.
    """
    if not name.strip():
        raise click.UsageError("a signal's name must not be empty", click.get_current_context())
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        value = None if payload is NOTHING else payload
        before = runtime.storage.list_signals(record.id, name=name, payloads=False)
        sent = runtime.signal(record.id, name, value, sender=sender, key=key)
        dropped = sent in {one.id for one in before}  # the id of a message with a key is made from the key
        if sent not in {one.id for one in runtime.storage.list_signals(record.id, name=name, payloads=False)}:
            raise Failure(f"the signal could not be stored: are {name!r}, the sender and the key Unicode?")
        status = shown_status(runtime.storage, row_of(runtime, record.id))
        steps = runtime.storage.list_steps(record.id, payloads=False)
        awaited = list(dict.fromkeys(one for step in steps for one in awaited_names(step)))
    if dropped:
        cli.out.line(f"{record.id} had this signal before: nothing was sent")
    else:
        cli.out.line(f"sent {name} to {record.id}")
    if awaited and name not in awaited:
        cli.out.note(f"the run does not wait for {name!r} now, but for {', '.join(map(repr, awaited))}")
    if status != "running":
        cli.out.note(f"the run is {status}; it can take the signal when it is continued")
    if cli.as_json:
        stored = None if dropped else sent
        cli.out.document(
            {"run": record.id, "name": name, "id": stored, "sent": not dropped, "status": status}
        )
