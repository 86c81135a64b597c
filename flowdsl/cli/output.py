"""What the command line prints, and how wide.

In a terminal, tables fit its width: columns give way in the order of their floors, each shortened where it
hurts least. Piped, nothing is shortened, coloured or drawn, so that ``grep`` and ``awk`` see everything. With
``--json``, one JSON document goes to standard output and nothing else; notes always go to standard error.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from attrs import frozen
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from flowdsl.cli.text import ASCII, STYLES, Shorten, clean, cut_end, head, status_text

__all__ = ["Cell", "Column", "Output", "Picture", "status_cell"]

Cell = str | tuple[str, str]
"""Text, or text and its style."""

GAP = 2
_LEAST = 6  # columns; rather none than less of what may be left out
NARROWEST = 20  # columns; below, nothing sensible fits and lines are cut


@frozen(slots=True)
class Column:
    """A column of a table.

    *floors* are the widths down to which it is shortened in the first round, in the second, … while the table
    is too wide; *shorten* says how. A column whose last floor is 0 may vanish.
    """

    title: str
    floors: tuple[int, ...] = ()
    shorten: Shorten = cut_end
    right: bool = False


def status_cell(status: str) -> Cell:
    """A status with its sign and its colour."""
    return status_text(status), STYLES.get(status, "")


class Output:
    """Where one command writes. *as_json* silences everything on standard output but :meth:`document`."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)
        self.width = _width(self._out)

    @property
    def narrow(self) -> bool:
        """Whether lines should rather be short than complete."""
        return self.width is not None and self.width < 120

    # JSON --------------------------------------------------------------------------------------------------

    def document(self, value: Any) -> None:
        """Print *value* as the JSON document of this command."""
        unicode = _speaks_unicode(sys.stdout)
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not unicode) + "\n")
        sys.stdout.flush()

    def entry(self, value: Any) -> None:
        """Print *value* as one line of JSON, of several that follow each other."""
        unicode = _speaks_unicode(sys.stdout)
        sys.stdout.write(json.dumps(value, ensure_ascii=not unicode) + "\n")
        sys.stdout.flush()

    # Text --------------------------------------------------------------------------------------------------

    def line(self, *cells: Cell) -> None:
        """Print a line of text, whatever its length; a terminal wraps it."""
        if not self.as_json:
            _print(self._out, [(clean(text), style) for text, style in map(_styled, cells)])

    def flush(self) -> None:
        """Let whoever reads see what was printed."""
        self._out.file.flush()

    def note(self, *cells: Cell) -> None:
        """Say something beside the result, on standard error. It may have several lines."""
        parts = [(text.split("\n"), style) for text, style in map(_styled, cells)]
        _print(self._err, [("\n".join(map(clean, lines)), style) for lines, style in parts])

    def heading(self, text: str, detail: str = "") -> None:
        """Print the title of a part, after an empty line."""
        self.line("")
        self.line((text, "bold"), (f"  {detail}" if detail else "", "dim"))

    def facts(self, rows: Iterable[tuple[str, Cell]], indent: int = 2, signs: Sequence[Cell] = ()) -> None:
        """Print names and values, one below the other; long values wrap behind their name.

        *signs*, two columns each, stand between.
        """
        shown = [(name, *_styled(cell)) for name, cell in rows]
        column = max((cell_len(name) for name, _, _ in shown), default=0)
        for (name, text, style), sign in zip(shown, signs or [""] * len(shown), strict=True):
            lead = " " * indent + name + " " * (column + GAP - cell_len(name))
            rest = " " * (len(lead) + (2 if sign else 0))
            room = None if self.width is None else max(self.width - len(rest), NARROWEST)
            first, *more = _wrapped(clean(text), room)
            self.line((lead, "dim"), sign, (first, style))
            for part in more:
                self.line(rest, (part, style))

    @property
    def console(self) -> Console | None:
        """The terminal, if it is one whose lines can be written again."""
        return self._out if self._out.is_terminal and not self._out.is_dumb_terminal else None

    def fits(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], indent: int = 0) -> bool:
        """Whether a table is shown without shortening anything."""
        return self.width is None or _total(_natural(columns, _cleaned(rows))) + indent <= self.width

    def table(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[Cell]],
        indent: int = 0,
        below: Sequence[Sequence[Sequence[Cell]]] = (),
    ) -> None:
        """Print a table that fits the terminal; nothing is shortened where there is none.

        *below* are lines that follow each row, outside the columns.
        """
        cells = _cleaned(rows)
        room = None if self.width is None else max(self.width, NARROWEST) - indent
        widths = _fit(_natural(columns, cells), columns, room)
        head = [(column.title, "bold") for column in columns]
        self.line(" " * indent, *_laid_out(head, columns, widths))
        for row, lines in zip_longest(cells, below, fillvalue=()):
            self.line(" " * indent, *_laid_out(row, columns, widths))
            for line in lines:
                self.line(*line)


