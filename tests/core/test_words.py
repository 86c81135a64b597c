"""The words and signs that all faces share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.core.words import (
    ASCII,
    STATES,
    clean,
    instant,
    iso,
    mark,
    moment,
    nearest,
    round_length,
    size,
    span,
    status_text,
)


def _luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one, other):
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_status_has_a_sign_and_a_colour():
    """The table has each status of runs and steps, and those that only readers see."""
    assert set(STATES) == {*map(str, RunStatus), *map(str, StepStatus), "interrupted", "waiting"}
    assert all(len(state.sign) == 1 and state.colour for state in STATES.values())
    assert status_text("interrupted") == "! interrupted"


@pytest.mark.parametrize("state", STATES.values(), ids=lambda state: state.word)
def test_colours_can_be_read_on_white_and_on_black(state):
    """Each colour has a contrast of at least 4.5."""
    assert _contrast(state.light, "#ffffff") >= 4.5
    assert _contrast(state.dark, "#161b22") >= 4.5


def test_every_sign_has_an_ascii_form():
    """Each sign has one ASCII character."""
    assert all(state.sign.translate(ASCII).isascii() for state in STATES.values())


@given(st.text())
def test_clean_text_is_printable_and_one_line(text):
    """Cleaned text has nothing that a terminal obeys, and keeps everything printable."""
    shown = clean(text)
    assert shown.isprintable()
    assert clean(shown) == shown


@given(st.floats(allow_nan=False))
def test_every_time_can_be_shown(seconds):
    """A time outside the calendar is shown as the first or last time."""
    assert moment(seconds)
    assert moment(seconds, zone=True)
    assert iso(seconds) == instant(seconds).isoformat()


@given(st.floats(min_value=0, max_value=1e12))
def test_lengths_of_time_are_short(seconds):
    """A length of time is short."""
    assert 0 < len(span(seconds)) <= 12


def test_near_names_are_offered():
    """A mistyped name gets the nearest name, and an unlike name gets none."""
    assert nearest("ordr-17", ["order-17", "crawl-3"]) == " (did you mean 'order-17'?)"
    assert nearest("chekout", ["shop.checkout"]) == " (did you mean 'shop.checkout'?)"
    assert nearest("zebra", ["order-17"]) == ""
    assert nearest("order-1", ["order-1\x1b[31m"]) == ""


def test_sizes():
    """A size has a fitting unit."""
    assert [size(n) for n in (0, 1023, 1024, 1 << 40)] == ["0 B", "1023 B", "1.0 KiB", "1.0 TiB"]


@given(st.floats(min_value=1e-5, max_value=1e7))
def test_the_marks_of_an_axis_differ(whole):
    """However short the time that an axis shows, no two of its marks have the same text."""
    step = round_length(whole / 8)
    texts = [mark(n * step, step) for n in range(9)]
    assert len(set(texts)) == len(texts)
