"""``python -m benchmarks``: measure the budgets and print one table.

``--quick`` takes less than a minute; ``--only NAME`` measures a part; ``--json FILE`` also writes all
figures there; ``--directory`` says on which disk the databases are made; ``--against REV`` measures an
earlier commit in turns with this one, and prints ratios.
"""

import argparse
import json
import logging
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import faces, machines, processes, runs, steps
from benchmarks.against import Comparison, comparisons
from benchmarks.measure import Figure, Scale

__all__ = ["BENCHMARKS", "main", "report", "table"]

BENCHMARKS: dict[str, Callable[[Scale], Iterator[Figure]]] = {
    "sequential": steps.sequential,
    "replayed": steps.replayed,
    "fan-out": steps.fan_out,
    "concurrent": runs.concurrent,
    "imports": processes.imports,
    "resumed": processes.resumed,
    "memory": processes.memory,
    "faces": faces.faces,
    "machines": machines.machines,
}

_HEAD = ("what", "budget", "measured", "best", "beside", "ratio", "met?")


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def _cells(figure: Figure) -> tuple[str, ...]:
    beside = ratio = ""
    if figure.reference is not None and figure.ratio is not None:
        beside = f"{_number(figure.reference, figure.unit)} ({figure.reference_name})"
        ratio = f"{figure.ratio:.2f}×"
    met = "" if figure.met is None else "yes" if figure.met else "at best" if figure.met_at_best else "no"
    measured, best = _number(figure.measured, figure.unit), _number(figure.best, figure.unit)
    return figure.name, figure.budget, measured, best, beside, ratio, met


def table(figures: Iterable[Figure]) -> str:
    """All figures as one table in Markdown."""
    rows = [_HEAD, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def report(figures: Iterable[Figure]) -> dict[str, Any]:
    """All figures, and the machine, for JSON."""
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        },
        "figures": [figure.as_dict() for figure in figures],
    }


def ratios(found: Iterable[Comparison], revision: str) -> str:
    """What two commits need for the same, as a table in Markdown."""
    rows = [("what", "this", revision, f"this / {revision}")]
    for one in found:
        this, that = _number(one.this, one.unit), _number(one.that, one.unit)
        rows.append((one.name, this, that, f"{one.ratio:.2f}×"))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: under a minute")
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, help="measure this part (may be repeated)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    parser.add_argument(
        "--directory", type=Path, help="where the databases are made (default: a temporary one)"
    )
    parser.add_argument("--against", metavar="REV", help="measure that commit in turns with this one")
    parser.add_argument("--turns", type=int, default=3, help="how often, with --against")
    given = parser.parse_args(arguments)
    if given.against is not None:
        with tempfile.TemporaryDirectory(dir=given.directory) as directory:
            parts = given.only or ["sequential", "replayed", "fan-out", "concurrent"]
            found = comparisons(given.against, parts, Path(directory), turns=given.turns, quick=given.quick)
            print(ratios(found, given.against))
        return 0
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        scale = (Scale.quick if given.quick else Scale)(Path(directory))
        for name in given.only or BENCHMARKS:
            for figure in BENCHMARKS[name](scale):
                figures.append(figure)
                print(f"{figure.name}: {_number(figure.measured, figure.unit)}", file=sys.stderr, flush=True)
    print(table(figures))
    if given.json is not None:
        given.json.write_text(
            json.dumps(report(figures), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    logging.getLogger("flowdsl").setLevel(logging.ERROR)
    sys.exit(main())
