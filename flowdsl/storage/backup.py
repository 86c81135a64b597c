"""A copy of an SQLite database that programs use meanwhile.

Copying the file with ``cp`` is no backup: what was committed last stands in the log beside it, and a copy of
both is of two moments. SQLite's own way copies page by page and begins again where somebody writes.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from flowdsl.errors import StorageError

__all__ = ["back_up"]

_PAGES = 2000  # copied at a time; writers are let in between


def back_up(database: Path, target: Path) -> int:
    """Copy *database* into the new file *target*, readable by its owner only; returns how many bytes it has.

    The copy is checked before it gets its name, so what stands under *target* is whole. Raises
    ``FileExistsError`` if *target* is there, and :class:`~flowdsl.errors.StorageError` if the database cannot
    be read or the copy not be written.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already; give another name")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _copy(database, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.link(unfinished, target)  # unlike a rename, it replaces nothing
        return target.stat().st_size
    except sqlite3.Error as error:
        raise StorageError(f"{database} was not copied: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _copy(database: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=30.0)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy, pages=_PAGES, sleep=0.01)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file; whoever opens it begins a new log
        (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StorageError(
                f"{database} is damaged, and so is its copy: {found}; `flowdsl doctor` says more"
            )
