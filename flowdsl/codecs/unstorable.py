"""Finding the part of a value that cannot be stored, such as ``.client.lock`` or ``['rows'][3]``."""

from collections.abc import Callable, Mapping
from types import FunctionType, MemberDescriptorType
from typing import Any

__all__ = ["describe_fault"]

Part = tuple[str, Any, Any]
"""One part of a value: the format of its place in a path ({0} is the name, {1} its repr), the name, and the
part."""

_MAX_DEPTH = 20
_MAX_LABEL = 40


def describe_fault(value: Any, storable: Callable[[Any], bool]) -> str:
    """Return the path in *value* to the innermost part that is not *storable*. ``""`` is the value itself.

    *storable* says whether an object can be stored alone. It is called a few hundred times at most, whatever
    the size, because the parts of an object are halved until one is left. The search goes into dicts, lists,
    tuples, sets, attributes (of dataclasses, attrs classes, slots and plain objects), and the variables that
    a function closes over. Never raises.

    >>> describe_fault({"rows": [1, 2, open]}, lambda v: "built-in" not in repr(v))
    "['rows'][2]"
    """
    path = ""
    seen: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        found = _culprit(_parts(value), storable)
        if found is None:
            return path
        template, name, value = found
        if any(value is old for old in seen):
            return path
        path += template.format(name, _short(name))
        seen.append(value)
    return path + "…"


def _culprit(parts: list[Part], storable: Callable[[Any], bool]) -> Part | None:
    """Return one part that is not storable, by halving."""
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        parts = half if not storable([part for _, _, part in half]) else parts[len(half) :]
    return parts[0] if parts and not storable(parts[0][2]) else None


def _parts(value: Any) -> list[Part]:
    try:
        if isinstance(value, Mapping):
            items = list(value.items())
            return [("[{1}]", key, part) for key, part in items] + [
                (" (key {1})", key, key) for key, _ in items
            ]
        if isinstance(value, list | tuple):
            return [("[{0}]", index, part) for index, part in enumerate(value)] + _attributes(value)
        if isinstance(value, set | frozenset):
            return [(" (element {1})", part, part) for part in value]
        if isinstance(value, FunctionType):
            return _closure(value)
        return [] if isinstance(value, type) else _attributes(value)
    except Exception:  # a user's container that raises when it is read
        return []


def _attributes(value: Any) -> list[Part]:
    """Return the attributes in ``__dict__`` and in slots, without executing code of the class."""
    found: dict[str, Any] = {}
    for cls in type(value).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, MemberDescriptorType) and name not in found:
                try:
                    found[name] = member.__get__(value)
                except AttributeError:  # a slot that is not set
                    continue
    try:
        found.update(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        pass
    parts: list[Part] = [(".{0}", name, part) for name, part in found.items()]
    if isinstance(value, BaseException):
        parts += [(".args[{0}]", index, part) for index, part in enumerate(value.args)]
    return parts


def _closure(function: FunctionType) -> list[Part]:
    parts: list[Part] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts.append((" (closing over {0})", name, cell.cell_contents))
        except ValueError:  # a variable that is not set yet
            continue
    return parts


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # whatever the user's __repr__ raises
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _MAX_LABEL else text[: _MAX_LABEL - 1] + "…"
