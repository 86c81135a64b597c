"""``@classmethod`` over a decorated function.

The theory
    Up to Python 3.12 a classmethod binds what it wraps; since 3.13 it makes a plain method of it. Calling
    that works, but ``Class.price.submit(…)`` reaches the step without its class. The two the other way
    round, a step over a classmethod, bind as ever. So once the class is made, they change places.

The implementation
    Who decorates a function in the body of a class puts something into its namespace that Python tells, by
    ``__set_name__``, when the class is made. It takes itself out again.
"""

import sys
from types import FrameType
from typing import Any

from flowdsl.decorators.wrapper import Wrapper

__all__ = ["bind_later"]

_NAME = "__flowdsl_classmethods__"


class _Swap:
    """Waits in the body of a class for the class."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        delattr(owner, name)
        for name, found in list(vars(owner).items()):
            if isinstance(found, classmethod) and isinstance(found.__func__, Wrapper):
                setattr(owner, name, found.__func__.over(classmethod(found.__func__.__wrapped__)))


def bind_later(fn: Any) -> None:
    """Let a classmethod over what *fn* is decorated to be bound, if *fn* is decorated in the body of a
    class."""
    owner = getattr(fn, "__qualname__", "").rpartition(".")[0]
    if not owner or owner.endswith("<locals>") or isinstance(fn, classmethod | staticmethod):
        return
    frame: FrameType | None = sys._getframe(2)
    for _ in range(2):  # the caller of the decorator, with or without options
        if frame is not None and frame.f_locals.get("__qualname__") == owner:
            frame.f_locals.setdefault(_NAME, _Swap())
            return
        frame = frame.f_back if frame is not None else None
