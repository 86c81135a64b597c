"""The error of a value that has no canonical encoding. It says where in the value the bad one is.

The encoders raise it for the bad value. On its way up, each container notes itself and the place in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flowdsl.errors import UnkeyableArgument

__all__ = ["MAX_DEPTH", "Unkeyable"]

MAX_DEPTH = 200
"""Levels of nesting that are encoded. Python's stack has 1,000 frames, and each level takes two."""


class Unkeyable(UnkeyableArgument):
    """A value has no canonical encoding.

    ``where``: attribute path from the outermost value to the bad one, such as ``.items[3].client`` (``""``
    for the value itself); ``value``: the bad one; ``reason``: what is wrong, without the place; ``remedy``:
    what can be done about its type, or ``""`` if the reason says it.
    """

    def __init__(self, where: str, value: object, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.value = value
        self.reason = reason
        self.remedy = remedy
        self.kind = type(value).__qualname__
        self._steps: list[tuple[object, str]] = [(value, where)] if where else []  # innermost first
        self._too_deep = False

    @property
    def where(self) -> str:
        return "".join(step for _, step in reversed(self._steps))

    @property
    def outermost(self) -> object:
        """The outermost object noted so far."""
        return self._steps[-1][0] if self._steps else self.value

    def within(self, container: object, step: str) -> None:
        """Note that *container* holds the bad value under *step* (``.name``, ``[3]``)."""
        self._steps.append((container, step))

    def inside(self, container: object, plain: object) -> None:
        """Note that *container* holds the bad value. *plain* is encoded in its place, and shows where."""
        if self._steps and type(plain) is dict and not isinstance(container, Mapping):
            holder, step = self._steps[-1]
            self._steps[-1] = holder, f".{step[2:-2]}"  # its attributes
        elif not (self._steps and type(plain) in (dict, list) and isinstance(container, Mapping | Sequence)):
            self._steps = [(holder, "") for holder, _ in self._steps]  # a place that has no name in Python
            self._steps.append((container, "[…]"))
            return
        self._steps.append((container, ""))

    @classmethod
    def too_deep(cls, value: object) -> "Unkeyable":
        error = cls("", value, f"is nested more than {MAX_DEPTH} levels deep")
        error._too_deep = True
        return error

    @classmethod
    def no_stack(cls, value: object) -> "Unkeyable":
        return cls("", value, "is nested too deeply for the stack that is left")

    def settle(self) -> "Unkeyable":
        """Tell a cycle from mere depth, after all containers have been noted."""
        if self._too_deep:
            outermost_first = self._steps[::-1]
            seen: set[int] = set()
            for level, (container, _) in enumerate(outermost_first):
                if id(container) in seen:
                    self.value, self.reason = container, "contains itself"
                    self.kind = type(container).__qualname__
                    self._steps = outermost_first[:level][::-1]
                    break
                seen.add(id(container))
            else:
                self._steps = [(None, "…"), *self._steps[-3:]]
            self._too_deep = False
        return self

    def __str__(self) -> str:
        remedy = f"; you can {self.remedy}" if self.remedy else ""
        return f"value{self.where} ({self.kind}) {self.reason}{remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _stored_unkeyable, (self.where, self.kind, self.reason, self.remedy)


def _stored_unkeyable(where: str, kind: str, reason: str, remedy: str) -> Unkeyable:
    """Rebuild a stored error. All but the value comes back."""
    error = Unkeyable(where, None, reason, remedy)
    error.kind = kind
    return error
