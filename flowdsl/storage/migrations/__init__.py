"""Numbered changes of the stored schema, one folder for each dialect.

A file is named ``0001_what_it_does.sql``. Numbers start at 1 and have no gaps. The highest number is the
schema's version. A released file is never edited. Each change of the schema is a new file.
"""

from pathlib import Path

from attrs import frozen

from flowdsl.core.by_fields import ByFields

__all__ = ["Migration", "migrations"]


@frozen(slots=True, eq=False, repr=False)
class Migration(ByFields):
    """One step from schema ``version - 1`` to ``version``."""

    version: int
    name: str
    sql: str


def migrations(dialect: str, after: int = 0) -> list[Migration]:
    """The changes of *dialect* with a version above *after*, in order.

    >>> [change.version for change in migrations("sqlite")][0]
    1
    """
    found = []
    for file in sorted((Path(__file__).parent / dialect).glob("[0-9]*.sql")):
        version = int(file.name.partition("_")[0])
        if version > after:
            found.append(Migration(version, file.stem, file.read_text("utf-8")))
    return found
