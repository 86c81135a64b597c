"""The options of a runtime, said once, and checked."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, TypedDict

from attrs import field, frozen
from attrs.validators import optional

from flowdsl.clock import Clock
from flowdsl.codecs.base import Codec
from flowdsl.core.durations import seconds
from flowdsl.core.queues import Queue
from flowdsl.core.retry import Retry
from flowdsl.core.schedules import Schedule
from flowdsl.engine.option_checks import DIVERGENCES, Divergence
from flowdsl.hooks import Hooks

__all__ = ["CheckedOptions", "RuntimeOptions"]


class RuntimeOptions(TypedDict, total=False):
    """The keyword arguments of :class:`Runtime` and :func:`configure`; what they mean is told there."""

    retry: Retry | None
    codec: Codec | None
    hooks: Hooks | Sequence[Any]
    clock: Clock | None
    executor: Executor | None
    on_divergence: Divergence
    lease: float | timedelta | str
    name: str | None
    queues: Sequence[Queue]
    schedules: Sequence[Schedule]
    previews: bool


def _lease(value: Any) -> float:
    found = seconds(value, "lease")
    if found <= 0:
        raise ValueError(f"lease is a duration above 0; got {value!r}")
    return found


def _clock(_: Any, __: Any, value: Any) -> None:
    if not all(callable(getattr(value, name, None)) for name in ("now", "sleep", "asleep")):
        raise TypeError(f"clock= has now(), sleep(seconds) and async asleep(seconds); got {value!r}")


def _executor(_: Any, __: Any, value: Any) -> None:
    if not callable(getattr(value, "submit", None)):
        raise TypeError(f"executor= is a concurrent.futures.Executor; got {value!r}")


def _a(kind: type, what: str) -> Callable[[Any, Any, Any], None]:
    def check(_: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name}= is {what}; got {value!r}")

    return check


def _divergence(_: Any, __: Any, value: Divergence) -> None:
    if value not in DIVERGENCES:
        names = ", ".join(map(repr, DIVERGENCES))
        raise ValueError(f"on_divergence is one of {names}; got {value!r}")


@frozen(slots=True, kw_only=True, eq=False, repr=False)
class CheckedOptions:
    """The keyword arguments of a :class:`Runtime`, checked, with their defaults."""

    retry: Retry | None = field(default=None, validator=optional(_a(Retry, "a Retry(…)")))
    codec: Codec | None = field(default=None, validator=optional(_a(Codec, "a Codec such as PickleCodec()")))
    hooks: Hooks | Sequence[Any] = ()
    clock: Clock | None = field(default=None, validator=optional(_clock))
    executor: Executor | None = field(default=None, validator=optional(_executor))
    on_divergence: Divergence = field(default="raise", validator=_divergence)
    lease: float = field(default=30.0, converter=_lease)
    name: str | None = field(default=None, validator=optional(_a(str, "a string")))
    queues: Sequence[Queue] = ()
    schedules: Sequence[Schedule] = ()
    previews: bool = field(default=True, validator=_a(bool, "True or False"))
