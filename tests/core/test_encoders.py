"""Canonical encoding of scalars and containers, mostly as laws over generated values."""

import copy
import pickle
import random
import struct
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from flowdsl.core import encoders
from flowdsl.core.encoding import encode

NAN = float("nan")
OTHER_NAN = struct.unpack(">d", b"\xff\xf8\x00\x00\x00\x00\x00\x01")[0]

# ----------------------------------------------------------------------------- strategies and oracles

confusable = st.sampled_from(
    [
        None,
        False,
        0,
        0.0,
        -0.0,
        "",
        b"",
        True,
        1,
        1.0,
        "1",
        b"1",
        1 + 0j,
        NAN,
        OTHER_NAN,
        "N",
        b"i1;",
        "i1;",
        ...,
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.text(st.characters(categories=["Cs", "Lu"]))
    | st.binary()
    | st.binary().map(bytearray)
)


def hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def nested_in(leaves: st.SearchStrategy[Any], size: int = 8) -> st.SearchStrategy[Any]:
    keys = leaves.filter(hashable)
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=3)
            | st.sets(keys, max_size=3)
            | st.frozensets(keys, max_size=3)
        ),
        max_leaves=size,
    )


values = nested_in(scalars)
small = nested_in(confusable, size=4)


def same(a: Any, b: Any) -> bool:
    """Equality by type and value, written without the encoding: what the encoding has to agree with."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a != a and b != b) or struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return matched(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return matched(list(a), list(b))
    return bool(a == b)


def matched(left: list[Any], right: list[Any]) -> bool:
    """Whether two lists hold the same in any order."""
    for item in left:
        place = next((place for place, other in enumerate(right) if same(item, other)), None)
        if place is None:
            return False
        del right[place]
    return not right


def decode(code: bytes) -> Any:
    """Read an encoding of builtins back. That this can be written is what makes the encoding injective."""
    value, rest = read(code)
    assert rest == b""
    return value


def read(code: bytes) -> tuple[Any, bytes]:
    tag, rest = code[:1], code[1:]
    if tag in b"NTF.":
        return {b"N": None, b"T": True, b"F": False, b".": ...}[tag], rest
    if tag == b"i":
        digits, _, rest = rest.partition(b";")
        return int(digits, 16), rest
    if tag == b"f":
        return struct.unpack(">d", rest[:8])[0], rest[8:]
    if tag == b"c":
        return complex(*struct.unpack(">dd", rest[:16])), rest[16:]
    size, _, rest = rest.partition(b":")
    count = int(size)
    if tag in b"syY":
        data, rest = rest[:count], rest[count:]
        text: Any = data.decode("utf-8", "surrogatepass") if tag == b"s" else data
        return bytearray(data) if tag == b"Y" else text, rest
    items = []
    for _ in range(count * 2 if tag == b"d" else count):
        item, rest = read(rest)
        items.append(item)
    if tag == b"d":
        return dict(zip(items[::2], items[1::2])), rest
    return {b"l": list, b"t": tuple, b"e": set, b"E": frozenset}[tag](items), rest


def depth(value: Any) -> int:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return 1 + max(map(depth, value), default=0)
    return 0


# ----------------------------------------------------------------------------------------- properties


@given(small, small)
@example([1], [True])
@example({1: 2}, {1.0: 2})
@example([[]], [()])
def test_keys_are_equal_exactly_if_values_are(a: Any, b: Any) -> None:
    """Two values have one encoding exactly if type and value are equal."""
    assert (encode(a) == encode(b)) == same(a, b)


@given(values)
@example("\udc80")
@example(-(2**70))
def test_an_encoding_can_be_read_back(value: Any) -> None:
    """A value can be decoded from its encoding, if no container is folded into a digest."""
    assume(depth(value) <= encoders._FOLD_DEPTH)
    assert same(decode(encode(value)), value)


@given(values, values)
def test_no_encoding_begins_another(a: Any, b: Any) -> None:
    """No encoding is the beginning of another, so encodings can be joined."""
    left, right = encode(a), encode(b)
    assert left == right or not right.startswith(left)


@given(values)
def test_a_copy_and_a_loaded_pickle_have_the_same_encoding(value: Any) -> None:
    """A copy of a value, and the value loaded from its pickle, have the same encoding."""
    code = encode(value)
    assert encode(copy.deepcopy(value)) == code
    assert encode(pickle.loads(pickle.dumps(value))) == code


@given(st.dictionaries(scalars.filter(hashable), values), st.randoms())
def test_order_of_mappings_and_sets_does_not_count(value: dict[Any, Any], rng: random.Random) -> None:
    """The order of a dict, set or frozenset does not count."""
    items = list(value.items())
    rng.shuffle(items)
    names = [name for name, _ in items]
    assert encode(dict(items)) == encode(value)
    assert encode(set(names)) == encode(set(value))
    assert encode(frozenset(names)) == encode(frozenset(value))


@given(values, st.integers(0, 6))
def test_sharing_does_not_count(value: Any, levels: int) -> None:
    """Using one object twice is the same as using two equal objects."""
    shared, apart = [value, value], [value, copy.deepcopy(value)]
    for _ in range(levels):
        shared, apart = [shared, shared], [apart, copy.deepcopy(apart)]
    assert encode(shared) == encode(apart)


@given(small, small, st.integers(encoders._FOLD_DEPTH, 8))
def test_what_is_folded_still_counts(a: Any, b: Any, levels: int) -> None:
    """Values that differ in a part that is folded into a digest have different encodings."""
    padding = "so long that the encoding is longer than a digest"
    for _ in range(levels):
        a, b = [a, padding], [b, padding]
    assert (encode(a) == encode(b)) == same(a, b)


# ------------------------------------------------------------------------------------------- builtins


def test_the_seven_values_of_the_design_are_seven() -> None:
    """1, 1.0, True, "1", b"1", (1,) and [1] are seven values."""
    assert len({encode(value) for value in (1, 1.0, True, "1", b"1", (1,), [1])}) == 7


def test_zeros_are_two_and_nans_are_one() -> None:
    """-0.0 differs from 0.0, and all NaNs are equal, also in complex numbers and containers."""
    assert encode(0.0) != encode(-0.0)
    assert encode(complex(0, 0.0)) != encode(complex(0, -0.0))
    assert encode([NAN]) == encode([OTHER_NAN]) == encode([-NAN])
    assert encode(complex(1, NAN)) == encode(complex(1, OTHER_NAN))
    assert encode({NAN, OTHER_NAN}) != encode({NAN})


def test_unicode_is_taken_as_it_is() -> None:
    """Composed and decomposed letters are different strings, as in Python."""
    assert encode("\u00e9") != encode("e\u0301")


def test_a_huge_integer_is_no_problem() -> None:
    """An integer beyond Python's limit of decimal digits is encoded."""
    assert encode(10**5000) != encode(10**5000 + 1)


def test_things_shared_many_times_cost_what_they_cost_once() -> None:
    """A value that shares its parts, and would have 2**150 leaves, is encoded quickly."""
    value: Any = [1]
    for _ in range(150):
        value = [value, value]
    assert len(encode(value)) < 2000
