"""``flowdsl export``: print all records of a run."""

from flowdsl.cli._command import Cli, command, opened
from flowdsl.cli._complete import RUN
from flowdsl.cli._find import find_run

__all__ = ["export"]


@command(
    epilog="""\b
Examples:
  flowdsl export order-17 > tests/histories/order-17.json
  flowdsl export order-17 | jq '.steps[].path'"""
)
@RUN
def export(cli: Cli, run: str) -> None:
    """Print a run as JSON, with its steps and signals.

    With this document and the code, the run can be replayed. Payloads are in it as they are stored, in
    base64; nothing is unpickled. Everybody who can read the file can read arguments and results.
    """
    with opened(cli) as runtime:
        document = runtime.export(find_run(runtime, run).id)
    cli.out.document(document)
