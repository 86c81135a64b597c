"""Pictures of values on one line, for people to read in listings, diffs and errors. They are bounded and
never raise.

Nothing is decided by a preview, and nothing is loaded from one. It looks only at as much of a value as it can
show. So a list of a million items costs no more than one of a hundred. Text that would not print (control
characters, lone surrogates) is escaped, so a preview can be stored and shown anywhere.

Most values are small, and ``repr`` shows them as they are: that is the quick way. The slow way is a
:class:`reprlib.Repr` with a budget of characters.
"""

import dataclasses
import reprlib
import sys
from collections import abc
from collections.abc import Callable
from itertools import islice
from typing import Any

__all__ = ["error_lines", "one_line", "preview", "preview_call"]

_LIMIT = 200
_MAX_ITEMS = 50  # items of one container; the text is cut anyway
_MAX_DEPTH = 6
_SHORT = 60  # characters of a string that is small
_FEW = 10  # items of a container that is small
_LOW, _HIGH = -(10**20), 10**20  # a number between them is small
_QUICK_TYPES = frozenset({bool, float, type(None)})


def preview(value: Any, limit: int = _LIMIT) -> str:
    """Give a readable one-line text for *value*, at most *limit* characters long.

    Parameters: *value*, anything; *limit* in characters, at least 1. Returns text like that of ``repr``,
    shortened with ``…``. Never raises an ``Exception``: if a ``__repr__`` fails, the text says so.

    >>> preview({"id": 7, "items": list(range(1000))}, limit=30)
    "{'id': 7, 'items': [0, 1, 2, …"
    """
    kind = type(value)
    if kind is int:
        small = _LOW < value < _HIGH
    elif kind is dict:
        small = _is_small_dict(value, 3)
    else:
        small = _is_small(value, 3)
    if small:
        text = repr(value)
        return text if len(text) <= limit else _cut(text, limit)
    try:
        text = _Picture(limit + 1).repr(value)
    except Exception as error:  # a user's __repr__ may raise anything
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
        value = values[place]
        # A number, the most frequent value, is shown without a call.
        shown = repr(value) if type(value) is int and _LOW < value < _HIGH else preview(value, limit)
        text = f"{text}, {name}={shown}" if text else f"{name}={shown}"
        if len(text) > limit:
            return _cut(text, limit)
    return text


def one_line(text: str, limit: int = _LIMIT) -> str:
    """Give *text* on one printable line of at most *limit* characters, without quotes.

    >>> one_line("no such row\\nin table t")
    'no such row in table t'
    """
    return _cut(_printable(text[: limit + 1]), limit)


def error_lines(shown: str) -> tuple[str, str, str]:
    """Take the preview of an error apart.

    Parameters: *shown*, the stored preview of an error. Returns its first line (type and text), the user's
    innermost frame (``shop.py:17 in charge``), and the source line there. The last two may be empty.

    >>> error_lines("OSError: gone\\nshop.py:17 in charge\\npay(order)")
    ('OSError: gone', 'shop.py:17 in charge', 'pay(order)')
    """
    text, where, source = (*shown.split("\n", 2), "", "")[:3]
    return text, where, source


# ------------------------------------------------------------------------------------------ the quick way


def _is_small(value: Any, levels: int) -> bool:
    """Whether ``repr`` of *value* is quick, short and without surprise. Most arguments of most calls are
    so."""
    kind = type(value)
    if kind is str:
        return len(value) < _SHORT
    if kind is int:
        return bool(_LOW < value < _HIGH)
    if kind in _QUICK_TYPES:
        return True
    if kind is dict:
        return levels > 0 and _is_small_dict(value, levels)
    return (kind is list or kind is tuple) and len(value) <= _FEW and levels > 0 and _are_small(value, levels)


def _is_small_dict(value: dict[Any, Any], levels: int) -> bool:
    if len(value) > _FEW or not _are_small(value.values(), levels):
        return False
    for name in value:
        if (type(name) is not str or len(name) >= _SHORT) and not _is_small(name, 0):
            return False
    return True


def _are_small(items: abc.Iterable[Any], levels: int) -> bool:
    for item in items:
        kind = type(item)  # texts and numbers are the most frequent, and are judged here, without a call
        if kind is str:
            if len(item) >= _SHORT:
                return False
        elif kind is int:
            if not _LOW < item < _HIGH:
                return False
        elif kind not in _QUICK_TYPES and not _is_small(item, levels - 1):
            return False
    return True


# ------------------------------------------------------------------------------------------- the slow way


