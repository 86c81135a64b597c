"""``@workflow``, ``@step`` and ``@on``: they mark functions and register names; the only home of wrapt.

The rules
    A decorated function is the function: name, docstring, signature, types, binding to instances and classes.
    Calling it asks the engine; everything else is passed through.

The theory
    A wrapt proxy claims the class of what it wraps, so ``isinstance(f, FunctionType)`` holds — and
    cloudpickle, seeing a function, would ship the bare function and lose the decorator in silence. So both
    the wrapper and the wrapper of a bound method own up to their class and say how they are rebuilt: by
    reference where an import finds this very object, else by value, from the function and its options.

If you edit this
    ``self._self_…`` attributes live on the proxy, all others on the function. ``tests/test_pickling.py``
    loads every form in a fresh interpreter.
"""

from __future__ import annotations

import asyncio
import copy
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import wrapt

from flowdsl.codecs.pickle import PickleCodec, dumps_by_value
from flowdsl.core.records import Run as RunRecord
from flowdsl.core.retry import Retry
from flowdsl.engine.calls import call_in_run, refuse_mixing, send_off
from flowdsl.engine.children import call_child, child_call, start_child
from flowdsl.engine.context import Frame, StepView, current
from flowdsl.engine.definitions import Divergence, Mode, StepDef, WorkflowDef, checked_tags, checked_timeout
from flowdsl.engine.drive import run_async, run_sync
from flowdsl.engine.forget import forget_in
from flowdsl.engine.futures import StepFuture, start_call, submit
from flowdsl.engine.registry import HANDLERS, STEPS, WORKFLOWS
from flowdsl.engine.run import Request, checked_id, edge, request, whole
from flowdsl.engine.services import Engine
from flowdsl.engine.step import identify, memo_key, require_identity
from flowdsl.handle import Run
from flowdsl.runtime import Runtime, current_runtime
from flowdsl.storage.base import DeleteRun, DropMemo

if TYPE_CHECKING:

    class _Function:
        """What the type checkers see of the wrapt proxy."""

        __name__: str
        __qualname__: str
        __module__: str
        __doc__: str | None
        _self_defn: Any
        __wrapped__: Any

        def __init__(self, wrapped: Any, wrapper: Any) -> None: ...

    class _BoundFunction(_Function):
        _self_parent: Any
        _self_instance: Any
        _self_binding: str
else:
    _Function = wrapt.FunctionWrapper
    _BoundFunction = wrapt.BoundFunctionWrapper

__all__ = ["Step", "Workflow", "on", "step", "workflow"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
S = TypeVar("S")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

if TYPE_CHECKING:

    class Mapped(list[T]):
        """What ``map`` of a sync step gives: a list; in async code, something to await for that list."""

        def __await__(self) -> Generator[Any, None, list[T]]: ...


# ------------------------------------------------------------------------------------------- what both wrap


class _Guard(threading.local):
    inside = False


_pickling = _Guard()


def _import(module: str, qualname: str) -> Any:
    """Load by reference."""
    import importlib
    import inspect

    found: Any = sys.modules.get(module) or importlib.import_module(module)
    *owners, name = qualname.split(".")
    for owner in owners:
        found = getattr(found, owner)
    static = inspect.getattr_static(found, name)
    if isinstance(static, staticmethod | classmethod) and isinstance(static.__func__, Step | Workflow):
        return static.__func__
    return static


def _importable(wrapper: Any) -> bool:
    module = getattr(wrapper, "__module__", None)
    if module is None or module in ("__main__", "__mp_main__") or module not in sys.modules:
        return False
    try:
        return _import(module, wrapper.__qualname__) is wrapper
    except (AttributeError, ImportError):
        return False


def _load(data: bytes) -> Any:
    """Load by value."""
    return PickleCodec().loads(data)


def _rebuild(kind: type[Any], fn: Any, options: dict[str, Any]) -> Any:
    """Make a wrapper again from its function and options; unlike decorating, that registers nothing."""
    return kind(fn, _DEFINITIONS[kind](fn=_plain(fn), **options))


def _plain(fn: Any) -> Any:
    from flowdsl.engine.definitions import unwrap

    return unwrap(fn)


class _Wrapper:
    """Copying and pickling of decorated functions, and their representation."""

    if TYPE_CHECKING:
        _self_defn: Any
        __wrapped__: Any
        __module__: str
        __qualname__: str

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if _importable(self):
            return _import, (self.__module__, self.__qualname__)
        defn = self._self_defn
        stays = ("fn", "executor")  # threads and processes do not travel
        names = [name for name in type(defn).__slots__ if not name.startswith("_") and name not in stays]
        parts = (type(self), self.__wrapped__, {name: getattr(defn, name) for name in names})
        if _pickling.inside:
            return _rebuild, parts
        _pickling.inside = True
        try:
            return _load, (dumps_by_value(_Rebuilt(parts)),)
        finally:
            _pickling.inside = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self._self_defn.path}>"


