"""Decorated functions as a notebook shows them: read once, and nothing is made for it but the picture."""

import inspect
import os
from collections.abc import Mapping
from typing import Any

from attrs import fields

from flowdsl.core.records import Run, RunFilter
from flowdsl.core.retry import Retry
from flowdsl.drawing.definitions import FunctionView, match_of, step_html, workflow_html
from flowdsl.drawing.run import shown_or_why
from flowdsl.engine.definitions import NO_OPTIONS, StepDef, WorkflowDef
from flowdsl.engine.registry import STEPS
from flowdsl.handle import is_interrupted
from flowdsl.runtime import Runtime, current_runtime, open_engine
from flowdsl.storage.urls import DEFAULT_URL

__all__ = ["defined_steps", "recorded_otherwise", "shown_step", "shown_workflow"]

_RUNS = 5  # runs that ``rt.do`` made of a step
_LOOKED_INTO = 10  # runs in which a redefined step is looked for
_RECORDS = 2000  # steps of each of these runs


def shown_step(defn: StepDef) -> str:
    """HTML of a step: what it is, and the runs that ``rt.do`` made of it."""

    def draw() -> str:
        runtime = _runtime()
        runs = (
            [] if runtime is None else runtime.storage.list_runs(RunFilter(workflow=defn.path, limit=_RUNS))
        )
        rows = [(run, _state(runtime, run)) for run in runs]
        return step_html(_view("step", defn), rows, 0.0 if runtime is None else runtime.storage.now())

    return shown_or_why(f"step {defn.path}", draw)


def shown_workflow(defn: WorkflowDef) -> str:
    """HTML of a workflow: what it is, and how the steps of its newest run match those defined now."""

    def draw() -> str:
        runtime = _runtime()
        newest = [] if runtime is None else runtime.storage.list_runs(RunFilter(workflow=defn.path, limit=1))
        if runtime is None or not newest:
            return workflow_html(_view("workflow", defn), None, [], {}, 0.0)
        (run,) = newest
        journal = runtime.storage.list_steps(run.id)
        sources = {path: found.source for path in {s.path for s in journal} if (found := STEPS.get(path))}
        shown = (run, _state(runtime, run))
        return workflow_html(_view("workflow", defn), shown, journal, sources, runtime.storage.now())

    return shown_or_why(f"workflow {defn.path}", draw)


def defined_steps() -> dict[str, StepDef]:
    """The steps that are defined in this process, by path."""
    return {path: found for path in STEPS if (found := STEPS.get(path)) is not None}


def recorded_otherwise(steps: Mapping[str, StepDef]) -> dict[str, str]:
    """Which of *steps* were last recorded with another source, and by which run; of the newest runs only."""
    runtime = _runtime()
    found: dict[str, str] = {}
    if runtime is None:
        return found
    left = {path: defn.source for path, defn in steps.items()}
    for run in runtime.storage.list_runs(RunFilter(limit=_LOOKED_INTO)):
        for step in reversed(runtime.storage.list_steps(run.id, limit=_RECORDS)):
            if step.path in left:
                if match_of(step, left) == "changed":
                    found[step.path] = run.id
                del left[step.path]  # the newest record counts
        if not left:
            break
    return found


def _runtime() -> Runtime | None:
    """The runtime whose runs are shown; none is made where that would make a database."""
    if open_engine() is not None:
        return current_runtime()
    there = os.environ.get("FLOWDSL_STORAGE") or os.path.exists(DEFAULT_URL.removeprefix("sqlite:///"))
    return current_runtime() if there else None


def _state(runtime: Runtime | None, run: Run) -> str:
    lost = runtime is not None and is_interrupted(runtime.storage, run)
    return "interrupted" if lost else str(run.status)


def _view(kind: str, defn: StepDef | WorkflowDef) -> FunctionView:
    name = defn.path.rpartition(".")[2]
    prefix = "async " if defn.is_async else ""
    doc = (inspect.getdoc(defn.fn) or "").partition("\n")[0]
    return FunctionView(kind, defn.path, f"{prefix}{name}{_signature(defn.fn)}", doc, _options(defn))


def _signature(fn: Any) -> str:
    try:
        return str(inspect.signature(fn))
    except (TypeError, ValueError):
        return "(…)"


def _options(defn: StepDef | WorkflowDef) -> dict[str, str]:
    """The options that are not the default; functions by their name."""
    found = {}
    for option in fields(type(defn)):
        value = getattr(defn, option.name)
        if option.name in NO_OPTIONS or option.name.startswith("_") or value == option.default:
            continue
        found[option.name] = _plain(value)
    return found


def _plain(value: Any) -> str:
    """A value as one would write it: a function by its name, a ``Retry`` without its defaults."""
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        return name
    if not isinstance(value, Retry):
        return repr(value)
    said = (
        f"{field.name}={getattr(value, field.name)!r}"
        for field in fields(Retry)
        if getattr(value, field.name) != field.default
    )
    return f"Retry({', '.join(said)})"
