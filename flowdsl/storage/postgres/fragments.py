"""Parts that statements of PostgreSQL are put together from."""

from typing import Any, LiteralString

from flowdsl.core.records import Step

__all__ = [
    "NOW",
    "QUEUED",
    "STEP_COLUMNS",
    "Sql",
    "assigned",
    "marks",
    "names",
    "ours",
    "quoted",
    "schema_text",
]

STEP_COLUMNS = [name for name in Step._fields if name not in ("run_id", "seq")]
"""The columns of a step, but for its run and number."""

Sql = LiteralString
"""Text that no caller has a part in; the driver's types take no other."""

NOW = "extract(epoch from clock_timestamp())::double precision"
"""The server's time, in seconds since the epoch."""

QUEUED = "coalesce(queue, 'default')"
"""The queue of a run."""


def ours(text: str) -> Sql:
    """A *text* that is put together from our own names, or is quoted. Type checkers cannot see that."""
    unchecked: Any = text
    ours: Sql = unchecked
    return ours


def names(columns: list[str], prefix: str = "") -> Sql:
    """A list of columns."""
    return ours(", ".join(f'{prefix}"{name}"' for name in columns))


def marks(count: int) -> Sql:
    """Placeholders for *count* values."""
    return ours(", ".join(["%s"] * count))


def quoted(schema: str) -> Sql:
    """The name of a schema as a name of SQL."""
    return ours('"' + schema.replace('"', '""') + '"')


def assigned(columns: list[str] | tuple[str, ...]) -> Sql:
    """What stands behind SET for *columns*."""
    return ours(", ".join(f'"{name}" = %s' for name in columns))


def schema_text(schema: str) -> Sql:
    """The name of a schema as a literal of SQL, without its quotes."""
    return ours(schema.replace("'", "''").replace("%", "%%"))
