"""Types of the standard library, reduced to plain values (numbers, text, bytes, tuples) that say the same.

A reduction keeps what ``==`` compares and drops the rest, so equal values are reduced to equal ones. The
names of the types are written here, not taken from the classes, because the standard library moves classes
between its modules (``pathlib.PosixPath`` lived in ``pathlib._local`` for one release).

Some modules take milliseconds to import, and most programs never use them. They are not imported here. A
value of their types proves that they are loaded.
"""

import datetime as dt
import pathlib
import re
import sys
import types
import uuid
from collections import ChainMap, UserDict, UserList, UserString, deque
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["STANDARD_TYPES", "Reduction", "exception_parts", "standard_type"]

Reduction = Callable[[Any], object]

_MICROSECOND = dt.timedelta(microseconds=1)


def _timedelta(value: dt.timedelta) -> object:
    return (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds


def _date(value: dt.date) -> object:
    return (value.year, value.month, value.day)


def _clock(value: dt.datetime | dt.time) -> int:
    """Microseconds since midnight."""
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _datetime(value: dt.datetime) -> object:
    """Aware ones by their instant, which includes ``fold``. For naive ones, ``==`` ignores ``fold``."""
    local = value.toordinal() * 86_400_000_000 + _clock(value)
    offset = value.utcoffset()
    if offset is None:
        return ("naive", local)
    return ("utc", local - offset // _MICROSECOND)


def _time(value: dt.time) -> object:
    offset = value.utcoffset()
    if offset is not None:
        return ("utc", _clock(value) - offset // _MICROSECOND)
    if value.tzinfo is None:
        return ("naive", _clock(value))
    # A zone without a date has no offset. ``==`` then ignores the zone, but code that uses the time does not.
    return ("zone", _clock(value), value.tzinfo)


def _timezone(value: dt.timezone) -> object:
    offset = value.utcoffset(None)
    return offset // _MICROSECOND


def _zoneinfo(value: Any) -> object:
    if value.key is None:
        raise TypeError(
            "a ZoneInfo made from a file has no name; give it one with ZoneInfo.from_file(…, key=…)"
        )
    return value.key


def _decimal(value: Any) -> object:
    """Sign, digits without trailing zeros, and exponent. The context does not matter."""
    sign, digits, exponent = value.as_tuple()
    minus = "-" if sign else ""
    if exponent == "F":
        return minus + "Infinity"
    if not isinstance(exponent, int):
        return "NaN"
    text = "".join(map(str, digits))
    shorter = text.rstrip("0")
    if not shorter:
        return minus + "0"
    return f"{minus}{shorter}E{exponent + len(text) - len(shorter)}"


def _fraction(value: Any) -> object:
    return (value.numerator, value.denominator)


def _uuid(value: uuid.UUID) -> object:
    return value.bytes


def _path(value: pathlib.PurePath) -> object:
    return str(value)


def _windows_path(value: pathlib.PurePath) -> object:
    return str(value).lower()


def _range(value: range) -> object:
    """Ranges compare as sequences, so they are reduced to what makes them equal."""
    if len(value) < 2:
        return tuple(value)
    return (value.start, value.step, len(value))


def _slice(value: slice) -> object:
    return (value.start, value.stop, value.step)


def _pattern(value: re.Pattern[Any]) -> object:
    return (value.pattern, value.flags)


def _array(value: Any) -> object:
    return (value.typecode, value.tolist())


def _address(value: Any) -> object:
    """As a number, because versions of Python write an IPv6 address differently."""
    return (int(value), getattr(value, "scope_id", None))


def _interface(value: Any) -> object:
    return (*_address(value), value.network.prefixlen)  # type: ignore[misc]


def _network(value: Any) -> object:
    return (int(value.network_address), value.prefixlen)


_SHOWN_ATTRIBUTES: tuple[tuple[type[BaseException], tuple[str, ...]], ...] = (
    (OSError, ("filename", "filename2")),
    (ImportError, ("name", "path")),
    (NameError, ("name",)),
    (AttributeError, ("name",)),
)
"""What built-in exceptions hold besides their ``args``."""


def exception_parts(error: BaseException) -> Iterable[tuple[str, object]]:
    """Give what counts of an exception: its arguments, and the attributes that somebody set.

    Notes, causes and traceback do not count. They say where it has been.

    >>> dict(exception_parts(KeyError("k")))
    {'args': ('k',)}
    """
    yield "args", BaseException.__dict__["args"].__get__(error)
    for cls, names in _SHOWN_ATTRIBUTES:
        if isinstance(error, cls):
            for name in names:
                found = getattr(error, name, None)
                if found is not None:
                    yield f"{name}=", found
    for name, value in BaseException.__dict__["__dict__"].__get__(error).items():
        if name != "__notes__" and not name.startswith("__flow_"):
            yield name, value


STANDARD_TYPES: dict[type, tuple[str, Reduction]] = {
    dt.date: ("date", _date),
    dt.datetime: ("datetime", _datetime),
    dt.time: ("time", _time),
    dt.timedelta: ("timedelta", _timedelta),
    dt.timezone: ("timezone", _timezone),
    uuid.UUID: ("UUID", _uuid),
    pathlib.PurePath: ("PurePath", _path),  # this and Path are only bases of users' classes
    pathlib.Path: ("Path", _path),
    pathlib.PurePosixPath: ("PurePosixPath", _path),
    pathlib.PosixPath: ("PosixPath", _path),
    pathlib.PureWindowsPath: ("PureWindowsPath", _windows_path),
    pathlib.WindowsPath: ("WindowsPath", _windows_path),
    range: ("range", _range),
    slice: ("slice", _slice),
    deque: ("deque", list),
    types.MappingProxyType: ("mappingproxy", lambda value: dict(value.items())),
    ChainMap: ("ChainMap", lambda value: dict(value.items())),
    UserDict: ("UserDict", lambda value: value.data),
    UserList: ("UserList", lambda value: value.data),
    UserString: ("UserString", lambda value: value.data),
    types.SimpleNamespace: ("SimpleNamespace", vars),
    re.Pattern: ("Pattern", _pattern),
}
"""Maps a type to its name in encodings and its reduction."""

_LATER_TYPES: dict[tuple[str, str], tuple[str, Reduction]] = {
    ("decimal", "Decimal"): ("Decimal", _decimal),
    ("fractions", "Fraction"): ("Fraction", _fraction),
    ("zoneinfo", "ZoneInfo"): ("ZoneInfo", _zoneinfo),
    ("array", "array"): ("array", _array),
    ("argparse", "Namespace"): ("Namespace", vars),
    ("ipaddress", "IPv4Address"): ("IPv4Address", _address),
    ("ipaddress", "IPv6Address"): ("IPv6Address", _address),
    ("ipaddress", "IPv4Interface"): ("IPv4Interface", _interface),
    ("ipaddress", "IPv6Interface"): ("IPv6Interface", _interface),
    ("ipaddress", "IPv4Network"): ("IPv4Network", _network),
    ("ipaddress", "IPv6Network"): ("IPv6Network", _network),
}


def standard_type(cls: type) -> tuple[str, Reduction] | None:
    """Find how exact instances of *cls* are reduced.

    Returns the name of the type in encodings and its reduction, or ``None`` if it is no standard type.

    >>> standard_type(uuid.UUID)[0], standard_type(int)
    ('UUID', None)
    """
    found = STANDARD_TYPES.get(cls)
    if found is None:
        module, name = cls.__module__, cls.__qualname__
        found = _LATER_TYPES.get((module, name))
        if found is not None and getattr(sys.modules.get(module), name, None) is not cls:
            return None  # it only calls itself so
    return found
