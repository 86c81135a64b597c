"""What codecs that go around another codec share: ``Signed(PickleCodec(), key)`` is one."""

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Any, ClassVar, Self

from flowdsl.codecs.base import Codec

__all__ = ["Around"]


class Around(Codec):
    """A codec that alters the bytes of another one: signs, encrypts, compresses them.

    Subclasses define ``prefix`` (of the id), ``wrap`` and ``unwrap``. Raises ``TypeError`` where *codec* is
    no codec.
    """

    prefix: ClassVar[str]

    def __init__(self, codec: Codec) -> None:
        if not isinstance(codec, Codec):
            raise TypeError(f"{type(self).__name__} goes around a codec such as PickleCodec(); got {codec!r}")
        self._take(codec)

    def _take(self, codec: Codec) -> None:
        self._codec = codec
        self.id = f"{self.prefix}+{codec.id}"
        self.exact = codec.exact
        self.stores_objects = codec.stores_objects
        self.hides = type(self).hides or codec.hides

    def around(self, codec: Codec) -> Self:
        """Return this codec, around another one."""
        other = copy(self)
        other._take(codec)
        return other

    @abstractmethod
    def wrap(self, body: bytes) -> bytes:
        """Return the bytes of the inner codec, altered."""

    @abstractmethod
    def unwrap(self, data: bytes) -> bytes:
        """Return the bytes that :meth:`wrap` altered. Raises ``StorageError`` where they are none."""

    @property
    def inside(self) -> Codec:
        """The codec that this one goes around."""
        return self._codec

    @property
    def innermost(self) -> Codec:
        """The codec that turns values into bytes."""
        return self._codec.innermost

    def dumps(self, value: Any) -> bytes:
        """Return *value* as the inner codec writes it, wrapped."""
        return self.wrap(self._codec.dumps(value))

    def loads(self, data: bytes) -> Any:
        """Unwrap and load."""
        return self._codec.loads(self.unwrap(data))

    def reader(self, codec_id: str) -> Codec:
        """Return the codec for *codec_id*: this one around what wrote the inside, or one that did without."""
        return self._reader(codec_id, self._codec.reader)

    def proven_reader(self, codec_id: str) -> Codec:
        """As :meth:`reader`, for what a key has proved; see :meth:`Codec.proven_reader`."""
        return self._reader(codec_id, self._codec.proven_reader)

    def _reader(self, codec_id: str, inside: Callable[[str], Codec]) -> Codec:
        if codec_id == self.id:
            return self
        prefix, _, inner = codec_id.partition("+")
        return self.around(inside(inner)) if prefix == self.prefix else inside(codec_id)

    def strip(self, body: bytes) -> tuple[str, bytes]:
        """Take this codec and all inside it off; see :meth:`Codec.strip`."""
        return self._codec.strip(self.unwrap(body))

    def clothe(self, codec_id: str, body: bytes) -> tuple[str, bytes]:
        """Put this codec and all inside it on again; see :meth:`Codec.clothe`."""
        inner_id, inner = self._codec.clothe(codec_id, body)
        outer = self.around(self._codec.proven_reader(inner_id))  # nothing is loaded
        return outer.id, outer.wrap(inner)

    def is_current(self, codec_id: str, body: bytes) -> bool:
        """Say whether *body* is as this codec would write it today, with the first of its keys."""
        if codec_id.partition("+")[0] != self.prefix:
            return False
        reader = self.proven_reader(codec_id)  # nothing is loaded
        if not isinstance(reader, Around) or not reader.is_newest(body):
            return False
        return self._codec.is_current(reader._codec.id, reader.unwrap(body))

    def is_newest(self, data: bytes) -> bool:
        """Say whether *data* was wrapped with the first key. Codecs without keys have nothing to say."""
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._codec!r})"
