"""Previews: what people may read beside a payload, and what they may not."""

import json
import traceback

import pytest

from flowdsl.codecs.previews import Previews
from flowdsl.core.preview import error_lines


def caught(raiser):
    try:
        raiser()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def own_code():
    raise ValueError("no such card")  # the line to see


def library_code():
    json.loads("{")


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_an_error_is_shown_with_the_users_own_line():
    """The preview of an error has type and text, then file, line and function, then the source line."""
    text, where, source = error_lines(Previews().error(caught(own_code)))
    line = own_code.__code__.co_firstlineno + 1
    assert (text, where) == ("ValueError: no such card", f"test_previews.py:{line} in own_code")
    assert source == 'raise ValueError("no such card")  # the line to see'


def test_an_error_raised_in_a_library_is_shown_where_the_user_called_it():
    """The preview of an error in a library shows the user's line that called it."""
    _, where, source = error_lines(Previews().error(caught(library_code)))
    assert where.endswith("in library_code")
    assert source == 'json.loads("{")'


def test_an_error_loaded_from_a_stored_text_keeps_its_place():
    """Without a traceback object, the stored text of the traceback gives the place."""
    original = caught(own_code)
    loaded = ValueError("no such card")
    loaded.__dict__["__flow_traceback__"] = "".join(traceback.format_exception(original))
    assert Previews().error(loaded) == Previews().error(original)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\nlines"), "ValueError: two lines"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 499 + "…"),
        (Odd("x"), "Odd: <unprintable Odd object>"),
        (KeyError("k"), "KeyError: 'k'"),
        (ValueError(), "ValueError: "),
    ],
    ids=["lines", "long", "odd", "key", "empty"],
)
def test_an_error_that_was_never_raised_is_one_line(error, text):
    """The preview of an error that was never raised is one shortened line, even if its text cannot be had."""
    assert Previews().error(error) == text


def test_without_previews_nothing_is_told():
    """Without previews values, calls and texts are empty, and an error is only its type."""
    hidden = Previews(shown=False)
    assert (hidden.value("x"), hidden.text("x")) == ("", "")
    assert hidden.error(caught(own_code)) == hidden.error_line(caught(own_code)) == "ValueError"
