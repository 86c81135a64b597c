"""What :class:`Signed` and :class:`Encrypted` share: keys, and a codec inside."""

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

from flowdsl.codecs.base import Codec
from flowdsl.errors import StorageError

__all__ = ["Keys", "Wrapped", "key_list"]

Keys = bytes | str | Sequence[bytes | str]


def key_list(keys: Keys) -> list[bytes]:
    """Return *keys*, one or several, as bytes. Raises ``ValueError`` where there is none or one is empty."""
    several = [keys] if isinstance(keys, bytes | str) else list(keys)
    for key in several:
        if not isinstance(key, bytes | str):
            raise TypeError(f"a key is bytes or str, not {type(key).__name__}")
        if not key:
            raise ValueError("a key is empty")
    if not several:
        raise ValueError("no key was given")
    return [key.encode() if isinstance(key, str) else key for key in several]


class Wrapped(Codec):
    """A codec around another one; it takes bytes back only if they were made with one of its keys.

    Subclasses define ``prefix`` (of the id), ``wrap`` and ``unwrap``. A payload that was not wrapped is
    refused: else whoever can write to the storage would leave the wrapping off. *accept_plain* lifts that.
    """

    prefix: ClassVar[str]

    def __init__(self, codec: Codec, keys: list[bytes], *, accept_plain: bool) -> None:
        if not isinstance(codec, Codec):
            raise TypeError(f"{type(self).__name__} goes around a codec such as PickleCodec(); got {codec!r}")
        self._keys = tuple(keys)
        self._accept_plain = accept_plain
        self._take(codec)

    def _take(self, codec: Codec) -> None:
        self._codec = codec
        self.id = f"{self.prefix}+{codec.id}"
        self.exact = codec.exact
        self.stores_objects = codec.stores_objects
        self.hides = type(self).hides or codec.hides

    @abstractmethod
    def wrap(self, body: bytes) -> bytes:
        """Return *body* signed or encrypted with the first key."""

    @abstractmethod
    def unwrap(self, data: bytes) -> bytes:
        """Return the body. Raises ``CorruptPayload`` where no key fits."""

    def dumps(self, value: Any) -> bytes:
        """Return *value* as the inner codec writes it, wrapped."""
        return self.wrap(self._codec.dumps(value))

    def loads(self, data: bytes) -> Any:
        """Unwrap and load. Raises ``CorruptPayload`` where no key fits; nothing is loaded then."""
        return self._codec.loads(self.unwrap(data))

    def reader(self, codec_id: str) -> Codec:
        """Return the codec for *codec_id*. Raises ``StorageError`` for what was not wrapped at all."""
        if codec_id == self.id:
            return self
        prefix, _, inner = codec_id.partition("+")
        if prefix == self.prefix:
            other = copy(self)
            other._take(self._codec.reader(inner))
            return other
        if self._accept_plain:
            return self._codec.reader(codec_id)
        name = type(self).__name__
        raise StorageError(
            f"the payload was written by codec {codec_id!r}, not by {name}, so it was not loaded: whoever "
            f"can write to the storage could have made it. If you trust it, pass accept_plain=True to {name} "
            "until such payloads are gone"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._codec!r}, <{len(self._keys)} key{'s' * (len(self._keys) > 1)}>)"
