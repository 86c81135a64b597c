"""Signed payloads: only what was written with one of the keys is loaded."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.codecs import Encrypted, JsonCodec, PickleCodec, Signed
from flowdsl.codecs.payloads import Payloads
from flowdsl.errors import CorruptPayload, StorageError

HERE = ("run-1", "ab" * 20, "step")
keys = st.text(min_size=1) | st.binary(min_size=1)


@given(keys, st.lists(st.integers()))
def test_comes_back_with_the_same_key(key, value):
    """What a key signed, as text or bytes, the same key loads."""
    if isinstance(key, str):
        try:
            key.encode()
        except UnicodeEncodeError:
            return
    assert Signed(JsonCodec(), key).loads(Signed(JsonCodec(), key).dumps(value)) == value


@given(st.integers(0))
def test_one_flipped_bit_is_refused(bit):
    """A change anywhere in signature or body is refused."""
    data = bytearray(Signed(JsonCodec(), "key").dumps({"a": [1, 2]}))
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    with pytest.raises(CorruptPayload):
        Signed(JsonCodec(), "key").loads(bytes(data))


def test_another_key_is_refused_before_loading():
    """A pickle signed with another key is not loaded, and the error contains no key."""
    data = Signed(PickleCodec(), "their key").dumps([1])
    with pytest.raises(CorruptPayload, match="no key of Signed fits") as caught:
        Signed(PickleCodec(), ["our key", "old key"]).loads(data)
    assert "our key" not in str(caught.value)


def test_keys_rotate():
    """The first key signs, all of them verify."""
    old, both, new = (Signed(JsonCodec(), key) for key in ("old", ["new", "old"], "new"))
    assert both.loads(old.dumps(1)) == 1
    assert new.loads(both.dumps(1)) == 1
    with pytest.raises(CorruptPayload):
        old.loads(both.dumps(1))


@pytest.mark.parametrize("key", ["", b"", [], ["good", ""]])
def test_empty_keys_are_refused(key):
    """No key and an empty key are refused."""
    with pytest.raises(ValueError, match="key"):
        Signed(JsonCodec(), key)


def test_keys_of_other_types_are_refused():
    """A key that is neither text nor bytes is refused."""
    with pytest.raises(TypeError, match="bytes or str"):
        Signed(JsonCodec(), [1])


class Evil:
    """Shows that it was loaded."""

    loaded = False

    def __reduce__(self):
        return setattr, (Evil, "loaded", True)


@pytest.mark.parametrize("wrap", [Signed, Encrypted])
@pytest.mark.parametrize("inner", [5, None, JsonCodec, "json"])
def test_what_is_no_codec_is_refused(wrap, inner):
    """Something that is no codec, such as a codec class, is refused, and the message shows a codec."""
    with pytest.raises(TypeError, match=r"PickleCodec\(\)"):
        wrap(inner, b"k" * 32)


def test_unsigned_payloads_are_refused():
    """Somebody who can write to the storage cannot avoid the signature by naming a built-in codec."""
    forged, _ = Payloads(PickleCodec()).pack([1], *HERE)
    evil = pickle.dumps(Evil())
    assert b"setattr" in evil
    with pytest.raises(StorageError, match=r"not by Signed.*accept_plain=True"):
        Payloads(Signed(PickleCodec(), "key")).unpack(forged, *HERE)
    assert not Evil.loaded


def test_unsigned_payloads_load_where_that_is_asked_for():
    """With ``accept_plain`` unsigned payloads load."""
    plain, _ = Payloads(PickleCodec()).pack((1, 2), *HERE)
    payloads = Payloads(Signed(JsonCodec(), "key", accept_plain=True))
    assert payloads.unpack(plain, *HERE) == (1, 2)


def test_the_inner_codec_may_change():
    """After a change of the inner codec, old signed payloads still load."""
    signed, _ = Payloads(Signed(PickleCodec(), "key")).pack((1, 2), *HERE)
    assert Payloads(Signed(JsonCodec(), ["new", "key"])).unpack(signed, *HERE) == (1, 2)
    with pytest.raises(CorruptPayload):
        Payloads(Signed(JsonCodec(), "other")).unpack(signed, *HERE)


def test_a_signature_is_not_good_for_another_codec():
    """Bytes that were signed as JSON do not load as a pickle."""
    data = Signed(JsonCodec(), "key").dumps([1])
    with pytest.raises(CorruptPayload):
        Signed(PickleCodec(), "key").loads(data)


def test_wrapping_twice():
    """Signing and encryption can be combined, and the id shows how."""
    codec = Signed(Encrypted(JsonCodec(), b"k" * 32), "key")
    assert codec.id == "signed+encrypted+json"
    assert codec.loads(codec.dumps([1])) == [1]
    payload, _ = Payloads(codec).pack([1], *HERE)
    assert Payloads(codec).unpack(payload, *HERE) == [1]


def test_repr_shows_no_key():
    """The repr shows how many keys there are and the inner codec, and no key."""
    assert repr(Signed(JsonCodec(), ["hunter2", "hunter3"])) == "Signed(JsonCodec(), <2 keys>)"
    assert repr(Signed(JsonCodec(), "hunter2")) == "Signed(JsonCodec(), <1 key>)"
