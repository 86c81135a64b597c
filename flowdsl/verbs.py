"""The verbs of sync bodies: sleep, wait, store, branch, and recorded values.

``now``, ``uuid4``, ``rng``, ``log``, ``current_run``, ``current_step`` and ``send`` are plain calls in sync
and async bodies. The others have an async form in :mod:`flowdsl.aio`.
"""

import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, overload

from flowdsl.engine.call import inside
from flowdsl.engine.effects import drive, run_sync
from flowdsl.engine.execution import current
from flowdsl.engine.operations import continue_as_new as generations
from flowdsl.engine.operations import gather as gathering
from flowdsl.engine.operations import publish as publishing
from flowdsl.engine.operations import race as racing
from flowdsl.engine.operations import receive as receiving
from flowdsl.engine.operations import schedule as scheduling
from flowdsl.engine.operations import sleep as sleeping
from flowdsl.engine.operations import store as stores
from flowdsl.engine.operations import value as values
from flowdsl.engine.operations.reply import Message
from flowdsl.engine.operations.send import send_event
from flowdsl.engine.record import flush
from flowdsl.engine.scope import StepView
from flowdsl.handle import Run, racer_of
from flowdsl.runtime import current_engine

__all__ = [
    "continue_as_new",
    "current_run",
    "current_step",
    "gather",
    "log",
    "now",
    "publish",
    "race",
    "receive",
    "rng",
    "schedule",
    "send",
    "sleep",
    "sleep_until",
    "store",
    "uuid4",
    "wait_for",
]

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
P = ParamSpec("P")


def sleep(duration: Any) -> None:
    """Sleep durably. The wake-up time is recorded first, so a resume waits only for the rest of the time.

    *duration*: seconds, a timedelta, or text such as ``"3 days"``. It is not part of the key.

    >>> from flowdsl import Runtime, sleep, workflow
    >>> from flowdsl.testing import VirtualClock
    >>> @workflow
    ... def remind():
    ...     sleep("7 days")
    ...     return "now"
    >>> with Runtime("memory://", clock=VirtualClock()):
    ...     remind()
    'now'
    """
    run_sync(sleeping.sleep(inside("sleep", is_async=False), duration))


def sleep_until(moment: datetime) -> None:
    """Sleep durably until *moment*, an aware datetime."""
    until = sleeping.checked_moment(moment)
    run_sync(sleeping.sleep(inside("sleep_until", is_async=False), until=until))


def wait_for(
    name: str, timeout: Any = None, where: Callable[[Any], bool] | Mapping[str, Any] | None = None
) -> Any:
    """Wait for the oldest signal of this name and return its payload.

    *timeout*: a duration, after which :class:`~flowdsl.errors.WaitTimeout` is raised. *where*: a function of
    the payload, or a dict of items that it must have. Signals that came earlier are kept. See
    ``Runtime.signal``.
    """
    return run_sync(receiving.wait_for(inside("wait_for", is_async=False), name, timeout, where))


def receive(
    *names: str, timeout: Any = None, where: Callable[[Any], bool] | Mapping[str, Any] | None = None
) -> Message:
    """Wait for the oldest signal of any of *names*, and return the whole message: ``name``, ``payload``,
    ``sender``. If it was sent by ``Run.ask``, answer with ``reply(value)`` or ``refuse(error)``.

    *timeout* and *where* as in :func:`wait_for`.

    >>> from flowdsl import Runtime, receive, workflow
    >>> @workflow
    ... def door():
    ...     message = receive("open", "close")
    ...     message.reply(f"I {message.name}")
    >>> with Runtime("memory://"):
    ...     door.start().ask("open")
    'I open'
    """
    frame = inside("receive", is_async=False)
    found: Message = run_sync(receiving.receive(frame, names, timeout, where))
    return found


@overload
def race(a: Awaitable[T1], b: Awaitable[T2], /) -> T1 | T2: ...
@overload
def race(*futures_or_runs: Awaitable[T]) -> T: ...
def race(*futures_or_runs: Any) -> Any:
    """The result of the first of these futures and runs that succeeds. The others are given up.

    The winner is recorded, so a replay takes the same one. If all fail, their errors are raised as an
    ``ExceptionGroup``.
    """
    frame = inside("race", is_async=False)
    return run_sync(racing.race(frame, futures_or_runs, racer_of(frame)))


