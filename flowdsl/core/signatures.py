"""Signatures of functions that take options as ``**options: Unpack[…]``, for people and for ``inspect``."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import NOTHING, fields

__all__ = ["shows_options"]

F = TypeVar("F", bound=Callable[..., Any])


def shows_options(
    options: type[Any], *, without: tuple[str, ...] = (), name_at: int | None = None
) -> Callable[[F], F]:
    """Show the fields of the attrs class *options* as keywords of a function, with their defaults.

    *without*: fields left out; *name_at*: the place of a ``name=None`` among them.

    >>> from attrs import define
    >>> @define
    ... class Options:
    ...     size: int = 3
    >>> @shows_options(Options)
    ... def make(what, **options): ...
    >>> inspect.signature(make)
    <Signature (what, *, size=3)>
    """
    shown = [
        inspect.Parameter(one.alias, inspect.Parameter.KEYWORD_ONLY, default=_default(one.default))
        for one in fields(options)
        if one.alias not in without
    ]
    if name_at is not None:
        shown.insert(name_at, inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None))

    def decorate(fn: F) -> F:
        signature = inspect.signature(fn)
        own = [
            one.replace(annotation=inspect.Parameter.empty)
            for one in signature.parameters.values()
            if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        fn.__signature__ = inspect.Signature([*own, *shown])  # type: ignore[attr-defined]
        return fn

    return decorate


def _default(value: Any) -> Any:
    return inspect.Parameter.empty if value is NOTHING else value
