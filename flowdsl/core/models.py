"""Instances of pydantic and msgspec: which of their parts count.

Neither library is imported here. A value of one of their classes proves that it is loaded.

The parts that the library's ``==`` compares count. For a pydantic model these are its fields, its allowed
extra fields and its private attributes. Which fields were given, and which were left at their default, does
not count. For a struct these are the fields.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Parts", "model_class", "model_parts", "model_value"]

Parts = Callable[[Any], Iterable[tuple[str, object]]]
"""Gives the parts of a value that count, with their names."""


def model_parts(cls: type) -> Parts | None:
    """Find what counts of instances of *cls*. ``None`` if it is neither a model nor a struct.

    >>> model_parts(int) is None
    True
    """
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _pydantic
    if hasattr(cls, "__fields__") and hasattr(cls, "__fields_set__"):
        return lambda value: vars(value).items()  # pydantic 1, or pydantic.v1
    names = getattr(cls, "__struct_fields__", None)
    if isinstance(names, tuple) and "msgspec" in sys.modules:
        return lambda value: [(name, getattr(value, name)) for name in names]
    return None


def model_class(cls: type) -> type:
    """The class whose path encodes instances of *cls*. ``Box(x=1) == Box[int](x=1)``, so it is ``Box``.

    >>> model_class(int)
    <class 'int'>
    """
    metadata = getattr(cls, "__pydantic_generic_metadata__", None)
    origin = metadata.get("origin") if isinstance(metadata, dict) else None
    return origin if isinstance(origin, type) else cls


def _pydantic(value: Any) -> Iterable[tuple[str, object]]:
    held = vars(value)
    for name in type(value).__pydantic_fields__:
        if name in held:
            yield name, held[name]
    for name, item in (value.__pydantic_extra__ or {}).items():
        yield f"{name} (extra)", item
    yield from (getattr(value, "__pydantic_private__", None) or {}).items()


def model_value(cls: type) -> Callable[[Any], object] | None:
    """Find how a single value of the two libraries is made plain: secrets, addresses, ``UNSET``."""
    library = cls.__module__.partition(".")[0]
    if library in ("pydantic", "pydantic_core"):
        if hasattr(cls, "get_secret_value"):
            return lambda value: value.get_secret_value()
        if hasattr(cls, "unicode_string") or hasattr(cls, "unicode_host"):
            return str
    if library == "msgspec" and cls.__qualname__ == "UnsetType":
        return lambda _value: "UNSET"
    return None
