"""Codecs that wrap others: compression, limits, and wrapping again."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.codecs import Compressed, Encrypted, JsonCodec, Limited, PickleCodec, Signed
from flowdsl.codecs.payloads import Payloads
from flowdsl.errors import CorruptPayload, ResultNotStorable, StorageError

PLACE = ("run-1", "ab" * 20, "result")
ERROR = ("run-1", "ab" * 20, "error")
OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(max_size=3000) | st.integers(0, 5000).map(lambda n: b"a" * n), st.integers(0, 2000))
def test_compressed_gives_back_what_it_was_given(value, above):
    """Any value comes back, and at most one byte more is stored than without compression."""
    codec = Compressed(PickleCodec(), above=above)
    data = codec.dumps(value)
    assert codec.loads(data) == value
    assert len(data) <= len(PickleCodec().dumps(value)) + 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\1not zlib", "does not unpack"), (b"\2", "does not unpack"), (b"", "does not unpack")],
)
def test_what_was_not_compressed_by_it_is_refused(data, reason):
    """Bytes that are no compressed payload raise ``StorageError``."""
    with pytest.raises(StorageError, match=reason):
        Compressed(PickleCodec()).loads(data)


def test_a_small_payload_that_unpacks_to_much_is_refused():
    """At most ``limit`` bytes are unpacked, and a payload of exactly that size is read."""
    data = Compressed(JsonCodec()).dumps("x" * 100_000)
    assert Compressed(JsonCodec(), limit=100_002).loads(data) == "x" * 100_000
    with pytest.raises(StorageError, match="more than 1000 bytes"):
        Compressed(JsonCodec(), limit=1000).loads(data)
    with pytest.raises(StorageError, match="not complete"):
        Compressed(JsonCodec()).loads(data[:-5])


def test_what_was_stored_without_compression_stays_readable():
    """A compressing codec reads payloads that were stored without compression."""
    payload, _ = Payloads(PickleCodec()).pack([1, 2], *PLACE)
    assert Payloads(Compressed(PickleCodec())).unpack(payload, *PLACE) == [1, 2]


def test_a_limit_refuses_to_store_and_to_load():
    """A value above the limit raises ``ResultNotStorable``, and a payload above it is not loaded."""
    small, large = Payloads(Limited(PickleCodec(), most=100)), Payloads(PickleCodec())
    with pytest.raises(ResultNotStorable, match="more than the 100"):
        small.pack("x" * 200, *PLACE)
    payload, _ = large.pack("x" * 200, *PLACE)
    with pytest.raises(StorageError, match="more than the 100"):
        small.unpack(payload, *PLACE)
    assert large.unpack(small.pack("x", *PLACE)[0], *PLACE) == "x"


def test_an_error_above_the_limit_is_stored_as_text():
    """A step's error that exceeds the limit is stored as text, and not replaced by an error about its
    size."""
    _, loaded = Payloads(Limited(PickleCodec(), most=4000)).pack_error(
        ValueError("x" * 3000, "y" * 3000), *ERROR
    )
    assert type(loaded).__name__ in ("ValueError", "StepFailed")


@pytest.mark.parametrize("options", [{"above": -1}, {"level": 0}, {"level": True}, {"limit": 0}])
def test_senseless_numbers_are_refused(options):
    """An impossible number is refused, and the message says what the option takes."""
    with pytest.raises(ValueError, match="whole number"):
        Compressed(PickleCodec(), **options)


def codecs(key):
    """Codecs with *key*, one of each kind and nesting."""
    return [
        PickleCodec(),
        Signed(PickleCodec(), key),
        Encrypted(PickleCodec(), key),
        Encrypted(JsonCodec(), key),
        Signed(Encrypted(Compressed(PickleCodec()), key), key),
        Limited(Compressed(Signed(PickleCodec(), key)), most=10**6),
    ]


@pytest.mark.parametrize("new", codecs(NEW), ids=repr)
@pytest.mark.parametrize("old", codecs(OLD), ids=repr)
@pytest.mark.parametrize("secrets", [(None, None), (None, b"s"), (b"s", b"t"), (b"s", None)], ids=str)
def test_a_payload_is_rekeyed_without_being_loaded(old, new, secrets):
    """A re-keyed payload opens only with the new codec and secret, and a second time there is nothing to
    do."""
    before, after = Payloads(old, secrets[0]), Payloads(new, secrets[1])
    for place, payload in (
        (PLACE, before.pack({"a": [1, "x" * 2000]}, *PLACE)[0]),
        (ERROR, before.pack_error(KeyError("k", 7), *ERROR)[0]),
    ):
        fresh = after.rekey(payload, *place, before) or payload
        assert after.rekey(fresh, *place, before) is None
        if place is PLACE:
            assert after.unpack(fresh, *place) == {"a": [1, "x" * 2000]}
        else:
            found = after.unpack_error(fresh, *place)
            assert (type(found), found.args) == (KeyError, ("k", 7))
        if NEW in getattr(new, "_keys", ()):
            with pytest.raises(StorageError):
                before.unpack(fresh, *place)


def test_what_another_key_wrote_is_not_rekeyed():
    """A payload that the old keys do not open is refused, and the message names its place."""
    payload, _ = Payloads(Encrypted(PickleCodec(), os.urandom(32))).pack(1, *PLACE)
    with pytest.raises(CorruptPayload, match="run run-1"):
        Payloads(PickleCodec()).rekey(payload, *PLACE, Payloads(Encrypted(PickleCodec(), OLD)))
