"""Encoders that are generated for dicts of one shape, such as the rows of a table or the records of an API.

Two dicts have the same shape if they have the same texts as keys, in the same order, and values of the same
types. All of them share the encodings of the keys and their order, so one formatting operation makes the
whole encoding. A shape that was met ``_OFTEN`` times gets a function of its own, such as this one for
``{"id": 7, "city": "Bonn", "open": True}``::

    def encode(value, depth, memo):
        v0, v1, v2 = value.values()
        try:
            v1 = v1.encode()
        except UnicodeEncodeError:
            return general(value, depth, memo)
        try:
            return layout % (len(v1), v1, v0, b"T" if v2 else b"F")
        except Unkeyable as error:
            note(error, value)
            raise

where ``layout`` is ``b"d3:s4:citys%d:%bs2:idi%x;s4:open%b"``. It returns what the general encoder returns.
The tests compare the two.
"""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["WIDEST", "Shapes"]

WIDEST = 24
"""Dicts with more keys are left to the general encoder."""

_OFTEN = 8
_MOST = 1024

_Encoder = Callable[[dict[str, Any], int, Any], bytes]


class Shapes:
    """The encoders of dicts, by shape.

    Parameters: *encoders*, type → encoder; *encode_key*, encodes a text; *general*, encodes any dict;
    *float_bytes*, the eight bytes of a float; *note*, adds to an *unkeyable* error which item it concerns.
    """

    def __init__(
        self,
        encoders: Mapping[type, _Encoder],
        encode_key: Callable[[str], bytes],
        general: _Encoder,
        float_bytes: Callable[[float], bytes],
        unkeyable: type[Exception],
        note: Callable[[Any, dict[Any, Any]], None],
    ) -> None:
        self._encoders = encoders
        self._encode_key = encode_key
        self._general = general
        self._names = {"general": general, "float_bytes": float_bytes, "Unkeyable": unkeyable, "note": note}
        self._known: dict[tuple[Any, ...], _Encoder | int] = {}

    def find(self, value: dict[Any, Any]) -> _Encoder:
        """Return the encoder of *value*. It is the general one until its shape has been met often enough."""
        # The types of the keys count too: True equals 1, and a text of a subclass may equal a plain one.
        shape = (*value, *map(type, value), *map(type, value.values()))
        found = self._known.get(shape, 0)
        if not isinstance(found, int):
            return found
        if found < _OFTEN:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[shape] = found + 1
            return self._general
        made = self._generate(value) if {*map(type, value)} == {str} else self._general
        self._known[shape] = made
        return made

    def reset(self) -> None:
        """Forget all, because the encoders of types may have changed."""
        self._known.clear()

    def _generate(self, value: dict[str, Any]) -> _Encoder:
        names = [f"v{place}" for place in range(len(value))]
        texts = [name for name, item in zip(names, value.values(), strict=True) if type(item) is str]
        known: dict[str, Any] = dict(self._names)
        layout, items = b"d%d:" % len(value), []
        rows = zip(map(self._encode_key, value), names, map(type, value.values()), strict=True)
        for key, name, kind in sorted(rows, key=lambda row: row[0]):
            form, item = _PLAIN.get(kind, (b"%b", f"encode_{name}({name}, depth, memo), "))
            if kind not in _PLAIN:
                known[f"encode_{name}"] = self._encoders[kind]
            layout += key.replace(b"%", b"%%") + form
            items.append(item.format(name))
        known["layout"] = layout
        lines = ["def encode(value, depth, memo):", f"  {', '.join(names)}, = value.values()"]
        if texts:
            lines += ["  try:", *(f"    {name} = {name}.encode()" for name in texts)]
            lines += ["  except UnicodeEncodeError:", "    return general(value, depth, memo)"]
        lines += ["  try:", f"    return layout % ({''.join(items)})"]
        lines += ["  except Unkeyable as error:", "    note(error, value)", "    raise"]
        exec("\n".join(lines), known)
        made: _Encoder = known["encode"]
        return made


_PLAIN: dict[type, tuple[bytes, str]] = {
    int: (b"i%x;", "{0}, "),
    str: (b"s%d:%b", "len({0}), {0}, "),
    float: (b"f%b", "float_bytes({0}), "),
    bool: (b"%b", 'b"T" if {0} else b"F", '),
    type(None): (b"N", ""),
}
"""Kinds that are written without calling their encoder: their place in the layout, and what goes there."""
