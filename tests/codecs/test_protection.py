"""The report on the protection of stored data."""

import pytest

from flowdsl.codecs import Compressed, Encrypted, JsonCodec, PickleCodec, Signed
from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.protection import protection_of

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("codec", "secret", "said"),
    [
        (PickleCodec(), None, ["execute code", "read all values"]),
        (JsonCodec(), None, ["execute code", "read all values"]),
        (JsonCodec(accept_pickle=False), None, ["change names", "read all values"]),
        (Signed(PickleCodec(), KEY), None, ["change names", "read all values"]),
        (Signed(PickleCodec(), KEY, accept_plain=True), None, ["execute code", "read all values"]),
        (Signed(JsonCodec(), KEY, accept_plain=True), None, ["execute code", "read all values"]),
        (PickleCodec(), b"s", ["read all values"]),
        (Compressed(Encrypted(PickleCodec(), KEY)), None, ["change names"]),
        (Encrypted(PickleCodec(), KEY), b"s", []),
    ],
    ids=repr,
)
def test_what_is_unprotected_is_said(codec, secret, said):
    """Each gap is named with what closes it, and without gaps nothing is said."""
    found = protection_of(Payloads(codec, secret)).unprotected()
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_previews_are_told_apart_from_encryption():
    """Previews can be switched off without encryption; with encryption they are always off."""
    assert not protection_of(Payloads(JsonCodec(), previews=False)).previews
    assert not protection_of(Payloads(Encrypted(JsonCodec(), KEY))).previews
    assert protection_of(Payloads(JsonCodec())).previews
