"""``flowdsl ui``: serve the web page."""

import os
import sys
import webbrowser

import click

from flowdsl.cli._command import Cli, Failure, Whole, command, opened
from flowdsl.cli._modules import load_app

__all__ = ["ui"]

_NEEDS = "the web page needs more packages: pip install 'flowdsl[web]'"


@command(
    epilog="""\b
Examples:
  flowdsl ui
  flowdsl ui --allow-actions --app shop
  flowdsl ui --host 0.0.0.0 --port 8080 --allowed-host flow.example.org --no-browser"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", metavar="N", type=Whole(0, 65535), default=0, show_default=True, help="0: any that is free."
)
@click.option("--allow-actions", is_flag=True, help="Let readers cancel, retry, fork, signal and resolve.")
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Another host name under which the page may be reached; may be repeated.",
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@click.option("--app", metavar="MODULE", help="The code of the workflows, so that runs can be retried here.")
def ui(
    cli: Cli,
    host: str,
    port: int,
    allow_actions: bool,
    allowed_hosts: tuple[str, ...],
    no_browser: bool,
    app: str | None,
) -> int:
    """Serve a web page that shows the runs.

    It prints a link with a token; without the token nobody sees anything. Only programs on this machine can
    reach the page, unless you give --host.
    """
    try:
        from flowdsl.web import app as page_of
        from flowdsl.web.server import serve
    except ImportError as error:
        raise Failure(_NEEDS) from error
    if app is not None:
        load_app(app)

    def ready(url: str) -> None:
        if cli.as_json:
            cli.out.entry({"url": url})
        else:
            cli.out.line(url)
        cli.out.flush()
        if not no_browser and sys.stdout.isatty() and _has_display():
            webbrowser.open(url)

    with opened(cli) as runtime:
        try:
            page = page_of(runtime, allow_actions=allow_actions, allowed_hosts=[host, *allowed_hosts])
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        try:
            return serve(page, host, port, ready)
        except OSError as error:
            raise Failure(f"cannot listen at {host} port {port}: {error.strerror or error}") from error
        finally:
            page.close()


def _has_display() -> bool:
    """Whether a browser would have a screen to open on."""
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
