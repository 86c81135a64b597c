"""Durable calls that have no body of the user's: sleeps, waits, store operations, recorded values.

They have identity, ordinal and record like a step, so they are :class:`StepCall` too, over a definition that
stands for the verb.
"""

from functools import cache
from typing import Any

from flowdsl.core.encoding import Unkeyable, encode
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.execution import Frame, current
from flowdsl.engine.step import StepCall, place
from flowdsl.errors import FlowError, Stopped

__all__ = ["Plain", "inside", "keyed", "mark"]


class Plain:
    """What counts of a verb's call, and how it reads."""

    __slots__ = ("_shown", "canonical", "defaults")

    def __init__(self, canonical: bytes, shown: str) -> None:
        self.canonical = canonical
        self.defaults = ""
        self._shown = shown

    def preview(self, limit: int = 200) -> str:
        """The arguments, readable."""
        return self._shown[:limit]


def _verb(*args: Any) -> None:
    """Stands for a body."""


@cache
def _definition(path: str, is_async: bool) -> StepDef:
    return StepDef(_verb, path, is_async)


def inside(verb: str, *, is_async: bool | None = None) -> Frame:
    """The frame of the calling body. Raises outside a run, and for a sync verb in an async body or the
    reverse."""
    frame = current.get()
    if frame is None:
        raise FlowError(
            f"{verb}() is used inside a run: call it from a function decorated with @workflow, or from "
            "its steps"
        )
    if is_async is not None and frame.is_async is not is_async:
        if frame.is_async:
            raise TypeError(
                f"flowdsl.{verb}() would block this async body; use `await flowdsl.aio.{verb}(…)`"
            )
        raise TypeError(f"flowdsl.aio.{verb}() cannot be awaited in this sync body; use `flowdsl.{verb}(…)`")
    return frame


def mark(frame: Frame, verb: str, kind: str, canonical: bytes = b"", shown: str = "") -> StepCall:
    """Take the identity of a call of *verb* in *frame*."""
    run = frame.run
    if frame.abandoned:
        raise Stopped(FlowError(f"a body that a timeout left behind called {verb}()", run=run.id))
    run.stop.check()
    defn = _definition(f"flowdsl.{verb}", frame.is_async)
    bound: Any = Plain(canonical, shown)
    call = StepCall(frame, defn.call((), {}), bound, "do")
    call.kind = kind
    return place(call)


def keyed(*values: Any) -> bytes:
    """The canonical encoding of *values*; of one that has none, its type stands for it."""
    parts = []
    for value in values:
        try:
            parts.append(encode(value))
        except Unkeyable:
            parts.append(encode(("?", type(value).__module__, type(value).__qualname__)))
    return b"".join(parts)
