"""Payloads: what is packed comes back as the caller saw it, or a typed error says why not."""

import logging
import pickle
import threading
from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.codecs import (
    Codec,
    Compressed,
    Encrypted,
    JsonCodec,
    Limited,
    PickleCodec,
    Signed,
    TypedJsonCodec,
)
from flowdsl.codecs.envelope import seal
from flowdsl.codecs.payloads import Payloads, _context
from flowdsl.errors import CorruptPayload, MissingClass, ResultNotStorable, StorageError

HERE = ("run-1", "ab" * 20, "step")
KEY = b"0123456789abcdef0123456789abcdef"
CODECS = [PickleCodec(), JsonCodec(), Signed(PickleCodec(), "key"), Encrypted(JsonCodec(), KEY)]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
plain_values = st.recursive(
    scalars,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), parts),
    max_leaves=12,
)
any_values = st.recursive(
    scalars | st.binary() | st.complex_numbers(allow_nan=False) | st.dates() | st.uuids(),
    lambda parts: st.lists(parts) | st.tuples(parts, parts) | st.dictionaries(scalars, parts, max_size=3),
    max_leaves=12,
)
places = st.tuples(*[st.text(max_size=12)] * 3)


@pytest.fixture(params=CODECS, ids=lambda codec: codec.id)
def payloads(request):
    """Payloads for each of the codecs."""
    return Payloads(request.param)


# ---------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
@given(value=plain_values, place=places)
def test_unpack_gives_what_pack_returned(codec, value, place):
    """For every codec, ``unpack`` returns the value that ``pack`` returned."""
    payloads = Payloads(codec)
    payload, seen = payloads.pack(value, *place)
    again = payloads.unpack(payload, *place)
    assert again == seen == value
    assert type(again) is type(seen) is type(value)


@given(value=any_values)
def test_pickle_gives_back_what_it_was_given(value):
    """With the default codec nothing changes, including tuples and keys."""
    payloads = Payloads(PickleCodec())
    payload, seen = payloads.pack(value, *HERE)
    assert repr(seen) == repr(value)
    assert repr(payloads.unpack(payload, *HERE)) == repr(value)


@given(value=any_values, bit=st.integers(0), secret=st.sampled_from([None, b"secret"]))
def test_a_flipped_bit_never_reaches_the_codec(value, bit, secret):
    """A damaged payload is refused before anything is loaded, with every codec."""

    class Watched(PickleCodec):
        loaded = 0

        def loads(self, data):
            Watched.loaded += 1
            return super().loads(data)

    payloads = Payloads(Watched(), secret)
    payload = bytearray(payloads.pack(value, *HERE)[0])
    payload[bit // 8 % len(payload)] ^= 1 << bit % 8
    before = Watched.loaded
    reseal = lambda payload, *here: payloads.reseal(payload, here, HERE)
    for read in (payloads.unpack, payloads.unpack_error, reseal):
        with pytest.raises(CorruptPayload) as caught:
            read(bytes(payload), *HERE)
        assert (caught.value.run, caught.value.key) == HERE[:2]
    assert Watched.loaded == before


@given(one=places, two=places)
def test_a_payload_only_loads_in_its_place(one, two):
    """A payload loads only in its own place, even if the parts of two places join to the same text."""
    payloads = Payloads(PickleCodec())
    payload, _ = payloads.pack([1], *one)
    if one == two:
        assert payloads.unpack(payload, *two) == [1]
    else:
        with pytest.raises(CorruptPayload, match="belongs to another"):
            payloads.unpack(payload, *two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("ab", "c", "k"), ("a", "bc", "k")),
        (("a\0b", "c", "k"), ("a", "b\0c", "k")),
        (("a", "b\0c", "k"), ("a", "b", "c\0k")),
        (("\ud800", "b", "k"), ("\udfff", "b", "k")),
        (("11,1:ab", "", ""), ("1,1:ab", "", "")),
        (("a\0", "b", "k"), ("1", "1:a\0b\0k", "")),
    ],
    ids=["letters", "nul to key", "nul to kind", "surrogates", "digits", "escaped"],
)
def test_places_that_run_together_are_told_apart(one, two):
    """Moving characters, including NUL, between the parts of a place gives another place."""
    payloads = Payloads(JsonCodec())
    with pytest.raises(CorruptPayload):
        payloads.unpack(payloads.pack(1, *one)[0], *two)


