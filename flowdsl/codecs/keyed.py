"""The base class of :class:`Signed` and :class:`Encrypted`: keys, and payloads that were written without a
key."""

from collections.abc import Callable, Sequence

from flowdsl.codecs.base import Codec
from flowdsl.codecs.wrapping import WrappingCodec
from flowdsl.errors import StorageError

__all__ = ["Keyed", "Keys", "is_keyed", "key_list"]

Keys = bytes | str | Sequence[bytes | str]


def key_list(keys: Keys) -> list[bytes]:
    """Return *keys*, one or several, as bytes. Raises ``ValueError`` if there is none or one is empty."""
    several = [keys] if isinstance(keys, bytes | str) else list(keys)
    for key in several:
        if not isinstance(key, bytes | str):
            raise TypeError(f"a key is bytes or str, not {type(key).__name__}")
        if not key:
            raise ValueError("a key is empty")
    if not several:
        raise ValueError("no key was given")
    return [key.encode() if isinstance(key, str) else key for key in several]


class Keyed(WrappingCodec):
    """A codec that wraps another one, and accepts only bytes that were made with one of its keys.

    A payload that was not wrapped is refused. Otherwise somebody who can write to the storage could store
    payloads without a wrapping. With *accept_plain* such payloads are accepted.
    """

    def __init__(self, codec: Codec, keys: list[bytes], *, accept_plain: bool) -> None:
        super().__init__(codec)
        self._keys = tuple(keys)
        self._accept_plain = accept_plain

    @property
    def accepts_plain(self) -> bool:
        """Whether payloads that were not wrapped are loaded too."""
        return self._accept_plain

    def _reader(self, codec_id: str, inside: Callable[[str], Codec]) -> Codec:
        """The same as in ``WrappingCodec``. The key proves who wrote what it opens. Raises ``StorageError``
        for a payload that was not wrapped, unless such payloads are accepted."""
        if self._accept_plain or codec_id.partition("+")[0] == self.prefix:
            return super()._reader(codec_id, self._codec.proven_reader)
        name = type(self).__name__
        raise StorageError(
            f"the payload was written by codec {codec_id!r}, not by {name}, so it was not loaded: whoever "
            f"can write to the storage could have made it. If you trust it, pass accept_plain=True to {name} "
            "until such payloads are gone"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._codec!r}, <{len(self._keys)} key{'s' * (len(self._keys) > 1)}>)"


def is_keyed(codec: Codec) -> bool:
    """Say whether only somebody with a key can make a payload that *codec* loads."""
    while codec is not codec.innermost:
        if isinstance(codec, Keyed) and not codec.accepts_plain:
            return True
        codec = codec.inside
    return False
