"""JSON, which every language can read."""

import json
from typing import Any

from flowdsl.codecs.base import Codec
from flowdsl.codecs.unstorable import describe_fault
from flowdsl.errors import ResultNotStorable, StorageError

__all__ = ["JsonCodec"]

_SCALARS = frozenset({type(None), bool, int, float, str})


class JsonCodec(Codec):
    """Stores values as JSON: ``None``, booleans, numbers, strings, lists, and dicts with string keys.

    Tuples come back as lists, and subclasses (named tuples, ``StrEnum`` members, ``OrderedDict``) as the
    plain type. The caller of the step sees that on the first run already. Everything else is refused, and
    never altered: dict keys that are not strings, NaN and the infinities, text with lone surrogates, objects.

    *accept_pickle*: also load what ``PickleCodec`` has written, so that a runtime loses nothing when it
    changes its codec. Each payload names its codec, and somebody who can write to the storage can change that
    name. If you do not trust the storage, set ``FLOWDSL_SECRET_KEY``, or give ``False``.

    >>> JsonCodec().loads(JsonCodec().dumps({"total": (1, 2.5)}))
    {'total': [1, 2.5]}
    """

    id = "json"
    exact = frozenset({type(None), bool, int, str})

    def __init__(self, *, accept_pickle: bool = True) -> None:
        self.accepts_pickle = accept_pickle

    def dumps(self, value: Any) -> bytes:
        """Return *value* as JSON in UTF-8. Raises ``ResultNotStorable``, with the path to the fault, for
        other values."""
        try:
            return _dumps(value)
        except Exception as error:  # whatever the user's classes raise
            where = describe_fault(value, _storable)
            reason = (
                "it contains itself or is nested too deep" if isinstance(error, RecursionError) else error
            )
            raise ResultNotStorable(
                f"JSON cannot hold it{where and f' at {where}'}: {reason}", where=where
            ) from error

    def loads(self, data: bytes) -> Any:
        """Return the value of a JSON text. Raises ``StorageError`` if *data* is not JSON."""
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise StorageError(f"a stored payload is not JSON: {error}") from error


def _dumps(value: Any) -> bytes:
    if type(value) not in _SCALARS:
        _check_keys(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _storable(value: Any) -> bool:
    try:
        _dumps(value)
    except Exception:  # whatever the user's classes raise
        return False
    return True


def _check_keys(value: Any) -> None:
    """Refuse keys that the json module would silently change: ``{1: "a"}`` becomes ``{"1": "a"}``."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the keys of a dict must be strings, and one is {key!r}")
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for part in value:
        if type(part) not in _SCALARS:
            _check_keys(part)
