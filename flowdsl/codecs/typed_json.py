"""JSON that keeps your types. Any language can read it."""

import dataclasses
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from flowdsl.codecs.json import JsonCodec
from flowdsl.errors import MissingClass

__all__ = ["TypedJsonCodec"]

_TYPE, _VALUE = "$type", "$value"

_STANDARD: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    datetime: ("datetime", datetime.isoformat, datetime.fromisoformat),
    date: ("date", date.isoformat, date.fromisoformat),
    time: ("time", time.isoformat, time.fromisoformat),
    timedelta: (
        "timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda plain: timedelta(*plain),
    ),
    Decimal: ("decimal", str, Decimal),
    UUID: ("uuid", str, UUID),
    bytes: ("bytes", lambda value: b64encode(value).decode(), b64decode),
}
"""For each type: its name in the JSON, how it is made plain, and how it is read."""


class TypedJsonCodec(JsonCodec):
    """JSON that keeps types: the pydantic models, dataclasses and enums that you name, and common types.

    * *types*: classes that may be stored. A payload names them by their class name. Only objects of these
      classes are made when it is loaded; a payload cannot name another class.

    A value that JSON does not have becomes an object with two members, ``{"$type": "Order", "$value": {…}}``.
    Besides the given *types* these are ``tuple``, ``set``, ``frozenset``, ``datetime``, ``date``, ``time``,
    ``timedelta``, ``decimal``, ``uuid``, ``bytes`` (base64), and ``dict`` with keys that are not text, as a
    list of pairs. Everything else is plain JSON, and is refused if :class:`JsonCodec` refuses it. A subclass
    of ``dict``, ``list`` or ``tuple`` is stored as plain data.

    Raises ``TypeError`` for a class of another kind, and ``ValueError`` for two classes of one name.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Order:
    ...     number: int
    ...     items: list[str]
    >>> codec = TypedJsonCodec(types=[Order])
    >>> codec.dumps(Order(7, ["tea"]))
    b'{"$type": "Order", "$value": {"number": 7, "items": ["tea"]}}'
    >>> codec.loads(codec.dumps(Order(7, ["tea"])))
    Order(number=7, items=['tea'])
    """

    id = "typed-json"
    exact = frozenset({type(None), bool, int, str})

    def __init__(self, types: Iterable[type] = (), *, accept_pickle: bool = True) -> None:
        super().__init__(accept_pickle=accept_pickle)
        self._readers: dict[str, Callable[[Any], Any]] = {
            "tuple": tuple,
            "set": set,
            "frozenset": frozenset,
            "dict": dict,
            **{name: read for name, _, read in _STANDARD.values()},
        }
        self._writers: dict[type, tuple[str, Callable[[Any], Any]]] = {
            cls: (name, write) for cls, (name, write, _) in _STANDARD.items()
        }
        for cls in types:
            write, read = _ways(cls)
            name = cls.__qualname__
            if name in self._readers:
                raise ValueError(f"two types are called {name!r}; rename one")
            self._readers[name], self._writers[cls] = read, (name, write)

    def dumps(self, value: Any) -> bytes:
        """Return *value* as JSON in UTF-8. Raises ``ResultNotStorable``, with the path to the fault, for
        other values."""
        return super().dumps(self._plain(value))

    def loads(self, data: bytes) -> Any:
        """Return the value of a JSON text. Raises ``MissingClass`` for a type that was not given."""
        return self._read(super().loads(data))

    def _plain(self, value: Any) -> Any:
        kind = type(value)
        if kind in self._writers:
            name, write = self._writers[kind]
            return {_TYPE: name, _VALUE: self._plain(write(value))}
        if kind in (tuple, set, frozenset):
            return {_TYPE: kind.__name__, _VALUE: [self._plain(part) for part in value]}
        # Subclasses become the plain type. Otherwise json would write their content without asking us.
        if isinstance(value, list | tuple):
            return [self._plain(part) for part in value]
        if isinstance(value, dict):
            if _TYPE not in value and all(type(key) is str for key in value):
                return {key: self._plain(part) for key, part in value.items()}
            pairs = [[self._plain(key), self._plain(part)] for key, part in value.items()]
            return {_TYPE: "dict", _VALUE: pairs}
        return value

    def _read(self, plain: Any) -> Any:
        if isinstance(plain, list):
            return [self._read(part) for part in plain]
        if not isinstance(plain, dict):
            return plain
        if _TYPE not in plain:
            return {key: self._read(part) for key, part in plain.items()}
        name = plain[_TYPE]
        read = self._readers.get(name)
        if read is None:
            raise MissingClass(
                f"a stored payload holds a {name!r}, which is none of the types= of TypedJsonCodec",
                module="",
                name=name,
            )
        return read(self._read(plain[_VALUE]))


def _ways(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Two functions: one makes an instance of *cls* plain, the other reads it."""
    if isinstance(cls, type) and hasattr(cls, "model_dump") and hasattr(cls, "model_validate"):
        model: Any = cls
        return (lambda value: value.model_dump(mode="json")), model.model_validate
    if isinstance(cls, type) and issubclass(cls, Enum):
        return (lambda value: value.value), cls
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
        return (lambda value: {name: getattr(value, name) for name in names}), lambda plain: _filled(
            cls, plain
        )
    raise TypeError(f"types= takes pydantic models, dataclasses and enums, not {cls!r}")


def _filled(cls: type, fields: dict[str, Any]) -> Any:
    """Make a dataclass with these fields, without its ``__init__``, which already made the stored values
    once."""
    made: Any = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made
