"""One-line, bounded, never-raising pictures of values, for people to read in listings, diffs and errors.

Nothing is decided by a preview and nothing is loaded from one. Only as much of a value is looked at as can be
shown, so a list of a million items costs no more than one of a hundred; text that would not print (control
characters, lone surrogates) is escaped, so that a preview can be stored and shown anywhere.
"""

import dataclasses
import sys
from collections import abc
from itertools import islice
from typing import Any

__all__ = ["preview", "preview_call"]

_LIMIT = 200
_MAX_ITEMS = 50  # of one container; the text is cut anyway
_MAX_DEPTH = 6
_SHORT = 60  # characters of a string that is small
_FEW = 10  # items of a container that is small
_LARGE = 10**20
_QUICK_TYPES = frozenset({bool, float, type(None)})
_TEXT_TYPES = (str, bytes, bytearray)


def preview(value: Any, limit: int = _LIMIT) -> str:
    """Give a readable one-line text for *value*, at most *limit* characters long.

    Parameters: *value*, anything; *limit* in characters, at least 1. Returns text such as ``repr`` would
    give, shortened with ``…``. Never raises an ``Exception``: a ``__repr__`` that fails is named instead.

    >>> preview({"id": 7, "items": list(range(1000))}, limit=30)
    "{'id': 7, 'items': [0, 1, 2, …"
    """
    kind = type(value)
    if _is_small_dict(value, 3) if kind is dict else _is_small(value, 3):
        text = repr(value)
        return text if len(text) <= limit else _cut(text, limit)
    out: list[str] = []
    try:
        _write(value, out, [limit + 1], 0)
        text = "".join(out)
    except Exception as error:
        text = _broken(value, error)
    return _cut(text, limit)


def preview_call(
    places: abc.Iterable[tuple[str, int]], values: abc.Sequence[Any], limit: int = _LIMIT
) -> str:
    """Give a readable text of named arguments, ``a=1, b='x'``, at most *limit* characters long.

    Parameters: *places*, name of each argument and its place among *values*; *limit* as in :func:`preview`.

    >>> preview_call([("a", 0), ("b", 1)], [1, "x"])
    "a=1, b='x'"
    """
    text = ""
    for name, place in places:
        shown = preview(values[place], limit)
        text = f"{text}, {name}={shown}" if text else f"{name}={shown}"
        if len(text) > limit:
            break
    return text if len(text) <= limit else _cut(text, limit)


def _is_small(value: Any, levels: int) -> bool:
    """Whether ``repr`` of *value* is quick, short and without surprise: most arguments of most calls."""
    kind = type(value)
    if kind is str:
        return len(value) < _SHORT
    if kind is int:
        return bool(-_LARGE < value < _LARGE)
    if kind in _QUICK_TYPES:
        return True
    if kind is dict:
        return levels > 0 and _is_small_dict(value, levels)
    return (kind is list or kind is tuple) and len(value) <= _FEW and levels > 0 and _are_small(value, levels)


def _is_small_dict(value: dict[Any, Any], levels: int) -> bool:
    if len(value) > _FEW:
        return False
    for name, item in value.items():
        kind = type(item)  # texts and numbers are not left to the recursion, for they are the most frequent
        if kind is str:
            if len(item) >= _SHORT:
                return False
        elif kind is int:
            if not -_LARGE < item < _LARGE:
                return False
        elif kind not in _QUICK_TYPES and not _is_small(item, levels - 1):
            return False
        if (type(name) is not str or len(name) >= _SHORT) and not _is_small(name, 0):
            return False
    return True


def _are_small(items: abc.Iterable[Any], levels: int) -> bool:
    for item in items:
        kind = type(item)  # texts and numbers are not left to the recursion, for they are the most frequent
        if kind is str:
            if len(item) >= _SHORT:
                return False
        elif kind is int:
            if not -_LARGE < item < _LARGE:
                return False
        elif kind not in _QUICK_TYPES and not _is_small(item, levels - 1):
            return False
    return True


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def _broken(value: object, error: Exception) -> str:
    return f"<{type(value).__qualname__} whose repr raised {type(error).__name__}>"


# -------------------------------------------------------------------------------------------- writing


def _emit(text: str, out: list[str], room: list[int]) -> None:
    out.append(text)
    room[0] -= len(text)


def _write(value: Any, out: list[str], room: list[int], depth: int) -> None:
    """Append the text of *value* to *out* until *room* (characters left, a one-item list) is used up."""
    if room[0] <= 0:
        return
    represent: Any = type(value).__repr__
    if isinstance(value, int) and represent is int.__repr__:
        _emit(_number(value), out, room)
    elif isinstance(value, _TEXT_TYPES) and represent in _TEXT_REPRS:
        _emit(repr(value[: room[0] + 1]), out, room)
    elif represent in _BRACKETS:
        _write_container(value, out, room, depth)
    elif (fields := _shown_fields(value, represent)) is not None:
        _write_fields(value, fields, out, room, depth)
    else:
        _emit(_plain(_summary(value) or _safe_repr(value)), out, room)


