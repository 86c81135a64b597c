"""The options of steps and workflows, written once. ``step`` and ``workflow`` explain them.
:mod:`flowdsl.engine.definitions` checks their values."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, TypedDict

from flowdsl.core.retry import Retry
from flowdsl.engine.option_checks import Divergence, InDoubt, Mode

__all__ = ["CallOptions", "MarkedStep", "NamedStep", "NamedWorkflow", "StepOptions"]

Duration = float | timedelta | str
Tags = str | Iterable[str] | Mapping[str, str]


class _BesideMode(TypedDict, total=False):
    retry: Retry | None
    timeout: Duration | None
    heartbeat: Duration | None
    key: Callable[..., Any] | None
    ignore: str | Iterable[str]
    version: str | int | None
    memo: bool
    expires: Duration | None
    in_doubt: InDoubt
    undo: Callable[..., Any] | None
    executor: Executor | None
    transaction: bool
    on_divergence: Divergence | None


class StepOptions(_BesideMode, total=False):
    """The options of ``s.options(…)``."""

    mode: Mode


class NamedStep(StepOptions, total=False):
    """The options of ``@step(…)``."""

    name: str | None


class MarkedStep(_BesideMode, total=False):
    """The options of ``@step(…)`` without the mode, which decides the type of a call."""

    name: str | None


class NamedWorkflow(TypedDict, total=False):
    """The options of ``@workflow(…)``."""

    name: str | None
    id: str | Callable[..., str] | None
    ignore: str | Iterable[str]
    timeout: Duration | None
    cleanup: Duration
    version: str | int | None
    on_complete: Callable[..., Any] | None
    on_error: Callable[..., Any] | None
    tags: Tags | None


class CallOptions(TypedDict, total=False):
    """The options of ``w.options(…)``."""

    id: str | None
    timeout: Duration | None
    fresh: bool
    detached: bool
    queue: str | None
    priority: int
    delay: Duration | None
    dedup: str | None
    debounce: Duration | None
    partition: str | None
    tags: Tags | None
