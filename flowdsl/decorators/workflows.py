"""What ``@workflow`` makes of a function, and what one can do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from flowdsl.decorators.options import CallOptions
from flowdsl.decorators.wrapper import (
    BoundFunction,
    BoundWrapper,
    FreeWrapper,
    Function,
    annotations_of,
)
from flowdsl.engine.definitions import Decorated, Invocation, WorkflowDef
from flowdsl.engine.effects import named, run_async, run_sync
from flowdsl.engine.execution import Frame, current, outside_runs, restore
from flowdsl.engine.operations.mode import refuse_mixing
from flowdsl.engine.option_checks import checked_tags, checked_timeout
from flowdsl.engine.runs.child import call_child, start_child
from flowdsl.engine.runs.detached import start_detached
from flowdsl.engine.runs.enqueue import Queueing, enqueue, enqueue_in_run
from flowdsl.engine.runs.execute import run_awaited, run_to_end
from flowdsl.engine.runs.request import checked_id, request
from flowdsl.engine.runs.start import launch
from flowdsl.engine.tracebacks import trim
from flowdsl.handle import Run
from flowdsl.runtime import current_engine, engine_entered_in_body

__all__ = ["BoundWorkflow", "Workflow"]


P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
T = TypeVar("T")


QUEUEING = ("queue", "priority", "delay", "dedup", "debounce", "partition")
"""Options that say where an enqueued run waits."""


class _WorkflowCalls(Decorated, Generic[P, R]):
    """What one can do with a workflow, bound or not."""

    if TYPE_CHECKING:

        @property
        def _defn(self) -> WorkflowDef: ...

    @property
    def definition(self) -> WorkflowDef:
        """What the engine knows of the workflow."""
        return self._defn

    @property
    def path(self) -> str:
        """The workflow's name in records."""
        return self._defn.path

    def _repr_html_(self) -> str:
        from flowdsl.decorators.shown import shown_workflow

        return shown_workflow(self._defn)

    @property
    def _is_coroutine(self) -> Any:
        return getattr(asyncio.coroutines, "_is_coroutine", True) if self._defn.is_async else None

    @overload
    def start(
        self: _WorkflowCalls[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Run[T]: ...
    @overload
    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
    def start(self, /, *args: Any, **kwargs: Any) -> Run[Any]:
        """Begin a run without waiting for its end; returns its handle once the run is recorded."""
        return _start(self.invocation(args, kwargs), {})

    def enqueueing(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Invocation[WorkflowDef], dict[str, Any], Queueing]:
        """The call, its options, and where it is put."""
        return self.invocation(args, kwargs), {}, Queueing()

    @overload
    def enqueue(
        self: _WorkflowCalls[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Run[T]: ...
    @overload
    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
    def enqueue(self, /, *args: Any, **kwargs: Any) -> Run[Any]:
        """Store a ``pending`` run that any worker claims (``Runtime.work``, ``flowdsl worker``); returns its
        handle. ``options(queue=…, priority=…, delay=…, dedup=…, debounce=…, partition=…)`` say where."""
        return _enqueue(*self.enqueueing(args, kwargs))

    def options(self, **options: Unpack[CallOptions]) -> _Configured[P, R]:
        """One call with other options: *id* of the run, *timeout* of the run, *fresh* to start a new
        number, *tags*; *detached*, with ``start`` inside a run: a run that the caller does not wait for,
        cancel or undo."""
        return _Configured(self, {}).options(**options)


class _Configured(Decorated, Generic[P, R]):
    """A workflow with options for one call."""

    def __init__(self, source: _WorkflowCalls[P, R], options: dict[str, Any]) -> None:
        self._source = source
        self._options = options

    @property
    def definition(self) -> WorkflowDef:
        """What the engine knows of the workflow."""
        return self._source.definition

    def invocation(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation[WorkflowDef]:
        """A call of it."""
        return self._source.invocation(args, kwargs)

    def options(self, **options: Unpack[CallOptions]) -> _Configured[P, R]:
        """The same with more options; what is given here replaces what was given before."""
        unknown = [name for name in options if name not in CallOptions.__annotations__]
        if unknown:
            raise TypeError(
                f"options of a call are {', '.join(sorted(CallOptions.__annotations__))}; "
                f"got {', '.join(sorted(unknown))}"
            )
        given: dict[str, Any] = {}
        if (run_id := options.get("id")) is not None:
            given["run_id"] = checked_id(run_id)
        if (timeout := options.get("timeout")) is not None:
            given["timeout"] = checked_timeout(timeout)
        if (tags := options.get("tags")) is not None:
            given["tags"] = checked_tags(tags)
        given |= {name: value for name, value in options.items() if name in QUEUEING and value is not None}
        for flag in ("fresh", "detached"):
            if options.get(flag):
                given[flag] = True
        merged = self._options | given
        if "fresh" in merged and ("run_id" in merged or self.definition.id is not None):
            raise ValueError(
                "fresh=True starts a new number, but this run has an id, and an id is one run for ever"
            )
        return _Configured(self._source, merged)

    def enqueueing(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Invocation[WorkflowDef], dict[str, Any], Queueing]:
        """The call, its options, and where it is put."""
        options = dict(self._options)
        queueing = Queueing.of({name: options.pop(name) for name in QUEUEING if name in options})
        options.pop("detached", None)
        options.pop("fresh", None)
        return self.invocation(args, kwargs), options, queueing

    @overload
    def enqueue(
        self: _Configured[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Run[T]: ...
    @overload
    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
    def enqueue(self, /, *args: Any, **kwargs: Any) -> Run[Any]:
        """Store a pending run for a worker; returns its handle."""
        return _enqueue(*self.enqueueing(args, kwargs))

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run to the end."""
        return cast(R, _call(self.invocation(args, kwargs), self._options))

    @overload
    def start(
        self: _Configured[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Run[T]: ...
    @overload
    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
    def start(self, /, *args: Any, **kwargs: Any) -> Run[Any]:
        """Begin without waiting for the end."""
        return _start(self.invocation(args, kwargs), self._options)


def _call(called: Invocation[WorkflowDef], options: dict[str, Any]) -> Any:
    """Run a workflow to its end: as a run of its own, or as a child of the run that is executing."""
    frame, defn = _calling_body(), called.defn
    if options:
        _only_for_enqueue(options)
        if "detached" in options:
            name = defn.path.rpartition(".")[2]
            raise TypeError(f"a detached run is not waited for: write {name}.options(detached=True).start(…)")
    if frame is None:
        engine = current_engine()
        __tracebackhide__ = True
        outside = None if current.get() is None else current.set(None)  # to set it takes longer than to look
        try:
            asked = request(engine, called, **options)
            if defn.is_async:
                return named(run_awaited(engine, asked), defn.path)
            return run_to_end(engine, asked)
        except BaseException as error:  # only its traceback is changed
            trim(error)
            raise
        finally:
            if outside is not None:
                restore(outside)
    if defn.is_async is not frame.is_async:
        refuse_mixing(
            frame, defn.is_async, "workflow", defn.path, f"`{defn.path.rpartition('.')[2]}.start(…).result()`"
        )
    flow = call_child(frame, called, options)
    return named(run_async(flow), defn.path) if defn.is_async else run_sync(flow)


def _enqueue(called: Invocation[WorkflowDef], options: dict[str, Any], queueing: Queueing) -> Run[Any]:
    frame = _calling_body()
    if frame is not None:
        engine = frame.run.engine
        return Run(engine, enqueue_in_run(frame, called, options, queueing))
    engine = current_engine()
    return Run(engine, enqueue(engine, called, options, queueing))


def _only_for_enqueue(options: dict[str, Any]) -> None:
    given = [name for name in options if name in QUEUEING]
    if given:
        raise TypeError(f"{', '.join(given)}= say where a run waits for a worker: write .enqueue(…)")


def _start(called: Invocation[WorkflowDef], options: dict[str, Any]) -> Run[Any]:
    frame = _calling_body()
    options = dict(options)
    _only_for_enqueue(options)
    detached = options.pop("detached", False)
    if frame is not None:
        engine = frame.run.engine
        if detached:
            return Run(engine, start_detached(frame, called, options))
        return Run(engine, start_child(frame, called, options).id)
    engine = current_engine()
    with outside_runs():
        return Run(engine, launch(engine, request(engine, called, **options)))


def _calling_body() -> Frame | None:
    """The body whose child a workflow called here is. There is none outside any, nor inside a ``with
    Runtime(…)`` of the body's own, nor in the callback of a run that is about to end."""
    frame = current.get()
    return None if frame is None or frame.callback or engine_entered_in_body() is not None else frame


class Workflow(_WorkflowCalls[P, R], FreeWrapper, Function):
    """A function decorated with ``@workflow``."""

    definition_type = WorkflowDef
    __annotations__ = annotations_of  # pyright: ignore

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        @overload
        def __get__(  # type: ignore[misc]
            self: Callable[Concatenate[type[S], Q], T], instance: None, owner: type[S], /
        ) -> Workflow[Q, T]: ...
        @overload
        def __get__(  # type: ignore[misc]
            self: Callable[Concatenate[type[S], Q], T], instance: S, owner: type[Any], /
        ) -> Workflow[Q, T]: ...
        @overload
        def __get__(self, instance: None, owner: type[Any], /) -> Workflow[P, R]: ...
        @overload
        def __get__(
            self: Callable[Concatenate[S, Q], T], instance: S, owner: type[Any] | None = None, /
        ) -> Workflow[Q, T]: ...
        @overload
        def __get__(self, instance: object, owner: type[Any] | None = None, /) -> Workflow[P, R]: ...
        def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...

    else:
        __getattribute__ = object.__getattribute__  # what wrapt's does, at a third of the price

        def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
            return _call(self.invocation(args, kwargs), {})

    @property
    def _defn(self) -> WorkflowDef:
        return self._self_defn  # type: ignore[no-any-return]

    def _self_call(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _call(Invocation(self._self_defn, wrapped, instance, args, kwargs), {})


class BoundWorkflow(_WorkflowCalls[P, R], BoundWrapper, BoundFunction):
    """A workflow bound to its instance or class."""

    __annotations__ = annotations_of  # pyright: ignore

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


if not TYPE_CHECKING:
    Workflow.__bound_function_wrapper__ = BoundWorkflow
