"""Functions that one piece of code has made under one path: by a factory, or by a decorator without
``functools.wraps``.

Nothing tells their records apart. So a call of one is refused while another one lives that differs from it by
its closure or its defaults. A function that is about to be thrown away does no harm. Neither does one that
only a traceback holds.
"""

import gc
import os
import threading
from typing import Any, ClassVar, Protocol
from weakref import WeakSet

from flowdsl.core.encoders import ENCODERS
from flowdsl.engine.living import is_held
from flowdsl.engine.user import Function
from flowdsl.errors import AmbiguousStep

__all__ = ["Twins", "same_code"]

_ASKING = threading.RLock()


class Twin(Protocol):
    """A definition: a function with its path, and what kind it is of."""

    kind: ClassVar[str]
    fn: Function
    path: str


class Twins:
    """The living definitions of one code and one path."""

    def __init__(self, first: Twin) -> None:
        self._all: WeakSet[Twin] = WeakSet((first,))

    def add(self, another: Twin) -> None:
        """The same code has made *another* one."""
        self._all.add(another)

    def require_one(self, mine: Twin) -> None:
        """Raise if another one lives that differs from *mine*."""
        with _ASKING:  # a thread that checks keeps others out meanwhile
            rival = self._living_rival(mine)
        if rival is None:
            return
        code = _code_of(mine.fn)
        raise AmbiguousStep(
            f"{mine.kind} {mine.path} is two functions that one piece of code has made "
            f"({os.path.basename(code.co_filename)}:{code.co_firstlineno}), with different closures or "
            f"defaults: nothing tells their records apart. Give each a name of its own: @{mine.kind}(name=…)",
            step=mine.path,
        )

    def _living_rival(self, mine: Twin) -> Twin | None:
        if self._rival(mine) is None:
            return None
        ENCODERS.reset()  # it remembers classes
        for generation in range(3):  # the young ones are mostly enough
            gc.collect(generation)
            if self._rival(mine) is None:
                return None
        while (rival := self._rival(mine)) is not None and not is_held(rival):
            self._all.discard(rival)
        return rival

    def _rival(self, mine: Twin) -> Twin | None:
        for twin in self._all:
            if twin.fn is not mine.fn and _made_of(twin.fn) != _made_of(mine.fn):
                return twin
        return None


def same_code(fn: Function, other: Function) -> bool:
    """Whether one piece of code, which the user wrote, has made both functions."""
    code = _code_of(fn)
    return code is not None and _code_of(other) is code


class _Same:
    """A value of a closure, compared by identity first. Values that cannot be compared are different."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        mine, its = self.value, getattr(other, "value", None)
        try:
            return mine is its or bool(mine == its)
        except Exception:  # a user's __eq__ may raise anything
            return False

    __hash__ = None  # type: ignore[assignment]


def _layers(fn: Any) -> list[Any]:  # a function of the user's, or what was made of one
    """A function, and what decorators with ``functools.wraps`` have wrapped in it."""
    layers = [fn]
    while (fn := getattr(fn, "__wrapped__", None)) is not None and fn not in layers:
        layers.append(fn)
    return layers


def _code_of(fn: Any) -> Any:  # the same
    """The code that the user wrote, under decorators with ``functools.wraps``; ``None`` if there is none."""
    return getattr(_layers(fn)[-1], "__code__", None)


def _made_of(fn: Function) -> list[_Same]:
    """What tells two functions of one code apart: their closures and defaults."""
    layers = _layers(fn)
    found: list[object] = []
    for layer in layers:
        names = getattr(getattr(layer, "__code__", None), "co_freevars", ())
        for name, cell in zip(names, getattr(layer, "__closure__", None) or (), strict=False):
            if name == "__class__":  # for ``super()``: a new object each time the class is made
                continue
            try:
                found.append(cell.cell_contents)
            except ValueError:  # not filled yet
                found.append(None)
        found += getattr(layer, "__defaults__", None) or ()
        found += (getattr(layer, "__kwdefaults__", None) or {}).values()
    return [_Same(one) for one in found if not any(one is layer for layer in layers)]