@given(value=any_values, old=places, new=places)
def test_reseal_moves_a_payload(value, old, new):
    """A resealed payload loads in its new place only."""
    payloads = Payloads(PickleCodec(), b"secret")
    payload, seen = payloads.pack(value, *old)
    moved = payloads.reseal(payload, old, new)
    assert repr(payloads.unpack(moved, *new)) == repr(seen)
    if old != new:
        with pytest.raises(CorruptPayload):
            payloads.unpack(moved, *old)
        with pytest.raises(CorruptPayload):
            payloads.reseal(payload, new, old)


# ------------------------------------------------------------------------------ what the caller sees


def test_the_caller_sees_the_loaded_value():
    """With JSON a tuple is a list on the first run already."""
    payload, seen = Payloads(JsonCodec()).pack({"a": (1, (2,))}, *HERE)
    assert seen == {"a": [1, [2]]}
    assert Payloads(JsonCodec()).unpack(payload, *HERE) == seen


def test_the_loaded_value_is_no_alias():
    """Changing the original later does not change the loaded value."""
    original = {"rows": [1]}
    _, seen = Payloads(PickleCodec()).pack(original, *HERE)
    original["rows"].append(2)
    assert seen == {"rows": [1]}


@pytest.mark.parametrize("value", [None, True, 7, 2.5, "text", b"bytes"])
def test_exact_scalars_are_not_loaded_again(value):
    """An immutable scalar is returned as it is, without a check."""

    class NeverLoads(PickleCodec):
        def loads(self, data):
            raise AssertionError("loaded")

    assert Payloads(NeverLoads()).pack(value, *HERE)[1] is value


class Loud(str):
    """A str that is not exactly str."""

    def __setstate__(self, state):
        raise RuntimeError("no")


def test_subclasses_of_scalars_are_checked():
    """A subclass of a scalar type is loaded as a check."""
    value = Loud("x")
    value.state = 1
    with pytest.raises(ResultNotStorable, match="RuntimeError: no"):
        Payloads(PickleCodec()).pack(value, *HERE)


def test_large_values_are_not_loaded_again(caplog):
    """A value above the limit is returned without a check, and the log says so."""
    big = ["x" * 2000]
    payloads = Payloads(PickleCodec(), check_limit=1000)
    with caplog.at_level(logging.INFO, logger="flowdsl"):
        payload, seen = payloads.pack(big, *HERE)
    assert seen is big
    assert payloads.unpack(payload, *HERE) == big
    assert "without loading it again" in caplog.text
    assert "run-1" in caplog.text
    caplog.clear()
    assert payloads.pack(["x"], *HERE)[1] == ["x"]
    assert not caplog.records


# ----------------------------------------------------------------------------- what cannot be stored


@dataclass
class Client:
    """Holds what nobody can store."""

    lock: Any = field(default_factory=threading.Lock)
    name: str = "c"


@dataclass
class Result:
    """A result with a client deep inside."""

    rows: list
    client: Client


class Unloadable:
    """Pickles, but does not load."""

    def __init__(self):
        self.x = 1

    def __setstate__(self, state):
        raise ValueError("cannot be restored")


class Unpicklable:
    """Refuses to be pickled, in its own words."""

    def __getstate__(self):
        raise OSError("the socket is open")


def not_storable(value, codec=None):
    """Return the error with which *value* is refused."""
    with pytest.raises(ResultNotStorable) as caught:
        Payloads(codec or PickleCodec()).pack(value, *HERE)
    return caught.value


def test_names_the_attribute_at_fault():
    """The error names the attribute that cannot be stored."""
    error = not_storable(Result([1, 2], Client()))
    assert error.where == ".client.lock"
    assert "at .client.lock" in str(error)
    assert "lock" in str(error)
    assert (error.run, error.key) == HERE[:2]
    assert not_storable({"conn": threading.Lock()}).where == "['conn']"


