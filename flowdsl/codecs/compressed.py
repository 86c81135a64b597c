"""Compressed payloads."""

import zlib
from typing import ClassVar

from flowdsl.codecs.base import Codec
from flowdsl.codecs.wrapping import WrappingCodec
from flowdsl.errors import StorageError

__all__ = ["Compressed"]

_AS_IT_IS, _ZLIB = b"\0", b"\1"


class Compressed(WrappingCodec):
    """Compresses another codec's bytes with zlib. Payloads that were stored without it stay readable.

    * *codec*: makes the bytes.
    * *above*: bytes. Payloads that are shorter than this, or that compression does not make shorter, are
      stored as they are.
    * *level*: 1 (quick) to 9 (small).
    * *limit*: the largest size in bytes after unpacking. Without a limit, a few bytes that somebody else
      wrote could fill the memory.

    Encrypted bytes do not get shorter, so compress first: ``Encrypted(Compressed(PickleCodec()), key)``.
    Raises ``ValueError`` for impossible numbers.

    >>> from flowdsl.codecs import JsonCodec
    >>> codec = Compressed(JsonCodec())
    >>> data = codec.dumps(["the same again"] * 1000)
    >>> len(data) < 200, codec.loads(data) == ["the same again"] * 1000
    (True, True)
    """

    prefix: ClassVar[str] = "zlib"

    def __init__(self, codec: Codec, *, above: int = 1024, level: int = 6, limit: int = 2**30) -> None:
        for name, value, least, most in (
            ("above", above, 0, 2**40),
            ("level", level, 1, 9),
            ("limit", limit, 1, 2**40),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name}= is a whole number from {least} to {most}, not {value!r}")
        super().__init__(codec)
        self._above, self._level, self._limit = above, level, limit

    def wrap(self, body: bytes) -> bytes:
        """Return *body*, compressed if that makes it shorter."""
        if len(body) > self._above:
            packed = zlib.compress(body, self._level)
            if len(packed) < len(body):
                return _ZLIB + packed
        return _AS_IT_IS + body

    def unwrap(self, data: bytes) -> bytes:
        """Return the bytes. Raises ``StorageError`` if they are too long, or were not compressed by this
        codec."""
        if data[:1] == _AS_IT_IS:
            return data[1:]
        unpacker = zlib.decompressobj()
        try:
            body = unpacker.decompress(data[1:], self._limit) if data[:1] == _ZLIB else b""
        except zlib.error as error:
            raise StorageError(f"a stored payload does not unpack: {error}") from error
        if unpacker.unconsumed_tail:
            raise StorageError(
                f"a stored payload unpacks to more than {self._limit} bytes; give Compressed a larger limit="
            )
        if not unpacker.eof:
            raise StorageError("a stored payload does not unpack: it is not complete")
        return body
