"""The mark of exceptions: no value is ever loaded as an exception."""

import pickle
from typing import Any

import pytest

from flowdsl.codecs import Codec, Compressed, Encrypted, JsonCodec, Limited, PickleCodec, Signed
from flowdsl.codecs.envelope import seal, unseal
from flowdsl.codecs.payloads import Payloads, _context
from flowdsl.errors import StorageError

PLACE = ("run-1", "ab" * 20, "result")
KEY = b"k" * 32
loaded: list[str] = []


class Bomb:
    """Where it is unpickled, it says so."""

    def __reduce__(self) -> Any:
        return loaded.append, ("loaded",)


def kept(codec: Codec) -> Any:
    """What a program may be given by others and stores: plain data that looks like the record of an exception."""
    piece: Any = pickle.dumps(Bomb()) if codec.stores_objects else ["builtins", "ValueError"]
    return {
        "how": "whole" if codec.stores_objects else "parts",
        "whole": piece,
        "class": piece,
        "args": [],
        "attributes": {},
        "members": {},
        "lost": [],
        "trace": "",
        "innermost": True,
    }


@pytest.mark.parametrize(
    "codec",
    [
        Signed(PickleCodec(), KEY),
        Encrypted(PickleCodec(), KEY),
        Signed(JsonCodec(), KEY),
        Signed(Compressed(Encrypted(PickleCodec(), KEY)), KEY),
        Limited(Signed(PickleCodec(), KEY), most=10**6),
    ],
    ids=repr,
)
def test_a_signed_value_is_no_exception(codec: Codec) -> None:
    """A signed or encrypted value is refused if somebody without the key marks it as an exception."""
    payloads = Payloads(codec)
    payload, _ = payloads.pack(kept(codec), *PLACE)
    codec_id, body = unseal(payload, _context(*PLACE))
    outside, _, innermost = codec_id.rpartition("+")
    for name in (f"error+{codec_id}", f"{outside}+error+{innermost}", "error+pickle", "error+json"):
        forged = seal(name, body, _context(*PLACE))
        with pytest.raises(StorageError):
            payloads.unpack_error(forged, *PLACE)
        with pytest.raises(StorageError):
            Payloads(codec).rekey(forged, *PLACE, payloads)
    assert loaded == []


def test_a_signed_exception_is_no_value() -> None:
    """A signed or encrypted exception is refused if somebody without the key marks it as a value."""
    payloads = Payloads(Signed(PickleCodec(), KEY))
    payload, _ = payloads.pack_error(ValueError("x"), *PLACE)
    codec_id, body = unseal(payload, _context(*PLACE))
    assert codec_id == "signed+error+pickle"
    for name in ("signed+pickle", "pickle"):
        with pytest.raises(StorageError):
            payloads.unpack(seal(name, body, _context(*PLACE)), *PLACE)


@pytest.mark.parametrize(
    ("codec", "secret"),
    [
        (PickleCodec(), None),
        (Compressed(JsonCodec()), None),
        (Signed(PickleCodec(), KEY), b"secret"),
        (Signed(PickleCodec(), KEY, accept_plain=True), None),
    ],
    ids=repr,
)
def test_exceptions_of_earlier_releases(codec: Codec, secret: bytes | None) -> None:
    """The mark of earlier releases, outside the signature, is accepted only if a key covers it or nothing is
    signed."""
    payloads = Payloads(codec, secret)
    payload, _ = payloads.pack_error(KeyError("k", 7), *PLACE)
    codec_id, body = unseal(payload, _context(*PLACE), secret)
    bare = codec.dumps(payloads._errors.loads(body))
    old = seal(f"error+{codec.id}", bare, _context(*PLACE), secret)
    found = payloads.unpack_error(old, *PLACE)
    assert (type(found), found.args) == (KeyError, ("k", 7))
    new = payloads.rekey(old, *PLACE, payloads)
    assert new is None or unseal(new, _context(*PLACE), secret)[0] == codec_id


def test_the_record_of_an_exception_is_plain() -> None:
    """Loading the record of an exception makes no object before its pieces are checked."""
    payloads = Payloads(PickleCodec())
    forged = seal("error+pickle", pickle.dumps(Bomb()), _context(*PLACE))
    with pytest.raises(StorageError, match="only plain values"):
        payloads.unpack_error(forged, *PLACE)
    assert loaded == []