def publish(channel: str, item: Any) -> None:
    """Append *item* to *channel* of the run, durably and once. ``Run.stream`` and ``Run.latest`` read it.

    >>> from flowdsl import Runtime, publish, workflow
    >>> @workflow
    ... def count():
    ...     for n in range(3):
    ...         publish("numbers", n)
    >>> with Runtime("memory://"):
    ...     run = count.start()
    ...     list(run.stream("numbers", follow=True))
    [0, 1, 2]
    """
    publishing.publish(inside("publish"), channel, item)


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this generation of the run and begin the next with these arguments, under the same id, in one
    commit.

    The journal is deleted. Unread messages, published items and tags stay. It never returns. Raises
    :class:`~flowdsl.errors.FlowError` if branches or children of the run are unfinished.

    >>> from flowdsl import Runtime, continue_as_new, current_run, workflow
    >>> @workflow
    ... def count_down(n):
    ...     return current_run().generation if n == 0 else continue_as_new(n - 1)
    >>> with Runtime("memory://"):
    ...     count_down(2)
    3
    """
    generations.continue_as_new(inside("continue_as_new"), args, kwargs)


@overload
def gather(  # pyright: ignore[reportOverlappingOverload]  # as asyncio.gather has it
    a: Awaitable[T1], b: Awaitable[T2], /, *, return_exceptions: Literal[False] = False
) -> tuple[T1, T2]: ...
@overload
def gather(
    a: Awaitable[T1], b: Awaitable[T2], c: Awaitable[T3], /, *, return_exceptions: Literal[False] = False
) -> tuple[T1, T2, T3]: ...
@overload
def gather(
    a: Awaitable[T1],
    b: Awaitable[T2],
    c: Awaitable[T3],
    d: Awaitable[T4],
    /,
    *,
    return_exceptions: Literal[False] = False,
) -> tuple[T1, T2, T3, T4]: ...
@overload
def gather(
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
def gather(*futures_or_runs: Awaitable[T], return_exceptions: Literal[False] = False) -> list[T]: ...
@overload
def gather(*futures_or_runs: Awaitable[T], return_exceptions: Literal[True]) -> list[T | BaseException]: ...
def gather(*futures_or_runs: Any, return_exceptions: bool = False) -> Any:
    """Wait for futures of ``submit`` and runs of ``start``. Return their results, in order.

    The first failure is raised when the others have ended or were cancelled. With *return_exceptions*, errors
    are returned in their places instead.
    """
    return gathering.gather_sync(futures_or_runs, return_exceptions)


@overload
def schedule(step: Callable[..., Any], /, *args: Any, delay: Any, **kwargs: Any) -> Any: ...
@overload
def schedule(step: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
@overload
def schedule(step: str, /, *args: Any, delay: Any = 0, **kwargs: Any) -> Any: ...
def schedule(step: Any, /, *args: Any, delay: Any = 0, **kwargs: Any) -> Any:
    """Start *step* as a branch of the run, after *delay*. The run completes when all its branches have
    completed. If a branch fails, the run fails.

    Returns the branch's future.
    """
    return run_sync(scheduling.schedule(inside("schedule", is_async=False), step, args, kwargs, delay))


class _Store:
    """The state of the run. Concurrent branches change it atomically. A write takes effect once, even if it
    is retried or replayed."""

    def get(self, key: str, default: Any = None) -> Any:
        """A copy of the value of *key*, or *default*."""
        return run_sync(stores.read(inside("store.get", is_async=False), "get", key, default))

    def items(self) -> dict[str, Any]:
        """A copy of everything, as a dict."""
        found: dict[str, Any] = run_sync(stores.read(inside("store.items", is_async=False), "items"))
        return found

    def set(self, key: str, value: Any) -> None:
        """Set *key* (``None`` is a value too)."""
        run_sync(stores.write(inside("store.set", is_async=False), "set", key, value))

    def push(self, key: str, item: Any) -> int:
        """Append *item* to the list *key*, which is made if it is missing. Return its new length. Raises
        ``TypeError`` if it is not a list."""
        length: int = run_sync(stores.write(inside("store.push", is_async=False), "push", key, item))
        return length

    def increment(self, key: str, delta: Any = 1) -> Any:
        """Add *delta* to the number *key*, which is 0 if it is missing. Return the new value. Raises
        ``TypeError`` if it is not a number."""
        return run_sync(stores.write(inside("store.increment", is_async=False), "increment", key, delta))

    def delete(self, key: str) -> bool:
        """Delete *key*. Return whether it existed."""
        found: bool = run_sync(stores.write(inside("store.delete", is_async=False), "delete", key))
        return found


store = _Store()


def now() -> datetime:
    """The present time, an aware datetime in UTC. A replay gets the recorded time."""
    frame = current.get()
    if frame is None:
        return datetime.now(UTC)
    return values.now(frame)


def uuid4() -> uuid.UUID:
    """A random UUID. A replay gets the recorded one."""
    frame = current.get()
    if frame is None:
        return uuid.uuid4()
    return values.draw_uuid4(frame)


def rng() -> random.Random:
    """A seeded random generator. A replay gets the same seed."""
    frame = current.get()
    if frame is None:
        return random.Random()
    return values.draw_rng(frame)


def log(message: str, /, **fields: Any) -> None:
    """Store a line with the run, once; a replay does not repeat it. ``Run.logs()`` and ``flowdsl show`` show
    it."""
    frame = current.get()
    if frame is not None:
        values.log(frame, message, fields)


def send(event: str, payload: Any = None) -> None:
    """Call every ``@on(event)`` handler with *payload*, in the background. It is not recorded, so a resume
    sends again."""
    frame = current.get()
    if frame is not None:
        drive(flush(frame.run))
    send_event(current_engine() if frame is None else frame.run.engine, event, payload)


def current_run() -> Run[Any] | None:
    """The run that is executing here, or ``None``."""
    frame = current.get()
    if frame is None:
        return None
    found: Run[Any] = frame.run.engine.make_handle(frame.run.record)
    return found


def current_step() -> StepView | None:
    """The step that is executing here, or ``None``. Its ``idempotency_key`` is the same for all attempts and
    resumes."""
    frame = current.get()
    return None if frame is None else frame.step
