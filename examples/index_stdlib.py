"""Index the standard library of this Python: a workflow over about 700 real source files.

A step parses each file. The results are summed up in a report, which is written as a table (``modules.csv``)
and as a plot (``packages.svg``). Stop it at any moment, with Ctrl-C or ``kill -9``, and run it again:
recorded steps are replayed, and the rest is executed.

    python examples/index_stdlib.py [--out DIR] [--limit N] [--fresh] [--storage URL]
"""

import argparse
import ast
import csv
import io
import logging
import os
import platform
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flowdsl import Hooks, Runtime, step, workflow

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}

console = Console(highlight=False)


# What is recorded -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """The numbers of one source file."""

    name: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    documented: int = 0  # functions and classes with a docstring
    imports: tuple[str, ...] = ()
    error: str = ""

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @property
    def definitions(self) -> int:
        return self.functions + self.classes


@dataclass(frozen=True)
class Report:
    """The library in numbers."""

    python: str
    modules: int
    lines: int
    functions: int
    classes: int
    documented: int
    unreadable: int
    packages: tuple[tuple[str, int, int], ...]  # name, definitions, documented ones; the largest first
    imported: tuple[tuple[str, int], ...]  # name, number of modules that import it; the most imported first


# The durable part -------------------------------------------------------------------------------------------


@step
def find_sources(root: str, limit: int | None) -> list[str]:
    """List the source files below *root*. This is a step, because the directory may change before a run
    continues."""
    found = []
    for directory, children, files in os.walk(root):
        children[:] = set(children) - SKIPPED
        place = Path(directory).relative_to(root)
        found += [(place / file).as_posix() for file in files if file.endswith(".py")]
    return sorted(found)[:limit]


@step
def measure(root: str, file: str) -> Module:
    """Parse one file and count what is in it."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        with tokenize.open(Path(root, file)) as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the library's code do not matter here
            text = source.read()
            tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError) as error:
        return Module(name, error=str(error))
    counts: Counter[str] = Counter()
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            counts["classes" if isinstance(node, ast.ClassDef) else "functions"] += 1
            counts["documented"] += ast.get_docstring(node, clean=False) is not None
        elif isinstance(node, ast.Import):
            imports |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.partition(".")[0])
    return Module(
        name=name,
        lines=text.count("\n"),
        functions=counts["functions"],
        classes=counts["classes"],
        documented=counts["documented"],
        imports=tuple(sorted(imports)),
    )


@step
def write_table(path: str, modules: list[Module]) -> str:
    """Write one line per module as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["module", "lines", "functions", "classes", "documented", "imports", "error"])
    for m in modules:
        rows.writerow([m.name, m.lines, m.functions, m.classes, m.documented, " ".join(m.imports), m.error])
    return replace(path, text.getvalue())


@step
def write_plot(path: str, report: Report) -> str:
    """Draw the largest packages as a bar chart."""
    return replace(path, draw(report))


@workflow
def index_library(root: str, python: str, out: str, limit: int | None = None) -> Report:
    """Index the library at *root*, and write the table and the plot into *out*."""
    modules = [measure(root, file) for file in find_sources(root, limit)]
    report = reduce_to_report(python, modules)
    write_table(f"{out}/modules.csv", modules)
    write_plot(f"{out}/packages.svg", report)
    return report


# Plain functions it uses ------------------------------------------------------------------------------------


def reduce_to_report(python: str, modules: Iterable[Module]) -> Report:
    """Add everything up."""
    total: Counter[str] = Counter()
    definitions: Counter[str] = Counter()
    documented: Counter[str] = Counter()
    imported: Counter[str] = Counter()
    for module in modules:
        for field in ("lines", "functions", "classes", "documented"):
            total[field] += getattr(module, field)
        total["modules"] += 1
        total["unreadable"] += bool(module.error)
        definitions[module.package] += module.definitions
        documented[module.package] += module.documented
        imported.update(module.imports)
    return Report(
        python=python,
        **{
            name: total[name]
            for name in ("modules", "lines", "functions", "classes", "documented", "unreadable")
        },
        packages=tuple((name, n, documented[name]) for name, n in ranked(definitions, 20)),
        imported=tuple(ranked(imported, 10)),
    )


