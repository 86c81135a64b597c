"""``flowdsl resume``: continue an interrupted or failed run."""

from flowdsl.cli._command import Cli, command
from flowdsl.cli._complete import RUN
from flowdsl.cli._execute import APP, execute
from flowdsl.runtime import Runtime

__all__ = ["resume"]


@command(
    epilog="""\b
Examples:
  flowdsl resume order-17 --app shop
  flowdsl resume order-17 --app jobs/shop.py"""
)
@RUN
@APP
def resume(cli: Cli, run: str, app: str | None) -> int:
    """Continue an interrupted or failed run.

    Recorded steps return their recorded results; the rest executes. For that, MODULE is imported; of a
    script, the `if __name__ == "__main__":` part is not executed. If it calls configure(…), the run executes
    on that runtime, unless --storage is given. The command waits for the end of the run. Its exit code is 0
    only if the run completes.
    """
    return execute(cli, run, app, Runtime.resume)
