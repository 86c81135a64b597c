"""Signed payloads: only what was written with one of your keys is loaded."""

from hashlib import blake2b
from hmac import compare_digest
from typing import ClassVar

from flowdsl.codecs.base import Codec
from flowdsl.codecs.keyed import Keyed, Keys, key_list
from flowdsl.errors import CorruptPayload

__all__ = ["Signed"]

_SIZE = 32


class Signed(Keyed):
    """Adds a signature (keyed BLAKE2b) to another codec's bytes. It is checked before they are loaded.

    * *codec*: makes the bytes.
    * *key*: ``bytes`` or ``str``, best 32 random bytes. Or a sequence of keys: the first signs, all verify.
      To change a key, put the new one in front, and remove the old one when nothing is signed with it any
      more.
    * *accept_plain*: also load what *codec* wrote without a signature. Use it only while you change a
      storage: as long as it is set, the signature protects nothing.

    The signature proves who wrote a payload, but not for which step. ``FLOWDSL_SECRET_KEY`` proves both, for
    the whole storage. Raises ``ValueError`` for no key or an empty one.

    >>> from flowdsl.codecs import JsonCodec
    >>> codec = Signed(JsonCodec(), ["new key", "old key"])
    >>> codec.loads(Signed(JsonCodec(), "old key").dumps([1, 2]))
    [1, 2]
    """

    prefix: ClassVar[str] = "signed"

    def __init__(self, codec: Codec, key: Keys, *, accept_plain: bool = False) -> None:
        keys = [blake2b(k, digest_size=32, person=b"flowdsl sign key").digest() for k in key_list(key)]
        super().__init__(codec, keys, accept_plain=accept_plain)

    def wrap(self, body: bytes) -> bytes:
        """Return the signature by the first key, and *body*."""
        return self._signature(body, self._keys[0]) + body

    def unwrap(self, data: bytes) -> bytes:
        """Check the signature and remove it. Raises ``CorruptPayload`` if it is wrong."""
        body = data[_SIZE:]
        if any(compare_digest(data[:_SIZE], self._signature(body, key)) for key in self._keys):
            return body
        raise CorruptPayload("no key of Signed fits the signature of the payload; it was not loaded")

    def is_newest(self, data: bytes) -> bool:
        """Say whether the first key signed *data*."""
        return compare_digest(data[:_SIZE], self._signature(data[_SIZE:], self._keys[0]))

    def _signature(self, body: bytes, key: bytes) -> bytes:
        # The codec's id is covered too. Otherwise a body that was signed as JSON could be loaded as a pickle.
        inner = self._codec.id.encode()
        return blake2b(b"%d:%b%b" % (len(inner), inner, body), digest_size=_SIZE, key=key).digest()
