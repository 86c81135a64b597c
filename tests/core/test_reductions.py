"""Encoding of the standard library's types: equal exactly if ``==`` says so, where that makes sense."""

import copy
import pickle
import re
from array import array
from collections import ChainMap, UserDict, UserString, deque
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.encoding import encode
from flowdsl.core.reductions import STANDARD_TYPES, standard_type
from flowdsl.core.unkeyable import Unkeyable

offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
zones = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(0), "other name")]) | offsets
moments = st.integers(0, 3).map(lambda second: datetime(2024, 1, 1, 0, 0, second))
numbers = st.decimals(allow_nan=False, places=2, min_value=-2, max_value=2)

standard = st.one_of(
    st.dates(),
    st.datetimes(timezones=st.none() | zones | st.timezones()),
    st.times(timezones=st.none() | zones),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.builds(range, st.integers(-5, 5), st.integers(-5, 5), st.sampled_from([-3, -1, 1, 2])),
    st.builds(slice, st.integers() | st.none()),
    st.text("ab/.\\C:", max_size=8).map(PurePosixPath),
    st.text("ab/.\\", max_size=8).map(PureWindowsPath),
)


@given(standard)
def test_copies_are_the_same_value(value: Any) -> None:
    """What is copied, or stored and loaded, has the same encoding."""
    assert encode(copy.deepcopy(value)) == encode(value)
    assert encode(pickle.loads(pickle.dumps(value))) == encode(value)


def agree(a: Any, b: Any) -> bool:
    return bool((encode(a) == encode(b)) == (a == b))


@given(moments, moments, zones, zones)
def test_aware_datetimes_are_their_instant(a: datetime, b: datetime, first: tzinfo, second: tzinfo) -> None:
    """Two aware datetimes have one encoding exactly if they are the same instant."""
    left, right = a.replace(tzinfo=first), b.replace(tzinfo=second)
    assert agree(left, right)
    assert encode(left) == encode(left.astimezone(second))
    assert encode(left) != encode(a)


@given(numbers, numbers)
def test_decimals_are_their_number(a: Decimal, b: Decimal) -> None:
    """Decimals have one encoding exactly if they are equal, with or without trailing zeros; 0 and -0
    differ."""
    assert agree(a, b) or (a == b == 0 and a.is_signed() != b.is_signed())
    assert encode(a) == encode(a * Decimal("1.000")) or not a


@given(st.lists(st.integers(0, 9), min_size=40, max_size=60), st.integers(0, 39), st.integers(-80, 80))
def test_no_digit_of_a_decimal_is_lost(digits: list[int], place: int, exponent: int) -> None:
    """Each digit of a decimal counts, beyond the context's precision too."""
    value = Decimal((0, (1, *digits), exponent))
    digits[place] = (digits[place] + 1) % 10
    assert encode(value) != encode(Decimal((0, (1, *digits), exponent)))


@given(st.integers(-4, 4), st.integers(-4, 4), st.sampled_from([-3, -1, 1, 2, 3]), st.integers(-4, 4))
def test_ranges_are_their_sequence(start: int, stop: int, step: int, other: int) -> None:
    """Ranges have one encoding exactly if they give the same numbers."""
    assert agree(range(start, stop, step), range(start, other, step))
    assert agree(range(start, stop, step), range(start, stop, step + (step > 0)))


@given(st.times(), st.times(), zones, zones)
def test_aware_times_compare_with_their_offset(a: time, b: time, first: tzinfo, second: tzinfo) -> None:
    """Aware times have one encoding exactly if they are equal, and never that of a naive time."""
    left, right = a.replace(tzinfo=first), b.replace(tzinfo=second)
    assert agree(left, right)
    assert encode(left) != encode(a)


def test_types_that_look_alike_differ() -> None:
    """Values of different types that look equal have different encodings."""
    numeric = [1, 1.0, Decimal(1), Fraction(1), timedelta(microseconds=1), UUID(int=1), range(1, 2), slice(1)]
    temporal = [date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), time(0)]
    zoned = [timedelta(0), time(0, tzinfo=UTC), UTC, ZoneInfo("UTC"), "UTC"]
    alike = [*numeric, *temporal, *zoned, PurePosixPath("a"), PureWindowsPath("a"), Path("a"), "a", "1", (1,)]
    assert len({encode(value) for value in alike}) == len(alike)


def test_zeros_and_nans_of_decimals_are_as_those_of_floats() -> None:
    """Decimal -0 differs from 0, and all NaNs are equal."""
    assert encode(Decimal("-0.0")) == encode(Decimal("-0")) != encode(Decimal("0.00"))
    assert encode(Decimal("NaN")) == encode(Decimal("-NaN")) == encode(Decimal("sNaN123"))
    assert len({encode(Decimal(text)) for text in ("Infinity", "-Infinity", "NaN", "0")}) == 4


def test_the_hour_that_comes_twice() -> None:
    """In the repeated hour, ``fold`` counts for an aware time and not for a naive one."""
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2024, 10, 27, 2, 30, tzinfo=berlin)
    assert encode(first) != encode(first.replace(fold=1))
    assert encode(first) == encode(datetime(2024, 10, 27, 0, 30, tzinfo=UTC))
    assert encode(datetime(2024, 10, 27, 2, 30)) == encode(datetime(2024, 10, 27, 2, 30, fold=1))


def test_the_ends_of_time_are_encoded() -> None:
    """Instants outside the range of datetime are encoded."""
    east = timezone(timedelta(hours=14))
    assert encode(datetime.min.replace(tzinfo=east)) != encode(datetime.min.replace(tzinfo=UTC))
    assert encode(datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))) != encode(datetime.max)


