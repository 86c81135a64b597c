"""``@workflow``, ``@step`` and ``@on``: they mark functions and register names, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from flowdsl.core.retry import Retry
from flowdsl.decorators.classmethods import bind_later
from flowdsl.decorators.steps import BoundStep, Step
from flowdsl.decorators.workflows import BoundWorkflow, Workflow
from flowdsl.engine.definitions import Divergence, Mode, StepDef, WorkflowDef
from flowdsl.engine.registry import HANDLERS, STEPS, WORKFLOWS, Handler

__all__ = ["on", "step", "workflow"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class _StepDecorator(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class _WorkflowDecorator(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def step(fn: Callable[P, R]) -> Step[P, R]: ...
@overload
def step(
    fn: None = None,
    *,
    mode: Mode = "do",
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Any = None,
    key: Callable[..., Any] | None = None,
    ignore: Iterable[str] = (),
    version: Any = None,
    memo: bool = False,
    expires: Any = None,
    in_doubt: str = "rerun",
    undo: Any = None,
    executor: Executor | None = None,
    on_divergence: Divergence | None = None,
) -> _StepDecorator: ...
def step(
    fn: Any = None,
    *,
    mode: Any = "do",
    name: str | None = None,
    retry: Any = None,
    timeout: Any = None,
    key: Any = None,
    ignore: Any = (),
    version: Any = None,
    memo: bool = False,
    expires: Any = None,
    in_doubt: str = "rerun",
    undo: Any = None,
    executor: Any = None,
    on_divergence: Any = None,
) -> Any:
    """Make a function a step: inside a run its result is recorded, and a replay returns the record instead of
    executing it.

    Parameters: *mode*, ``"do"`` (durable, retried), ``"try"`` (one attempt, no record) or ``"send"`` (in the
    background); *name* in records, by default ``module.qualname``; *retry*, a :class:`Retry`; *timeout* of
    one attempt, a duration; *key*, a function of the arguments whose result stands for them in the key;
    *ignore*, parameters that do not count; *version*, part of the key; *memo*, share results across runs,
    until they *expires*; *in_doubt*, ``"rerun"`` or ``"raise"``: what to do when a process died in the body;
    *undo*, what takes a completed step back when its run fails; *executor* for ``submit``; *on_divergence*,
    ``"raise"``, ``"rerun"`` or ``"reuse"``.

    Outside a run a step is a plain call. Raises ``TypeError`` and ``ValueError`` for options that make no
    sense, at decoration.

    >>> @step(timeout="5 min")
    ... def fetch(url): ...
    >>> fetch.path.endswith("fetch")
    True
    """
    options = {option: value for option, value in locals().items() if option not in ("fn", "name")}
    if fn is None:
        StepDef.checked(options)
        return lambda fn: step(fn, name=name, **options)
    made: Step[Any, Any] = Step(fn, StepDef.build(fn, name=name, **options))
    register(made)
    bind_later(fn)
    return made


@overload
def workflow(fn: Callable[P, R]) -> Workflow[P, R]: ...
@overload
def workflow(
    fn: None = None,
    *,
    name: str | None = None,
    id: str | Callable[..., str] | None = None,
    ignore: Iterable[str] = (),
    timeout: Any = None,
    version: Any = None,
    on_complete: Callable[..., Any] | None = None,
    on_error: Callable[..., Any] | None = None,
    tags: Any = None,
) -> _WorkflowDecorator: ...
def workflow(
    fn: Any = None,
    *,
    name: str | None = None,
    id: Any = None,
    ignore: Any = (),
    timeout: Any = None,
    version: Any = None,
    on_complete: Any = None,
    on_error: Any = None,
    tags: Any = None,
) -> Any:
    """Make a function a workflow: each call is a run, and a run that was interrupted continues when it is
    called again.

    Parameters: *name* in records; *id*, a template such as ``"order-{order_id}"`` or a function of the
    arguments: one run per id, ever; *ignore*, parameters that do not count and are not stored; *timeout* of
    the whole run, a duration; *version*; *on_complete(run)* and *on_error(run, error)*; *tags*, names or a
    mapping to find runs by.

    >>> @workflow(id="order-{order_id}")
    ... def checkout(order_id): ...
    """
    options = {option: value for option, value in locals().items() if option not in ("fn", "name")}
    if fn is None:
        WorkflowDef.checked(options)
        return lambda fn: workflow(fn, name=name, **options)
    made: Workflow[Any, Any] = Workflow(fn, WorkflowDef.build(fn, name=name, **options))
    register(made)
    bind_later(fn)
    return made


def register(made: Step[Any, Any] | Workflow[Any, Any]) -> None:
    """Let what was decorated be found by its name."""
    if isinstance(made, Step):
        STEPS.add(made.definition)
    else:
        WORKFLOWS.add(made.definition)


def _handler(fn: Any) -> Handler:
    """What an event calls: a workflow is started, a step's function is called as it is."""
    if isinstance(fn, Workflow | BoundWorkflow):
        return Handler(fn.path, fn.start, False)
    if isinstance(fn, Step | BoundStep):
        return Handler(fn.path, fn.__wrapped__, fn.definition.is_async)
    path = f"{fn.__module__}.{getattr(fn, '__qualname__', repr(fn))}"
    return Handler(path, fn, iscoroutinefunction(fn))


F = TypeVar("F", bound=Callable[..., Any])


@overload
def on(event: str, /) -> Callable[[F], F]: ...
@overload
def on(event: str, handler: Callable[..., Any], /) -> Callable[[], None]: ...
def on(event: str, handler: Any = None, /) -> Any:
    """Register a handler of *event*: ``@on("order.paid")`` over a function, step or workflow, or
    ``on("order.paid", handler)``.

    The second form returns the function that unregisters; the first leaves it as ``handler.unsubscribe``.
    """
    if not isinstance(event, str) or not event.strip():
        raise ValueError(f"an event is named by a non-empty string; got {event!r}")

    def register(fn: Any) -> Callable[[], None]:
        if not callable(fn):
            raise TypeError(f"a handler is a function; got {fn!r}")
        return HANDLERS.add(event, _handler(fn))

    if handler is not None:
        return register(handler)

    def decorate(fn: F) -> F:
        fn.unsubscribe = register(fn)  # type: ignore[attr-defined]
        return fn

    return decorate