class _Rebuilt:
    """Pickles as the wrapper that its parts make."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return _rebuild, self.parts


class _Bound(_Wrapper):
    """A decorated method bound to its instance or class."""

    if TYPE_CHECKING:
        _self_parent: Any
        _self_instance: Any
        _self_binding: str

    @property
    def _defn(self) -> Any:
        return self._self_parent._self_defn

    def __repr__(self) -> str:
        return f"<bound {self._defn.path} of {self._owner()!r}>"

    def _owner(self) -> Any:
        owner = getattr(self.__wrapped__, "__self__", None)
        return self._self_instance if owner is None else owner

    def __deepcopy__(self, memo: Any) -> Any:
        owner = self._owner()
        return (
            self
            if owner is None or isinstance(owner, type)
            else getattr(copy.deepcopy(owner, memo), self._name)
        )

    @property
    def _name(self) -> str:
        return str(self.__wrapped__.__name__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        owner = self._owner()
        if owner is None:
            return self._self_parent.__reduce_ex__(protocol)
        return getattr, (owner, self._name)

    def _target(self, args: tuple[Any, ...]) -> tuple[Any, Any, tuple[Any, ...]]:
        """Function, receiver and arguments of a call with *args*."""
        wrapped = self.__wrapped__
        receiver = getattr(wrapped, "__self__", None)
        if receiver is None and self._self_instance is None and self._self_binding != "staticmethod" and args:
            receiver, args = args[0], args[1:]  # Class.method(instance, …)
            wrapped = wrapped.__get__(receiver, type(receiver))
        return wrapped, receiver, args


# ----------------------------------------------------------------------------------------------------------


class _StepCalls(Generic[P, R]):
    """What one can do with a step, bound or not."""

    if TYPE_CHECKING:

        @property
        def _defn(self) -> StepDef: ...

        _target: Callable[[tuple[Any, ...]], tuple[Any, Any, tuple[Any, ...]]]

    @property
    def path(self) -> str:
        """The step's name in records."""
        return self._defn.path

    @property
    def definition(self) -> StepDef:
        """What the engine knows of the step."""
        return self._defn

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call's arguments, bound and encoded."""
        return self._bind(args, kwargs)

    @property
    def _is_coroutine(self) -> Any:  # what asyncio.iscoroutinefunction looks for
        return getattr(asyncio.coroutines, "_is_coroutine", True) if self._defn.is_async else None

    @overload
    def submit(
        self: _StepCalls[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> StepFuture[T]: ...
    @overload
    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> StepFuture[R]: ...
    def submit(self, /, *args: Any, **kwargs: Any) -> StepFuture[Any]:
        """Start the step beside the caller, on its executor (an async step: as a task), and return its
        future.

        Outside a run it executes the same way, without a record.
        """
        fn, receiver, args = self._target(args)
        frame = current.get()
        if frame is None:
            return _submit_plain(self._defn, fn, args, kwargs)
        return submit(frame, self._defn, fn, receiver, args, kwargs)

    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A], Coroutine[Any, Any, T]], items: Iterable[A], /, *, limit: int | None = None
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A, B], Coroutine[Any, Any, T]],
        items: Iterable[A],
        others: Iterable[B],
        /,
        *,
        limit: int | None = None,
    ) -> Coroutine[Any, Any, list[T]]: ...
    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A], T], items: Iterable[A], /, *, limit: int | None = None
    ) -> Mapped[T]: ...
    @overload
    def map(  # type: ignore[misc]
        self: Callable[[A, B], T], items: Iterable[A], others: Iterable[B], /, *, limit: int | None = None
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
    ) -> Any: ...
    def map(self, /, *iterables: Iterable[Any], limit: int | None = None) -> Any:
        """Call the step on each item (or on items of several iterables side by side), concurrently.

        Returns the results in the order of the items. Of several exceptions that of the first item is raised,
        once the calls that had begun have ended; others do not begin then. At most *limit* calls execute at a
        time. In async code, await it.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(f"limit is a whole number of 1 or more; got {limit!r}")
        frame = current.get()
        is_async = frame.is_async if frame is not None else self._defn.is_async
        begins = [self._prepared(frame, args) for args in zip(*iterables, strict=False)]
        return (_map_async if is_async else _map_sync)(begins, limit)

    def _prepared(self, frame: Frame | None, args: tuple[Any, ...]) -> Callable[[], StepFuture[Any]]:
        """Take the identity of one call now; what is returned submits it."""
        fn, receiver, args = self._target(args)
        if frame is None:
            return lambda: _submit_plain(self._defn, fn, args, {})
        call = identify(frame, self._defn, fn, receiver, args, {})
        return lambda: start_call(call)

    def options(
        self,
        *,
        mode: Mode = ...,  # type: ignore[assignment]
        retry: Retry | None = ...,  # type: ignore[assignment]
        timeout: Any = ...,
        key: Callable[..., Any] | None = ...,  # type: ignore[assignment]
        ignore: Iterable[str] = ...,  # type: ignore[assignment]
        version: Any = ...,
        memo: bool = ...,  # type: ignore[assignment]
        expires: Any = ...,
        in_doubt: str = ...,  # type: ignore[assignment]
        undo: Any = ...,
        executor: Executor | None = ...,  # type: ignore[assignment]
        on_divergence: Divergence | None = ...,  # type: ignore[assignment]
    ) -> Step[P, R]:
        """The same step with other options, for ``s.options(timeout="5 min")(…)``. Options not given stay
        as they are."""
        given = {k: v for k, v in locals().items() if k != "self" and v is not ...}
        other: Step[P, R] = Step(self.__wrapped__, self._defn.evolve(**given))  # type: ignore[attr-defined]
        other._self_receiver = getattr(self.__wrapped__, "__self__", None)  # type: ignore[attr-defined]
        return other

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _, receiver, args = self._target(args)
        more = () if receiver is None else (receiver,)
        return self._defn.binder(receiver is not None).bind(args, kwargs, *more)

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a first such call in the body of a run, 40 hex digits."""
        return str(self._bind(args, kwargs).key(version=self._defn.version))

    def explain_key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """What goes into the key of such a call, readable."""
        return str(self._bind(args, kwargs).explain(version=self._defn.version))

    def forget(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Drop the stored result of such a call: of ``memo=True`` and of ``Runtime.do``; inside a run,
        that of its first such call."""
        bound = self._bind(args, kwargs)
        runtime = current_runtime()
        key = memo_key(self._defn, bound)
        runtime.engine.commit(DropMemo(key), DeleteRun(implied_id(key)))
        frame = current.get()
        if frame is not None:
            forget_in(frame, self._defn, bound)

    def perform_on(
        self,
        runtime: Runtime,
        mode: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        step_id: str | None = None,
    ) -> Any:
        """Execute this step on *runtime* in *mode*: in the run that is executing, or outside. (What
        ``Runtime.do`` calls.)"""
        fn, receiver, args = self._target(args)
        defn = self._defn
        frame = current.get()
        if frame is not None and frame.run.engine is runtime.engine:
            if step_id is not None:
                defn = defn.evolve(key=lambda *_args, **_kwargs: step_id)
            return call_in_run(frame, defn, fn, receiver, args, kwargs, mode)
        token = current.set(None)  # a run of another runtime that executes here has nothing to do with it
        try:
            if mode == "do":
                return self._do(runtime, fn, receiver, args, kwargs, step_id)
            view = StepView(
                "",
                self._bind_of(receiver, args, kwargs).key(),
                defn.path,
                mode,
                1,
                runtime.engine.clock.now(),
            )
            if mode == "send":
                return send_off(runtime.engine, defn, fn, args, kwargs, view)
            return _try_outside(runtime, defn, fn, args, kwargs, view)
        finally:
            current.reset(token)

    def _bind_of(self, receiver: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        more = () if receiver is None else (receiver,)
        return self._defn.binder(receiver is not None).bind(args, kwargs, *more)

    def _do(
        self,
        runtime: Runtime,
        fn: Any,
        receiver: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        step_id: str | None,
    ) -> Any:
        defn = self._defn
        if step_id is None:
            require_identity(defn.binder(receiver is not None), receiver, "Runtime.do")
            step_id = implied_id(memo_key(defn, self._bind_of(receiver, args, kwargs)))
        asked = _implied(runtime.engine, defn, fn, receiver, args, kwargs, step_id)
        return _run_whole(runtime, asked)

    def request_from(self, engine: Engine, record: RunRecord, arguments: dict[str, Any]) -> Request:
        """The request that continues *record*, an implied run of this step. (What ``Runtime.resume``
        calls.)"""
        args, kwargs = self._defn.binder(False).call_with(arguments)
        asked = _implied(engine, self._defn, self.__wrapped__, None, args, kwargs, record.id)  # type: ignore[attr-defined]
        asked.wanted = record
        return asked


def implied_id(key: str) -> str:
    """The id of the run that ``Runtime.do`` makes of a step call with this key."""
    return f"do-{key}"


def _implied(
    engine: Engine,
    defn: StepDef,
    fn: Any,
    receiver: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    run_id: str,
) -> Request:
    """A run that consists of one step."""

    def body(*args: Any, **kwargs: Any) -> Any:
        frame = current.get()
        assert frame is not None
        return call_in_run(frame, defn, fn, receiver, args, kwargs, "do")

    as_workflow = WorkflowDef(defn.fn, defn.path, defn.is_async, ignore=defn.ignore, version=defn.version)
    return request(engine, as_workflow, body, receiver, args, kwargs, run_id=run_id)


def _try_outside(
    runtime: Runtime, defn: StepDef, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], view: StepView
) -> Any:
    """Mode ``try`` outside a run: a plain call, with its hooks."""
    hooks, clock = runtime.engine.hooks, runtime.engine.clock

    def ended(error: Exception | None, value: Any) -> None:
        view.duration = clock.now() - view.started_at
        if error is None:
            hooks.fire("on_step_complete", view, value)
        else:
            hooks.fire("on_step_error", view, error, 1)

    async def call() -> Any:
        try:
            value = await fn(*args, **kwargs)
        except Exception as error:
            ended(error, None)
            raise
        ended(None, value)
        return value

    hooks.fire("on_step_start", view)
    if defn.is_async:
        return call()
    try:
        value = fn(*args, **kwargs)
    except Exception as error:
        ended(error, None)
        raise
    ended(None, value)
    return value


def _submit_plain(defn: StepDef, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepFuture[Any]:
    """``submit`` outside a run."""
    from concurrent.futures import Future

    engine = current_runtime().engine
    if not defn.is_async:
        return StepFuture((defn.executor or engine.pool).submit(fn, *args, **kwargs), None, None)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return StepFuture(engine.background_async(lambda: fn(*args, **kwargs)), None, None)
    found: StepFuture[Any] = StepFuture(Future(), None, None)
    found.follow(loop.create_task(fn(*args, **kwargs)))
    return found


def _map_sync(begins: list[Callable[[], StepFuture[Any]]], limit: int | None) -> list[Any]:
    futures: list[StepFuture[Any]] = []
    for begin in begins:
        if (
            limit is not None
            and len(futures) >= limit
            and futures[len(futures) - limit].settled() is not None
        ):
            break
        futures.append(begin())
    failed = None
    for future in futures:
        if failed is None:
            failed = future if future.settled() is not None else None
        elif not future.withdraw():
            future.settled()
    if failed is not None:
        failed.result()
    return [future.result() for future in futures]


async def _map_async(begins: list[Callable[[], StepFuture[Any]]], limit: int | None) -> list[Any]:
    futures: list[StepFuture[Any]] = []
    pending: set[Any] = set()
    failed = False
    for begin in begins:
        if limit is not None and len(pending) >= limit:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            failed = any(one.cancelled() or one.exception() for one in done)
            if failed:
                break
        futures.append(begin())
        pending.add(futures[-1].as_asyncio())
    while pending:
        if failed:
            for future in futures:
                future.withdraw()
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        errors = [one.cancelled() or one.exception() for one in done]
        failed = failed or any(errors)
    found = []
    for future in futures:
        future.seen = True
        if not future.cancelled():
            found.append(await future)
    return found


class Step(_StepCalls[P, R], _Wrapper, _Function):
    """A function decorated with ``@step``."""

    def __init__(self, wrapped: Any, defn: StepDef) -> None:
        super().__init__(wrapped, self._self_call)
        self._self_defn = defn
        self._self_receiver: Any = None  # of a step made by options() on a bound method

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

    @property
    def _defn(self) -> StepDef:
        return self._self_defn  # type: ignore[no-any-return]

    def _target(self, args: tuple[Any, ...]) -> tuple[Any, Any, tuple[Any, ...]]:
        return self.__wrapped__, self._self_receiver, args

    def _self_call(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        frame = current.get()
        defn = self._self_defn
        if frame is None:
            if defn.mode != "send":
                return wrapped(*args, **kwargs)
            engine = current_runtime().engine
            view = StepView("", "", defn.path, "send", 1, engine.clock.now())
            return send_off(engine, defn, wrapped, args, kwargs, view)
        if instance is None:
            instance = self._self_receiver
        return call_in_run(frame, defn, wrapped, instance, args, kwargs)


class BoundStep(_StepCalls[P, R], _Bound, _BoundFunction):
    """A step bound to its instance or class."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


if not TYPE_CHECKING:
    Step.__bound_function_wrapper__ = BoundStep


# ----------------------------------------------------------------------------------------------------------


class _WorkflowCalls(Generic[P, R]):
    """What one can do with a workflow, bound or not."""

    if TYPE_CHECKING:

        @property
        def _defn(self) -> WorkflowDef: ...

        _target: Callable[[tuple[Any, ...]], tuple[Any, Any, tuple[Any, ...]]]

    @property
    def path(self) -> str:
        """The workflow's name in records."""
        return self._defn.path

    @property
    def _is_coroutine(self) -> Any:
        return getattr(asyncio.coroutines, "_is_coroutine", True) if self._defn.is_async else None

    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Begin a run without waiting for its end; returns its handle once the run is recorded."""
        fn, receiver, args = self._target(args)  # type: ignore[assignment]
        return _start(self._defn, fn, receiver, args, kwargs, {})

    def options(
        self, *, id: str | None = None, timeout: Any = None, fresh: bool = False, tags: Any = None
    ) -> _Configured[P, R]:
        """One call with other options: *id* of the run, *timeout* of the run, *fresh* to start a new
        number, *tags*."""
        options: dict[str, Any] = {}
        if id is not None:
            options["run_id"] = checked_id(id)
        if timeout is not None:
            options["timeout"] = checked_timeout(timeout)
        if tags is not None:
            options["tags"] = checked_tags(tags)
        if fresh:
            if id is not None or self._defn.id is not None:
                raise ValueError(
                    "fresh=True starts a new number, but this run has an id, and an id is one run for ever"
                )
            options["fresh"] = True
        return _Configured(self, options)

    def request_from(self, engine: Engine, record: RunRecord, arguments: dict[str, Any]) -> Request:
        """The request that continues *record* from its stored arguments. (What ``Runtime.resume`` calls.)"""
        args, kwargs = self._defn.binder(False).call_with(arguments)
        return Request(self._defn, self.__wrapped__, args, kwargs, record)  # type: ignore[attr-defined]


class _Configured(Generic[P, R]):
    """A workflow with options for one call."""

    def __init__(self, source: _WorkflowCalls[P, R], options: dict[str, Any]) -> None:
        self._source = source
        self._options = options

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run to the end."""
        fn, receiver, positional = self._source._target(args)
        return cast(R, _call(self._source._defn, fn, receiver, positional, kwargs, self._options))

    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Begin without waiting for the end."""
        fn, receiver, positional = self._source._target(args)
        return _start(self._source._defn, fn, receiver, positional, kwargs, self._options)


def _call(
    defn: WorkflowDef,
    fn: Any,
    receiver: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Any:
    """Run a workflow to its end: as a run of its own, or as a child of the run that is executing."""
    frame = current.get()
    if frame is None:
        runtime = current_runtime()
        return _run_whole(runtime, request(runtime.engine, defn, fn, receiver, args, kwargs, **options))
    if defn.is_async is not frame.is_async:
        refuse_mixing(
            frame, defn.is_async, "workflow", defn.path, f"`{defn.path.rpartition('.')[2]}.start(…).result()`"
        )
    flow = call_child(child_call(frame, defn, fn, receiver, args, kwargs), defn, options)
    return run_async(flow) if defn.is_async else run_sync(flow)


def _run_whole(runtime: Runtime, asked: Request) -> Any:
    """Drive a run to its end, in this thread or task."""
    flow = edge(whole(runtime.engine, asked))
    if not runtime.engine.virtual:
        return run_async(flow) if asked.defn.is_async else run_sync(flow)
    if asked.defn.is_async:
        return _watched(runtime, flow)
    with runtime.engine.clock.watching(inside=False):
        return run_sync(flow)


async def _watched(runtime: Runtime, flow: Any) -> Any:
    with runtime.engine.clock.watching(inside=False):
        return await run_async(flow)


def _start(
    defn: WorkflowDef,
    fn: Any,
    receiver: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Run:
    frame = current.get()
    if frame is not None:
        return _start_child(frame, defn, fn, receiver, args, kwargs, options)
    runtime = current_runtime()
    return runtime.start(request(runtime.engine, defn, fn, receiver, args, kwargs, **options))


def _start_child(
    frame: Frame,
    defn: WorkflowDef,
    fn: Any,
    receiver: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> Run:
    call = child_call(frame, defn, fn, receiver, args, kwargs)
    handle = frame.run.engine.make_handle(start_child(call, defn, options))
    assert isinstance(handle, Run)
    return handle


class Workflow(_WorkflowCalls[P, R], _Wrapper, _Function):
    """A function decorated with ``@workflow``."""

    def __init__(self, wrapped: Any, defn: WorkflowDef) -> None:
        super().__init__(wrapped, self._self_call)
        self._self_defn = defn

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

    @property
    def _defn(self) -> WorkflowDef:
        return self._self_defn  # type: ignore[no-any-return]

    def _target(self, args: tuple[Any, ...]) -> tuple[Any, Any, tuple[Any, ...]]:
        return self.__wrapped__, None, args

    def _self_call(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _call(self._self_defn, wrapped, instance, args, kwargs, {})


class BoundWorkflow(_WorkflowCalls[P, R], _Bound, _BoundFunction):
    """A workflow bound to its instance or class."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


if not TYPE_CHECKING:
    Workflow.__bound_function_wrapper__ = BoundWorkflow

_DEFINITIONS: dict[type[Any], Any] = {Step: StepDef, Workflow: WorkflowDef}


# ---------------------------------------------------------------------------------------------------------


class _StepDecorator(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...


class _WorkflowDecorator(Protocol):
    def __call__(self, fn: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    fn: None = None,
    /,
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
def step(fn: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
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
    if fn is None:
        _known(options, StepDef, "step")
        StepDef.checked(options)
        return lambda fn: step(fn, name=name, **options)
    _known(options, StepDef, "step")
    made: Step[Any, Any] = Step(fn, StepDef.build(fn, name=name, **options))
    STEPS.add(made.path, made)
    return made


def _known(options: dict[str, Any], defn: Any, what: str) -> None:
    known = {n for n in defn.__slots__ if not n.startswith("_")} - {"fn", "path", "is_async"}
    unknown = options.keys() - known
    if unknown:
        raise TypeError(
            f"@{what} takes {', '.join(sorted(known | {'name'}))}; got {', '.join(sorted(unknown))}"
        )


@overload
def workflow(fn: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    fn: None = None,
    /,
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
def workflow(fn: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a function a workflow: each call is a run, and a run that was interrupted continues when it is
    called again.

    Parameters: *name* in records; *id*, a template such as ``"order-{order_id}"`` or a function of the
    arguments: one run per id, ever; *ignore*, parameters that do not count and are not stored; *timeout* of
    the whole run, a duration; *version*; *on_complete(run)* and *on_error(run, error)*; *tags*, names or a
    mapping to find runs by.

    >>> @workflow(id="order-{order_id}")
    ... def checkout(order_id): ...
    """
    _known(options, WorkflowDef, "workflow")
    if fn is None:
        return lambda fn: workflow(fn, name=name, **options)
    made: Workflow[Any, Any] = Workflow(fn, WorkflowDef.build(fn, name=name, **options))
    WORKFLOWS.add(made.path, made)
    return made


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
        path = getattr(fn, "path", None) or f"{fn.__module__}.{getattr(fn, '__qualname__', repr(fn))}"
        return HANDLERS.add(event, path, fn)

    if handler is not None:
        return register(handler)

    def decorate(fn: F) -> F:
        fn.unsubscribe = register(fn)  # type: ignore[attr-defined]
        return fn

    return decorate
