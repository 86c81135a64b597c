"""Records that a list leaves out, because they are damaged or somebody has altered them.

A list without them is of use; that they are missing must be said. Whoever leaves one out calls
:func:`leave_out`, which logs it. A face that shows the list says it there instead: it asks for them by
:func:`left_out`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from attrs import evolve

from flowdsl.blocks import block
from flowdsl.core.records import RunFilter
from flowdsl.errors import CorruptPayload

__all__ = ["leave_out", "left_out", "page_of", "readable"]

logger = logging.getLogger("flowdsl")

Row = TypeVar("Row")
Found = TypeVar("Found")

_REMEMBERED = 1000  # texts that were said

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


def readable(
    read: Callable[[Row], Found], rows: Iterable[Row], known: set[str] | None = None
) -> Iterator[Found]:
    """What *read* gives for each of *rows*; one for which it raises ``CorruptPayload`` is left out. *known*
    holds what was said before, and is not logged again."""
    for row in rows:
        try:
            yield read(row)
        except CorruptPayload as error:
            text = str(error)
            leave_out(error, known=known is not None and text in known)
            if known is not None and len(known) < _REMEMBERED:
                known.add(text)


@block
def left_out() -> Iterator[dict[str, CorruptPayload]]:
    """What is left out of lists that are read within the block, in this context: each once, by its text."""
    found: dict[str, CorruptPayload] = {}
    token = _asked.set(found)
    try:
        yield found
    finally:
        _asked.reset(token)


def page_of(
    ask: Callable[[RunFilter], list[Row]], read: Callable[[Row], Found], where: RunFilter, known: set[str]
) -> list[Found]:
    """As many rows as *where* asks for, if there are so many good ones: for each that is left out, another
    one is read."""
    size = where.limit
    while True:
        rows = ask(where if size == where.limit else evolve(where, limit=size))
        found = list(readable(read, rows, known))
        if size is None or where.limit is None or len(found) >= where.limit or len(rows) < size:
            return found[: where.limit]
        size = where.limit + len(rows) - len(found)
