"""Printing for the command line.

In a terminal, :mod:`rich` fits tables to its width. In a pipe, nothing is shortened, coloured or drawn, so
``grep`` and ``awk`` see everything. With ``--json``, one JSON document goes to standard output and nothing
else. Notes, errors and hints always go to standard error.

Here, and only here, every text passes :func:`flowdsl.core.words.clean`.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from attrs import frozen
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flowdsl.core.advice import shell_line
from flowdsl.core.words import ASCII, clean, state_of, status_text

__all__ = ["HIDDEN", "Cell", "Column", "Output", "Picture", "json_text", "status_cell"]

Cell = str | tuple[str, str]
"""Text, or text and its style."""

Row = Sequence[Cell]

_GAP = 2  # columns between those of a table
_NARROWEST = 20  # columns; in fewer, nothing sensible fits, and the terminal wraps lines


@frozen(slots=True)
class Column:
    """A column of a table.

    *least*: if the terminal is too narrow, the column is shortened at its end, but not below this many
    characters. *wide*: the column is left out in terminals with fewer columns than this.
    """

    title: str
    least: int = 0
    wide: int = 0
    right: bool = False


HIDDEN = "–"
"""Shown in place of a missing value, or of a value whose preview is not stored."""


def status_cell(status: str) -> Cell:
    """A status with its sign and its colour."""
    return status_text(status), state_of(status).colour


def json_text(value: Any, indent: int | None = None) -> str:
    """*value* as JSON in ASCII. It contains no control characters for a terminal, and loads as the same
    value.

    >>> json_text("\\x9b31m ü")
    '"\\\\u009b31m \\\\u00fc"'
    """
    return json.dumps(value, indent=indent, ensure_ascii=True)


class Output:
    """Writes the output of one command. With *as_json*, only documents go to standard output.

    *width* is the width of the terminal in columns, or ``None`` if nothing needs to fit.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _console(sys.stdout)
        self._notes = _console(sys.stderr)
        self.width = _width(self.console)

    def narrower(self, columns: int) -> bool:
        """Whether there is a terminal of fewer *columns*."""
        return self.width is not None and self.width < columns

    @property
    def live(self) -> Console | None:
        """The terminal, if it is one whose lines can be written again."""
        console = self.console
        return console if console.is_terminal and not console.is_dumb_terminal and not self.as_json else None

    # JSON -------------------------------------------------------------------------------------------------

    def document(self, value: Any) -> None:
        """Print *value* as the JSON document of this command."""
        self.console.file.write(json_text(value, indent=2) + "\n")

    def entry(self, value: Any) -> None:
        """Print *value* as one of several lines of JSON, and flush it."""
        self.console.file.write(json_text(value) + "\n")
        self.flush()

    # Text -------------------------------------------------------------------------------------------------

    def line(self, *cells: Cell) -> None:
        """Print a line of text, whatever its length; a terminal wraps it."""
        if not self.as_json:
            _print(self.console, cells)

    def flush(self) -> None:
        """Flush standard output."""
        self.console.file.flush()

    def note(self, *cells: Cell) -> None:
        """Print a note on standard error, besides the result."""
        self.flush()
        _print(self._notes, cells)

    def error(self, text: str) -> None:
        """Print an error on standard error, in one line."""
        self.note(("error: ", "bold red"), " ".join(text.split()))

    def hint(self, text: str) -> None:
        """Print on standard error what to do next."""
        self.note(("next: ", "bold"), text)

    def next(self, commands: Iterable[Sequence[str]]) -> None:
        """Print the commands to use next, one a line, so that they can be pasted."""
        for number, command in enumerate(commands):
            self.line((" " * 6 if number else "next: ", "bold"), shell_line(command))

    def heading(self, text: str, detail: str = "") -> None:
        """Print the title of a part, after an empty line."""
        self.line("")
        self.line((text, "bold"), (f"  {detail}" if detail else "", "dim"))

    def facts(self, rows: Iterable[tuple[str, Cell]], indent: int = 2) -> None:
        """Print names and values, one below the other; a long value wraps behind its name."""
        self.grid([[(name, "dim"), cell] for name, cell in rows], indent)

    def grid(self, rows: Sequence[Row], indent: int = 0) -> None:
        """Print columns without titles; the last one wraps."""
        if self.as_json or not rows:
            return
        if self.width is None:
            self._plain(rows, indent)
            return
        grid = _grid()
        for number in range(len(rows[0])):
            grid.add_column(no_wrap=number < len(rows[0]) - 1, overflow="fold")
        for row in rows:
            grid.add_row(*map(_text, row))
        self._draw(Padding(grid, (0, 0, 0, indent), expand=False))

    def table(self, columns: Sequence[Column], rows: Sequence[Row], indent: int = 0) -> None:
        """Print a table that fits the terminal. Without a terminal nothing is shortened."""
        if self.as_json:
            return
        if self.width is None:
            titles = [(column.title, "") for column in columns]
            self._plain([titles, *rows], indent, columns)
        else:
            self._draw(drawn_table(columns, rows, self.width, indent))

    def _draw(self, drawn: Padding) -> None:
        self.console.print(drawn, width=max(self.width or 0, _NARROWEST))

    def _plain(self, rows: Sequence[Row], indent: int, columns: Sequence[Column] = ()) -> None:
        texts = [[clean(_styled(cell)[0]) for cell in row] for row in rows]
        widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
        right = [column.right for column in columns] or [False] * len(widths)
        for row in texts:
            padded = [
                " " * (width - cell_len(text)) + text if ends else text + " " * (width - cell_len(text))
                for text, width, ends in zip(row, widths, right, strict=True)
            ]
            self.line(" " * indent + (" " * _GAP).join(padded))


