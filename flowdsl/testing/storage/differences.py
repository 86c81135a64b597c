"""Tells field by field how two records differ."""

from collections.abc import Sequence
from typing import Any

from flowdsl.core.records import fields_of

__all__ = ["differences", "same"]


def differences(actual: Any, expected: Any, where: str = "") -> list[str]:
    """One line for each thing that differs, as ``place: this, not that``.

    >>> from flowdsl.core.records import Memo
    >>> differences([Memo("a", "p", b"")], [Memo("a", "q", b"")])
    ["[0].path: 'p', not 'q'"]
    """
    if type(actual) is type(expected) and _is_row(actual):
        pairs = [
            (f".{name}", getattr(actual, name), getattr(expected, name)) for name in fields_of(type(actual))
        ]
    elif isinstance(actual, dict) and isinstance(expected, dict):
        pairs = [
            (f"[{k!r}]", actual.get(k, "nothing"), expected.get(k, "nothing")) for k in {**actual, **expected}
        ]
    elif isinstance(actual, list) and isinstance(expected, list):
        return _of_lists(actual, expected, where)
    elif actual == expected and type(actual) is type(expected):
        return []
    else:
        return [f"{where or 'this'}: {_short(actual)}, not {_short(expected)}"]
    return [line for name, one, other in pairs for line in differences(one, other, where + name)]


def same(actual: Any, expected: Any) -> None:
    """Raise ``AssertionError`` with the differences, if there are any."""
    found = differences(actual, expected)
    if found:
        raise AssertionError("what was read is not what was written:\n" + "\n".join(found[:30]))


def _of_lists(actual: Sequence[Any], expected: Sequence[Any], where: str) -> list[str]:
    found = [
        line
        for number, (one, other) in enumerate(zip(actual, expected, strict=False))
        for line in differences(one, other, f"{where}[{number}]")
    ]
    if len(actual) != len(expected):
        found.append(f"{where or 'the list'} has {len(actual)} items, not {len(expected)}")
    return found


def _is_row(value: Any) -> bool:
    return hasattr(value, "__attrs_attrs__") or hasattr(value, "_fields")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:160]}… ({len(text)} characters)"
