"""Rows of the storage as JSON. Every face gives it out: commands with ``--json``, and the web page. The names
here are an interface: they may be added to, never changed.

Times are ISO 8601 in UTC, and durations are seconds. Arguments, results and errors are the readable previews
stored beside the payloads.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from flowdsl.core.kinds import BESIDE_STEPS
from flowdsl.core.records import Run, Signal, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.core.words import iso

__all__ = [
    "begun_at",
    "extra_of",
    "log_view",
    "run_view",
    "scope_owner",
    "scope_paths",
    "show_view",
    "signal_view",
    "step_span",
    "step_view",
    "tag_texts",
    "whole_span",
]


class Line(Protocol):
    """A line of a run's log, as ``run.logs()`` gives it."""

    @property
    def at(self) -> datetime: ...
    @property
    def message(self) -> str: ...
    @property
    def fields(self) -> Mapping[str, Any]: ...
    @property
    def step(self) -> str | None: ...


def tag_texts(run: Run) -> list[str]:
    """The tags of a run, ``name`` or ``name=value``."""
    if isinstance(run.tags, Mapping):
        return [f"{name}={value}" for name, value in run.tags.items()]
    return list(run.tags)


def run_view(run: Run, status: str) -> dict[str, Any]:
    """A run. *status* is that of its row, or ``interrupted``."""
    return {
        "id": run.id,
        "workflow": run.workflow,
        "status": status,
        "stored_status": str(run.status),
        "number": run.number,
        "key": run.key,
        "args": run.args_preview,
        "result": run.result_preview if run.status is RunStatus.COMPLETED else None,
        "error": run.error_preview or None,
        "tags": dict(run.tags) if isinstance(run.tags, Mapping) else list(run.tags),
        "created_at": iso(run.created_at),
        "finished_at": iso(run.finished_at),
        "duration": None if run.finished_at is None else max(run.finished_at - run.created_at, 0.0),
        "deadline": iso(run.deadline),
        "cancel_requested_at": iso(run.cancel_requested),
        "retryable": run.status is RunStatus.FAILED and run.retryable,
        "open_failures": list(run.open_failures),
        "parent": run.parent,
        "forked_from": run.forked_from,
        "version": run.version or None,
        "owner": run.owner,
        "epoch": run.epoch,
        "recoveries": run.recoveries,
        "generation": run.generation,
        "started_by": run.started_by,
        "queue": run.queue,
        "priority": run.priority,
        "partition": run.partition,
        "not_before": iso(run.not_before),
    }


def step_view(step: Step) -> dict[str, Any]:
    """A record of a run's journal."""
    failed = step.status is StepStatus.FAILED
    return {
        "seq": step.seq,
        "key": step.key,
        "path": step.path,
        "kind": step.kind,
        "scope": step.scope,
        "occurrence": step.occurrence,
        "ordinal": step.ordinal,
        "status": str(step.status),
        "attempts": step.attempts,
        "args": step.args,
        "result": step.preview if step.status is StepStatus.COMPLETED else None,
        "error": step.preview if failed else None,
        "created_at": iso(step.created_at),
        "completed_at": iso(step.completed_at),
        "duration": step_span(step),
        "concurrent": step.concurrent,
        "version": step.version or None,
        "extra": extra_of(step),
    }


def show_view(
    run: Run,
    status: str,
    journal: Iterable[Step],
    children: Sequence[tuple[Run, str]] = (),
    signals: Iterable[Signal] = (),
) -> dict[str, Any]:
    """A run with all its records, as ``flowdsl show --json`` prints it.

    *journal*: its records in order; *children*: the runs that it called, each with its shown status.

    >>> list(show_view(Run("order-7", "shop.checkout", "ab12"), "pending", []))[-7:]
    ['signals', 'audit', 'beat', 'log', 'publish', 'reply', 'store']
    """
    lists: dict[str, list[dict[str, Any]]] = {kind: [] for kind in sorted(BESIDE_STEPS)}
    steps: list[dict[str, Any]] = []
    for step in journal:
        lists.get(step.kind, steps).append(step_view(step))
    return {
        **run_view(run, status),
        "steps": steps,
        "children": [run_view(child, shown) for child, shown in children],
        "signals": [signal_view(signal) for signal in signals],
        **lists,
    }


def signal_view(signal: Signal) -> dict[str, Any]:
    """A signal sent to a run."""
    return {
        "id": signal.id,
        "name": signal.name,
        "payload": signal.preview,
        "sender": signal.sender,
        "key": signal.key,
        "created_at": iso(signal.created_at),
        "taken_by": signal.taken_by,
        "asked": signal.asked,
        "reply": signal.reply_preview or None,
        "refused": signal.reply_failed,
    }


def log_view(line: Line, paths: Mapping[str, str]) -> dict[str, Any]:
    """A stored line of ``log()``. *paths* are as :func:`scope_paths` gives them."""
    return {
        "at": line.at.isoformat(),
        "message": line.message,
        "fields": {name: _finite(value) for name, value in line.fields.items()},
        "step": line.step,
        "path": paths.get(line.step or ""),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN, so these become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def scope_owner(scope: str, keys: Iterable[str] | Mapping[str, Any]) -> str | None:
    """The key, among *keys*, of the step in whose body *scope* lies.

    If a step executes again, is scheduled, or takes something back, the scope of its body is the step's key
    with more behind it. A branch of ``gather`` has a name of its own.

    >>> scope_owner("ab12~1", {"ab12"}), scope_owner("ab12/undo/1", {"ab12", "ab12/undo"})
    ('ab12', 'ab12/undo')
    """
    while scope not in keys:
        cut = max(scope.rfind("/"), scope.rfind("~"))
        if cut < 0:
            return None
        scope = scope[:cut]
    return scope


def scope_paths(steps: Iterable[Step]) -> dict[str, str]:
    """The path of the step for each scope with records, if that step is recorded."""
    by_key = {step.key: step for step in steps}
    found = {}
    for scope in {step.scope for step in by_key.values()}:
        owner = scope_owner(scope, by_key)
        if owner is not None:
            found[scope] = by_key[owner].path
    return found


def step_span(step: Step) -> float | None:
    """How long the last attempt took, in seconds."""
    return None if step.completed_at is None else max(step.completed_at - step.created_at, 0.0)


def whole_span(step: Step) -> float | None:
    """How long a step took from the beginning of the first known attempt, waits included."""
    if step.completed_at is None:
        return None
    return max(step.completed_at - min([step.created_at, *begun_at(step)]), 0.0)


def begun_at(step: Step) -> tuple[float, ...]:
    """When the known attempts of a step began, oldest first."""
    begun = extra_of(step).get("begun") if step.extra else None
    return tuple(float(at) for at in begun if isinstance(at, int | float)) if isinstance(begun, list) else ()


def extra_of(step: Step) -> dict[str, Any]:
    """What only one kind of record has, such as ``child``, the id of a child run."""
    try:
        found = json.loads(step.extra, parse_constant=str) if step.extra else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
