"""Steps as rows of SQLite, and rows as steps. Also what SQLite does not take."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from flowdsl.core.records import Step, Tags, step_of
from flowdsl.core.status import StepStatus
from flowdsl.errors import CorruptPayload, StorageError
from flowdsl.storage.columns import tag_items
from flowdsl.storage.outcomes import Unstorable
from flowdsl.storage.sqlite.statements import MORE, STEP_COLUMNS, USUAL

__all__ = [
    "UNSTORABLE",
    "Row",
    "given",
    "is_unstorable",
    "or_bytes",
    "step_values",
    "steps_of",
    "tag_rows",
    "unstorable",
]

Row = tuple[Any, ...]

_STEP_STATUS = {status.value: status for status in StepStatus}

# What damaged rows raise below. (A checksum above the storage finds damage inside a payload.)
_DAMAGE = (AttributeError, KeyError, TypeError, ValueError, RecursionError)


def or_bytes(data: bytes) -> str | bytes:
    """*data* as text; as it is, if it is no UTF-8. So one damaged text does not keep the others from being
    read, and what needs a text refuses it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def given(
    columns: Iterable[str], values: Iterable[Any]
) -> tuple[tuple[str, ...], tuple[str, ...], list[Any]]:
    """Those *columns* that have a value, those that are NULL, and the values as the driver binds them.

    For every ``None``, ``bool`` and ``bytes``, ``sqlite3`` looks for an adapter, which takes longer than to
    store the value. It looks for none for an ``int`` and a ``bytearray``.
    """
    full, null, bound = [], [], []
    for name, value in zip(columns, values, strict=True):
        if value is None:
            null.append(name)
            continue
        full.append(name)
        kind = type(value)
        if kind is bytes and len(value) < _COPIED:
            value = bytearray(value)
        elif kind is bool:
            value = 1 if value else 0
        bound.append(value)
    return tuple(full), tuple(null), bound


_COPIED = 32_768  # bytes: to copy more takes longer than to look for an adapter
# Nearly all steps are like this: they have ended, are not sealed, and the rest is as usual.
_ENDED = tuple(name for name in STEP_COLUMNS if name not in ("seal", "more"))


def step_values(step: Step) -> tuple[tuple[str, ...], Sequence[Any]]:
    """The columns of a step that are not NULL, and their values."""
    # Taken apart in one go: to ask for each field by its name costs five times as much.
    _, k, p, _, ki, sc, oc, o, status, at, ar, de, pl, pr, cr, co, cc, dr, ve, ex, seal = step
    st = status._value_  # a plain str: for a subclass, sqlite3 would look for an adapter
    if (at, cc, dr, ve, ex) == USUAL:
        if not seal and pl is not None and co is not None:
            payload = bytearray(pl) if len(pl) < _COPIED else pl  # see given
            return _ENDED, (k, p, ki, sc, oc, o, st, ar, de, payload, pr, cr, co)
        more = None
    else:
        more = _encode_more(at, cc, dr, ve, ex)
    columns, _, values = given(
        STEP_COLUMNS, (k, p, ki, sc, oc, o, st, ar, de, pl, pr, cr, co, seal or None, more)
    )
    return columns, values


@lru_cache(maxsize=4096)
def _encode_more(*values: Any) -> str | None:
    unusual = {name: value for name, value, usual in zip(MORE, values, USUAL, strict=True) if value != usual}
    return json.dumps(unusual, ensure_ascii=False, separators=(",", ":")) if unusual else None


@lru_cache(maxsize=4096)
def _decode_more(text: str) -> tuple[Any, ...]:
    given = json.loads(text)
    return tuple(given.get(name, usual) for name, usual in zip(MORE, USUAL, strict=True))


def tag_rows(run: int, tags: Tags) -> list[Row]:
    """The rows of ``run_tags`` for a run."""
    return [(run, name, value) for name, value in tag_items(tags)]


def steps_of(run_id: str, rows: list[Row]) -> list[Step]:
    """Steps of one run from ``n`` and the columns ``STEP_COLUMNS``; the last one of each key. Raises
    ``CorruptPayload`` for rows that make no step."""
    steps: dict[str, Step] = {}
    try:  # one loop, written out: a journal has thousands of rows
        for n, k, p, ki, sc, oc, o, st, ar, de, pl, pr, cr, co, se, more in rows:
            at, cc, dr, ve, ex = USUAL if more is None else _decode_more(more)
            status = _STEP_STATUS[st]
            steps.pop(k, None)  # so that the last one takes its own place
            steps[k] = step_of(
                (
                    run_id,
                    k,
                    p,
                    n,
                    ki,
                    sc,
                    oc,
                    o,
                    status,
                    at,
                    ar,
                    de,
                    pl,
                    pr,
                    cr,
                    co,
                    cc,
                    dr,
                    ve,
                    ex,
                    se or b"",
                )
            )
    except _DAMAGE as error:
        raise CorruptPayload(
            f"a step of run {run_id!r} is damaged in the database, behind {len(steps)} good ones: {error!r}",
            run=run_id,
        ) from error
    return list(steps.values())


UNSTORABLE = (sqlite3.Error, OverflowError, UnicodeEncodeError)
"""What may be about the values of a row: see :func:`is_unstorable`."""


def is_unstorable(error: Exception) -> bool:
    """Whether *error* is about the values of one row, not about the storage.

    These are: a row or value above SQLite's limit, an integer above 64 bits, a text that is not Unicode, a
    type that no column takes, ``None`` where there must be a value.
    """
    if isinstance(error, (sqlite3.DataError, sqlite3.IntegrityError, OverflowError, UnicodeEncodeError)):
        return True
    return isinstance(error, (sqlite3.InterfaceError, sqlite3.ProgrammingError)) and "binding" in str(error)


def unstorable(error: Exception) -> Unstorable:
    """The outcome for a row that failed with *error*."""
    reason = StorageError(
        f"this record cannot be stored in SQLite: {error}; it is too large or holds a value of a wrong type"
    )
    reason.__cause__ = error
    return Unstorable(reason)
