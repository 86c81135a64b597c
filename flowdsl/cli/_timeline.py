"""A timeline of a run as text: a bar for each step, with idle time folded."""

from collections.abc import Mapping, Sequence

from flowdsl.cli._output import Cell, Column, Output, status_cell
from flowdsl.cli._tree import Node, step_name
from flowdsl.core.records import Run
from flowdsl.core.timeline import Bar, Timeline
from flowdsl.core.words import span, state_of

__all__ = ["print_timeline"]

_WIDEST, _NARROWEST, _PIPED = 100, 10, 60  # columns of the drawing
_BESIDE = 30  # columns that state and duration take, and gaps


def print_timeline(out: Output, run: Run, nodes: Sequence[Node], timeline: Timeline) -> None:
    """Print *nodes*, the steps of *run* as a tree, each with its bar."""
    home = run.workflow.rpartition(".")[0] + "."
    names = [node.lead + ("?" if node.step is None else step_name(node.step, home)) for node in nodes]
    longest = max(map(len, names), default=0)
    room = _PIPED if out.width is None else max(out.width - min(longest, 30) - _BESIDE, _NARROWEST)
    room = min(room, _WIDEST)
    bars = {bar.step.key: bar for bar in timeline.bars}
    columns = (Column("step", least=10), Column("state"), Column("took", right=True), Column("timeline"))
    rows = [
        _row(name, bars[node.key], timeline, room)
        for name, node in zip(names, nodes, strict=True)
        if node.key in bars
    ]
    out.table(columns, rows, indent=2)
    whole = span(timeline.end - timeline.begin)
    idle = ", ".join(span(one.length) for one in timeline.idle)
    out.line((f"  {whole} from left to right" + (f"; idle (┊): {idle}" if idle else ""), "dim"))


def _row(name: str, bar: Bar, timeline: Timeline, room: int) -> list[Cell]:
    cells = _drawn(bar, timeline, room)
    took = "" if bar.status == "interrupted" else span(bar.end - bar.start)
    return [
        name,
        status_cell(bar.status),
        took,
        ("".join(cells[n] for n in range(room)), state_of(bar.status).colour),
    ]


def _drawn(bar: Bar, timeline: Timeline, room: int) -> Mapping[int, str]:
    """The character of each column."""

    def column(moment: float) -> int:
        return min(int(timeline.place(moment) * room), room - 1)

    cells = dict.fromkeys(range(room), " ")
    for idle in timeline.idle:
        cells |= dict.fromkeys(range(column(idle.start) + 1, column(idle.end)), "┊")
    first, last = column(bar.start), column(bar.end)
    cells |= dict.fromkeys(range(first, last + 1), "┄" if bar.status == "waiting" else "━")
    for tick in bar.ticks[1:]:
        cells[column(tick)] = "┿"
    return cells
