"""Generated encoders of dicts of one shape: the same bytes as the general one, and the same refusals."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import examples

from flowdsl.core.encoders import _any_dict
from flowdsl.core.encoding import ENCODERS, encode
from flowdsl.core.unkeyable import Unkeyable

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
    | st.binary(max_size=4)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=4), inner, max_size=6),
    max_leaves=30,
)
NAMES = ("id", "name", "%d", "über", "a", "ab")


class Text(str):
    pass


def general(value: dict[Any, Any]) -> bytes:
    """What the general encoder makes of *value*."""
    return _any_dict(value, 1, None)


@settings(max_examples=examples(20))
@given(st.fixed_dictionaries(dict.fromkeys(NAMES, values)))
def test_a_generated_encoder_gives_what_the_general_one_gives(row: dict[str, Any]) -> None:
    """A generated encoder gives the same bytes as the general one, for a new and a known shape."""
    new = general(row)
    assert all(encode(row) == new for _ in range(12))


@settings(max_examples=examples(20))
@given(st.lists(values, min_size=8, max_size=20))
def test_lists_of_one_type_are_encoded_like_all_others(items: list[Any]) -> None:
    """A list is encoded as its items side by side, by both encoders."""
    assert encode(items) == b"l%d:" % len(items) + b"".join(ENCODERS[type(i)](i, 1, None) for i in items)


@pytest.mark.parametrize(
    "items",
    [
        [0.0, -0.0, 1e300, 5e-324, float("inf")] * 3,
        [float("inf"), float("-inf")] * 5,
        [1.0, float("nan")] * 5,
        ["a", "é", "\udc80", ""] * 3,
        [10**30, -1, 0] * 4,
        [True] * 9,
    ],
    ids=["floats", "infinities", "nan", "texts", "ints", "bools"],
)
def test_lists_of_hard_values_of_one_type(items: list[Any]) -> None:
    """NaN, infinities, signs and lone surrogates are encoded in a list as they are alone."""
    assert encode(items) == b"l%d:" % len(items) + b"".join(encode(item) for item in items)


def test_keys_of_other_types_are_another_shape() -> None:
    """A key of a subclass of str, and True beside 1, make another shape."""
    for _ in range(12):
        plain, own = encode({"a": 1}), encode({Text("a"): 1})
        number, truth = encode({1: 0}), encode({True: 0})
    assert len({plain, own, number, truth}) == 4


def test_a_class_that_is_registered_later_is_encoded_anew() -> None:
    """A class that is registered later is encoded in the new way, in known shapes too."""

    class Money:
        def __init__(self, amount: int) -> None:
            self.amount = amount

        def __flow_key__(self) -> int:
            return self.amount

    before = [encode({"m": Money(1)}) for _ in range(12)][-1]
    encode.register(Money)(lambda money: ("EUR", money.amount))
    try:
        assert encode({"m": Money(1)}) != before
    finally:
        encode.unregister(Money)
    assert encode({"m": Money(1)}) == before


def test_a_refusal_names_the_place_in_a_known_shape() -> None:
    """In a known shape the error names the same path as in a new one."""
    for _ in range(12):
        encode({"a": 1, "b": {"c": None}})
        with pytest.raises(Unkeyable) as caught:
            encode({"a": 1, "b": {"c": object()}})
        assert caught.value.where == "['b']['c']"


def test_deep_dicts_of_one_shape_that_cannot_be_encoded_are_refused_at_once() -> None:
    """Refusing deep dicts of one shape takes no more work per level."""
    value: Any = object()
    for _ in range(150):
        value = {"a": value}
    for _ in range(12):
        with pytest.raises(Unkeyable):
            encode(value)