class Picture(Output):
    """Keeps what is printed, to be shown as one piece of so many columns."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._out = console
        self.width = console.width
        self.lines: list[Text] = []

    def line(self, *cells: Cell) -> None:
        """Keep a line of text; one that is too long is cut."""
        shown = _speakable(self._out, [(clean(text), style) for text, style in map(_styled, cells)])
        line = Text.assemble(*shown, no_wrap=True, overflow="crop")
        line.truncate(self._out.width)
        self.lines.append(line)

    @property
    def text(self) -> Text:
        """All lines."""
        return Text("\n", no_wrap=True, overflow="crop").join(self.lines)


def _console(file: Any) -> Console:
    return Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _width(console: Console) -> int | None:
    if console.is_terminal:
        return console.width
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdigit() and int(given) else None


def _speaks_unicode(file: Any) -> bool:
    return (getattr(file, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _print(console: Console, cells: Iterable[tuple[str, str]]) -> None:
    cells = _speakable(console, cells)
    if console.color_system is None:  # without styles there is nothing that needs rich, which takes its time
        console.file.write("".join(text for text, _ in cells).rstrip() + "\n")
        return
    line = Text.assemble(*cells)
    line.rstrip()
    console.print(line, soft_wrap=True)


def _speakable(console: Console, cells: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    if _speaks_unicode(console.file):
        return cells
    return [(text.translate(ASCII), style) for text, style in cells]


def _styled(cell: Cell) -> tuple[str, str]:
    return cell if isinstance(cell, tuple) else (cell, "")


def _wrapped(text: str, room: int | None) -> list[str]:
    if room is None or cell_len(text) <= room:
        return [text]
    lines = []
    while text:
        part = head(text, room)
        space = part.rfind(" ")
        if part != text and space > room // 2:
            part = part[: space + 1]
        lines.append(part.rstrip())
        text = text[len(part) :].lstrip() if part.endswith(" ") else text[len(part) :]
    return lines


# ----------------------------------------------------------------------------------------------------- tables


def _cleaned(rows: Sequence[Sequence[Cell]]) -> list[list[tuple[str, str]]]:
    return [[(clean(text), style) for text, style in map(_styled, row)] for row in rows]


def _natural(columns: Sequence[Column], cells: Sequence[Sequence[tuple[str, str]]]) -> list[int]:
    """How wide columns would like to be."""
    return [
        max([cell_len(column.title), *(cell_len(row[place][0]) for row in cells)])
        for place, column in enumerate(columns)
    ]


def _fit(natural: list[int], columns: Sequence[Column], room: int | None) -> list[int]:
    """The widths of columns, 0 for one that is left out: rounds of shortening, the column farthest above its
    floor first.
    """
    widths = list(natural)
    rounds = max((len(column.floors) for column in columns), default=0)
    for number in range(rounds):
        floors = [
            max(min(column.floors[number], width), min(cell_len(column.title), column.floors[number]))
            if number < len(column.floors)
            else width
            for column, width in zip(columns, widths, strict=True)
        ]
        while room is not None and _total(widths) > room:
            spare = [width - floor for width, floor in zip(widths, floors, strict=True)]
            widest = max(range(len(spare)), key=spare.__getitem__)
            if spare[widest] <= 0:
                break
            widths[widest] -= 1
    vanishing = [bool(column.floors) and not column.floors[-1] for column in columns]
    return [
        0 if may and width < min(_LEAST, wanted) else width
        for may, width, wanted in zip(vanishing, widths, natural, strict=True)
    ]


def _total(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + GAP * (len(shown) - 1)


def _laid_out(row: Sequence[tuple[str, str]], columns: Sequence[Column], widths: Sequence[int]) -> list[Cell]:
    out: list[Cell] = []
    for (text, style), column, width in zip(row, columns, widths, strict=True):
        if not width:
            continue
        shown = column.shorten(text, width)
        padding = " " * (width - cell_len(shown))
        out += [(shown, style), padding] if not column.right else [padding, (shown, style)]
        out.append(" " * GAP)
    return out
