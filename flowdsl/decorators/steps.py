"""Decorated steps: calls, ``submit``, ``map``, ``options``, ``key``, ``explain_key`` and ``forget``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, overload

from flowdsl.decorators.options import StepOptions
from flowdsl.decorators.wrapper import (
    BoundFunction,
    BoundWrapper,
    FreeWrapper,
    Function,
    annotations_of,
    call_of,
)
from flowdsl.engine.definitions import Decorated, StepDef
from flowdsl.engine.execution import Frame, calling, current
from flowdsl.engine.future import StepFuture
from flowdsl.engine.operations.forget import forget_in
from flowdsl.engine.operations.gather import map_async, map_sync
from flowdsl.engine.operations.memo import forgetting
from flowdsl.engine.operations.mode import call_in_run
from flowdsl.engine.operations.send import send_off
from flowdsl.engine.operations.submit import prepare, submit
from flowdsl.engine.outside import say_if_outside
from flowdsl.engine.record import crossing
from flowdsl.engine.runs.outcome import on_a_loop
from flowdsl.engine.runs.single import submit_outside
from flowdsl.engine.scope import StepView
from flowdsl.engine.sources import notes_on
from flowdsl.runtime import current_engine, open_engine

__all__ = ["BoundStep", "Step"]


P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


class Mapped(list[T]):
    """The result of ``map`` of a sync step: a list. In async code, await it to get the list.

    Outside a run, on an event loop, nobody can tell who calls: the cell of a notebook, which wants a list, or
    a coroutine, which awaits. So the list can be awaited there.
    """

    def __await__(self) -> Generator[Any, None, list[T]]:
        return list(self)
        yield


class _StepCalls(Decorated, Generic[P, R]):
    """The methods of a step, bound or not."""

    if TYPE_CHECKING:

        @property
        def _defn(self) -> StepDef: ...

    @property
    def path(self) -> str:
        """The step's name in records."""
        return self._defn.path

    @property
    def definition(self) -> StepDef:
        """The step as the engine knows it."""
        return self._defn

    def _repr_html_(self) -> str:
        from flowdsl.decorators.shown import shown_step

        return shown_step(self._defn)

    @property
    def _is_coroutine(self) -> Any:  # asyncio.iscoroutinefunction looks for this
        return getattr(asyncio.coroutines, "_is_coroutine", True) if self._defn.is_async else None

    @overload
    def submit(
        self: _StepCalls[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> StepFuture[T]: ...
    @overload
    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> StepFuture[R]: ...
    def submit(self, /, *args: Any, **kwargs: Any) -> StepFuture[Any]:
        """Start the step in the background, on its executor (an async step: as a task), and return its
        future.

        Outside a run it executes the same way, without a record.
        """
        called = self.invocation(args, kwargs)
        frame = current.get()
        if frame is None:
            say_if_outside(self._defn.path)
            return submit_outside(current_engine(), called)
        return submit(frame, called)

    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A], Coroutine[Any, Any, T]],
        items: Iterable[A],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A, B], Coroutine[Any, Any, T]],
        items: Iterable[A],
        others: Iterable[B],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A], T],
        items: Iterable[A],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Mapped[T]: ...
    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A, B], T],
        items: Iterable[A],
        others: Iterable[B],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Mapped[T]: ...
    @overload
    def map(
        self,
        first: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        /,
        *more: Iterable[Any],
        limit: int | None = None,
        return_exceptions: bool = False,
    ) -> Any: ...
    @overload
    def map(self, /, *iterables: Iterable[Any], limit: int | None = None, return_exceptions: bool) -> Any: ...
    def map(
        self, /, *iterables: Iterable[Any], limit: int | None = None, return_exceptions: bool = False
    ) -> Any:
        """Call the step on each item (or on items of several iterables in parallel), concurrently.

        Returns the results in the order of the items. After a failure no other call begins. When the
        executing calls have ended, the exception of the first failed item is raised. At most *limit* calls
        execute at a time. In async code, await it. With *return_exceptions*, all calls are made, and errors
        are in the places of their results.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(f"limit is a whole number of 1 or more; got {limit!r}")
        frame = current.get()
        is_async = frame.is_async if frame is not None else self._defn.is_async
        begins = [self._prepared(frame, args) for args in zip(*iterables, strict=False)]
        if is_async:
            return map_async(begins, limit, return_exceptions)
        found = map_sync(begins, limit, return_exceptions)
        return Mapped(found) if frame is None and on_a_loop() else found

    def _prepared(self, frame: Frame | None, args: tuple[Any, ...]) -> Callable[[], StepFuture[Any]]:
        """Identify one call now. Return a function that submits it."""
        called = self.invocation(args, {})
        if frame is None:
            return lambda: submit_outside(current_engine(), called)
        return prepare(frame, called)

    def options(self, **options: Unpack[StepOptions]) -> Step[P, R]:
        """The same step with other options, for ``s.options(timeout="5 min")(…)``. Options not given stay
        as they are."""
        return Step(self.__wrapped__, self._defn.evolve(**options))  # type: ignore[attr-defined]

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the first such call in the body of a run, 40 hex digits."""
        return str(self.invocation(args, kwargs).bind().key(version=self._defn.version))

    def explain_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The parts of the key of such a call, as readable text. It also says whether the step's source has
        changed since a result was recorded; the source is no part of the key."""
        bound = self.invocation(args, kwargs).bind()
        engine = current_engine() if self._defn.memo else open_engine()
        notes = notes_on(engine, self._defn, bound)
        return str(bound.explain(version=self._defn.version, notes=notes))

    def forget(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Delete the stored result of such a call: of ``memo=True`` and of ``Runtime.do``, or, inside a run,
        of its first such call."""
        bound = self.invocation(args, kwargs).bind()
        engine, frame = current_engine(), current.get()
        with nullcontext() if frame is None else crossing(frame.run):
            engine.commit(*forgetting(engine, self._defn, bound))
        if frame is not None:
            forget_in(frame, self._defn, bound)


