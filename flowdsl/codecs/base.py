"""The interface of a codec: object ↔ bytes. The envelope checks that the bytes are unchanged."""

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any

from flowdsl.errors import StorageError

__all__ = ["Codec"]

_BUILTIN = {"json": "JsonCodec", "pickle": "PickleCodec"}
"""Codecs that need no key, by id, which is also the name of their module. Their payloads load with any codec
of the runtime."""


def _builtin(codec_id: str) -> "Codec":
    module = import_module(f"flowdsl.codecs.{codec_id}")  # at first use: most programs have one codec
    made: Codec = getattr(module, _BUILTIN[codec_id])()
    return made


class Codec(ABC):
    """Turns values into bytes and back. Subclass it to bring your own.

    * ``id``: 1 to 100 characters, stored with each payload. The id names a format: if you change what
      ``loads`` reads, take a new id.
    * ``exact``: types whose values (of exactly this type) always load as themselves. They are not loaded
      again as a check.
    * ``stores_objects``: whether ``dumps`` takes any Python object (as with pickle), or only ``None``,
      booleans, numbers, strings, lists, and dicts with string keys (as with JSON). Exceptions are stored
      accordingly.
    * ``accepts_pickle``: whether a codec that stores no objects also loads the pickles of an earlier one.
    * ``hides``: whether nobody without a key can read what was written. Then no previews are stored.

    A codec has no state that changes. It is called from several threads at once.

    >>> class Reversed(Codec):
    ...     id = "reversed"
    ...     def dumps(self, value): return value[::-1].encode()
    ...     def loads(self, data): return data.decode()[::-1]
    >>> Reversed().loads(Reversed().dumps("abc"))
    'abc'
    """

    id: str
    exact: frozenset[type] = frozenset()
    stores_objects: bool = False
    accepts_pickle: bool = True
    hides: bool = False

    @abstractmethod
    def dumps(self, value: Any) -> bytes:
        """Return *value* as bytes. Any exception becomes ``ResultNotStorable``."""

    @abstractmethod
    def loads(self, data: bytes) -> Any:
        """Return the value from which :meth:`dumps` made *data*.

        The checksum of *data* was right. Raise ``MissingClass`` if a class is gone. Any other exception
        becomes ``StorageError``.
        """

    def reader(self, codec_id: str) -> "Codec":
        """Return the codec that loads payloads of *codec_id*: this one, or a built-in one.

        So a runtime that gets another codec loses nothing. Somebody who can write to the storage can choose
        *codec_id*, so a codec without ``accepts_pickle`` loads no pickle. Raises ``StorageError`` if there is
        no such codec. Override it to read what an older codec of yours wrote, or to refuse payloads that
        anybody could have made, as :class:`Signed` does.
        """
        if codec_id == self.id:
            return self
        if codec_id not in _BUILTIN:
            raise StorageError(
                f"the payload was written by codec {codec_id!r}; this runtime has {self.id!r}, and built in "
                f"are {', '.join(map(repr, _BUILTIN))}. Give the runtime the codec it was written with"
            )
        found = _builtin(codec_id)
        if found.stores_objects and not (self.stores_objects or self.accepts_pickle):
            raise StorageError(
                f"the payload says that codec {codec_id!r} wrote it, but this runtime has {self.id!r} with "
                "accept_pickle=False; it was not loaded: loading it can execute code, and whoever can write "
                "to the storage could have made it"
            )
        return found

    def proven_reader(self, codec_id: str) -> "Codec":
        """Return the codec for a payload if a key has proved that a program of yours wrote it.

        The same as :meth:`reader`, but every built-in codec is accepted.
        """
        if codec_id != self.id and codec_id in _BUILTIN:
            return _builtin(codec_id)
        return self.reader(codec_id)

    # Re-keying needs these. Codecs that wrap others override them.

    @property
    def inside(self) -> "Codec":
        """The codec inside this one; this one itself, if it wraps none."""
        return self

    @property
    def innermost(self) -> "Codec":
        """The codec that turns values into bytes: this one, unless it wraps another."""
        return self

    def strip(self, body: bytes) -> tuple[str, bytes]:
        """Unwrap *body*, which this codec wrote. Return the id of the innermost codec, and the bytes that it
        made."""
        return self.id, body

    def wrap_again(self, codec_id: str, body: bytes) -> tuple[str, bytes]:
        """Wrap what :meth:`strip` returned, as it would be wrapped today. Return the bytes, and the id of the
        whole codec."""
        return codec_id, body

    def is_current(self, codec_id: str, body: bytes) -> bool:
        """Say whether *body*, which *codec_id* wrote, would be wrapped in the same way today."""
        return codec_id.rpartition("+")[0] == self.id.rpartition("+")[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
