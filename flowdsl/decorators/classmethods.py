"""``@classmethod`` over a decorated function.

The theory
    Up to Python 3.12 a classmethod binds what it wraps. Since 3.13 it makes a plain method of it. A call of
    that works, but ``Class.price.submit(…)`` reaches the step without its class. A step over a classmethod
    binds in every version. So when the class is made, the two decorators change places.

The implementation
    A decorator that is used in the body of a class puts an object into the namespace of the class. When the
    class is made, Python calls ``__set_name__`` of that object. The object swaps the decorators, and removes
    itself from the class.
"""

import sys
from types import FrameType
from typing import Any

from flowdsl.decorators.wrapper import Wrapper

__all__ = ["bind_later"]

_NAME = "__flowdsl_classmethods__"


class _Swap:
    """Swaps the decorators when the class is made."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        delattr(owner, name)
        for name, found in list(vars(owner).items()):
            if isinstance(found, classmethod) and isinstance(found.__func__, Wrapper):
                setattr(owner, name, found.__func__.over(classmethod(found.__func__.__wrapped__)))


def bind_later(fn: Any) -> None:
    """*fn* is being decorated. If that happens in the body of a class, let a classmethod over it be swapped
    when the class is made."""
    owner = getattr(fn, "__qualname__", "").rpartition(".")[0]
    if not owner or owner.endswith("<locals>") or isinstance(fn, classmethod | staticmethod):
        return
    frame: FrameType | None = sys._getframe(2)
    for _ in range(2):  # the caller of the decorator, with or without options
        if frame is not None and frame.f_locals.get("__qualname__") == owner:
            frame.f_locals.setdefault(_NAME, _Swap())
            return
        frame = frame.f_back if frame is not None else None
