"""The axis of a timeline. Its marks are round lengths of time since the beginning."""

from collections.abc import Iterator
from math import ceil

from flowdsl.core.timeline import Timeline
from flowdsl.core.words import span

__all__ = ["marks"]

_COUNTED = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200)
"""Round lengths of time, in seconds."""

_DAY = 86_400.0


def marks(line: Timeline, count: int = 6) -> Iterator[tuple[float, str]]:
    """About *count* moments outside idle times, each with its text."""
    busy = _busy(line)
    step = _round(max(sum(end - start for start, end in busy), 1e-6) / count)
    for start, end in busy:
        for n in range(ceil((start - line.begin) / step), int((end - line.begin) / step) + 1):
            yield line.begin + n * step, span(n * step) if n else "0"


def _busy(line: Timeline) -> list[tuple[float, float]]:
    """The times between idle ones."""
    edges = [line.begin, *(edge for idle in line.idle for edge in (idle.start, idle.end)), line.end]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


def _round(seconds: float) -> float:
    """The next round length of time.

    >>> [_round(s) for s in (0.0031, 0.7, 13, 400)]
    [0.005, 1, 15, 600]
    """
    if seconds > _COUNTED[-1]:
        return _DAY * -(-seconds // _DAY)
    if seconds > 0.5:
        return next(base for base in _COUNTED if seconds <= base)
    power = 1.0
    while power > seconds and power > 1e-6:
        power /= 10
    return next((power * n for n in (1, 2, 5) if power * n >= seconds), power * 10)
