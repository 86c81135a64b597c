"""The command line ``flowdsl``: look at runs, continue them, clean up, and check the storage.

One module for each group of commands; :mod:`flowdsl.cli.app` has the table of them, and imports only the
module of the command that is called. Records are shown by the previews that are stored with them: nothing is
unpickled, except by ``resume`` and ``retry``, which execute the user's code anyway.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process, and end the process with its exit code."""
    from flowdsl.cli.app import cli

    cli(prog_name="flowdsl")
