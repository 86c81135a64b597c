"""Previews: one line, bounded, never raising."""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.preview import preview, preview_call

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.characters(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


@given(anything, st.integers(1, 120))
def test_a_preview_is_one_short_printable_line(value: Any, limit: int) -> None:
    """The preview of any value fits the limit, is one line, and can be stored."""
    text = preview(value, limit)
    assert 0 < len(text) <= limit
    assert text.isprintable()
    text.encode()


@given(anything)
def test_a_small_value_is_shown_as_it_is(value: Any) -> None:
    """A small value is shown by its ``repr``."""
    text = repr(value)
    if len(text) <= 60:
        assert preview(value, 60) == text


@given(anything)
def test_what_does_not_fit_is_cut_with_a_sign(value: Any) -> None:
    """An incomplete preview ends with an ellipsis."""
    whole, cut = preview(value, 10_000), preview(value, 12)
    assert cut == whole if len(whole) <= 12 else cut == whole[:11] + "…"


@dataclass
class Order:
    id: int
    items: list[Any] = field(default_factory=list)
    token: str = field(default="secret", repr=False)


@dataclass
class Quiet:
    password: str

    def __repr__(self) -> str:
        return "Quiet(…)"


@attrs.define
class Parcel:
    weight: int
    token: str = attrs.field(default="secret", repr=False)


class Point(NamedTuple):
    x: int
    y: Any


class Secret(str):
    def __repr__(self) -> str:
        return "Secret('***')"


class Many(list[Any]):
    pass


class Raising:
    def __repr__(self) -> str:
        raise ValueError("no")


class Wrong:
    def __repr__(self) -> str:
        return 3  # type: ignore[return-value]


class Loud:
    def __repr__(self) -> str:
        return "two\nlines \x1b[31mred\udc80"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Order(7, ["pen"]), "Order(id=7, items=['pen'])"),
        (Quiet("hunter2"), "Quiet(…)"),
        (Parcel(3), "Parcel(weight=3)"),
        (Point(1, [2]), "Point(x=1, y=[2])"),
        (Secret("hunter2"), "Secret('***')"),
        ([Secret("hunter2")], "[Secret('***')]"),
        (Many([1]), "Many([1])"),
        ((1,), "(1,)"),
        ((), "()"),
        (set(), "set()"),
        ({3, 1, 2.5}, "{1, 2.5, 3}"),
        (set("hello"), "{'e', 'h', 'l', 'o'}"),
        (frozenset(), "frozenset()"),
        (frozenset({1}), "frozenset({1})"),
        (Counter("aa"), "Counter({'a': 2})"),
        (Raising(), "<Raising whose repr raised ValueError>"),
        ([Raising()], "[<Raising whose repr raised ValueError>]"),
        (Wrong(), "<Wrong whose repr raised TypeError>"),
        (Loud(), "two lines \\x1b[31mred\\udc80"),
        (10**5000, "<int of 16610 bits>"),
        (Order, "<class 'test_preview.Order'>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_kinds_of_values(value: Any, text: str) -> None:
    """A user's repr is used, a generated one is limited, and a broken one is replaced by the type."""
    assert preview(value).replace(f"{__name__}.", "test_preview.") == text


def test_a_repr_written_by_hand_is_never_passed_over() -> None:
    """A class that masks its content stays masked in every container."""
    secret = Secret("hunter2")
    holders = [
        [secret],
        (secret,),
        {secret},
        {"k": secret},
        {secret: 1},
        Order(1, [secret]),
        Point(1, secret),
    ]
    for holder in [*holders, OrderedDict(k=secret), deque([secret])]:
        assert "hunter2" not in preview(holder)


def test_huge_values_are_only_looked_at_from_the_front() -> None:
    """Of a million objects only the first few are asked for their repr."""
    asked = 0

    class Counted:
        def __repr__(self) -> str:
            nonlocal asked
            asked += 1
            return "Counted()"

    many = [Counted()] * 1_000_000
    for value in (many, {"a": many}, Order(1, many), Point(1, many), tuple(many), [[many] * 1000] * 1000):
        asked = 0
        assert len(preview(value)) == 200
        assert asked < 100


def test_nesting_is_cut() -> None:
    """Deep and endless nesting ends with an ellipsis."""
    value: list[Any] = []
    value.append(value)
    assert preview(value) == "[[[[[[[…]]]]]]]"
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    assert "…" in preview(deep)


def test_long_strings_and_bytes_are_cut_before_they_are_escaped() -> None:
    """Only the beginning of a long string is read."""

    looked_at = []

    class Watched(str):
        def __getitem__(self, place: Any) -> str:
            looked_at.append(place.stop)
            return str.__getitem__(self, place)

    assert preview(Watched("x" * 10_000), 50) == "'" + "x" * 48 + "…"
    assert len(looked_at) == 1
    assert looked_at[0] < 100
    assert preview(b"\0" * 10_000, 50) == "b'" + r"\x00" * 11 + r"\x0"[:3] + "…"


def test_arrays_and_frames_are_summed_up() -> None:
    """Arrays and frames are shown by kind, shape, dtype or columns, not by content."""
    np, pd, pl = (pytest.importorskip(name) for name in ("numpy", "pandas", "polars"))
    assert preview(np.zeros((3, 4))) == "<ndarray 3×4 of float64>"
    assert preview(np.float64(1.5)) == repr(np.float64(1.5))
    assert preview(pd.DataFrame({"a": [1], "b": [2]})) == "<DataFrame 1×2: a, b>"
    assert preview(pd.Series([1, 2])) == "<Series 2 of int64>"
    assert preview(pl.DataFrame({"a": [1]})) == "<DataFrame 1×1: a>"
    assert preview([np.zeros(2)]) == "[<ndarray 2 of float64>]"


def test_interrupts_are_not_swallowed() -> None:
    """A ``KeyboardInterrupt`` in a repr is raised."""

    class Interrupted:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preview(Interrupted())


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), anything), max_size=4), st.integers(1, 80))
def test_arguments_are_shown_by_name(arguments: list[tuple[str, Any]], limit: int) -> None:
    """Arguments are shown as ``name=value``, with commas, within the limit."""
    places = [(name, place) for place, (name, _) in enumerate(arguments)]
    text = preview_call(places, [value for _, value in arguments], limit)
    assert len(text) <= limit
    whole = ", ".join(f"{name}={preview(value, 10_000)}" for name, value in arguments)
    if len(whole) <= limit:
        assert text == whole