class _Picture(reprlib.Repr):
    """Draws one value. It stops looking at values when *room* characters have been drawn.

    The author of a ``__repr__`` decides how a value is drawn. Containers with Python's own repr, and classes
    with a generated one, are drawn piece by piece. A repr written by hand is called.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.fillvalue = "…"
        self.maxlevel = _MAX_DEPTH
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = _MAX_ITEMS

    def repr1(self, x: Any, level: int) -> str:
        if self.room <= 0:
            return self.fillvalue
        represent: Any = type(x).__repr__
        draw = _DRAWN.get(represent)
        if draw is not None:
            return draw(self, x, level)
        fields = _shown_fields(x, represent)
        if fields is not None:
            return self._named(x, fields, level)
        return self._spend(_printable(_summary(x) or _safe_repr(x)))

    def _spend(self, text: str) -> str:
        self.room -= len(text) + 2  # two for the separator before the next
        return text

    def _number(self, value: int, _level: int) -> str:
        if value.bit_length() > 4096:  # decimal digits of a huge number are slow (quadratic), or refused
            return self._spend(f"<int of {value.bit_length()} bits>")
        return self._spend(int.__repr__(value))

    def _text(self, value: Any, _level: int) -> str:
        return self._spend(repr(value[: self.room + 1]))

    def _pieces(self, items: abc.Iterable[Any], level: int, draw: Callable[[Any], str]) -> str:
        """Draw the *items* of a container, which has *level* levels left, until there is no room."""
        shown: list[str] = []
        for item in islice(items, _MAX_ITEMS + 1):
            if level <= 0 or len(shown) == _MAX_ITEMS or self.room <= 0:
                shown.append(self.fillvalue)
                break
            shown.append(draw(item))
        self.room -= 2  # the brackets
        return ", ".join(shown)

    def _items(self, value: Any, level: int) -> str:
        inside = self._pieces(_in_order(value), level, lambda item: self.repr1(item, level - 1))
        return _bracketed(value, inside)

    def _mapping(self, value: dict[Any, Any], level: int) -> str:
        def pair(item: tuple[Any, Any]) -> str:
            return f"{self.repr1(item[0], level - 1)}: {self.repr1(item[1], level - 1)}"

        return _bracketed(value, self._pieces(dict.items(value), level, pair))

    def _named(self, value: Any, fields: list[str], level: int) -> str:
        def named(name: str) -> str:
            return f"{self._spend(name)}={self.repr1(getattr(value, name, None), level - 1)}"

        inside = self._pieces(fields, level, named)
        return f"{type(value).__qualname__.rpartition('.')[2]}({inside})"


_DRAWN: dict[Any, Callable[[_Picture, Any, int], str]] = {
    int.__repr__: _Picture._number,
    **dict.fromkeys((str.__repr__, bytes.__repr__, bytearray.__repr__), _Picture._text),
    **dict.fromkeys((list.__repr__, tuple.__repr__, set.__repr__, frozenset.__repr__), _Picture._items),
    dict.__repr__: _Picture._mapping,
}
"""How a value is drawn, by the ``__repr__`` of its class."""


def _bracketed(value: Any, inside: str) -> str:
    """Put the brackets around *inside* that Python puts around the items of *value*."""
    kind = type(value)
    if kind is list:
        return f"[{inside}]"
    if kind is tuple:
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if kind is dict or (kind is set and inside):
        return f"{{{inside}}}"
    if kind in (set, frozenset) and not inside:
        return f"{kind.__name__}()"
    # A subclass shows its name as well.
    before, after = "[]" if isinstance(value, list) else "()" if isinstance(value, tuple) else "{}"
    return f"{kind.__name__}({before}{inside}{after})"


def _in_order(value: Any) -> abc.Iterable[Any]:
    """Sort the items of a set of texts or numbers, so that it looks the same in every process."""
    if isinstance(value, set | frozenset) and len(value) <= _MAX_ITEMS:
        kinds = {type(item) for item in value}
        if kinds <= {str} or kinds <= {int, float}:
            return sorted(value)
    return value  # type: ignore[no-any-return]


def _shown_fields(value: Any, represent: Any) -> list[str] | None:
    """Names of the fields that a generated ``__repr__`` shows. ``None`` if somebody wrote one by hand."""
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


def _summary(value: Any) -> str:
    """Shape and type of arrays and frames, whose repr is slow and has many lines. ``""`` for all else."""
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


# --------------------------------------------------------------------------------------------------- text


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def _broken(value: object, error: Exception) -> str:
    return f"<{type(value).__qualname__} whose repr raised {type(error).__name__}>"


def _safe_repr(value: object) -> str:
    try:
        return str.__str__(repr(value))
    except Exception as error:  # a user's __repr__ may raise anything
        return _broken(value, error)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else repr(c)[1:-1] for c in text)
