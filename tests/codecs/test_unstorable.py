"""The path to the part of a value that is at fault."""

import pickle
import threading
from dataclasses import dataclass
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.codecs.unstorable import describe_fault


class Bad:
    """The part at fault."""


BAD = Bad()


def storable(value, above=()):
    """Say whether no BAD is anywhere in value, as a codec would."""
    if value is BAD:
        return False
    if any(value is one for one in above):
        return True
    above = (*above, value)
    if isinstance(value, dict):
        return all(storable(part, above) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(storable(part, above) for part in value)
    if attrs.has(type(value)):
        return all(storable(getattr(value, name.name), above) for name in attrs.fields(type(value)))
    if callable(value) and getattr(value, "__closure__", None):
        return all(storable(cell.cell_contents, above) for cell in value.__closure__)
    slots = [getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    return all(storable(part, above) for part in [*getattr(value, "__dict__", {}).values(), *slots])


@dataclass
class Data:
    """A dataclass."""

    part: Any


@attrs.define
class Attrs:
    """An attrs class with slots."""

    part: Any


class Slots:
    """Slots, one of them unset."""

    __slots__ = ("part", "unset")

    def __init__(self, part):
        self.part = part


class Plain:
    """Attributes only."""

    def __init__(self, part):
        self.part = part


def closing(part):
    """Return a function that closes over part."""
    return lambda: part


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (BAD, ""),
        ({"conn": BAD}, "['conn']"),
        ([0, [1, BAD]], "[1][1]"),
        ((0, {"a": (BAD,)}), "[1]['a'][0]"),
        ({BAD: 1}, " (key <"),
        ({0, BAD}, " (element <"),
        (Data(BAD), ".part"),
        (Attrs([BAD]), ".part[0]"),
        (Slots(Data(BAD)), ".part.part"),
        (Plain({"x": Slots(BAD)}), ".part['x'].part"),
        (closing([BAD]), " (closing over part)[0]"),
        (ValueError("a", BAD), ".args[1]"),
    ],
)
def test_names_the_path(value, path):
    """The path leads through containers, attributes, slots and closures."""
    found = describe_fault(value, storable)
    assert found == path or (path.endswith("<") and found.startswith(path))


boxes = st.sampled_from([Data, Attrs, Slots, Plain, lambda v: [0, v], lambda v: {"k": v}, lambda v: (v, 1)])


@given(st.lists(boxes, max_size=15))
def test_the_path_leads_to_the_part(layers):
    """Following the path from the value leads to the part at fault, however deep it is."""
    value = BAD
    for layer in layers:
        value = layer(value)
    assert eval("value" + describe_fault(value, storable), {"value": value}) is BAD


def test_is_asked_little_of_a_large_value():
    """For a large value only a few parts are tried, by halving."""
    asked = []
    value = [0] * 100_000 + [BAD] + [0] * 100_000

    def probe(part):
        asked.append(part)
        return BAD not in part if isinstance(part, list) else part is not BAD

    assert describe_fault(value, probe) == "[100000]"
    assert len(asked) < 50


def test_ends_in_a_cycle_and_in_the_deep():
    """A value that contains itself and a very deep value end the search."""
    loop: list = []
    loop.append(loop)
    assert describe_fault(loop, lambda part: False) in ("", "[0]")
    deep: Any = BAD
    for _ in range(200):
        deep = [deep]
    assert describe_fault(deep, lambda part: False).endswith("…")


def test_a_repr_that_raises_does_no_harm():
    """A key whose repr raises is shown by its type."""

    class Odd:
        def __repr__(self):
            raise RuntimeError("no")

    assert describe_fault({Odd(): BAD}, storable) == "[<Odd>]"
    assert len(describe_fault({"k" * 1000: BAD}, storable)) < 60


def test_a_container_that_raises_does_no_harm():
    """A mapping that raises when it is read is named as a whole."""

    class Odd(dict):
        def items(self):
            raise RuntimeError("closed")

    assert describe_fault([Odd(a=BAD)], lambda part: part != [Odd(a=BAD)] and part != Odd(a=BAD)) == "[0]"


def test_a_real_lock():
    """The search works with pickle's own test, for a real lock."""

    def picklable(part):
        try:
            pickle.dumps(part)
        except TypeError:
            return False
        return True

    assert describe_fault(Data(Plain(threading.Lock())), picklable) == ".part.part"
