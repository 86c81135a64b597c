"""Durations: what can be written, what it means, and what is refused."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.durations import seconds

UNITS = {
    0.001: ["ms", "msec", "msecs", "millisecond", "milliseconds"],
    1: ["s", "sec", "secs", "second", "seconds"],
    60: ["m", "min", "mins", "minute", "minutes"],
    3_600: ["h", "hr", "hrs", "hour", "hours"],
    86_400: ["d", "day", "days"],
    604_800: ["w", "wk", "wks", "week", "weeks"],
}


@given(st.floats(0, 1e15) | st.integers(0, 10**15))
def test_numbers_are_seconds(number: float) -> None:
    """A number is itself, as a float."""
    assert seconds(number) == float(number)
    assert type(seconds(number)) is float


@given(st.timedeltas(timedelta(0)))
def test_timedeltas_are_their_length(delta: timedelta) -> None:
    """A ``timedelta`` is its number of seconds."""
    assert seconds(delta) == delta.total_seconds()


@given(st.data())
def test_parts_add_up(data: st.DataObject) -> None:
    """Numbers with units from large to small, with or without spaces and in any case, add up exactly."""
    chosen = data.draw(st.lists(st.sampled_from(list(UNITS)), min_size=1, unique=True))
    text, expected = data.draw(st.sampled_from(["", " "])), Fraction(0)
    for length in sorted(chosen, reverse=True):
        number = data.draw(st.integers(0, 999) | st.decimals(0, 99, places=2, allow_nan=False))
        name = data.draw(st.sampled_from(UNITS[length]))
        if len(name) > 1:
            name = data.draw(st.sampled_from([name, name.upper(), name.title()]))
        space, gap = (data.draw(st.sampled_from(["", " ", "\t "])) for _ in range(2))
        text += f"{number}{space}{name}{gap}"
        expected += Fraction(number) * (Fraction(1, 1000) if length == 0.001 else int(length))
    assert seconds(text) == float(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 sec", 30),
        ("5 min", 300),
        ("2 hours", 7_200),
        ("1 day", 86_400),
        ("2 weeks", 1_209_600),
        ("15m", 900),
        ("1h30m", 5_400),
        ("250ms", 0.25),
        ("1.5h", 5_400),
        (".5s", 0.5),
        ("0s", 0),
        (" 1 H 5 Min ", 3_900),
        ("100ms", 0.1),
    ],
)
def test_durations_of_the_documentation(text: str, expected: float) -> None:
    """The durations in the documentation mean what it says."""
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "  ",
            "5",
            "1.5",
            "min",
            "-5 min",
            "−5 min",
            "+5s",
            "5 minutes ago",
            "1 fortnight",
            "P1D",
            "1:30",
        ],
        *[
            "1 month",
            "2 months",
            "1mo",
            "1 year",
            "3y",
            "5M",
            "nan s",
            "inf s",
            "1e3s",
            "1_000s",
            "1,5h",
            "1.h",
        ],
        *["1h 30", "30m1h", "1h1h", "1h2hours", "1h,30m", "1h and 30m", "5 s.", "١s", "１s"],
        *["9" * 400 + "s", "9" * 5000 + "s", "soon" * 100],
    ],
)
def test_nonsense_is_refused_with_the_text_and_examples(text: str) -> None:
    """An unreadable text is refused, and the message shows it with readable examples."""
    with pytest.raises(ValueError, match="cannot read the duration") as caught:
        seconds(text)
    assert repr(text[:20])[:-1] in str(caught.value)
    assert '"1h30m"' in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "reason"), [("1 month", "fixed length"), ("2 Years", "fixed"), ("-1s", "negative")]
)
def test_why_a_text_is_refused_is_said(text: str, reason: str) -> None:
    """Months, years and negative texts are refused, with the reason."""
    with pytest.raises(ValueError, match=reason):
        seconds(text)


@pytest.mark.parametrize(
    "value", [-1, -0.1, float("nan"), float("inf"), -timedelta(1), 10**400, Decimal("-1")]
)
def test_negative_and_endless_durations_are_refused(value: Any) -> None:
    """A negative or infinite duration is refused."""
    with pytest.raises(ValueError, match="finite and not negative"):
        seconds(value)


@pytest.mark.parametrize("value", [None, True, b"5s", [1], 1j, object()])
def test_other_types_are_refused(value: Any) -> None:
    """Another type is a ``TypeError`` that names it."""
    with pytest.raises(TypeError, match=type(value).__name__):
        seconds(value)


def test_other_numbers_are_taken() -> None:
    """Fractions, decimals and numpy numbers are accepted, and minus zero is zero."""
    np = pytest.importorskip("numpy")
    assert [seconds(value) for value in (Fraction(1, 2), Decimal("0.5"), np.float32(0.5))] == [0.5] * 3  # type: ignore[arg-type]
    assert str(seconds(-0.0)) == "0.0"
