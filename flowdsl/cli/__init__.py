"""The command line ``flowdsl``: look at runs, continue them, clean up, and check the storage.

Each command is in the module of its name. Modules with an underscore are shared by commands.
:mod:`flowdsl.cli._app` lists the commands, and imports only the one that is called. Records are shown by the
previews that are stored with them. Nothing is unpickled, except by commands that execute the user's code.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process, and end the process with its exit code."""
    try:
        from flowdsl.cli._app import cli

        cli(prog_name="flowdsl")
    except KeyboardInterrupt:  # while modules are being loaded; later, the command handles it
        raise SystemExit(130) from None
