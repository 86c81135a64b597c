"""Which part of a value is at fault when it cannot be stored: ``.client.lock``, ``['rows'][3]``."""

from collections.abc import Callable, Mapping
from types import FunctionType, MemberDescriptorType
from typing import Any

__all__ = ["describe_fault"]

_MAX_DEPTH = 20
_MAX_LABEL = 40


def describe_fault(value: Any, storable: Callable[[Any], bool]) -> str:
    """Return the path in *value* to the innermost part that is not *storable*; ``""`` for the value itself.

    *storable* says of any object whether it can be stored alone. It is asked some hundred times at most,
    whatever the size: the parts of one object are halved until one is left. Looked into are dicts, lists,
    tuples, sets, attributes (of dataclasses, attrs classes, slots and plain objects) and what functions close
    over.

    >>> describe_fault({"rows": [1, 2, open]}, lambda v: "built-in" not in repr(v))
    "['rows'][2]"
    """
    path = ""
    seen: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        found = _culprit(_parts(value), storable)
        if found is None or any(found[1] is old for old in seen):
            return path
        label, value = found
        path += label
        seen.append(value)
    return path + "…"


def _culprit(parts: list[tuple[str, Any]], storable: Callable[[Any], bool]) -> tuple[str, Any] | None:
    """Return one part that is not storable, by halving."""
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        parts = half if not storable([part for _, part in half]) else parts[len(half) :]
    return parts[0] if parts and not storable(parts[0][1]) else None


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return what *value* consists of, each with the text that leads to it."""
    if isinstance(value, Mapping):
        items = list(value.items())
        return [(f"[{_short(k)}]", v) for k, v in items] + [(f" (key {_short(k)})", k) for k, _ in items]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", v) for i, v in enumerate(value)] + _attributes(value)
    if isinstance(value, set | frozenset):
        return [(f" (element {_short(v)})", v) for v in value]
    if isinstance(value, FunctionType):
        return _closure(value)
    if isinstance(value, type):
        return []
    return _attributes(value)


def _attributes(value: Any) -> list[tuple[str, Any]]:
    """Return the attributes kept in ``__dict__`` and in slots, without running any code of the class."""
    found = {}
    for cls in type(value).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, MemberDescriptorType) and name not in found:
                try:
                    found[name] = member.__get__(value)
                except AttributeError:
                    continue
    try:
        found.update(object.__getattribute__(value, "__dict__"))
    except (AttributeError, TypeError):
        pass
    if isinstance(value, BaseException):
        return [(f".args[{i}]", v) for i, v in enumerate(value.args)] + [
            (f".{n}", v) for n, v in found.items()
        ]
    return [(f".{name}", part) for name, part in found.items()]


def _closure(function: FunctionType) -> list[tuple[str, Any]]:
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found.append((f" (closing over {name})", cell.cell_contents))
        except ValueError:
            continue
    return found


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