def test_names_what_loads_no_more():
    """A value that can be written but not loaded is refused when it is written."""
    error = not_storable({"ok": 1, "bad": [0, Unloadable()]})
    assert error.where == "['bad'][1]"
    assert "ValueError: cannot be restored" in str(error)


def test_errors_of_the_value_itself_are_told():
    """An exception of ``__getstate__`` is in the message, and never escapes."""
    error = not_storable(Unpicklable())
    assert error.where == ""
    assert "OSError: the socket is open" in str(error)


def test_nesting_too_deep_is_refused():
    """A value nested too deeply for the stack is refused like any other."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for codec in (PickleCodec(), JsonCodec()):
        not_storable(deep, codec)
    while deep:  # or its end would exhaust the stack of the interpreter
        deep = deep.pop()


@pytest.mark.parametrize(
    ("value", "where", "text"),
    [
        ({"a": {1: "x"}}, "['a']", "keys of a dict must be strings"),
        ({"a": [0.5, float("nan")]}, "['a'][1]", "Out of range float"),
        ([float("inf")], "[0]", "Out of range float"),
        ({"when": {1, 2}}, "['when']", "set"),
        (["ok", "\ud800"], "[1]", "surrogates"),
        ({"\ud800": 1}, " (key '\\ud800')", "surrogates"),
        (b"x", "", "bytes"),
    ],
)
def test_json_says_where(value, where, text):
    """JSON refuses what it would change or cannot hold, and says where it is."""
    error = not_storable(value, JsonCodec())
    assert error.where == where
    assert text in str(error)


def test_json_refuses_what_contains_itself():
    """A value that contains itself is refused."""
    loop: list = [1]
    loop.append(loop)
    assert "contains itself" in str(not_storable(loop, JsonCodec()))


Point = namedtuple("Point", "x y")


def test_json_loses_only_what_the_caller_sees_lost():
    """Subclasses come back as the plain type, on the first run and on the replay."""
    assert Payloads(JsonCodec()).pack([Point(1, 2), Loud("x")], *HERE)[1] == [[1, 2], "x"]


# -------------------------------------------------------------------------------- what does not load


def test_a_codec_that_was_changed_still_loads_old_payloads():
    """A payload names its codec, so built-in codecs that execute nothing load whatever the present codec
    is."""
    old, _ = Payloads(JsonCodec()).pack([1, 2], *HERE)
    assert Payloads(PickleCodec()).unpack(old, *HERE) == [1, 2]
    assert Payloads(TypedJsonCodec()).unpack(old, *HERE) == [1, 2]


@pytest.mark.parametrize(
    "codec",
    [
        JsonCodec(accept_pickle=False),
        TypedJsonCodec(accept_pickle=False),
        Limited(Compressed(JsonCodec(accept_pickle=False)), most=10**6),
        Compressed(TypedJsonCodec(accept_pickle=False)),
    ],
    ids=repr,
)
def test_json_unpickles_nothing_because_a_payload_says_so(codec):
    """With ``accept_pickle=False`` a payload that names pickle loads only if a key proves it."""
    for name in ("pickle", "zlib+pickle", "error+pickle", "zlib+error+pickle"):
        forged = seal(name, b"\0" * name.startswith("zlib") + pickle.dumps(Evil()), _context(*HERE))
        for read in (Payloads(codec).unpack, Payloads(codec).unpack_error):
            with pytest.raises(StorageError):
                read(forged, *HERE)
        with pytest.raises(StorageError):
            Payloads(Signed(codec, "key")).rekey(forged, *HERE, Payloads(codec))
    assert not Evil.loaded
    old, _ = Payloads(PickleCodec()).pack((1, 2), *HERE)
    with pytest.raises(StorageError, match="'pickle' wrote it, but this runtime has .* accept_pickle=False"):
        Payloads(codec).unpack(old, *HERE)
    assert Payloads(JsonCodec()).unpack(old, *HERE) == (1, 2)
    proven, _ = Payloads(PickleCodec(), b"secret").pack((1, 2), *HERE)
    assert Payloads(codec, b"secret").unpack(proven, *HERE) == (1, 2)
    proven, _ = Payloads(PickleCodec(), b"secret").pack_error(KeyError(7), *HERE)
    assert repr(Payloads(codec, b"secret").unpack_error(proven, *HERE)) == "KeyError(7)"


class Evil:
    """Shows that it was loaded."""

    loaded = False

    def __reduce__(self):
        return setattr, (Evil, "loaded", True)


class Reversed(Codec):
    """A codec of the user's own."""

    id = "reversed"

    def dumps(self, value):
        return pickle.dumps(value)[::-1]

    def loads(self, data):
        return pickle.loads(data[::-1])


