"""A limit for the size of payloads. Store large values elsewhere, and return where they are."""

from collections.abc import Callable
from typing import ClassVar

from flowdsl.codecs.base import Codec
from flowdsl.codecs.wrapping import WrappingCodec
from flowdsl.errors import ResultNotStorable, StorageError

__all__ = ["Limited"]


class Limited(WrappingCodec):
    """Refuses values for which another codec makes too many bytes. It does not change the bytes.

    * *codec*: makes the bytes.
    * *most*: bytes. A result above it raises ``ResultNotStorable``; a stored payload above it is not loaded.

    Its place decides which bytes count: ``Limited(Compressed(…))`` counts compressed ones. Raises
    ``ValueError`` for a limit that is not a positive whole number.

    >>> from flowdsl.codecs import JsonCodec
    >>> codec = Limited(JsonCodec(), most=1000)
    >>> try: codec.dumps("x" * 2000)
    ... except ResultNotStorable as error: print(error)
    it has 2002 bytes, more than the 1000 that Limited allows; store it elsewhere and return where
    """

    prefix: ClassVar[str] = ""  # it changes no byte, so the id does not mention it

    def __init__(self, codec: Codec, *, most: int) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"most= is a positive number of bytes, not {most!r}")
        super().__init__(codec)
        self._most = most

    def _take(self, codec: Codec) -> None:
        super()._take(codec)
        self.id = codec.id

    def wrap(self, body: bytes) -> bytes:
        """Return *body*. Raises ``ResultNotStorable`` if it is too long."""
        if len(body) > self._most:
            raise ResultNotStorable(
                f"it has {len(body)} bytes, more than the {self._most} that Limited allows; store it "
                "elsewhere and return where"
            )
        return body

    def unwrap(self, data: bytes) -> bytes:
        """Return *data*. Raises ``StorageError`` if it is too long."""
        if len(data) > self._most:
            raise StorageError(
                f"a stored payload has {len(data)} bytes, more than the {self._most} that Limited allows; it "
                "was not loaded"
            )
        return data

    def _reader(self, codec_id: str, inside: Callable[[str], Codec]) -> Codec:
        return self if codec_id == self.id else self.with_inner(inside(codec_id))

    def is_current(self, codec_id: str, body: bytes) -> bool:
        """Say whether the inner codec would write *body* in the same way today."""
        return self._codec.is_current(codec_id, body)
