"""Records that a list leaves out, because they are damaged or somebody has altered them.

A list without them is of use; that they are missing must be said. Whoever leaves one out calls
:func:`leave_out`, which logs it. A face that shows the list says it there instead: it asks for them by
:func:`left_out`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from flowdsl.blocks import block
from flowdsl.errors import CorruptPayload

__all__ = ["leave_out", "left_out", "readable"]

Row = TypeVar("Row")
Found = TypeVar("Found")

logger = logging.getLogger("flowdsl")

_asked: ContextVar[dict[str, CorruptPayload] | None] = ContextVar("asked", default=None)


def leave_out(error: CorruptPayload, *, known: bool = False) -> None:
    """Say which record is left out of a list, and why. One that is *known* is not logged again.

    >>> with left_out() as refused:
    ...     leave_out(CorruptPayload("run order-7 is damaged", run="order-7"))
    >>> [error.run for error in refused.values()]
    ['order-7']
    """
    asked = _asked.get()
    if asked is not None:
        asked.setdefault(str(error), error)
    elif not known:
        logger.error("%s", str(error), extra={"run": error.run, "step": error.step})


def readable(read: Callable[[Row], Found], rows: Iterable[Row]) -> Iterator[Found]:
    """What *read* gives for each of *rows*; one for which it raises ``CorruptPayload`` is left out."""
    for row in rows:
        try:
            yield read(row)
        except CorruptPayload as error:
            leave_out(error)


@block
def left_out() -> Iterator[dict[str, CorruptPayload]]:
    """What is left out of lists that are read within the block, in this context: each once, by its text."""
    found: dict[str, CorruptPayload] = {}
    token = _asked.set(found)
    try:
        yield found
    finally:
        _asked.reset(token)
