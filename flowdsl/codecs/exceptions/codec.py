"""Codecs for the records of exceptions: the same as for values, plus a mark.

The record of an exception names a class and holds *pieces*, each of which is loaded as an object. So a stored
value from somebody else, for example an uploaded form, must never be read as such a record. The mark is
directly around the innermost codec. Signing and encryption are around the mark, so they cover it:
``signed+error+pickle``. Earlier releases put it outside: ``error+signed+pickle``.
"""

from typing import Any, ClassVar

from flowdsl.codecs.base import Codec
from flowdsl.codecs.pickle import PickleCodec, plain_loads
from flowdsl.codecs.wrapping import WrappingCodec
from flowdsl.errors import StorageError

__all__ = ["ERROR", "ErrorCodec", "for_errors", "for_values", "marks_error"]

ERROR = "error"


class ErrorCodec(WrappingCodec):
    """Reads and writes records of exceptions: dicts of plain values. It changes no byte.

    The record is loaded as plain values, with every codec. Its pieces are then loaded one by one.
    """

    prefix: ClassVar[str] = ERROR

    def wrap(self, body: bytes) -> bytes:
        """Return *body*."""
        return body

    def unwrap(self, data: bytes) -> bytes:
        """Return *data*."""
        return data

    def loads(self, data: bytes) -> Any:
        """Return the record. Raises ``StorageError`` if it contains an object."""
        _, body = self._codec.strip(data)
        innermost = self._codec.innermost
        return plain_loads(body) if isinstance(innermost, PickleCodec) else innermost.loads(body)

    def reader(self, codec_id: str) -> Codec:
        """Return the codec for *codec_id*. Raises ``StorageError`` if it has no mark."""
        _check(codec_id)
        return super().reader(codec_id)

    def proven_reader(self, codec_id: str) -> Codec:
        """The same as :meth:`reader`, for a payload that a key has proved."""
        _check(codec_id)
        return super().proven_reader(codec_id)


def _check(codec_id: str) -> None:
    if not codec_id.startswith(f"{ERROR}+"):
        raise StorageError("the payload holds a value, not an exception")


def marks_error(codec_id: str) -> bool:
    """Say whether a payload of *codec_id* holds an exception.

    >>> marks_error("signed+error+pickle"), marks_error("signed+pickle")
    (True, False)
    """
    return ERROR in codec_id.split("+")[:-1]


def for_errors(codec: Codec) -> Codec:
    """Return *codec* with the mark directly around the innermost codec.

    >>> from flowdsl.codecs import JsonCodec, Signed
    >>> for_errors(Signed(JsonCodec(), "key")).id
    'signed+error+json'
    """
    return (
        codec.with_inner(for_errors(codec.inside)) if isinstance(codec, WrappingCodec) else ErrorCodec(codec)
    )


def for_values(codec: Codec) -> Codec:
    """Return *codec* without the mark.

    >>> from flowdsl.codecs import JsonCodec
    >>> for_values(for_errors(JsonCodec())).id
    'json'
    """
    if isinstance(codec, ErrorCodec):
        return codec.inside
    return codec.with_inner(for_values(codec.inside)) if isinstance(codec, WrappingCodec) else codec