def ranked(counts: Counter[str], n: int) -> list[tuple[str, int]]:
    """The *n* highest counts. Equal counts are sorted by name, so the order is always the same."""
    return sorted(((k, v) for k, v in counts.items() if v), key=lambda item: (-item[1], item[0]))[:n]


def replace(path: str, text: str) -> str:
    """Write a file so that a reader sees the old or the new one, and never a part."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    draft = Path(f"{path}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
    return path


def share(part: int, whole: int) -> str:
    """A part in percent."""
    return f"{100 * part / whole:.0f} %" if whole else "–"


# The plot ---------------------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 920, 150, 120, 128, 26, 16
INK, FAINT, GRID, DOCUMENTED, OTHERS = "#1f2933", "#66717e", "#e6e9ed", "#2a6f97", "#b8d4e3"


def draw(report: Report) -> str:
    """The report as SVG: one bar for each of the largest packages, the documented part in a darker colour."""
    ticks = axis(max((n for _, n, _ in report.packages), default=1))
    scale = (WIDTH - LEFT - RIGHT) / ticks[-1]
    bottom = TOP + ROW * len(report.packages)
    definitions = report.functions + report.classes
    subtitle = (
        f"{report.modules:,} modules, {report.lines:,} lines, {report.functions:,} functions, "
        f"{report.classes:,} classes, {share(report.documented, definitions)} of them with a docstring"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 44}" role="img" '
        f'viewBox="0 0 {WIDTH} {bottom + 44}" font-family="system-ui, Helvetica, Arial, sans-serif">',
        f"<title>The standard library of Python {escape(report.python)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        label(32, 44, f"The standard library of Python {report.python}", size=22, weight=600),
        label(32, 70, subtitle, fill=FAINT),
        *legend(),
    ]
    for tick in ticks:
        x = LEFT + tick * scale
        parts.append(f'<path d="M{x:.1f} {TOP - 4}V{bottom}" stroke="{GRID}"/>')
        parts.append(label(x, bottom + 20, f"{tick:,}", fill=FAINT, size=12, anchor="middle"))
    for i, (name, count, documented) in enumerate(report.packages):
        parts += bar(TOP + ROW * i, name, count, documented, scale)
    return "\n".join([*parts, "</svg>", ""])


def bar(y: float, name: str, count: int, documented: int, scale: float) -> list[str]:
    """One row of the chart."""
    dark, light = documented * scale, (count - documented) * scale
    end = LEFT + dark + light
    middle = y + BAR - 4
    return [
        label(LEFT - 12, middle, name, anchor="end"),
        f'<rect x="{LEFT}" y="{y}" width="{dark:.1f}" height="{BAR}" fill="{DOCUMENTED}"/>',
        f'<rect x="{LEFT + dark:.1f}" y="{y}" width="{light:.1f}" height="{BAR}" fill="{OTHERS}"/>',
        label(end + 8, middle, f"{count:,}", size=12),
        label(end + 16 + 7 * len(f"{count:,}"), middle, share(documented, count), fill=FAINT, size=12),
    ]


def legend() -> list[str]:
    """What the colours mean."""
    return [
        f'<rect x="{LEFT}" y="92" width="12" height="12" fill="{DOCUMENTED}"/>',
        label(LEFT + 20, 102, "functions and classes with a docstring", fill=FAINT),
        f'<rect x="{LEFT + 290}" y="92" width="12" height="12" fill="{OTHERS}"/>',
        label(LEFT + 310, 102, "without", fill=FAINT),
    ]


def label(
    x: float,
    y: float,
    words: str,
    *,
    fill: str = INK,
    size: int = 13,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    """A line of text."""
    return (
        f'<text x="{x:.1f}" y="{y}" fill="{fill}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def axis(highest: int) -> list[int]:
    """Round numbers from 0 to at least *highest*, at most seven of them."""
    width = 1
    while not any((found := width * factor) * 6 >= highest for factor in (1, 2, 5)):
        width *= 10
    return list(range(0, highest + found, found))


# The program ------------------------------------------------------------------------------------------------


class Watch(Hooks):
    """Counts executed and replayed steps. It shows them as a bar in a terminal, else as a line now and
    then."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.task = progress.add_task("looking for files", total=None) if progress else None
        self.executed = self.replayed = self.total = 0

    def on_step_complete(self, step: Any, result: Any) -> None:
        self.executed += 1
        self.show(step, result)

    def on_step_replay(self, step: Any, result: Any) -> None:
        self.replayed += 1
        self.show(step, result)

    def show(self, step: Any, result: Any) -> None:
        if step.path == find_sources.path:
            self.total = len(result) + 3  # this step, and the two that write
        done = self.executed + self.replayed
        if self.progress is not None and self.task is not None:
            name = result.name if isinstance(result, Module) else step.path.rpartition(".")[2]
            self.progress.update(self.task, completed=done, total=self.total, description=name)
        elif done % 100 == 0 or done == self.total:
            console.print(f"{done} of {self.total} steps ({self.replayed} replayed)")


