"""The timeline of a run as a picture that can be saved. SVG needs no library, the other formats need
matplotlib."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from flowdsl.core.kinds import WAITS
from flowdsl.core.records import Run, Step
from flowdsl.core.timeline import Bar, Timeline, timeline_of
from flowdsl.core.words import span, state_of
from flowdsl.drawing.axis import marks
from flowdsl.drawing.run import short_name
from flowdsl.drawing.svg import timeline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Backend", "Plot", "plotted"]

Backend = Literal["svg", "matplotlib"]

_NAMED = 40  # bars with a written name, at most
_WIDTH = 9.0  # inches


@frozen(slots=True)
class Plot:
    """A timeline. A notebook shows it; :meth:`save` writes it to a file."""

    _line: Timeline
    _title: str

    def _repr_svg_(self) -> str:
        return timeline_svg(self._line, self._title, alone=True)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the picture. The ending of *path* is the format: ``.svg`` needs nothing, ``.png`` and
        ``.pdf`` need matplotlib.

        Raises ``ValueError`` for another ending, and ``ImportError`` if matplotlib is not installed.
        """
        file = Path(path)
        kind = file.suffix.lower()
        if kind == ".svg":
            file.write_text(self._repr_svg_(), encoding="utf-8")
        elif kind in (".png", ".pdf"):
            figure(self._line, self._title).savefig(file, format=kind[1:], bbox_inches="tight")
        else:
            raise ValueError(f"a plot is saved as .svg, .png or .pdf; got {file.name!r}")

    def __repr__(self) -> str:
        return f"<Plot: {self._title}>"


def plotted(run: Run, state: str, journal: Sequence[Step], now: float, backend: Backend) -> "Plot | Figure":
    """The timeline of *run*, as a :class:`Plot`, or as a figure of matplotlib. Raises ``ValueError`` for
    another *backend*."""
    line = timeline_of(run, state, journal, now=now)
    took = span(line.end - line.begin)
    title = f"timeline of {short_name(run.workflow)}, {state}: {len(line.bars)} steps in {took}"
    if backend == "svg":
        return Plot(line, title)
    if backend == "matplotlib":
        return figure(line, title)
    raise ValueError(f"backend is 'svg' or 'matplotlib'; got {backend!r}")


def figure(line: Timeline, title: str) -> "Figure":
    """Draw *line* with matplotlib, but without pyplot, which has windows and global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a picture other than .svg needs matplotlib: `pip install matplotlib`") from None

    height = 1.0 + min(max(line.lanes, 1) * 0.26, 6.0)
    found = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = found.add_subplot()
    _draw(axes, line)
    for idle in line.idle:
        left, right = line.place(idle.start), line.place(idle.end)
        axes.axvspan(left, right, color="#d0d7de", alpha=0.5, zorder=0, linewidth=0)
        axes.text((left + right) / 2, 1.01, span(idle.length), ha="center", fontsize=8, transform=_top(axes))
    axes.set(xlim=(0, 1), ylim=(max(line.lanes, 1) - 0.4, -0.6), yticks=[])
    axes.set_title(title, fontsize=10, loc="left", pad=16)
    places = _marks(line)
    axes.set_xticks([place for place, _ in places], [text for _, text in places], fontsize=8)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    return found


def _draw(axes: "Axes", line: Timeline) -> None:
    """Draw all bars as one collection, because a run may have thousands."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    corners, colours = [], []
    for bar in line.bars:
        left, right = _extent(line, bar)
        top, bottom = bar.lane - 0.4, bar.lane + 0.4
        corners.append([(left, top), (right, top), (right, bottom), (left, bottom)])
        opacity = 0.25 if _is_hollow(bar) else 0.55 if bar.replayed else 1.0
        colours.append(to_rgba(state_of(bar.status).light, opacity))
    axes.add_collection(PolyCollection(corners, facecolors=colours, linewidths=0))
    if len(line.bars) > _NAMED:
        return
    for bar in line.bars:
        left, right = _extent(line, bar)
        sign = "" if bar.status == "completed" else f"{state_of(bar.status).word}: "
        name = sign + short_name(bar.step.path)[:40]
        inside = right - left > 0.011 * len(name)
        place, colour = (left, "white") if inside and not _is_hollow(bar) else (right, "black")
        if inside:
            place = left
        elif right > 0.9:
            continue
        axes.text(place + 0.004, bar.lane, name, va="center", fontsize=8, color=colour, clip_on=True)


def _extent(line: Timeline, bar: Bar) -> tuple[float, float]:
    left = min(line.place(bar.start), 0.998)
    return left, max(line.place(bar.end), left + 0.002)


def _is_hollow(bar: Bar) -> bool:
    return bar.step.kind in WAITS or bar.status in ("waiting", "pending")


def _top(axes: "Axes") -> Any:
    """A transformation: x is a place on the time axis, y a part of the picture's height."""
    return axes.get_xaxis_transform()


def _marks(line: Timeline) -> list[tuple[float, str]]:
    """Places and texts for the axis that have enough room."""
    found: list[tuple[float, str]] = []
    for moment, text in marks(line):
        place = line.place(moment)
        if not found or place - found[-1][0] > 0.08:
            found.append((place, text))
    return found
