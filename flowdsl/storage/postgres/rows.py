"""Steps as rows of PostgreSQL, and rows as steps. Also what PostgreSQL does not take."""

from collections.abc import Generator, Iterable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import psycopg

from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.errors import CorruptPayload, StorageError
from flowdsl.storage.outcomes import Unstorable
from flowdsl.storage.postgres.fragments import STEP_COLUMNS, Sql

__all__ = [
    "REFUSED",
    "Dialogue",
    "NotTaken",
    "Row",
    "checked",
    "is_text",
    "step_values",
    "steps_of",
    "topic_key",
    "unstorable",
]

T = TypeVar("T")
Row = tuple[Any, ...]
Dialogue = Generator[tuple[Sql, Sequence[Any]], list[Row], T]
"""Yields statements with their values, is sent their rows."""

_STEP_STATUS = {status.value: status for status in StepStatus}
_STATUS = STEP_COLUMNS.index("status")
_LARGEST = 500_000_000  # bytes of a value; PostgreSQL takes twice as much, but its protocol does not
_LONGEST = 2_000  # bytes of a text that stands in an index


REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.NotSupportedError)
"""What the driver raises for the values of a row."""


def unstorable(error: Exception) -> Unstorable:
    """The outcome for a row that failed with *error*."""
    reason = StorageError(f"this record cannot be stored in PostgreSQL: {str(error).strip()}")
    reason.__cause__ = error
    return Unstorable(reason)


class NotTaken(Exception):
    """A value that PostgreSQL does not take."""


def is_text(value: str) -> bool:
    """Whether a text can be stored. PostgreSQL takes no NUL, and nothing that is not Unicode. Whoever looks
    for such a text finds nothing."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def checked(values: Iterable[Any], indexed: Iterable[str | None] = ()) -> list[Any]:
    """*values* as they are. Raises :class:`NotTaken` for one that cannot be stored. *indexed* are those texts
    among them that an index holds."""
    found = list(values)
    for value in found:
        kind = type(value)
        if kind is str:
            if not is_text(value):
                raise NotTaken(f"{value[:80]!r} holds what is no text: NUL, or half of a character")
        elif kind is int:
            if not -(2**63) <= value < 2**63:
                raise NotTaken(f"{value} is beyond 64 bits")
        elif kind is bytes:
            if len(value) > _LARGEST:
                raise NotTaken(f"{len(value)} bytes are too large for one value")
        elif value is not None and kind is not float and kind is not bool:
            raise NotTaken(f"a {kind.__name__} has no place in a column")
    for text in indexed:
        if text is not None and len(text.encode()) > _LONGEST:
            raise NotTaken(f"{text[:80]!r}… is too long for an index: {_LONGEST} bytes at most")
    return found


def step_values(step: Step) -> list[Any]:
    """The columns ``STEP_COLUMNS`` of a step."""
    values = list(step)
    del values[3], values[0]  # seq and run_id
    values[_STATUS] = step.status._value_
    return checked(values)


def steps_of(run_id: str, rows: list[tuple[Any, ...]]) -> list[Step]:
    """Steps of one run from their ``seq`` and the columns ``STEP_COLUMNS``, the last of each key."""
    steps: dict[str, Step] = {}
    try:
        for seq, key, path, kind, scope, occurrence, ordinal, status, *rest in rows:
            steps.pop(key, None)  # so that the last one is in its own place
            steps[key] = Step(
                run_id, key, path, seq, kind, scope, occurrence, ordinal, _STEP_STATUS[status], *rest
            )
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CorruptPayload(
            f"a step of run {run_id!r} is damaged in the database, behind {len(steps)} good ones: {error!r}",
            run=run_id,
        ) from error
    return list(steps.values())


def topic_key(topic: str) -> str:
    """What stands for a topic in the database. It is short, and always a text."""
    return blake2b(topic.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
