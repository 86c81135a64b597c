"""The axis of a timeline. Its marks are round lengths of time since the beginning."""

from collections.abc import Iterator
from math import ceil

from flowdsl.core.timeline import Timeline
from flowdsl.core.words import mark, round_length

__all__ = ["marks"]


def marks(line: Timeline, count: int = 6) -> Iterator[tuple[float, str]]:
    """About *count* moments outside idle times, each with its text."""
    busy = _busy(line)
    step = round_length(max(sum(end - start for start, end in busy), 1e-6) / count)
    for start, end in busy:
        for n in range(ceil((start - line.begin) / step), int((end - line.begin) / step) + 1):
            yield line.begin + n * step, mark(n * step, step)


def _busy(line: Timeline) -> list[tuple[float, float]]:
    """The times between idle ones."""
    edges = [line.begin, *(edge for idle in line.idle for edge in (idle.start, idle.end)), line.end]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]
