"""Types of what users bring along. To the engine these are opaque: only their owner knows more.

Nearly every ``Any`` of the engine stands here, with its reason.
"""

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

__all__ = ["Args", "Function", "Handle", "Named", "SomeClock", "Value", "Work"]

T = TypeVar("T")

Value: TypeAlias = Any
"""An object of the user's: an argument, a result, a message; or what was given for one, yet to be checked."""

Function: TypeAlias = Callable[..., Any]
"""A function of the user's. Its signature is theirs."""

Handle: TypeAlias = Any
"""What users get of a run. It is made above the engine, which only hands it on."""

Args: TypeAlias = tuple[Any, ...]
"""Positional arguments of a function of the user's."""

Named: TypeAlias = dict[str, Any]
"""Values by name: keyword arguments, options, changed fields of a row."""

SomeClock: TypeAlias = Any
"""A clock. Some can do more than tell the time; whoever needs that asks whether this one can."""

Work: TypeAlias = Coroutine[Any, Any, T]
"""What is awaited. What it says to its event loop is between the two."""
