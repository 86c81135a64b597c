"""The lower half of the canonical encoding: scalars, containers, functions, and the table that dispatches on
types.

The head of :mod:`flowdsl.core.encoding` says what the bytes mean. That module adds the classes of users. This
half is the hot path. An encoder is a function of a value, the number of containers around it, and the
encodings made so far. It is found by ``ENCODERS[type(value)]``.
"""

import types
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from struct import Struct
from typing import Any

from flowdsl.core.keys import object_path
from flowdsl.core.preview import preview
from flowdsl.core.reductions import STANDARD_TYPES
from flowdsl.core.shapes import WIDEST, Shapes
from flowdsl.core.unkeyable import MAX_DEPTH, Unkeyable

__all__ = [
    "BUILTIN",
    "ENCODERS",
    "Encoder",
    "Memo",
    "container",
    "framed",
    "global_name",
    "reduced",
]

_FOLD_DEPTH = 4
_DIGEST_SIZE = 32
_MAX_PLANS = 4096

Memo = dict[int, tuple[object, bytes]] | None
"""Encodings made so far, by id of the object. The object is kept alive beside its encoding."""

Encoder = Callable[[Any, int, Memo], bytes]
"""Encodes a value: ``encoder(value, number of containers around it, memo)``."""


# -------------------------------------------------------------------------------------------- scalars


def _constant(code: bytes) -> Encoder:
    return lambda _value, _depth, _memo: code


def _int(value: int, _depth: int, _memo: Memo) -> bytes:
    return b"i%x;" % value  # hexadecimal, because decimal digits of huge numbers are slow and limited


_pack_float = Struct(">d").pack
_NAN = _pack_float(float("nan"))


def _float_bytes(value: float) -> bytes:
    return _pack_float(value) if value == value else _NAN


def _float(value: float, _depth: int, _memo: Memo) -> bytes:
    return b"f" + (_pack_float(value) if value == value else _NAN)


def _complex(value: complex, _depth: int, _memo: Memo) -> bytes:
    return b"c" + _float_bytes(value.real) + _float_bytes(value.imag)


def _str(value: str, _depth: int, _memo: Memo) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        data = value.encode("utf-8", "surrogatepass")  # file names may have lone surrogates
    return b"s%d:%b" % (len(data), data)


def _bytes(value: bytes, _depth: int, _memo: Memo) -> bytes:
    return b"y%d:%b" % (len(value), value)


def _bytearray(value: bytearray, _depth: int, _memo: Memo) -> bytes:
    return b"Y%d:%b" % (len(value), bytes(value))


def framed(text: str) -> bytes:
    """Text with its length in front."""
    data = text.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(data), data)


# ----------------------------------------------------------------------------------------- containers


def container(body: Encoder) -> Encoder:
    """Wrap the encoder of a container type: count levels, fold deep values, refuse values that are too
    deep."""

    def encode_container(value: Any, depth: int, memo: Memo) -> bytes:
        if depth == 0:
            return body(value, 1, None)
        if memo is None:
            memo = {}
        if depth < _FOLD_DEPTH:
            return body(value, depth + 1, memo)
        known = memo.get(id(value))
        if known is not None:
            return known[1]
        if depth >= MAX_DEPTH:
            raise Unkeyable.too_deep(value)
        code = body(value, depth + 1, memo)
        if len(code) > _DIGEST_SIZE + 1:
            code = b"#" + blake2b(code, digest_size=_DIGEST_SIZE).digest()
        memo[id(value)] = (value, code)  # the value is kept, so that its id is not given to another one
        return code

    return encode_container


def _sequence(tag: bytes) -> Encoder:
    head = tag + b"%d:"

    def body(value: Any, depth: int, memo: Memo) -> bytes:
        count = len(value)
        if count >= _MANY:
            alike = _alike(value)
            if alike is not None:
                return head % count + alike
        codes = [head % count]
        try:
            _append_codes(codes, value, depth, memo)
        except Unkeyable as error:
            error.within(value, f"[{len(codes) - 1}]")
            raise
        return b"".join(codes)

    return container(body)


