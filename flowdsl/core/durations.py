"""Durations as people write them: numbers of seconds, ``timedelta``, or text such as ``"1h30m"``.

Text is one or more parts of number and unit, from the largest unit to the smallest, each unit once. Upper and
lower case are the same, except for a lone ``M``, which could mean months. Months and years are refused,
because they have no fixed length. A bare number as text is refused, because it does not say its unit.
"""

import math
import re
import sys
from datetime import timedelta
from numbers import Real
from typing import Any

__all__ = ["Duration", "seconds", "wait_limit"]

Duration = float | int | timedelta | str
"""What :func:`seconds` takes."""

_UNITS: dict[str, int] = {
    name: milliseconds
    for names, milliseconds in (
        ("ms msec msecs millisecond milliseconds", 1),
        ("s sec secs second seconds", 1_000),
        ("m min mins minute minutes", 60_000),
        ("h hr hrs hour hours", 3_600_000),
        ("d day days", 86_400_000),
        ("w wk wks week weeks", 604_800_000),
    )
    for name in names.split()
}
_CALENDAR = frozenset(["M", "mo", "mon", "mth", "month", "months", "y", "yr", "yrs", "year", "years"])
_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]+)\s*")
_EXAMPLES = '"30 sec", "5 min", "2 hours", "1 day", "2 weeks", "15m", "1h30m", "250ms"'


def seconds(duration: Duration, option: str = "") -> float:
    """Give the length of *duration* in seconds.

    Parameters: *duration*, a finite number of seconds, a ``timedelta``, or text of number and unit; *option*,
    the option that it is given to, for messages. Returns a float that is at least 0. Raises ``ValueError``
    for negative, infinite or unreadable durations, and for months and years. Raises ``TypeError`` for other
    types.

    >>> seconds("1h30m"), seconds("250ms"), seconds(5)
    (5400.0, 0.25, 5.0)
    """
    try:
        return _seconds(duration)
    except (TypeError, ValueError) as error:
        if not option:
            raise
        raise type(error)(f"{option}= {error}") from None


def wait_limit(timeout: Duration | None) -> float | None:
    """How long to wait for a result, in seconds; ``None`` for as long as it takes.

    >>> wait_limit("5 min"), wait_limit(None)
    (300.0, None)
    """
    if timeout is None:
        return None
    try:
        return _seconds(timeout)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"timeout= is how long to wait, in seconds, or None for as long as it takes; got {timeout!r}"
        ) from None


def _seconds(duration: Duration) -> float:
    if isinstance(duration, str):
        return _parse(duration)
    if isinstance(duration, timedelta):
        found = duration.total_seconds()
    elif isinstance(duration, bool) or not _is_number(duration):
        raise TypeError(
            f"a duration is a number of seconds, a timedelta or text such as {_EXAMPLES}, "
            f"not {type(duration).__name__}"
        )
    else:
        try:
            found = float(duration)
        except OverflowError:
            found = math.inf
    if not 0 <= found < math.inf:
        raise ValueError(f"a duration is finite and not negative, not {duration!r}")
    return found + 0.0  # -0.0 becomes 0.0


def _is_number(value: Any) -> bool:
    if isinstance(value, Real):
        return True
    decimal = sys.modules.get("decimal")  # slow to import, and Decimal is no Real
    return decimal is not None and isinstance(value, decimal.Decimal)


def _parse(text: str) -> float:
    """Add up the parts as a fraction of whole numbers. So only the sum is rounded."""
    total, parts_of_a_second = 0, 1_000
    place, last = 0, None
    while place < len(text):
        part = _PART.match(text, place)
        if part is None:
            raise _unreadable(text)
        number, name = part.groups()
        unit = None if name in _CALENDAR else _UNITS.get(name.lower())
        if unit is None:
            raise _unreadable(text, name)
        if last is not None and unit >= last:
            raise _unreadable(text)
        whole, _, decimals = number.partition(".")
        try:
            digits = int(whole + decimals)
        except ValueError:  # it has more digits than Python converts
            raise _unreadable(text) from None
        finer = 10 ** len(decimals)
        total = total * finer + digits * unit * (parts_of_a_second // 1_000)
        parts_of_a_second *= finer
        place, last = part.end(), unit
    if last is None:
        raise _unreadable(text)
    try:
        return total / parts_of_a_second
    except OverflowError:
        raise _unreadable(text) from None


def _unreadable(text: str, unit: str = "") -> ValueError:
    shown = text if len(text) <= 60 else text[:59] + "…"
    why = ""
    if unit in _CALENDAR or unit.lower() in _CALENDAR:
        why = f": {unit!r} has no fixed length; give days or weeks"
    elif text.lstrip().startswith(("-", "−")):
        why = ": it is negative"
    return ValueError(f"cannot read the duration {shown!r}{why}. Examples: {_EXAMPLES}")
