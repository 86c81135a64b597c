"""``@workflow``, ``@step`` and ``@on``: they only mark functions and register names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, Unpack, overload

from flowdsl.core.signatures import shows_options
from flowdsl.decorators.classmethods import bind_later
from flowdsl.decorators.options import MarkedStep, NamedStep, NamedWorkflow
from flowdsl.decorators.steps import BoundStep, Step
from flowdsl.decorators.workflows import BoundWorkflow, Workflow
from flowdsl.engine.definitions import NO_OPTIONS, StepDef, WorkflowDef
from flowdsl.engine.option_checks import checked_step_options, checked_workflow_options
from flowdsl.engine.registry import HANDLERS, STEPS, WORKFLOWS, Handler

__all__ = ["on", "step", "workflow"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class _StepDecorator(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class _SendDecorator(Protocol):
    @overload  # a coroutine function fits both, and the first that fits is meant
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[P, Coroutine[Any, Any, Any]], /
    ) -> Step[P, Awaitable[None]]: ...
    @overload
    def __call__(self, fn: Callable[P, Any], /) -> Step[P, None]: ...


class _WorkflowDecorator(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...


@overload  # a coroutine function fits the next one too, and the first that fits is meant
def step(  # pyright: ignore[reportOverlappingOverload]
    fn: Callable[P, Coroutine[Any, Any, Any]], *, mode: Literal["send"], **options: Unpack[MarkedStep]
) -> Step[P, Awaitable[None]]: ...
@overload
def step(fn: Callable[P, Any], *, mode: Literal["send"], **options: Unpack[MarkedStep]) -> Step[P, None]: ...
@overload
def step(fn: Callable[P, R], **options: Unpack[NamedStep]) -> Step[P, R]: ...
@overload
def step(  # type: ignore[overload-overlap]
    fn: None = None, *, mode: Literal["send"], **options: Unpack[MarkedStep]
) -> _SendDecorator: ...
@overload
def step(fn: None = None, **options: Unpack[NamedStep]) -> _StepDecorator: ...
@shows_options(StepDef, without=NO_OPTIONS, name_at=1)
def step(fn: Any = None, *, name: str | None = None, **options: Any) -> Any:
    """Make a function a step: inside a run its result is recorded, and a replay returns the record instead of
    executing it.

    Parameters: *mode*, ``"do"`` (durable, retried), ``"try"`` (one attempt, no record) or ``"send"`` (in the
    background); *name* in records, by default ``module.qualname``; *retry*, a :class:`Retry`; *timeout* of
    one attempt, a duration; *key*, a function of the arguments, whose result identifies the call instead of
    them; *ignore*, parameters that do not count; *version*, part of the key; *memo*, whether results are
    shared among runs, and *expires*, for how long; *in_doubt*, ``"rerun"`` or ``"raise"``: what to do if the
    process died in the body; *undo*, a function or step that reverses the step when its run fails; *executor*
    for ``submit``; *transaction*: the body gets ``connection=``, and its writes there are committed together
    with its record;
    *on_divergence*, ``"raise"``, ``"rerun"`` or ``"reuse"``.

    Outside a run a step is a plain call. Raises ``TypeError`` or ``ValueError`` for wrong options, when the
    function is decorated.

    >>> @step(timeout="5 min")
    ... def fetch(url): ...
    >>> fetch.path.endswith("fetch")
    True
    """
    if fn is None:
        StepDef.known(options)
        checked_step_options(options)
        return lambda fn: step(fn, name=name, **options)
    made: Step[Any, Any] = Step(fn, StepDef.build(fn, name=name, **options))
    register(made)
    bind_later(fn)
    return made


@overload
def workflow(fn: Callable[P, R], **options: Unpack[NamedWorkflow]) -> Workflow[P, R]: ...
@overload
def workflow(fn: None = None, **options: Unpack[NamedWorkflow]) -> _WorkflowDecorator: ...
@shows_options(WorkflowDef, without=NO_OPTIONS, name_at=0)
def workflow(fn: Any = None, *, name: str | None = None, **options: Any) -> Any:
    """Make a function a workflow: each call is a run, and an interrupted run continues when it is called
    again.

    Parameters: *name* in records; *id*, a template such as ``"order-{order_id}"`` or a function of the
    arguments: an id belongs to one run for ever; *ignore*, parameters that do not count and are not stored;
    *timeout* of the whole run, a duration; *cleanup*, how long cleaning up may take after a cancel or
    timeout, 1 minute by default; *version*; *on_complete(run)* and *on_error(run, error)*, functions that are
    called at the end; *tags*, names or a mapping by which runs are found.

    >>> @workflow(id="order-{order_id}")
    ... def checkout(order_id): ...
    """
    if fn is None:
        WorkflowDef.known(options)
        checked_workflow_options(options)
        return lambda fn: workflow(fn, name=name, **options)
    made: Workflow[Any, Any] = Workflow(fn, WorkflowDef.build(fn, name=name, **options))
    register(made)
    bind_later(fn)
    return made


def register(made: Step[Any, Any] | Workflow[Any, Any]) -> None:
    """Register a decorated function under its name."""
    if isinstance(made, Step):
        STEPS.add(made.definition)
    else:
        WORKFLOWS.add(made.definition)


def _handler(fn: Any) -> Handler:
    """The function that an event calls. A workflow is started; a step's function is called as it is."""
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

    The second form returns a function that unregisters the handler. In the first form that function is
    ``handler.unsubscribe``.
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
