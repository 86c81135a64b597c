"""The timeline as a picture. Places and lengths are in percent, so zooming changes only one width.

At most :data:`MOST` bars are elements of their own. A longer run shows only its most important bars in this
way (failed and executing ones first, then the longest), and all bars as one shape behind them. Zooming and
filtering show the others.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

from attrs import field, frozen

from flowdsl.core.timeline import Bar, Timeline
from flowdsl.core.words import mark, round_length, span, state_of
from flowdsl.web.query import View
from flowdsl.web.rendering import step_name

__all__ = ["LANE", "MOST", "Drawn", "Picture", "picture", "spoken"]

MOST = 500
"""How many bars, and how many rows of the table, are elements at once."""

LANE = 28
"""Pixels from one lane to the next."""

_GRAIN = 2000  # the resolution of the shape of all bars: parts of the whole width
_TICKS = 8
_EDGE, _INNER = 0.2, 99.4  # percent: the left edge, and the width between the edges
_LEAST = 0.01  # percent: browsers do not draw a rectangle of width 0
_WIDE = 10  # pixels of one percent on a screen that is not small, about; decides whether a text fits


@frozen
class Drawn:
    """One bar: *x* and *width* in percent, *y* in pixels, its texts, and the places of its attempts."""

    bar: Bar
    x: float
    y: int
    width: float
    name: str
    label: str
    sign: str
    fits: bool
    quiet: bool
    ticks: tuple[float, ...] = ()


@frozen
class Fold:
    """Idle time: its place, and its length."""

    x: float
    width: float
    length: str


@frozen
class Picture:
    """Everything that the template draws."""

    bars: tuple[Drawn, ...]
    folds: tuple[Fold, ...]
    axis: tuple[tuple[float, str], ...]
    height: int
    lanes: int
    shapes: tuple[tuple[str, str], ...] = ()
    grain: int = _GRAIN
    has_idle: bool = False
    lane: int = LANE
    left_out: int = field(default=0)


_QUIET = ("sleep", "wait", "receive", "schedule", "value", "publish")


def spoken(seconds: float | None) -> str:
    """A length of time, as a screen reader says it.

    >>> spoken(1.2), spoken(75)
    ('1.2 s', '1 m 15 s')
    """
    text = span(seconds)
    out = ""
    for place, char in enumerate(text):
        if place and char.isalpha() != text[place - 1].isalpha() and text[place - 1] not in ".<":
            out += "" if char == "." else " "
        out += char
    return out


def picture(line: Timeline, matching: Sequence[Bar], view: View, home: str) -> Picture:
    """Draw the bars of *line* that are *matching*, for *view*. *home*: the module of the run."""
    folded = not view.unfolded

    def place(moment: float) -> float:
        return _EDGE + _INNER * line.place(moment, folded=folded)

    places = [(bar, place(bar.start), place(bar.end)) for bar in matching]
    seen = [one for one in places if one[2] >= 100 * view.begin and one[1] <= 100 * view.end]
    chosen = seen if len(seen) <= MOST else sorted(seen, key=_weight)[:MOST]
    chosen = sorted(chosen, key=lambda one: (one[0].start, one[0].lane))
    folds = tuple(
        Fold(round(place(idle.start), 3), round(place(idle.end) - place(idle.start), 3), span(idle.length))
        for idle in (line.idle if folded else ())
    )
    return Picture(
        bars=tuple(_drawn(*one, home) for one in chosen),
        folds=folds,
        axis=_axis(line, folded),
        height=line.lanes * LANE,
        lanes=line.lanes,
        shapes=_shapes(places) if len(chosen) < len(places) else (),
        has_idle=bool(line.idle),
        left_out=len(places) - len(chosen),
    )


def _weight(one: tuple[Bar, float, float]) -> tuple[bool, float]:
    bar, start, end = one
    return bar.status in ("completed", "undone"), start - end


def _drawn(bar: Bar, start: float, end: float, home: str) -> Drawn:
    step = bar.step
    name = step_name(step.path, home)
    tries = f"{step.attempts} attempt{'' if step.attempts == 1 else 's'}"
    took = spoken(max(bar.end - bar.start, 0.0))
    facts = [name, bar.status, tries, took]
    if bar.replayed:
        facts.append("replayed")
    width = max(end - start, _LEAST)
    return Drawn(
        bar=bar,
        x=round(start, 4),
        y=bar.lane * LANE + 2,
        width=round(width, 4),
        name=name,
        label=", ".join(facts),
        sign=state_of(bar.status).sign,
        fits=width * _WIDE > 14,
        quiet=step.kind in _QUIET,
        ticks=_ticks(bar),
    )


def _ticks(bar: Bar) -> tuple[float, ...]:
    """Where the attempts after the first began, in percent of the bar. If only their number is known, they
    are spread evenly."""
    length = bar.end - bar.start
    if bar.ticks and length > 0:
        return tuple(
            round(100 * (at - bar.start) / length, 2) for at in bar.ticks if bar.start < at < bar.end
        )
    tries = min(bar.step.attempts, 20)
    return tuple(round(100 * n / tries, 2) for n in range(1, tries)) if tries > 1 else ()


def _axis(line: Timeline, folded: bool) -> tuple[tuple[float, str], ...]:
    """The times below the picture: round lengths since the beginning, but none inside a fold."""
    details = line.end - line.begin
    if details <= 0:
        return ()
    busy = details - sum(idle.length for idle in line.idle) if folded else details
    step = round_length(max(busy, details / 1000) / _TICKS)
    found: list[tuple[float, str]] = []
    for start, end in _awake(line) if folded else [(line.begin, line.end)]:
        n = math.ceil((start - line.begin) / step - 1e-9)
        while n * step <= end - line.begin and len(found) < 4 * _TICKS:
            at = _EDGE + _INNER * line.place(line.begin + n * step, folded=folded)
            if at <= 96 and (not found or at - found[-1][0] > 5):
                found.append((round(at, 3), mark(n * step, step)))
            n += 1
    return tuple(found)


def _awake(line: Timeline) -> list[tuple[float, float]]:
    edges = [line.begin, *(at for idle in line.idle for at in (idle.start, idle.end)), line.end]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _shapes(places: Sequence[tuple[Bar, float, float]]) -> tuple[tuple[str, str], ...]:
    """All bars as one shape for each status. Bars of a lane that touch become one piece."""
    pieces: dict[tuple[str, int], list[list[int]]] = defaultdict(list)
    for bar, start, end in places:
        left = int(start / 100 * _GRAIN)
        right = max(math.ceil(end / 100 * _GRAIN), left + 1)
        row = pieces[bar.status, bar.lane]
        if row and left <= row[-1][1]:
            row[-1][1] = max(row[-1][1], right)
        else:
            row.append([left, right])
    paths: dict[str, list[str]] = defaultdict(list)
    for (status, lane), row in pieces.items():
        top = lane * LANE + 2
        paths[status] += [f"M{left} {top}h{right - left}v{LANE - 4}H{left}z" for left, right in row]
    return tuple((status, "".join(parts)) for status, parts in paths.items())