_MANY = 8
_ALL_INT, _ALL_STR, _ALL_FLOAT = {int}, {str}, {float}


def _alike(value: Any) -> bytes | None:
    """Encodings of the items, side by side, made in one go. ``None`` unless all are of one plain type."""
    kinds = {*map(type, value)}
    if kinds == _ALL_INT:
        return b"i%x;" * len(value) % (*value,)
    if kinds == _ALL_FLOAT:
        return _floats(value)
    if kinds == _ALL_STR:
        try:
            texts = [*map(str.encode, value)]
        except UnicodeEncodeError:
            return None
        return b"s%d:%b" * len(texts) % (*chain.from_iterable(zip(map(len, texts), texts, strict=True)),)
    return None


def _floats(value: Any) -> bytes | None:
    total = sum(value)
    if total != total:  # one item is a NaN, or two are infinite
        return None
    count = len(value)
    data = Struct(f">{count}d").pack(*value)
    codes = bytearray(b"f") * (9 * count)
    for place in range(8):
        codes[place + 1 :: 9] = data[place::8]
    return bytes(codes)


def _append_codes(codes: list[bytes], items: Iterable[Any], depth: int, memo: Memo) -> None:
    """Append the encoding of each item. The most frequent kinds are encoded here, without a call."""
    for item in items:
        kind = type(item)
        if kind is int:
            codes.append(b"i%x;" % item)
        elif kind is str and item.isascii():
            codes.append(b"s%d:%b" % (len(item), item.encode()))
        else:
            codes.append(ENCODERS[kind](item, depth, memo))


def _set(tag: bytes) -> Encoder:
    head = tag + b"%d:"

    def body(value: Any, depth: int, memo: Memo) -> bytes:
        codes: list[bytes] = []
        try:
            _append_codes(codes, value, depth, memo)
        except Unkeyable as error:
            error.within(value, "{…}")
            raise
        codes.sort()
        return head % len(codes) + b"".join(codes)

    return container(body)


@lru_cache(maxsize=4096)
def _str_key(value: str) -> bytes:
    """Encode a text key, and remember it: names of fields come again and again."""
    return _str(value, 0, None)


def _pairs(value: Any, items: Iterable[tuple[Any, Any]], depth: int, memo: Memo) -> list[bytes]:
    codes: list[bytes] = []
    key: Any = None
    try:
        for key, item in items:
            name = _str_key(key) if type(key) is str else ENCODERS[type(key)](key, depth, memo)
            kind = type(item)  # the most frequent kinds are encoded here, without a call
            if kind is int:
                codes.append(b"%bi%x;" % (name, item))
            elif kind is str and item.isascii():
                codes.append(b"%bs%d:%b" % (name, len(item), item.encode()))
            else:
                codes.append(name + ENCODERS[kind](item, depth, memo))
    except Unkeyable as error:
        error.within(value, f"[{preview(key, 40)}]")
        raise
    return codes


def _note_key(error: Unkeyable, value: dict[Any, Any]) -> None:
    for key, item in value.items():
        if item is error.outermost:
            error.within(value, f"[{preview(key, 40)}]")
            return


def _any_dict(value: dict[Any, Any], depth: int, memo: Memo) -> bytes:
    codes = _pairs(value, value.items(), depth, memo)
    codes.sort()
    return b"d%d:" % len(codes) + b"".join(codes)


def _dict_body(value: dict[Any, Any], depth: int, memo: Memo) -> bytes:
    if 0 < len(value) <= WIDEST:
        return SHAPES.find(value)(value, depth, memo)
    return _any_dict(value, depth, memo)


def _ordered_dict_body(value: OrderedDict[Any, Any], depth: int, memo: Memo) -> bytes:
    codes = _pairs(value, value.items(), depth, memo)
    return b"x11:OrderedDictd%d:" % len(codes) + b"".join(codes)


def _counter_body(value: Counter[Any], depth: int, memo: Memo) -> bytes:
    """A missing count equals zero."""
    kept = [(key, count) for key, count in value.items() if type(count) is not int or count]
    codes = _pairs(value, kept, depth, memo)
    codes.sort()
    return b"x7:Counterd%d:" % len(codes) + b"".join(codes)


