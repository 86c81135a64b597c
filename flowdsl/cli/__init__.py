"""The command line ``flowdsl``: look at runs, continue them, clean up, and check the storage.

One module for each command, of its name; modules with an underscore hold what commands share.
:mod:`flowdsl.cli._app` lists the commands, and imports only the one that is called. Records are shown by the
previews that are stored with them: nothing is unpickled, except by ``resume``, ``retry`` and ``fork``, which
execute the user's code anyway.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process, and end the process with its exit code."""
    try:
        from flowdsl.cli._app import cli

        cli(prog_name="flowdsl")
    except KeyboardInterrupt:  # while its modules were loaded; once they are, it ends by itself
        raise SystemExit(130) from None
