"""``flowdsl ask``: send a message to a run and wait for its reply."""

import time
import uuid
from typing import Any

import click

from flowdsl.cli._command import Cli, Failure, as_duration, command, opened
from flowdsl.cli._complete import RUN, message_names
from flowdsl.cli._find import find_run, row_of
from flowdsl.cli._options import NOTHING, as_json
from flowdsl.core.advice import shell_line
from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run, Signal
from flowdsl.core.status import is_final
from flowdsl.handle import ask_only, shown_status
from flowdsl.runtime import Runtime
from flowdsl.storage.topics import run_topic

__all__ = ["ask"]

_TICK = 1.0  # seconds between two looks, at most


@command(
    epilog="""\b
Examples:
  flowdsl ask cart-3 add --payload '{"item": "teapot"}'
  flowdsl ask cart-3 total --timeout "10 sec"
  flowdsl ask cart-3 checkout --key order-17"""
)
@RUN
@click.argument("name", shell_complete=message_names)
@click.option(
    "--payload", metavar="JSON", callback=as_json, help="What the run receives; null if it is not given."
)
@click.option(
    "--timeout", metavar="DURATION", callback=as_duration, help="How long to wait; for ever if not given."
)
@click.option("--key", metavar="TEXT", help="A question of this name and key is asked once; its reply stays.")
def ask(cli: Cli, run: str, name: str, payload: Any, timeout: float | None, key: str | None) -> int:
    """Send a message to a run and print its reply.

    The run takes the message by receive(NAME), and answers by reply() or refuse(). Some process must execute
    the run meanwhile. The exit code is 1 if the run refuses, or does not answer in time.
    """
    if not name.strip():
        raise click.UsageError("a message's name must not be empty", click.get_current_context())
    with opened(cli) as runtime:
        record = find_run(runtime, run)
        key = key or f"flowdsl ask {uuid.uuid4()}"
        if _sent(runtime, record.id, name, key) is None:
            handle = runtime.run(record.id)
            if handle is None:
                raise Failure(f"run {record.id} was deleted just now")
            ask_only(handle, name, None if payload is NOTHING else payload, key)
        if shown_status(runtime.storage, record) == "interrupted":
            cli.out.note("nobody executes the run; it can answer when it is continued")
        answered = _answer(runtime, record, name, key, timeout)
    text = error_lines(answered.reply_preview)[0]
    if cli.as_json:
        facts = {"run": record.id, "name": name, "id": answered.id}
        cli.out.document({**facts, "reply": answered.reply_preview, "refused": answered.reply_failed})
    if answered.reply_failed:
        cli.out.error(f"{record.id} refused {name}: {text}")
        return 1
    cli.out.line(text)
    return 0


def _sent(runtime: Runtime, run_id: str, name: str, key: str) -> Signal | None:
    """The question with this key, if it was asked."""
    known = runtime.storage.list_signals(run_id, name=name, payloads=False)
    found = next((signal for signal in known if signal.key == key), None)
    return None if found is None else runtime.storage.get_signal(run_id, found.id)


def _answer(runtime: Runtime, run: Run, name: str, key: str, timeout: float | None) -> Signal:
    """Wait until the question has its reply."""
    storage, topics = runtime.storage, (run_topic(run.id),)
    end = None if timeout is None else time.monotonic() + timeout
    seen = storage.wait_for_change(0, 0.0, topics)
    while True:
        status = row_of(runtime, run.id).status  # before the signal: nothing is answered after the end
        signal = _sent(runtime, run.id, name, key)
        if signal is not None and signal.reply is not None:
            return signal
        if is_final(status):
            raise Failure(f"run {run.id} has ended without a reply: it is {status}")
        left = _TICK if end is None else min(end - time.monotonic(), _TICK)
        if left <= 0:
            hint = shell_line(["flowdsl", "ask", run.id, name, "--key", key])
            raise Failure(f"run {run.id} has not answered {name!r} in time; the question stays", hint)
        seen = storage.wait_for_change(seen, left, topics)