# ------------------------------------------------------------------------ classes, functions, methods


def global_name(value: Any, _depth: int, _memo: Memo) -> bytes:
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(
        value.__self__, types.ModuleType | type | None
    ):
        raise Unkeyable("", value, "is a method bound to an object; pass the object instead")
    if "<lambda>" in value.__qualname__:
        raise Unkeyable(
            "", value, "is a lambda, which has no name to know it by; define it with def in a module"
        )
    if "<locals>" in value.__qualname__:
        raise Unkeyable(
            "", value, "is local to a function, so its path does not tell it apart; move it to the module"
        )
    return b"g" + framed(object_path(value))


def _descriptor(value: Any, _depth: int, _memo: Memo) -> bytes:
    return b"g" + framed(f"{object_path(value.__objclass__)}.{value.__name__}")


def _method_body(value: types.MethodType, depth: int, memo: Memo) -> bytes:
    try:
        owner = ENCODERS[type(value.__self__)](value.__self__, depth, memo)
    except Unkeyable as error:
        error.within(value, ".__self__")
        raise
    return b"x6:method" + ENCODERS[type(value.__func__)](value.__func__, depth, memo) + owner


def reduced(name: str, reduce: Callable[[Any], object]) -> Encoder:
    """Encoder of a type of the standard or array libraries. *name* is its name in encodings."""
    head = b"x" + framed(name)

    def body(value: Any, depth: int, memo: Memo) -> bytes:
        try:
            plain = reduce(value)
        except TypeError as error:
            raise Unkeyable("", value, f"cannot be encoded: {error}") from None
        try:
            return head + ENCODERS[type(plain)](plain, depth, memo)
        except Unkeyable as error:
            error.inside(value, plain)
            raise

    return body


# ------------------------------------------------------------------------------------------- dispatch


BUILTIN: dict[type, Encoder] = {
    type(None): _constant(b"N"),
    bool: lambda value, _depth, _memo: b"T" if value else b"F",
    type(...): _constant(b"."),
    int: _int,
    float: _float,
    complex: _complex,
    str: _str,
    bytes: _bytes,
    bytearray: _bytearray,
    list: _sequence(b"l"),
    tuple: _sequence(b"t"),
    dict: container(_dict_body),
    set: _set(b"e"),
    frozenset: _set(b"E"),
    type: global_name,
    types.FunctionType: global_name,
    types.BuiltinFunctionType: global_name,
    types.MethodDescriptorType: _descriptor,
    types.WrapperDescriptorType: _descriptor,
    types.ClassMethodDescriptorType: _descriptor,
    types.MethodType: container(_method_body),
    OrderedDict: container(_ordered_dict_body),
    Counter: container(_counter_body),
    **{cls: container(reduced(name, reduce)) for cls, (name, reduce) in STANDARD_TYPES.items()},
}
"""Encoders of the types whose encoding is fixed."""


class _Encoders(dict[type, Encoder]):
    """Encoders by exact type. An unknown type is planned once."""

    _plan: Callable[[type], Encoder]

    def plan_with(self, plan: Callable[[type], Encoder]) -> None:
        """Let *plan* make the encoder of each type that is unknown."""
        self._plan = plan

    def __missing__(self, cls: type) -> Encoder:
        if len(self) >= _MAX_PLANS:  # a program that always makes new classes must not keep them all alive
            self.reset()
        encoder = self[cls] = self._plan(cls)
        return encoder

    def reset(self) -> None:
        """Forget all plans, because they may differ now."""
        for cls in list(self):
            if cls not in BUILTIN:
                self.pop(cls, None)
        SHAPES.reset()


ENCODERS = _Encoders(BUILTIN)
"""How the hot path encodes: ``ENCODERS[type(value)](value, 0, None)``. Its errors are not settled yet."""

SHAPES = Shapes(ENCODERS, _str_key, _any_dict, _float_bytes, Unkeyable, _note_key)
