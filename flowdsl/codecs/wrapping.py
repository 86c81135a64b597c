"""The base class of codecs that wrap another codec, such as ``Signed(PickleCodec(), key)``."""

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Any, ClassVar, Self

from flowdsl.codecs.base import Codec

__all__ = ["WrappingCodec"]


class WrappingCodec(Codec):
    """A codec that wraps another one: it signs, encrypts or compresses its bytes.

    Subclasses define ``prefix`` (of the id), ``wrap`` and ``unwrap``. Raises ``TypeError`` if *codec* is not
    a codec.
    """

    prefix: ClassVar[str]

    def __init__(self, codec: Codec) -> None:
        if not isinstance(codec, Codec):
            raise TypeError(f"{type(self).__name__} wraps a codec such as PickleCodec(); got {codec!r}")
        self._take(codec)

    def _take(self, codec: Codec) -> None:
        self._codec = codec
        self.id = f"{self.prefix}+{codec.id}"
        self.exact = codec.exact
        self.stores_objects = codec.stores_objects
        self.hides = type(self).hides or codec.hides

    def with_inner(self, codec: Codec) -> Self:
        """Return a codec like this one, around another codec."""
        other = copy(self)
        other._take(codec)
        return other

    @abstractmethod
    def wrap(self, body: bytes) -> bytes:
        """Return the bytes of the inner codec, altered."""

    @abstractmethod
    def unwrap(self, data: bytes) -> bytes:
        """Return the bytes from which :meth:`wrap` made *body*. Raises ``StorageError`` for any other
        bytes."""

    @property
    def inside(self) -> Codec:
        """The codec inside this one."""
        return self._codec

    @property
    def innermost(self) -> Codec:
        """The codec that turns values into bytes."""
        return self._codec.innermost

    def dumps(self, value: Any) -> bytes:
        """Return the bytes of the inner codec, wrapped."""
        return self.wrap(self._codec.dumps(value))

    def loads(self, data: bytes) -> Any:
        """Unwrap and load."""
        return self._codec.loads(self.unwrap(data))

    def reader(self, codec_id: str) -> Codec:
        """Return the codec for *codec_id*: this one around the codec that wrote the inside, or a codec that
        did not wrap it."""
        return self._reader(codec_id, self._codec.reader)

    def proven_reader(self, codec_id: str) -> Codec:
        """The same as :meth:`reader`, for a payload that a key has proved. See
        :meth:`Codec.proven_reader`."""
        return self._reader(codec_id, self._codec.proven_reader)

    def _reader(self, codec_id: str, inside: Callable[[str], Codec]) -> Codec:
        if codec_id == self.id:
            return self
        prefix, _, inner = codec_id.partition("+")
        return self.with_inner(inside(inner)) if prefix == self.prefix else inside(codec_id)

    def strip(self, body: bytes) -> tuple[str, bytes]:
        """Unwrap this codec and all inside it; see :meth:`Codec.strip`."""
        return self._codec.strip(self.unwrap(body))

    def wrap_again(self, codec_id: str, body: bytes) -> tuple[str, bytes]:
        """Wrap with this codec and all inside it; see :meth:`Codec.wrap_again`."""
        inner_id, inner = self._codec.wrap_again(codec_id, body)
        outer = self.with_inner(self._codec.proven_reader(inner_id))  # nothing is loaded
        return outer.id, outer.wrap(inner)

    def is_current(self, codec_id: str, body: bytes) -> bool:
        """Say whether this codec would write *body* in the same way today, with the first of its keys."""
        if codec_id.partition("+")[0] != self.prefix:
            return False
        reader = self.proven_reader(codec_id)  # nothing is loaded
        if not isinstance(reader, WrappingCodec) or not reader.is_newest(body):
            return False
        return self._codec.is_current(reader._codec.id, reader.unwrap(body))

    def is_newest(self, data: bytes) -> bool:
        """Say whether *data* was wrapped with the first key. For codecs without keys this is always so."""
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._codec!r})"
