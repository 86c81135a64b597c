"""The steps of a run as a data frame of pandas or polars: one row for each step, in recorded order."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal

from flowdsl.core.preview import error_lines
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.core.timeline import Bar, timeline_of
from flowdsl.core.views import step_span
from flowdsl.core.words import instant

__all__ = ["COLUMNS", "Library", "steps_frame"]

Library = Literal["pandas", "polars"]

_WHOLE, _TEXT, _TIME, _NUMBER = "whole", "text", "time", "number"

COLUMNS = {
    "key": _TEXT,
    "path": _TEXT,
    "kind": _TEXT,
    "scope": _TEXT,
    "depth": _WHOLE,
    "lane": _WHOLE,
    "status": _TEXT,
    "attempts": _WHOLE,
    "args": _TEXT,
    "result": _TEXT,
    "error": _TEXT,
    "created_at": _TIME,
    "completed_at": _TIME,
    "duration": _NUMBER,
}
"""The columns and their types: readable previews, whole numbers, aware times in UTC, seconds."""


def steps_frame(
    run: Run, state: str, journal: Sequence[Step], now: float, library: Library | None = None
) -> Any:
    """A data frame of the steps in *journal*.

    *library*: ``"pandas"`` or ``"polars"``; by default the first of them that is installed. Raises
    ``ImportError``, which says what to install, and ``ValueError`` for another name.
    """
    if library not in (None, *_LIBRARIES):
        raise ValueError(f"library= is 'pandas', 'polars' or None; got {library!r}")
    module, make = _found(library)
    bars = timeline_of(run, state, journal, now=now).bars
    rows = [_row(bar) for bar in sorted(bars, key=lambda bar: bar.step.seq)]
    return make(module, {name: [row[name] for row in rows] for name in COLUMNS})


def _found(library: Library | None) -> tuple[Any, Callable[[Any, dict[str, list[Any]]], Any]]:
    for name in [library] if library is not None else list(_LIBRARIES):
        try:
            return import_module(name), _LIBRARIES[name]
        except ImportError:
            continue
    wanted = library or "pandas` or `pip install polars"
    raise ImportError(f"a data frame needs a library for it: `pip install {wanted}`")


def _row(bar: Bar) -> dict[str, Any]:
    step = bar.step
    return {
        "key": step.key,
        "path": step.path,
        "kind": step.kind,
        "scope": step.scope,
        "depth": bar.depth,
        "lane": bar.lane,
        "status": str(step.status),
        "attempts": step.attempts,
        "args": step.args,
        "result": step.preview if step.status is StepStatus.COMPLETED else None,
        "error": error_lines(step.preview)[0] if step.status is StepStatus.FAILED else None,
        "created_at": instant(step.created_at),
        "completed_at": None if step.completed_at is None else instant(step.completed_at),
        "duration": step_span(step),
    }


def _pandas(pandas: Any, columns: dict[str, list[Any]]) -> Any:
    kinds = {_TEXT: object, _WHOLE: "int64", _NUMBER: "float64", _TIME: "datetime64[us, UTC]"}
    return pandas.DataFrame(
        {name: pandas.Series(values, dtype=kinds[COLUMNS[name]]) for name, values in columns.items()}
    )


def _polars(polars: Any, columns: dict[str, list[Any]]) -> Any:
    kinds = {
        _TEXT: polars.String,
        _WHOLE: polars.Int64,
        _NUMBER: polars.Float64,
        _TIME: polars.Datetime("us", "UTC"),
    }
    return polars.DataFrame(columns, schema={name: kinds[kind] for name, kind in COLUMNS.items()})


_LIBRARIES: dict[str, Callable[[Any, dict[str, list[Any]]], Any]] = {"pandas": _pandas, "polars": _polars}