def test_a_time_in_a_zone_without_a_date_keeps_its_zone() -> None:
    """The key counts a zone that gives no offset, although ``==`` ignores it."""
    assert encode(time(1, tzinfo=ZoneInfo("Asia/Tokyo"))) != encode(time(1, tzinfo=ZoneInfo("Europe/Paris")))
    assert encode(time(1, tzinfo=ZoneInfo("Asia/Tokyo"))) != encode(time(1))


def test_zones_are_known_by_name_and_offset() -> None:
    """A ZoneInfo is encoded by its key, a timezone by its offset; a ZoneInfo without a key is refused."""
    assert encode(timezone(timedelta(hours=1), "A")) == encode(timezone(timedelta(hours=1), "B"))
    assert encode(ZoneInfo.no_cache("Asia/Tokyo")) == encode(ZoneInfo("Asia/Tokyo"))
    with pytest.raises(Unkeyable, match="has no name"):
        encode(nameless_zone())


def nameless_zone() -> ZoneInfo:
    import io

    utc = b"TZif2" + b"\0" * 15 + b"\0\0\0\0" * 4 + b"\0\0\0\1\0\0\0\4" + b"\0" * 6 + b"UTC\0"
    return ZoneInfo.from_file(io.BytesIO(utc + utc + b"\nUTC0\n"))


def test_windows_paths_have_no_case() -> None:
    """Windows paths ignore case and the kind of slash; POSIX paths do not."""
    assert encode(PureWindowsPath("C:/Data")) == encode(PureWindowsPath("c:\\data"))
    assert encode(PurePosixPath("Data")) != encode(PurePosixPath("data"))
    assert encode(PurePosixPath("a//b/.")) == encode(PurePosixPath("a/b"))


class Stamp(datetime):
    pass


class Amount(Decimal):
    pass


class Folder(type(Path())):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("value", "base", "other"),
    [
        (Stamp(2024, 1, 1), datetime(2024, 1, 1), Stamp(2024, 1, 2)),
        (Amount("1.0"), Decimal("1.0"), Amount("2")),
        (Folder("a"), Path("a"), Folder("b")),
    ],
)
def test_subclasses_are_not_their_base(value: Any, base: Any, other: Any) -> None:
    """A subclass of a standard type differs from it."""
    assert encode(value) == encode(type(value)(value) if isinstance(value, Decimal | PurePath) else value)
    assert len({encode(value), encode(base), encode(other)}) == 3


def test_names_in_encodings_are_unique() -> None:
    """No two standard types have the same name in encodings."""
    found = [*STANDARD_TYPES.values(), *(standard_type(cls) for cls in (Decimal, Fraction, ZoneInfo))]
    assert len({name for name, _ in filter(None, found)}) == len(found)


def test_a_class_that_only_calls_itself_like_a_standard_one() -> None:
    """A user's class with the name of a standard class is not taken for it."""
    pretender = type("Decimal", (), {"__module__": "decimal"})
    assert standard_type(pretender) is None
    with pytest.raises(Unkeyable):
        encode(pretender())
    with pytest.raises(TypeError, match="fixed"):
        encode.register(Decimal)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (deque([1, 2]), deque([1, 2], maxlen=5)),
        (MappingProxyType({"a": 1, "b": 2}), MappingProxyType({"b": 2, "a": 1})),
        (ChainMap({"a": 1}, {"a": 2, "b": 3}), ChainMap({"a": 1, "b": 3})),
        (SimpleNamespace(a=1, b=2), SimpleNamespace(b=2, a=1)),
        (UserDict(a=1), UserDict({"a": 1})),
        (re.compile("a", re.I), re.compile("a", re.IGNORECASE)),
        (re.compile("(?i)a"), re.compile("(?i)a")),
        (ip_address("::1"), ip_address("0:0:0:0:0:0:0:1")),
        (ip_network("10.0.0.0/8"), ip_network("10.0.0.0/255.0.0.0")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_equal_values_of_the_standard_library_have_one_encoding(one: Any, same: Any) -> None:
    """Equal values that are written differently have one encoding."""
    assert one == same
    assert encode(one) == encode(same)


def test_values_of_the_standard_library_that_differ() -> None:
    """Different values, and different types with the same content, have different encodings."""
    values = [
        *(deque([1]), deque([2]), [1], MappingProxyType({"a": 1}), ChainMap({"a": 1}), {"a": 1}),
        *(SimpleNamespace(a=1), SimpleNamespace(a=2), UserDict(a=1), UserString("a"), "a"),
        *(re.compile("a"), re.compile("a", re.I), re.compile(b"a"), re.compile("b")),
        *(ip_address("0.0.0.1"), ip_address("::1"), 1, ip_address("fe80::1%a"), ip_address("fe80::1%b")),
        *(ip_network("10.0.0.0/8"), ip_network("10.0.0.0/9"), ip_interface("10.0.0.1/8")),
        *(ip_interface("10.0.0.1/9"), array("i", [1]), array("d", [1])),
    ]
    assert len({encode(value) for value in values}) == len(values)


class Frozen(Mapping[str, int]):
    """A mapping of somebody's own that compares as mappings do."""

    def __init__(self, **items: int) -> None:
        self._items = items

    def __getitem__(self, key: str) -> int:
        return self._items[key]

    def __iter__(self) -> Any:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def test_mappings_of_ones_own_count_by_their_items() -> None:
    """A class with the equality of ``Mapping`` is encoded by its items and its path."""
    assert encode(Frozen(a=1, b=2)) == encode(Frozen(b=2, a=1))
    assert len({encode(value) for value in (Frozen(a=1), Frozen(a=2), {"a": 1})}) == 3
