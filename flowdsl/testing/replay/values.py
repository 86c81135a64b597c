"""Values as tests compare them: copied before anybody changes them, and compared however odd they are."""

import copy
import re
from os import PathLike, stat
from typing import Any

__all__ = ["copy_of", "same", "state_of"]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def copy_of(value: Any) -> Any:
    """A deep copy, where that is possible."""
    try:
        return copy.deepcopy(value)
    except Exception:  # whatever the user's classes raise
        return value


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, or at least of one type and look the same."""
    if type(first) is not type(second):
        return False
    try:
        if bool(first == second):
            return True
    except Exception:  # arrays, and what else has an equality of its own
        pass
    return _looks(first) == _looks(second)


def _looks(value: Any) -> str:
    return _ADDRESS.sub("", repr(value))


def state_of(one: Any) -> Any:
    """The present state of something that is watched: a file, what a function returns, or a value."""
    if isinstance(one, str | PathLike):
        try:
            found = stat(one)
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns
    return copy_of(one() if callable(one) else one)