class Step(_StepCalls[P, R], FreeWrapper, Function):
    """A function decorated with ``@step``."""

    definition_type = StepDef
    __annotations__ = annotations_of  # pyright: ignore

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        # Binding drops the first parameter where the receiver fits it: that of a classmethod, else that of a
        # method, else none (a
        # staticmethod). ``self`` is spelled as a Callable because mypy does not look at the Concatenate of a
        # class.
        @overload
        def __get__(  # type: ignore[misc]
            self: Callable[Concatenate[type[S], Q], T], instance: None, owner: type[S], /
        ) -> Step[Q, T]: ...
        @overload
        def __get__(  # type: ignore[misc]
            self: Callable[Concatenate[type[S], Q], T], instance: S, owner: type[Any], /
        ) -> Step[Q, T]: ...
        @overload
        def __get__(self, instance: None, owner: type[Any], /) -> Step[P, R]: ...
        @overload
        def __get__(
            self: Callable[Concatenate[S, Q], T], instance: S, owner: type[Any] | None = None, /
        ) -> Step[Q, T]: ...
        @overload
        def __get__(self, instance: object, owner: type[Any] | None = None, /) -> Step[P, R]: ...
        def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...

    else:
        __getattribute__ = object.__getattribute__  # the same as wrapt's, in a third of the time

        def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # the same as wrapt's, in half the time
            frame = calling()
            if frame is None:
                return self._self_call(self.__wrapped__, None, args, kwargs)
            return call_in_run(frame, call_of(self, args, kwargs))

    @property
    def _defn(self) -> StepDef:
        return self._self_defn  # type: ignore[no-any-return]

    def _self_call(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        frame = current.get()
        defn = self._self_defn
        if frame is None:
            say_if_outside(defn.path)
            if defn.mode != "send":
                return wrapped(*args, **kwargs)
            engine = current_engine()
            view = StepView("", "", defn.path, "send", 1, engine.clock.now())
            return send_off(engine, defn, wrapped, args, kwargs, view)
        if instance is None:
            instance = self._self_receiver
        return call_in_run(frame, (defn, wrapped, instance, args, kwargs))


class BoundStep(_StepCalls[P, R], BoundWrapper, BoundFunction):
    """A step bound to its instance or class."""

    __annotations__ = annotations_of  # pyright: ignore

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


if not TYPE_CHECKING:
    Step.__bound_function_wrapper__ = BoundStep
