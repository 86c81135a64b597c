"""Types as values, written as in annotations: ``list[int]``, ``int | None``, ``Literal["a"]``."""

import types
import typing
from collections.abc import Callable
from typing import Any

__all__ = ["alias_reduction"]


def alias_reduction(cls: type) -> tuple[str, Callable[[Any], object]] | None:
    """Find how annotations of class *cls* are reduced to plain values.

    Returns the name that they have in encodings, and the reduction. ``None`` if *cls* is no class of
    annotations.

    >>> alias_reduction(type(list[int]))[1](list[int])
    (<class 'list'>, (<class 'int'>,))
    """
    if cls is types.GenericAlias:
        return "GenericAlias", lambda value: (value.__origin__, value.__args__)
    if cls is types.UnionType:
        return "typing", _typing
    if cls.__module__ == "typing" and (cls.__name__.endswith("Alias") or cls.__name__ in _OTHERS):
        return "typing", _typing
    return None


_OTHERS = frozenset({"ForwardRef", "Union", "_CallableType", "_SpecialForm", "_TupleType"})


def _typing(value: Any) -> object:
    origin, arguments = typing.get_origin(value), typing.get_args(value)
    if origin is typing.Union or origin is types.UnionType:
        return ("Union", frozenset(arguments))  # int | None equals Optional[int], in any order
    if origin is typing.Literal:
        return ("Literal", frozenset((type(item).__qualname__, item) for item in arguments))
    if isinstance(value, typing.ForwardRef):
        return ("ForwardRef", value.__forward_arg__)
    name = getattr(value, "_name", None)
    if origin is typing.Annotated:
        return ("Annotated", arguments)
    if isinstance(name, str) and not arguments:
        return ("typing", name)  # List, Union, or Any where that is no class
    if isinstance(origin, type):
        return (name, origin, arguments)
    raise TypeError("it is known by nothing but its identity")