class Printed(logging.Handler):
    """Prints what flowdsl logs, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        console.print(record.getMessage(), markup=False, soft_wrap=True)


def bar_in_a_terminal() -> Progress | None:
    """A progress bar, if there is a terminal to draw it in."""
    if not console.is_terminal:
        return None
    columns = [MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}")]
    return Progress(*columns, console=console, transient=True)


def show_report(report: Report) -> None:
    """Print the largest packages and the most imported modules."""
    table = Table(title=f"Python {report.python}: the ten largest packages", title_justify="left")
    table.add_column("package")
    for column in ("functions and classes", "with a docstring"):
        table.add_column(column, justify="right")
    for name, count, documented in report.packages[:10]:
        table.add_row(name, f"{count:,}", share(documented, count))
    console.print(table)
    names = ", ".join(f"{name} ({n})" for name, n in report.imported)
    console.print(f"Most imported: {names}", soft_wrap=True)
    if report.unreadable:
        console.print(f"{report.unreadable} files are not valid source; the table says why.")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", default="out", help="directory for the table and the plot (default: out)")
    parser.add_argument("--limit", type=int, help="index only the first LIMIT files")
    parser.add_argument("--fresh", action="store_true", help="start anew, even if a run was interrupted")
    parser.add_argument("--storage", help="storage URL (default: $FLOWDSL_STORAGE, else .flowdsl/flow.db)")
    return parser.parse_args()


def main() -> int:
    asked = options()
    out = Path(asked.out).resolve()
    # flowdsl logs at INFO that it continues a run. Logging prints that only if it is configured.
    logging.getLogger("flowdsl").addHandler(Printed())
    logging.getLogger("flowdsl").setLevel(logging.INFO)
    progress = bar_in_a_terminal()
    with progress or nullcontext():
        watch = Watch(progress)
        index = index_library.options(fresh=asked.fresh)
        try:
            with Runtime(asked.storage, hooks=watch):
                report = index(sysconfig.get_path("stdlib"), platform.python_version(), str(out), asked.limit)
        except KeyboardInterrupt:
            done = watch.executed + watch.replayed
            console.print(f"\nInterrupted with {done} steps recorded. Run it again to continue.")
            return 130
    show_report(report)
    console.print(f"{watch.executed} steps executed, {watch.replayed} replayed.")
    console.print(f"Wrote {out / 'modules.csv'} and {out / 'packages.svg'}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