def _number(value: int) -> str:
    if value.bit_length() > 4096:  # decimal digits of a huge number take quadratic time, or are refused
        return f"<int of {value.bit_length()} bits>"
    return repr(value)


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return _broken(value, error)


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else repr(c)[1:-1] for c in text)


_TEXT_REPRS: tuple[Any, ...] = (str.__repr__, bytes.__repr__, bytearray.__repr__)
_BRACKETS: dict[Any, tuple[str, str]] = {
    list.__repr__: ("[", "]"),
    tuple.__repr__: ("(", ")"),
    set.__repr__: ("{", "}"),
    frozenset.__repr__: ("{", "}"),
    dict.__repr__: ("{", "}"),
}


def _write_container(value: Any, out: list[str], room: list[int], depth: int) -> None:
    before, after = _BRACKETS[type(value).__repr__]
    kind = type(value)
    if kind in (set, frozenset) and not value:
        before, after = f"{kind.__name__}(", ")"
    elif kind not in (list, tuple, dict, set):
        before, after = f"{kind.__name__}({before}", f"{after})"
    elif kind is tuple and len(value) == 1:
        after = ",)"
    _emit(before, out, room)
    if depth >= _MAX_DEPTH and value:
        _emit("…", out, room)
    elif isinstance(value, dict):
        for number, (key, item) in enumerate(islice(dict.items(value), _MAX_ITEMS + 1)):
            if not _separated(number, out, room):
                break
            _write(key, out, room, depth + 1)
            _emit(": ", out, room)
            _write(item, out, room, depth + 1)
    else:
        for number, item in enumerate(islice(_in_order(value), _MAX_ITEMS + 1)):
            if not _separated(number, out, room):
                break
            _write(item, out, room, depth + 1)
    _emit(after, out, room)


def _in_order(value: Any) -> abc.Iterable[Any]:
    """The items of a set of texts or numbers are sorted, so that it looks the same in every process."""
    if isinstance(value, set | frozenset) and len(value) <= _MAX_ITEMS:
        kinds = {type(item) for item in value}
        if kinds <= {str} or kinds <= {int, float}:
            return sorted(value)
    return value  # type: ignore[no-any-return]


def _separated(number: int, out: list[str], room: list[int]) -> bool:
    if number:
        _emit(", ", out, room)
    if number >= _MAX_ITEMS:
        _emit("…", out, room)
        return False
    return room[0] > 0


# --------------------------------------------------------------- classes whose repr was made for them


def _shown_fields(value: Any, represent: Any) -> list[str] | None:
    """Names of the fields that a generated ``__repr__`` shows; ``None`` where somebody wrote one by hand."""
    kind = type(value)
    if isinstance(value, tuple):
        # A named tuple's repr is a closure of the collections module.
        made = getattr(represent, "__globals__", None) is vars(sys.modules["collections"])
        return list(kind._fields) if made and hasattr(kind, "_fields") else None
    inner = getattr(represent, "__wrapped__", represent)
    file = getattr(getattr(inner, "__code__", None), "co_filename", "")
    if dataclasses.is_dataclass(kind) and (file == "<string>" or inner.__module__ == "dataclasses"):
        return [field.name for field in dataclasses.fields(kind) if field.repr]
    if file.startswith("<attrs generated") and hasattr(kind, "__attrs_attrs__"):
        return [field.name for field in kind.__attrs_attrs__ if field.repr is True]
    return None


def _write_fields(value: Any, fields: list[str], out: list[str], room: list[int], depth: int) -> None:
    _emit(f"{type(value).__qualname__.rpartition('.')[2]}(", out, room)
    if depth >= _MAX_DEPTH:
        _emit("…", out, room)
        fields = []
    for number, name in enumerate(fields):
        if not _separated(number, out, room):
            break
        _emit(f"{name}=", out, room)
        _write(getattr(value, name, None), out, room, depth + 1)
    _emit(")", out, room)


def _summary(value: Any) -> str:
    """Say shape and type of arrays and frames, whose repr is slow and has many lines; ``""`` for all else."""
    kind = type(value)
    if kind.__module__.partition(".")[0] not in ("numpy", "pandas", "polars"):
        return ""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not shape or not hasattr(kind, "__len__"):
        return ""
    text = f"{kind.__name__} {'×'.join(map(str, shape))}"
    columns = getattr(value, "columns", None)
    if columns is not None:
        return f"<{text}: {', '.join(str(name) for name in islice(columns, 8))}>"
    dtype = getattr(value, "dtype", None)
    return f"<{text} of {dtype}>" if dtype is not None else f"<{text}>"
