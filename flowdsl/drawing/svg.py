"""A timeline as SVG: one bar for each step, in lanes, over a time axis in which idle time is folded.

The number of elements is limited, however long the run was. Up to :data:`MOST` bars are drawn one by one. If
there are more, the failed, the unfinished and the longest are drawn one by one, and all together are one
shape behind them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from attrs import define

from flowdsl.core.kinds import WAITS
from flowdsl.core.timeline import Bar, Timeline
from flowdsl.core.words import span, state_of
from flowdsl.drawing.axis import marks
from flowdsl.drawing.style import attribute, css, length, safe, state_class

__all__ = ["MOST", "timeline_svg"]

MOST = 250
"""How many bars are drawn one by one."""

WIDTH = 900
_LEFT, _RIGHT, _TOP = 2, 2, 20
_LANE = 18.0  # height of a lane, if there is room
_ROOM = 360.0  # height of all lanes, at most
_LEAST = 2.0  # width of a bar
_LETTER = 6.1  # the width of one, about
_CHARACTERS = 90_000  # of all bars that are drawn one by one, at most
_PIECES = 2000  # of the shape of all bars, at most


@define
class _Scale:
    """Turns times and lanes into places in the picture."""

    line: Timeline
    lane: float

    def x(self, moment: float) -> float:
        return _LEFT + self.line.place(moment) * (WIDTH - _LEFT - _RIGHT)

    def y(self, lane: int) -> float:
        return _TOP + lane * self.lane

    @property
    def bar(self) -> float:
        """The height of a bar."""
        return max(self.lane - (3 if self.lane > 9 else 1 if self.lane > 4 else 0), 0.6)


def timeline_svg(line: Timeline, title: str, *, alone: bool = False) -> str:
    """Draw *line*. *title* is the text for people who cannot see it.

    With *alone* the picture is a complete document, with style and background. Otherwise it is part of an
    HTML page that has the style.
    """
    lanes = max(line.lanes, 1)
    scale = _Scale(line, min(_LANE, max(_ROOM / lanes, 0.5)))
    height = _TOP + lanes * scale.lane + 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_n(height)}" role="img" '
        f'aria-label="{attribute(title)}"' + (' class="flowdsl"' if alone else "") + ">"
    ]
    if alone:
        # The rules are for elements inside ``.flowdsl``, so everything is drawn inside a group.
        parts.append(f"<title>{safe(title)}</title><style>{css(layout=False)}</style><g>")
        parts.append(
            f'<rect width="{WIDTH}" height="{_n(height)}" style="fill:var(--fd-ground)" fill="#ffffff"/>'
        )
    parts += _axis(scale, height)
    drawn, texts = _chosen(scale)
    if len(drawn) < len(line.bars):
        parts += _shape(scale, line.bars)
    parts += texts
    parts += _names(scale, drawn)
    parts.append("</g></svg>" if alone else "</svg>")
    return "".join(parts)


def _chosen(scale: _Scale) -> tuple[list[Bar], list[str]]:
    """The bars that are drawn one by one, the most important first, until the limit; and their drawing."""
    plain = {"completed", "undone"}
    ranked = sorted(scale.line.bars, key=lambda bar: (bar.status in plain, bar.start - bar.end))
    drawn, room = [], _CHARACTERS
    for bar in ranked[:MOST]:
        text = _bar(scale, bar)
        room -= len(text)
        if room < 0:
            break
        drawn.append((bar.start, bar.lane, bar, text))
    drawn.sort(key=lambda one: one[:2])
    return [bar for _, _, bar, _ in drawn], [text for _, _, _, text in drawn]


# ------------------------------------------------------------------------------------------------------ parts


def _axis(scale: _Scale, height: float) -> Iterator[str]:
    line = scale.line
    for idle in line.idle:
        left, right = scale.x(idle.start), scale.x(idle.end)
        yield (
            f'<g data-idle=""><title>nothing executed for {length(idle.length)}</title>'
            f'<rect class="fd-idle" fill="#d0d7de" x="{_n(left)}" y="{_TOP - 4}" width="{_n(right - left)}" '
            f'height="{_n(height - _TOP + 4)}"/>'
            f'<text class="fd-axis" fill="#57606a" font-size="11" text-anchor="middle" '
            f'x="{_n((left + right) / 2)}" y="11">+{length(idle.length)}</text></g>'
        )
    for x, text in _marks(scale):
        yield (
            f'<path class="fd-grid" stroke="#d0d7de" d="M{_n(x)} {_TOP - 4}V{_n(height)}"/>'
            f'<text class="fd-axis" fill="#57606a" font-size="11" x="{_n(x + 3)}" y="11">{safe(text)}</text>'
        )


def _marks(scale: _Scale) -> Iterator[tuple[float, str]]:
    """Places and texts of the axis that have enough room."""
    folds = [(scale.x(idle.start), scale.x(idle.end)) for idle in scale.line.idle]
    last = -100.0
    for moment, text in marks(scale.line):
        x = scale.x(moment)
        right = x + 3 + _LETTER * len(text)
        folded = any(left < right + 4 and x < fold_right for left, fold_right in folds)
        if x - last < 70 or right > WIDTH or folded:
            continue
        last = x
        yield x, text


def _bar(scale: _Scale, bar: Bar) -> str:
    step = bar.step
    x, width = _extent(scale, bar)
    classes = [state_class(bar.status)]
    if step.kind in WAITS or bar.status in ("waiting", "pending"):
        classes.append("fd-hollow")
    if bar.replayed:
        classes.append("fd-replayed")
    colour = state_of(bar.status).light
    replayed = ' data-replayed=""' if bar.replayed else ""
    return (
        f'<g data-bar="" data-step-key="{attribute(step.key)}" data-path="{safe(step.path)}" '
        f'data-status="{safe(bar.status)}" data-attempts="{step.attempts}" data-lane="{bar.lane}" '
        f'data-depth="{bar.depth}"{replayed}>'
        f"<title>{_told(bar)}</title>"
        f'<rect class="{" ".join(classes)}" fill="{colour}" x="{_n(x)}" y="{_n(scale.y(bar.lane))}" '
        f'width="{_n(width)}" height="{_n(scale.bar)}" rx="{2 if scale.lane > 6 else 0}"/>'
        f"{_ticks(scale, bar)}</g>"
    )


def _told(bar: Bar) -> str:
    """A bar in words: ``charge, failed, 3 attempts, 1.2s``."""
    step = bar.step
    words = [step.path.rpartition(".")[2], bar.status]
    if step.attempts > 1:
        words.append(f"{step.attempts} attempts")
    words.append(span(bar.end - bar.start))
    if bar.replayed:
        words.append("replayed later")
    return safe(", ".join(words))


def _ticks(scale: _Scale, bar: Bar) -> str:
    if len(bar.ticks) < 2 or scale.lane <= 4:
        return ""
    y = scale.y(bar.lane)
    shape = "".join(f"M{_n(scale.x(at))} {_n(y)}v{_n(scale.bar)}" for at in bar.ticks[1:])
    return f'<path class="fd-tick" stroke="#ffffff" stroke-width="1.5" d="{shape}"/>'


def _extent(scale: _Scale, bar: Bar) -> tuple[float, float]:
    x = scale.x(bar.start)
    width = max(scale.x(bar.end) - x, _LEAST)
    return min(x, WIDTH - _RIGHT - width), width


def _names(scale: _Scale, bars: list[Bar]) -> Iterator[str]:
    """The name of each bar: inside it if it fits, else after it if there is room."""
    if scale.lane < 11:
        return
    after: dict[int, list[float]] = defaultdict(list)
    for bar in bars:
        after[bar.lane].append(_extent(scale, bar)[0])
    seen: dict[int, int] = defaultdict(int)
    for bar in bars:
        seen[bar.lane] += 1
        x, width = _extent(scale, bar)
        name = bar.step.path.removeprefix("flowdsl.").rpartition(".")[2][:40]
        sign = "" if bar.status == "completed" else state_of(bar.status).sign + " "
        needed = _LETTER * len(sign + name) + 8
        following = after[bar.lane][seen[bar.lane] :]
        until = min((left for left in following if left > x), default=float(WIDTH))
        if needed <= width:
            hollow = bar.step.kind in WAITS or bar.status in ("waiting", "pending") or bar.replayed
            kind, colour = ("fd-name", "#1f2328") if hollow else ("fd-name fd-on", "#ffffff")
            place = x + 4
        elif x + width + needed <= until:
            place, kind, colour = x + width + 4, "fd-name", "#57606a"
        else:
            continue
        y = scale.y(bar.lane) + scale.bar / 2 + 4
        yield (
            f'<text class="{kind}" fill="{colour}" font-size="11" pointer-events="none" x="{_n(place)}" '
            f'y="{_n(y)}">{safe(sign + name)}</text>'
        )


def _shape(scale: _Scale, bars: Iterable[Bar]) -> Iterator[str]:
    """Many bars as one shape for each status. Bars of a lane with only a small gap between them become one
    piece."""
    row = max(scale.lane, 3.0)
    extents: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for bar in bars:
        x, width = _extent(scale, bar)
        extents[bar.status, int(bar.lane * scale.lane / row)].append((x, x + width))
    gap, pieces = 0.5, {place: _merged(found, 0.5) for place, found in extents.items()}
    while sum(map(len, pieces.values())) > _PIECES:
        gap *= 3
        pieces = {place: _merged(found, gap) for place, found in extents.items()}
    shapes: dict[str, list[str]] = defaultdict(list)
    for (status, at), found in pieces.items():
        for left, right in found:
            wide = _n(right - left)
            shapes[status].append(f"M{_n(left)} {_n(_TOP + at * row)}h{wide}v{_n(row - 0.5)}h-{wide}z")
    for status, shape in shapes.items():
        yield (
            f'<path class="{state_class(status)}" fill="{state_of(status).light}" style="stroke:none" '
            f'd="{"".join(shape)}"/>'
        )


def _merged(extents: list[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """Sorted pieces that cover all *extents*, with more than *gap* between them."""
    extents.sort()
    found = [extents[0]]
    for left, right in extents[1:]:
        if left > found[-1][1] + gap:
            found.append((left, right))
        elif right > found[-1][1]:
            found[-1] = (found[-1][0], right)
    return found


def _n(value: float) -> str:
    """A number in few characters.

    >>> _n(3.0), _n(2.25)
    ('3', '2.2')
    """
    text = f"{value:.1f}"
    return text.removesuffix(".0")
