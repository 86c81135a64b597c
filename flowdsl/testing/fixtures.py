"""A separate store for every call: as a context manager, and as a decorator that works with hypothesis."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, Unpack, cast

from flowdsl.runtime import Runtime
from flowdsl.runtime_options import RuntimeOptions
from flowdsl.storage import MemoryStorage, Storage
from flowdsl.testing.clock import VirtualClock

__all__ = ["FreshRuntime", "fresh_runtime", "with_storage"]

P = ParamSpec("P")
R = TypeVar("R")


class FreshRuntime:
    """The result of :func:`fresh_runtime`. Enter it with ``with`` or ``async with``, as often as you like."""

    def __init__(self, make: Callable[[], Storage], options: RuntimeOptions) -> None:
        self._make = make
        self._options = options
        self._open: list[tuple[Runtime, Storage]] = []

    def __enter__(self) -> Runtime:
        storage = self._make()
        options: RuntimeOptions = {"clock": VirtualClock(), **self._options}
        runtime = Runtime(storage, **options)
        self._open.append((runtime, storage))
        return runtime.__enter__()

    def __exit__(self, *exc: object) -> None:
        runtime, storage = self._open.pop()
        try:
            runtime.__exit__(*exc)
        finally:
            storage.close()

    async def __aenter__(self) -> Runtime:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        runtime, storage = self._open.pop()
        try:
            await runtime.__aexit__(*exc)
        finally:
            storage.close()


def fresh_runtime(**options: Unpack[RuntimeOptions]) -> FreshRuntime:
    """The current runtime for a ``with`` block, over a fresh storage in memory and a :class:`VirtualClock`.

    *options* are those of :class:`~flowdsl.Runtime`, except ``storage``. A ``clock=`` replaces the virtual
    one. Leaving the block closes the runtime and its storage. Raises ``TypeError`` for ``storage=``: use
    ``Runtime(storage)`` or :func:`with_storage`.

    >>> from flowdsl import sleep, workflow
    >>> @workflow
    ... def patient():
    ...     sleep("7 days")
    ...     return "done"
    >>> with fresh_runtime():
    ...     patient()
    'done'
    """
    if "storage" in options:
        raise TypeError(
            "fresh_runtime() makes its own storage; use Runtime(storage) or with_storage(factory)"
        )
    return FreshRuntime(MemoryStorage, options)


def with_storage(
    factory: Callable[[], Storage] | None = None, **options: Unpack[RuntimeOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, sync or async. Each call of it has a current runtime over its own store.

    *factory* makes the storage (by default in memory), which is closed after the call. *options* are those of
    :class:`~flowdsl.Runtime`. Under ``@given`` each example gets its own store, without a fixture. Raises
    ``TypeError`` if the parentheses are missing.

    >>> from flowdsl import current_runtime
    >>> @with_storage()
    ... def how_many_runs():
    ...     return len(current_runtime().runs())
    >>> how_many_runs()
    0
    """
    make = factory or MemoryStorage
    given: Any = make
    if not callable(given) or (inspect.isfunction(given) and given.__name__.startswith("test")):
        raise TypeError(
            "write @with_storage() with parentheses, or @with_storage(factory) with what makes a storage"
        )

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def acall(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with FreshRuntime(make, options):
                    return await fn(*args, **kwargs)

            return cast("Callable[P, R]", acall)

        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with FreshRuntime(make, options):
                return fn(*args, **kwargs)

        return call

    return decorate
