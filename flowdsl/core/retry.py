"""When another attempt follows a failed one, and how long to wait before it.

The delay grows exponentially up to a maximum. Then a random factor *shortens* it. So many clients that failed
together do not come back together, and none waits longer than the maximum ("Exponential Backoff And Jitter",
AWS Architecture Blog, 2015). Randomness is passed in: this module has none.
"""

import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from attrs import Attribute, field, frozen

from flowdsl.core.by_fields import ByFields
from flowdsl.core.durations import seconds

__all__ = ["PROGRAMMING_ERRORS", "Retry"]

Errors = tuple[type[BaseException], ...]

PROGRAMMING_ERRORS: Errors = (
    TypeError,
    NameError,
    AttributeError,
    ImportError,
    SyntaxError,
    NotImplementedError,
    AssertionError,
    RecursionError,
)
"""Errors that waiting does not mend: the code has to change."""


def _errors(value: type[BaseException] | Iterable[type[BaseException]]) -> Errors:
    classes = (
        (value,) if isinstance(value, type) else tuple(value) if isinstance(value, Iterable) else (value,)
    )
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise TypeError(f"on= and never= take exception classes, not {cls!r}")
    return classes


def _check_attempts(_retry: "Retry", _field: "Attribute[Any]", value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"attempts= is a whole number, or None for no end, not {value!r}")
    if value < 1:
        raise ValueError(f"attempts= counts the first attempt too, so it is at least 1, not {value}")


def _initial(value: Any) -> float:
    return seconds(value, "initial")


def _maximum(value: Any) -> float:
    return seconds(value, "maximum")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}= is a number, not {value!r}")
    return float(value)


def _multiplier(value: Any) -> float:
    found = _number("multiplier", value)
    if not 0 < found < math.inf:
        raise ValueError(f"multiplier= is finite and above 0, not {value!r}")
    return found


def _jitter(value: Any) -> float:
    found = _number("jitter", value)
    if not 0 <= found <= 1:
        raise ValueError(f"jitter= is the share of the delay left to chance, from 0 to 1, not {value!r}")
    return found


@frozen(eq=False, repr=False)
class Retry(ByFields):
    """How a failed step is attempted again.

    Parameters:

    * *attempts*: the most times that the body executes, the first included; at least 1, or ``None``: until it
      succeeds.
    * *initial*: delay after the first failed attempt, in seconds or as a duration such as ``"2 sec"``.
    * *multiplier*: how much longer each delay is than the one before.
    * *maximum*: the longest delay, in seconds or as a duration.
    * *jitter*: share of the delay that is left to chance, from 0 (none) to 1 (all).
    * *on*: exception class or classes that are retried; *never*: those that are not, even if ``on`` holds
      them. An exception group is retried if each of its members would be.

    Raises ``ValueError`` or ``TypeError`` for values that make no sense.

    >>> retry = Retry(attempts=5, initial="2 sec", jitter=0)
    >>> [retry.delay(attempt, 0.0) for attempt in (1, 2, 3, 4, 5)]
    [2.0, 4.0, 8.0, 16.0, 30.0]
    """

    attempts: int | None = field(default=3, validator=_check_attempts)
    initial: float = field(default=1.0, converter=_initial)
    multiplier: float = field(default=2.0, converter=_multiplier)
    maximum: float = field(default=30.0, converter=_maximum)
    jitter: float = field(default=0.25, converter=_jitter)
    on: Errors = field(default=(Exception,), converter=_errors)
    never: Errors = field(default=PROGRAMMING_ERRORS, converter=_errors)

    def should_retry(self, error: BaseException, attempt: int) -> bool:
        """Say whether another attempt follows.

        Parameters: *error*, the error of the attempt; *attempt*, its number, from 1.

        >>> Retry().should_retry(OSError(), 1), Retry().should_retry(OSError(), 3)
        (True, False)
        >>> Retry().should_retry(TypeError(), 1)
        False
        >>> Retry(on=OSError).should_retry(ExceptionGroup("two", [OSError(), ValueError()]), 1)
        False
        """
        return (self.attempts is None or attempt < self.attempts) and self._mends(error)

    def _mends(self, error: BaseException) -> bool:
        """Whether waiting may mend *error*. Its type decides, because it may lie about its ``__class__``."""
        kind = type(error)
        if issubclass(kind, self.never):
            return False
        if isinstance(error, BaseExceptionGroup) and not issubclass(kind, self._groups):
            return all(map(self._mends, error.exceptions))
        return issubclass(kind, self.on)

    @property
    def _groups(self) -> Errors:
        """Classes of groups that ``on`` names. They are retried whatever their members are."""
        return tuple(cls for cls in self.on if issubclass(cls, BaseExceptionGroup))

    def delay(self, attempt: int, uniform: float, error: BaseException | None = None) -> float:
        """Give the seconds to wait after a failed attempt.

        Parameters: *attempt*, the number of the failed one, from 1; *uniform*, a random number in [0, 1);
        *error*, its error. If that has a ``retry_after`` (seconds or ``timedelta``; finite, not negative), it
        is taken as it is, even above ``maximum``, because whoever raised it knows better. For a group, the
        longest of its members counts.
        Returns ``min(maximum, initial · multiplier ** (attempt - 1))`` times a factor in [1 - jitter, 1].

        >>> Retry(jitter=0.5).delay(1, 0.5)
        0.75
        """
        asked = _retry_after(error)
        if asked is not None:
            return asked
        try:
            grown = self.initial * self.multiplier ** (attempt - 1)
        except OverflowError:
            grown = math.inf if self.initial else 0.0
        return min(self.maximum, grown) * (1.0 - self.jitter * uniform)


def _retry_after(error: BaseException | None) -> float | None:
    if isinstance(error, BaseExceptionGroup):
        return max(
            (asked for asked in map(_retry_after, error.exceptions) if asked is not None), default=None
        )
    try:
        asked = getattr(error, "retry_after", None)
        return seconds(asked) if isinstance(asked, int | float | timedelta) else None
    except Exception:  # no duration, or an attribute that raises anything
        return None
