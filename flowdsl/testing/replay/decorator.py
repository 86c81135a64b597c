"""``@replay_test``: execute the body of a test as a workflow, and check it."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, overload

from flowdsl.decorators import workflow as make_workflow
from flowdsl.testing.replay.check import Raised, check
from flowdsl.testing.seam import Fakes

__all__ = ["replay_test"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def replay_test(fn: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def replay_test(
    *,
    fakes: Fakes | None = None,
    crashes: int | Literal["all"] = ...,
    deaths: int = 1,
    signals: Iterable[tuple[str, Any]] = (),
    watch: Iterable[Any] = (),
    raises: Raised = (),
    lossy: bool = False,
    outside_effects: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def replay_test(fn: Any = None, /, **options: Any) -> Any:
    """Decorate a test, sync or async. Its body executes as a workflow, and
    :func:`~flowdsl.testing.check_replay` checks it.

    Steps that it calls are steps of that run, and workflows are its children. Its assertions must hold in
    each execution. *options* are those of ``check_replay``. Fixtures and arguments are passed through, also
    those of ``@given`` (written above it).

    >>> from flowdsl import step
    >>> @step
    ... def charge(amount):
    ...     return f"paid {amount}"
    >>> @replay_test
    ... def test_charging():
    ...     assert charge(5) == "paid 5"
    >>> test_charging()
    """
    if fn is None:
        return functools.partial(_replay_test, options=options)
    return _replay_test(fn, options)


def _replay_test(fn: Any, options: dict[str, Any]) -> Any:
    if not callable(fn):
        raise TypeError(
            f"@replay_test decorates a test; its options have names, such as crashes=20; got {fn!r}"
        )
    name = f"{fn.__module__}.{fn.__qualname__}"

    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def atest(*args: Any, **kwargs: Any) -> None:
            async def body() -> None:
                await fn(*args, **kwargs)

            _check_body(body, fn, name, options)

        return atest

    @functools.wraps(fn)
    def test(*args: Any, **kwargs: Any) -> None:
        def body() -> None:
            fn(*args, **kwargs)

        _check_body(body, fn, name, options)

    return test


def _check_body(body: Any, fn: Any, name: str, options: dict[str, Any]) -> None:
    """Check *body* as a workflow. Its arguments are bound already."""
    body.__module__, body.__qualname__ = fn.__module__, f"{fn.__qualname__}.<locals>.body"
    check(make_workflow(name=name)(body), fn, (), {}, reads=True, **options)  # a test looks at what was done
