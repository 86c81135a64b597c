"""Pieces: single Python objects that are stored in the record of an exception.

If the codec stores any object, a piece is the bytes that it makes of one object. If the codec stores only
what JSON has, a piece is such a value. A few other types that exceptions have in their arguments (tuples,
bytes, NaN) are written as a dict with one key, so they come back exactly.
"""

from base64 import b64decode, b64encode
from math import isfinite
from typing import Any

from attrs import frozen

from flowdsl.codecs.base import Codec
from flowdsl.codecs.modules import MAIN_NAMES, find_exception, found_by_name, own_main_name
from flowdsl.core.by_fields import ByFields

__all__ = ["NotStored", "ObjectPieces", "Pieces", "PlainPieces", "pieces_for"]


@frozen(eq=False, repr=False)
class NotStored(ByFields):
    """Replaces, in the ``args`` of a loaded exception, a value that could not be stored. It has the same
    repr."""

    text: str

    def __repr__(self) -> str:
        return self.text


class ObjectPieces:
    """For codecs that store any object."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def put(self, value: Any) -> Any:
        """Return *value* as a piece. Raises what the codec raises."""
        return self._codec.dumps(value)

    def get(self, piece: Any) -> Any:
        """Return the value of a piece."""
        return self._codec.loads(piece)

    def put_class(self, cls: type[BaseException]) -> Any:
        """Return an exception class as a piece: by name, or by value if it has no name."""
        return self._codec.dumps(cls)

    def get_class(self, piece: Any) -> Any:
        """Return the class of such a piece."""
        return self._codec.loads(piece)


class PlainPieces:
    """For codecs that store only what JSON has. Classes are stored by name."""

    def put(self, value: Any) -> Any:
        """Return *value* as a piece; a subclass becomes its plain base. Raises ``TypeError`` for other
        types."""
        match value:
            case None | bool():
                return value
            case int():
                value = int.__int__(value)
                return value if -(2**63) < value < 2**63 else {"int": hex(value)}
            case float():
                value = float.__float__(value)
                return value if isfinite(value) else {"float": repr(value)}
            case str():
                value = str.__str__(value)
                return value if _encodes(value) else {"str": _text(value.encode("utf-8", "surrogatepass"))}
            case bytes():
                return {"bytes": _text(value)}
            case list():
                return [self.put(part) for part in value]
            case tuple():
                return {"tuple": [self.put(part) for part in value]}
            case dict():
                return {"dict": [[self.put(key), self.put(part)] for key, part in value.items()]}
            case NotStored():
                return {"lost": self.put(value.text)}
        raise TypeError(f"{type(value).__qualname__} is not a plain value")

    def get(self, piece: Any) -> Any:
        """Return the value of a piece."""
        if isinstance(piece, list):
            return [self.get(part) for part in piece]
        if not isinstance(piece, dict):
            return piece
        ((tag, inner),) = piece.items()
        match tag:
            case "int":
                return int(inner, 16)
            case "float":
                return float(inner)
            case "str":
                return b64decode(inner).decode("utf-8", "surrogatepass")
            case "bytes":
                return b64decode(inner)
            case "tuple":
                return tuple(self.get(part) for part in inner)
            case "dict":
                return {self.get(key): self.get(part) for key, part in inner}
            case "lost":
                return NotStored(self.get(inner))
        raise ValueError(f"unknown piece {tag!r}")

    def put_class(self, cls: type[BaseException]) -> Any:
        """Return an exception class as its names. Raises ``TypeError`` if they do not lead to the class."""
        if not found_by_name(cls):
            raise TypeError(f"{cls.__qualname__} cannot be found by name")
        return [own_main_name() if cls.__module__ in MAIN_NAMES else cls.__module__, cls.__qualname__]

    def get_class(self, piece: Any) -> type[BaseException]:
        """Return the class with these names. Only exception classes are returned."""
        module, name = piece
        return find_exception(module, name)


Pieces = ObjectPieces | PlainPieces


def pieces_for(codec: Codec) -> Pieces:
    """Return the way in which pieces are made for *codec*."""
    return ObjectPieces(codec) if codec.stores_objects else PlainPieces()


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(data: bytes) -> str:
    return b64encode(data).decode()