def test_codecs_of_the_user():
    """A codec without an id, dumps or loads is refused, and the message names what is missing."""
    payloads = Payloads(Reversed())
    payload, seen = payloads.pack((1, 2), *HERE)
    assert payloads.unpack(payload, *HERE) == seen == (1, 2)
    with pytest.raises(StorageError, match="codec 'reversed'") as caught:
        Payloads(PickleCodec()).unpack(payload, *HERE)
    assert (caught.value.run, caught.value.key) == HERE[:2]
    assert repr(Reversed()) == "Reversed()"


def test_what_a_codec_raises_is_wrapped():
    """An exception of a codec becomes StorageError, with the original as its cause."""

    class Broken(Reversed):
        id = "broken"

        def loads(self, data):
            raise KeyError("oops")

    payload, _ = Payloads(Broken(), check_limit=0).pack([1], *HERE)
    with pytest.raises(StorageError, match="KeyError: 'oops'") as caught:
        Payloads(Broken()).unpack(payload, *HERE)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ResultNotStorable, match="KeyError"):
        Payloads(Broken()).pack([1], *HERE)


@pytest.mark.parametrize("codec_id", ["", "error+x", "mine+error+x", "x" * 250])
def test_impossible_codec_ids_are_refused_at_once(codec_id):
    """A codec whose id cannot be stored, or is in use, is refused before anything is written."""
    codec = Reversed()
    codec.id = codec_id
    with pytest.raises(ValueError, match="codec id"):
        Payloads(codec)


def test_an_empty_secret_is_refused_at_once():
    """An empty secret is refused at once."""
    with pytest.raises(ValueError, match="FLOWDSL_SECRET_KEY"):
        Payloads(PickleCodec(), b"")


def test_values_and_exceptions_are_not_mixed_up(payloads):
    """A result never loads as an exception, and an exception never as a result."""
    value, _ = payloads.pack([1], *HERE)
    error, _ = payloads.pack_error(ValueError("x"), *HERE)
    with pytest.raises(StorageError, match="not an exception"):
        payloads.unpack_error(value, *HERE)
    with pytest.raises(StorageError, match="not a value"):
        payloads.unpack(error, *HERE)


def test_a_class_that_is_gone_is_named(monkeypatch):
    """A payload whose class was removed raises MissingClass with module and name."""
    payload, _ = Payloads(PickleCodec()).pack([Client(name="x", lock=None)], *HERE)
    monkeypatch.delitem(globals(), "Client")
    with pytest.raises(MissingClass) as caught:
        Payloads(PickleCodec()).unpack(payload, *HERE)
    assert (caught.value.module, caught.value.name) == (__name__, "Client")
    assert f"{__name__}.Client" in str(caught.value)
    assert (caught.value.run, caught.value.key) == HERE[:2]


def test_no_secret_is_ever_shown():
    """No error and no repr shows the secret or a codec's key."""
    payloads = Payloads(Signed(PickleCodec(), "hunter2"), b"hunter3")
    payload, _ = payloads.pack([1], *HERE)
    texts = [repr(payloads), repr(Signed(PickleCodec(), "hunter2"))]
    for secret in (None, b"hunter4", b"hunter3"):
        with pytest.raises(StorageError) as caught:
            Payloads(PickleCodec(), secret).unpack(payload, *HERE)
        texts.append(str(caught.value))
    assert "hunter" not in " ".join(texts)
