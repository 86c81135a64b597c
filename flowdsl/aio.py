"""The verbs of :mod:`flowdsl.verbs` that wait, awaited. Meaning, parameters and errors are the same."""

# The overloads of `gather`, `race` and `schedule` stand here and in verbs.py. A type cannot say "the same,
# awaited" of a function with overloads: mypy and pyright apply a decorator to the first overload only.

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any, Literal, ParamSpec, TypeVar, overload

from flowdsl.engine.call import inside
from flowdsl.engine.effects import Flow, named, run_async
from flowdsl.engine.execution import current
from flowdsl.engine.operations import gather as gathering
from flowdsl.engine.operations import race as racing
from flowdsl.engine.operations import receive as receiving
from flowdsl.engine.operations import schedule as scheduling
from flowdsl.engine.operations import sleep as sleeping
from flowdsl.engine.operations import store as stores
from flowdsl.engine.operations.reply import Message
from flowdsl.handle import racer_of

__all__ = ["gather", "race", "receive", "schedule", "sleep", "sleep_until", "store", "wait_for"]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
P = ParamSpec("P")


def _verb(name: str, flow: Flow) -> Coroutine[Any, Any, Any]:
    return named(run_async(flow), name)


def sleep(duration: Any) -> Coroutine[Any, Any, None]:
    """Sleep durably; costs no thread."""
    return _verb("sleep", sleeping.sleep(inside("sleep", is_async=True), duration))


def sleep_until(moment: datetime) -> Coroutine[Any, Any, None]:
    """Sleep durably until *moment*, an aware datetime."""
    until = sleeping.checked_moment(moment)
    return _verb("sleep_until", sleeping.sleep(inside("sleep_until", is_async=True), until=until))


def wait_for(
    name: str, timeout: Any = None, where: Callable[[Any], bool] | Mapping[str, Any] | None = None
) -> Coroutine[Any, Any, Any]:
    """Wait for the oldest signal of this name and return its payload."""
    return _verb("wait_for", receiving.wait_for(inside("wait_for", is_async=True), name, timeout, where))


def receive(
    *names: str, timeout: Any = None, where: Callable[[Any], bool] | Mapping[str, Any] | None = None
) -> Coroutine[Any, Any, Message]:
    """Wait for the oldest signal of any of *names* and return the whole message."""
    return _verb("receive", receiving.receive(inside("receive", is_async=True), names, timeout, where))


@overload
def race(a: Awaitable[T1], b: Awaitable[T2], /) -> Coroutine[Any, Any, T1 | T2]: ...
@overload
def race(*futures_or_runs: Awaitable[T]) -> Coroutine[Any, Any, T]: ...
def race(*futures_or_runs: Any) -> Coroutine[Any, Any, Any]:
    """The result of the first of these futures, runs and coroutines that ends well; the others are
    withdrawn. Each coroutine is a branch with a scope of its own."""
    frame = inside("race", is_async=True)
    return _verb("race", racing.race(frame, futures_or_runs, racer_of(frame)))


@overload
async def gather(
    a: Awaitable[T1], b: Awaitable[T2], /, *, return_exceptions: Literal[False] = False
) -> tuple[T1, T2]: ...
@overload
async def gather(
    a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /, *, return_exceptions: Literal[False] = False
) -> tuple[T1, T2, T3]: ...
@overload
async def gather(
    a: Awaitable[T1],
    b: Awaitable[T2],
    c: Awaitable[T3],
    d: Awaitable[T4],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(
    a: Awaitable[T1],
    b: Awaitable[T2],
    c: Awaitable[T3],
    d: Awaitable[T4],
    e: Awaitable[T5],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def gather(*futures_or_runs: Awaitable[T], return_exceptions: Literal[False] = False) -> list[T]: ...
@overload
async def gather(
    *futures_or_runs: Awaitable[T], return_exceptions: Literal[True]
) -> list[T | BaseException]: ...
async def gather(*futures_or_runs: Any, return_exceptions: bool = False) -> Any:
    """Wait for futures, runs and coroutines; their results, in order. Each coroutine is a branch with a
    scope of its own. With *return_exceptions*, errors stand in their places."""
    return await gathering.gather_async(current.get(), futures_or_runs, return_exceptions)


@overload
def schedule(
    step: Callable[..., Any], /, *args: Any, delay: Any, **kwargs: Any
) -> Coroutine[Any, Any, Any]: ...
@overload
def schedule(step: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Any]: ...
@overload
def schedule(step: str, /, *args: Any, delay: Any = 0, **kwargs: Any) -> Coroutine[Any, Any, Any]: ...
def schedule(step: Any, /, *args: Any, delay: Any = 0, **kwargs: Any) -> Coroutine[Any, Any, Any]:
    """Start *step* as a branch of the run, after *delay*; returns its future."""
    return _verb(
        "schedule", scheduling.schedule(inside("schedule", is_async=True), step, args, kwargs, delay)
    )


class _Store:
    """State of the run, atomic under concurrent branches."""

    def get(self, key: str, default: Any = None) -> Coroutine[Any, Any, Any]:
        """A copy of the value of *key*, or *default*."""
        return _verb("get", stores.read(inside("store.get", is_async=True), "get", key, default))

    def items(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """A copy of everything, as a dict."""
        return _verb("items", stores.read(inside("store.items", is_async=True), "items"))

    def set(self, key: str, value: Any) -> Coroutine[Any, Any, None]:
        """Set *key*."""
        return _verb("set", stores.write(inside("store.set", is_async=True), "set", key, value))

    def push(self, key: str, item: Any) -> Coroutine[Any, Any, int]:
        """Append to the list *key*; its new length."""
        return _verb("push", stores.write(inside("store.push", is_async=True), "push", key, item))

    def increment(self, key: str, delta: Any = 1) -> Coroutine[Any, Any, Any]:
        """Add *delta* to the number *key*; the new value."""
        return _verb(
            "increment", stores.write(inside("store.increment", is_async=True), "increment", key, delta)
        )

    def delete(self, key: str) -> Coroutine[Any, Any, bool]:
        """Delete *key*; whether it was there."""
        return _verb("delete", stores.write(inside("store.delete", is_async=True), "delete", key))


store = _Store()
