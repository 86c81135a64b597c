"""``flowdsl retry``: execute the failed steps of a run again."""

from flowdsl.cli._command import Cli, command
from flowdsl.cli._complete import RUN
from flowdsl.cli._execute import APP, execute
from flowdsl.runtime import Runtime

__all__ = ["retry"]


@command(
    epilog="""\b
Examples:
  flowdsl retry checkout-53b9 --app shop
  flowdsl retry checkout-53b9 --app shop.py --json"""
)
@RUN
@APP
def retry(cli: Cli, run: str, app: str | None) -> int:
    """Execute the failed steps of a run again.

    What follows them executes too. Everything else is replayed. MODULE, waiting and the exit code are as for
    `flowdsl resume`.
    """
    return execute(cli, run, app, Runtime.retry)
