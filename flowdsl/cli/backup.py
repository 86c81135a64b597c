"""``flowdsl backup``: copy the database while programs use it."""

from pathlib import Path

import click

from flowdsl.cli._command import Cli, Failure, command, existing_file, opened
from flowdsl.core.words import size
from flowdsl.storage import SQLiteStorage

__all__ = ["backup"]


@command(
    epilog="""\b
Examples:
  flowdsl backup flow-2026-01-31.db
  flowdsl backup /mnt/backups/flow.db --storage sqlite:////srv/shop/flow.db"""
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(cli: Cli, file: Path) -> None:
    """Copy the database into a new file.

    Programs may use the database meanwhile. The copy is checked. It is a complete database: `--storage
    sqlite:///FILE` reads it. No file is overwritten. For PostgreSQL, use pg_dump.
    """
    database = existing_file(cli)
    with opened(cli) as runtime:
        assert isinstance(runtime.storage, SQLiteStorage)
        try:
            runtime.storage.backup(file)
        except OSError as error:
            raise Failure(str(error) if error.strerror is None else f"{file}: {error.strerror}") from error
    count = file.stat().st_size
    cli.out.line(f"copied {database} to {file}", (f"  {size(count)}", "dim"))
    if cli.as_json:
        cli.out.document({"database": str(database), "file": str(file.absolute()), "bytes": count})
