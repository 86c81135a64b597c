"""``flowdsl completion``: let a shell complete commands, options and names."""

import click
from click.shell_completion import ShellComplete, get_completion_class

from flowdsl.cli._command import Cli, command

__all__ = ["completion"]


@command(
    epilog="""\b
Examples:
  flowdsl completion bash >> ~/.bashrc
  flowdsl completion zsh >> ~/.zshrc
  flowdsl completion fish > ~/.config/fish/completions/flowdsl.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(cli: Cli, shell: str) -> None:
    """Print a script that lets a shell complete flowdsl.

    It completes commands, options, ids of runs, names of workflows, steps and messages, and statuses.
    """
    known = get_completion_class(shell)
    assert known is not None
    group = click.get_current_context().find_root().command
    script = ShellComplete.source(known(group, {}, "flowdsl", "_FLOWDSL_COMPLETE"))
    if cli.as_json:
        cli.out.document({"shell": shell, "script": script})
    else:
        click.echo(script)
