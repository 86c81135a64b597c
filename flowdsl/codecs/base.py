"""What a codec is: object ↔ bytes. Whether they are still what was written is checked elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from flowdsl.errors import StorageError

__all__ = ["BUILTIN", "Codec"]

BUILTIN: dict[str, Callable[[], "Codec"]] = {}
"""Codecs that need no key, by id: payloads of theirs load whatever codec the runtime has now."""


class Codec(ABC):
    """Turns values into bytes and back. Subclass it to bring your own.

    * ``id``: 1 to 100 characters, stored with each payload. The id names a format: whoever changes what
      ``loads`` reads takes a new one.
    * ``exact``: types whose values (of exactly this type) always load as themselves; not checked then.
    * ``stores_objects``: whether any Python object may be handed to ``dumps`` (as with pickle), or only
      ``None``, booleans, numbers, strings, lists, and dicts with string keys (as with JSON). Exceptions are
      stored accordingly.
    * ``accepts_pickle``: whether a codec that stores no objects also loads the pickles of an earlier one.
    * ``hides``: whether only who has a key can read what was written. No previews are stored then.

    A codec holds no state that changes, and is called from several threads at once.

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
        """Return *value* as bytes. Whatever is raised becomes ``ResultNotStorable``."""

    @abstractmethod
    def loads(self, data: bytes) -> Any:
        """Return the value of which :meth:`dumps` made *data*.

        *data* passed its checksum. Raise ``MissingClass`` where a class is gone; whatever else is raised
        becomes ``StorageError``.
        """

    def reader(self, codec_id: str) -> "Codec":
        """Return the codec that loads payloads of *codec_id*: this one, or a built-in one.

        So a runtime that gets another codec loses nothing. Whoever can write to the storage chooses
        *codec_id*: a codec without ``accepts_pickle`` loads no pickle for it. Raises ``StorageError`` where
        there is none. Override it to keep reading what an older codec wrote, or to refuse what
        :class:`Signed` refuses: payloads that anybody could have made.
        """
        if codec_id == self.id:
            return self
        if codec_id not in BUILTIN:
            raise StorageError(
                f"the payload was written by codec {codec_id!r}; this runtime has {self.id!r}, and built in "
                f"are {', '.join(sorted(map(repr, BUILTIN)))}. Give the runtime the codec it was written with"
            )
        found = BUILTIN[codec_id]()
        if found.stores_objects and not (self.stores_objects or self.accepts_pickle):
            raise StorageError(
                f"the payload says that codec {codec_id!r} wrote it, but this runtime has {self.id!r} with "
                "accept_pickle=False; it was not loaded: loading it can execute code, and whoever can write "
                "to the storage could have made it"
            )
        return found

    def proven_reader(self, codec_id: str) -> "Codec":
        """Return the codec for a payload of which a key has proved that a program of yours wrote it so.

        As :meth:`reader`, but every built-in codec is good.
        """
        if codec_id != self.id and codec_id in BUILTIN:
            return BUILTIN[codec_id]()
        return self.reader(codec_id)

    # What re-keying needs: codecs around others override these.

    @property
    def inside(self) -> "Codec":
        """The codec that this one goes around: itself, if it goes around none."""
        return self

    @property
    def innermost(self) -> "Codec":
        """The codec that turns values into bytes: this one, unless it goes around another."""
        return self

    def strip(self, body: bytes) -> tuple[str, bytes]:
        """Return the id of the innermost codec, and the bytes that it made; this codec wrote *body*."""
        return self.id, body

    def clothe(self, codec_id: str, body: bytes) -> tuple[str, bytes]:
        """Return what :meth:`strip` took off, put on again as it would be today, and the id of the whole."""
        return codec_id, body

    def is_current(self, codec_id: str, body: bytes) -> bool:
        """Say whether *body*, which *codec_id* wrote, is wrapped as it would be today."""
        return codec_id.rpartition("+")[0] == self.id.rpartition("+")[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
