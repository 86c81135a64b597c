"""Types of what users provide. The engine does not look into them.

Nearly every ``Any`` of the engine is defined here, with its reason.
"""

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

__all__ = ["Args", "Function", "Handle", "Named", "SomeClock", "Value", "Work"]

T = TypeVar("T")

Value: TypeAlias = Any
"""An object of the user's: an argument, a result, a message. Or something given as one, not yet checked."""

Function: TypeAlias = Callable[..., Any]
"""A function of the user's. Its signature is theirs."""

Handle: TypeAlias = Any
"""What users get of a run. The layer above the engine makes it, and the engine only passes it on."""

Args: TypeAlias = tuple[Any, ...]
"""Positional arguments of a function of the user's."""

Named: TypeAlias = dict[str, Any]
"""Values by name: keyword arguments, options, changed fields of a row."""

SomeClock: TypeAlias = Any
"""A clock. Some clocks can do more than tell the time. Code that needs more asks whether the clock can."""

Work: TypeAlias = Coroutine[Any, Any, T]
"""Something to await. What it exchanges with its event loop does not concern us."""