class Picture(Output):
    """Keeps what is printed. It is drawn as one piece, which replaces the piece before."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.width = console.width
        self._parts: list[RenderableType] = []

    def line(self, *cells: Cell) -> None:
        """Keep a line of text. A line that is too long is cut."""
        self._parts.append(Text.assemble(*map(_text, cells), no_wrap=True, overflow="ellipsis"))

    def _draw(self, drawn: Padding) -> None:
        self._parts.append(drawn)

    @property
    def whole(self) -> RenderableType:
        """All that was kept."""
        return Group(*self._parts)


def drawn_table(columns: Sequence[Column], rows: Iterable[Row], width: int, indent: int = 0) -> Padding:
    """A table for a terminal of *width* columns, as rich draws it."""
    rows = list(rows)
    shown = [
        number
        for number, column in enumerate(columns)
        if column.wide <= width and (column.title or any(_styled(row[number])[0] for row in rows))
    ]
    table = _grid()
    table.show_header = True
    chosen = [columns[number] for number in shown]
    naturals = [
        max((cell_len(clean(_styled(row[number])[0])) for row in rows), default=0) for number in shown
    ]
    fitted = _fitted(chosen, naturals, width - indent)
    for column, natural, room in zip(chosen, naturals, fitted, strict=True):
        table.add_column(
            Text(column.title, "bold"),
            justify="right" if column.right else "left",
            no_wrap=not column.least,
            min_width=min(column.least, natural) or None,
            width=room,
        )
    for row in rows:
        # Cells never wrap, so rich may give a column less room than its text needs.
        table.add_row(*(_text(row[number], no_wrap=True, overflow="ellipsis") for number in shown))
    return Padding(table, (0, 0, 0, indent), expand=False)


def _fitted(columns: Sequence[Column], naturals: Sequence[int], room: int) -> list[int | None]:
    """The widths of the columns that are made narrower, the widest first, but none below its least.

    rich makes all of them equally narrow, forgets that some may not be, and cuts the lines instead.
    """
    titles = [cell_len(column.title) for column in columns]
    wide = [min(max(pair), room) for pair in zip(naturals, titles, strict=True)]
    least = [
        max(min(column.least, natural), title) if column.least else width
        for column, natural, title, width in zip(columns, naturals, titles, wide, strict=True)
    ]
    gaps = _GAP * (len(columns) - 1)
    widths = list(wide)
    while sum(widths) + gaps > room:
        spare = [number for number in range(len(widths)) if widths[number] > least[number]]
        if not spare:
            return [None] * len(widths)
        widths[max(spare, key=lambda number: widths[number])] -= 1
    return [now if now < before else None for now, before in zip(widths, wide, strict=True)]


def _grid() -> Table:
    return Table.grid(padding=(0, _GAP, 0, 0), collapse_padding=True)


def _text(cell: Cell, **how: Any) -> Text:
    text, style = _styled(cell)
    return Text(clean(text), style, **how)


class _Ascii:
    """A file that takes only ASCII. Signs become the nearest ASCII characters."""

    encoding = "ascii"

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write *text* with signs as ASCII."""
        return self._file.write(text.translate(ASCII))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _console(file: Any) -> Console:
    encoding = (getattr(file, "encoding", None) or "").lower().replace("-", "")
    shown: Any = file if encoding.startswith("utf") else _Ascii(file)
    return Console(file=shown, highlight=False, markup=False, emoji=False)


def _width(console: Console) -> int | None:
    if console.is_terminal:
        return console.width
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdigit() and int(given) else None


def _print(console: Console, cells: Iterable[Cell]) -> None:
    parts = [(clean(text), style) for text, style in map(_styled, cells)]
    if console.color_system is None:
        console.file.write("".join(text for text, _ in parts).rstrip() + "\n")
        return
    line = Text.assemble(*parts)
    line.rstrip()
    console.print(line, soft_wrap=True)


def _styled(cell: Cell) -> tuple[str, str]:
    return cell if isinstance(cell, tuple) else (cell, "")
