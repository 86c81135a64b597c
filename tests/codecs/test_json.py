"""The JSON codec: readable, and refusing what it would alter."""

import json
from collections import OrderedDict
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.codecs import JsonCodec
from flowdsl.errors import ResultNotStorable, StorageError

texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda parts: st.lists(parts) | st.dictionaries(texts, parts),
    max_leaves=20,
)


@given(values)
def test_what_json_has_comes_back(value):
    """Every JSON value comes back exactly, with the order of keys and the kind of number."""
    loaded = JsonCodec().loads(JsonCodec().dumps(value))
    assert repr(loaded) == repr(value)


@given(values)
def test_it_is_plain_json(value):
    """Any other JSON reader reads the same value."""
    assert json.loads(JsonCodec().dumps(value).decode("utf-8")) == value


def test_it_is_readable():
    """Text is stored without escapes, so it stays readable."""
    assert JsonCodec().dumps({"name": "Zoë", "n": [1, 2]}).decode() == '{"name": "Zoë", "n": [1, 2]}'


class Colour(StrEnum):
    """A str that is more."""

    RED = "red"


def test_subclasses_become_their_plain_base():
    """Members of ``StrEnum``, ordered dicts and tuples come back as their plain JSON types."""
    value = OrderedDict(colour=Colour.RED, pair=(1, True))
    assert repr(JsonCodec().loads(JsonCodec().dumps(value))) == "{'colour': 'red', 'pair': [1, True]}"
    assert JsonCodec().loads(JsonCodec().dumps({Colour.RED: 1})) == {"red": 1}


@pytest.mark.parametrize("key", [1, 1.5, True, None, (1, 2), b"x"])
def test_keys_that_are_no_strings_are_refused(key):
    """Dict keys that are not strings are refused, because json would silently change them."""
    with pytest.raises(ResultNotStorable, match="keys of a dict must be strings") as caught:
        JsonCodec().dumps([{"deep": ({key: 1},)}])
    assert caught.value.where.startswith("[0]['deep'][0]")


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("-inf"), b"x", {1}, object(), 1j, "\ud800", 10**5000],
    ids=lambda value: type(value).__name__,
)
def test_what_json_does_not_have_is_refused(value):
    """NaN, infinities, bytes, sets, objects, lone surrogates and unreadable numbers are refused."""
    with pytest.raises(ResultNotStorable) as caught:
        JsonCodec().dumps({"a": [0, value]})
    assert caught.value.where == "['a'][1]"
    assert "at ['a'][1]" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[1,]", b"[" * 100_000])
def test_what_is_no_json_is_a_storage_error(data):
    """Text that is not JSON is a typed error."""
    with pytest.raises(StorageError, match="not JSON"):
        JsonCodec().loads(data)
