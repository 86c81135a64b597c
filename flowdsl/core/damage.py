"""Steps and messages with a value that its field cannot hold. (SQLite keeps a text in a column of numbers.)

A storage looks at each value of a run, but not of the long lists of steps and messages. Who shows these asks
here first, so that a damaged one is named instead of breaking a page.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from flowdsl.core.records import Signal, Step, fields_of
from flowdsl.errors import CorruptPayload

__all__ = ["require_sound"]

_sound: set[tuple[type, tuple[type, ...]]] = set()
"""Kinds of records, each with types of all its fields that were found right."""


def require_sound(row: Step | Signal) -> None:
    """Raise ``CorruptPayload`` for a record with a value that its field cannot have.

    >>> require_sound(Signal("s1", "order-7", "paid", created_at="soon"))
    Traceback (most recent call last):
    flowdsl.errors.CorruptPayload: message 'paid' of run 'order-7' is damaged: created_at is 'soon'
    """
    kind: type = type(row)
    types, values_of, times = _fields(kind)
    values = values_of(row)
    seen = kind, tuple(map(type, values))
    if seen not in _sound:
        for name, value in zip(types, values, strict=True):
            if not isinstance(value, types[name]):
                raise _damaged(row, name, value)
        _sound.add(seen)
    for name, place in times:
        if values[place] is not None and not math.isfinite(values[place]):
            raise _damaged(row, name, values[place])


def _damaged(row: Step | Signal, name: str, value: Any) -> CorruptPayload:
    what = f"step {row.path}" if isinstance(row, Step) else f"message {row.name!r}"
    text = f"{what} of run {row.run_id!r} is damaged: {name} is {value!r:.100}"
    return CorruptPayload(text, run=str(row.run_id))


@cache
def _fields(
    kind: type,
) -> tuple[dict[str, tuple[type, ...]], Callable[[Any], Sequence[Any]], list[tuple[str, int]]]:
    """Of a kind of record: the types that each field can have, how to get all values, and which are times."""
    hints = get_type_hints(kind)
    types = {name: _plain(hints[name]) for name in fields_of(kind)}
    times = [(name, place) for place, name in enumerate(types) if name.endswith("_at")]
    return types, attrgetter(*types), times


def _plain(hint: Any) -> tuple[type, ...]:
    """The classes of an annotation. A time may be stored as a whole number."""
    if isinstance(hint, UnionType) or get_origin(hint) is UnionType:
        return tuple(one for part in get_args(hint) for one in _plain(part))
    found: type = get_origin(hint) or hint
    return (float, int) if found is float else (found,)
