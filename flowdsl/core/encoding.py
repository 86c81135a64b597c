"""The canonical encoding: a value as bytes. Equal values have the same bytes in every process, and different
values have different ones.

Rules
    Each encoding starts with a tag for its kind. A length or a count frames what follows. So encodings can be
    put side by side, and no two different values share one (injective by construction).

    =========== ============================= ==========================================================
    tag         value                         what counts
    =========== ============================= ==========================================================
    ``N T F .`` None, True, False, Ellipsis
    ``i f c``   int, float, complex           all NaNs are one; -0.0 and 0.0 are two
    ``s y Y``   str, bytes, bytearray         code points (no Unicode normalisation); bytes
    ``l t``     list, tuple                   items in order
    ``d e E``   dict, set, frozenset          items, sorted by their encoding
    ``x`` name  types of the standard and     what ``==`` compares: :mod:`flowdsl.core.reductions`,
                array libraries               :mod:`flowdsl.core.arrays`
    ``g`` path  classes and functions         the dotted path; lambdas and local ones are refused
    ``o`` path  instances of other classes    the path of the class, and the state: see ``_plan``
    ``w``       subclasses of built-in types  first as without attributes, then the attributes, if any
    ``#``       a deep container              the digest of its encoding: see Nesting
    =========== ============================= ==========================================================

Equality
    Values of one type that Python calls equal have the same encoding: ``Decimal("1.0")`` as
    ``Decimal("1.00")``, aware datetimes of one instant whatever their zone, ``range(0)`` as ``range(1, 1)``,
    a dataclass without its ``compare=False`` fields, a ``Counter`` without its zeros. Two ``OrderedDict``
    compare by order, so their order counts; no other mapping's does. A subclass (``IntEnum``,
    ``defaultdict``, your ``class Id(str)``) never equals its base. Its attributes count, whatever its ``==``
    says of them. Where ``==`` compares numbers rather than values, we differ from it: -0 is not 0, and NaN is
    NaN.

Nesting
    A container inside ``_FOLD_DEPTH`` others is replaced by the 256-bit digest of its encoding. The digest is
    made once for each object, so a value that is shared a thousand times costs no more than one. Cycles are
    refused, and so are more than ``MAX_DEPTH`` levels.

Editing this file: the tests' golden file pins each byte. If the encoding of an existing value changes, that
is a breaking change and needs a new ``ENCODING_VERSION``. A new type needs none.
"""

import dataclasses
import sys
from collections import abc
from collections.abc import Callable, Iterable
from enum import Enum, Flag
from types import MemberDescriptorType
from typing import Any, TypeVar

from flowdsl.core.aliases import alias_reduction
from flowdsl.core.arrays import reduction_of
from flowdsl.core.encoders import (
    BUILTIN,
    ENCODERS,
    Encoder,
    Memo,
    container,
    framed,
    global_name,
    reduced,
)
from flowdsl.core.keys import ENCODING_VERSION, object_path
from flowdsl.core.models import Parts, model_class, model_parts, model_value
from flowdsl.core.preview import preview
from flowdsl.core.reductions import exception_parts, standard_type
from flowdsl.core.unkeyable import Unkeyable

__all__ = ["ENCODERS", "ENCODING_VERSION", "encode"]

_T = TypeVar("_T")
_Convert = Callable[[Any], object]
_registered: dict[type, _Convert] = {}


# ------------------------------------------------------------------------------------------ instances


def _converted(cls: type, tag: bytes, convert: _Convert, step: str = "") -> Encoder:
    """Encoder of a class under its path. The result of *convert* is encoded in place of the value."""
    head = b"o" + framed(object_path(cls)) + tag

    def body(value: Any, depth: int, memo: Memo) -> bytes:
        plain = convert(value)
        try:
            return head + ENCODERS[type(plain)](plain, depth, memo)
        except Unkeyable as error:
            error.within(value, step)
            raise

    return container(body)


def _fields(cls: type, fields: Iterable[tuple[str, _Convert | None]]) -> Encoder:
    """Encoder of a class by its fields, in the order of their names; each with a conversion, or ``None``."""
    plan = [
        (name, b"s" + framed(name), convert) for name, convert in sorted(fields, key=lambda field: field[0])
    ]
    head = b"o" + framed(object_path(cls)) + b"a%d:" % len(plan)

    def body(value: Any, depth: int, memo: Memo) -> bytes:
        codes = [head]
        for name, prefix, convert in plan:
            try:
                item = getattr(value, name, _UNSET)
                if item is _UNSET:
                    raise Unkeyable("", value, "was never set")
                if convert is not None:
                    item = convert(item)
                codes.append(prefix)
                codes.append(ENCODERS[type(item)](item, depth, memo))
            except Unkeyable as error:
                error.within(value, f".{name}")
                raise
        return b"".join(codes)

    return container(body)


_UNSET: Any = object()


def _attrs_fields(attributes: Iterable[Any]) -> Iterable[tuple[str, _Convert | None]]:
    for attribute in attributes:
        if attribute.eq:
            key = attribute.eq_key
            # ``eq=attrs.cmp_using(…)`` makes a class of boxes that compare. The content of a box is the
            # value.
            yield attribute.name, None if isinstance(key, type) else key


def _parts(cls: type, tag: bytes, parts: Parts) -> Encoder:
    """Encoder of a class whose instances have different parts, each with a name."""
    head = b"o" + framed(object_path(cls)) + tag

    def body(value: Any, depth: int, memo: Memo) -> bytes:
        return head + _named(value, parts(value), depth, memo)

    return container(body)


def _named(value: Any, parts: Iterable[tuple[str, object]], depth: int, memo: Memo) -> bytes:
    """Encode the *parts* of *value* with their names, in order of the names."""
    codes: list[bytes] = []
    for name, item in sorted(parts, key=lambda part: part[0]):
        try:
            codes += (b"s" + framed(name), ENCODERS[type(item)](item, depth, memo))
        except Unkeyable as error:
            error.within(value, f".{name}")
            raise
    return b"a%d:" % (len(codes) // 2) + b"".join(codes)


def _plan(cls: type) -> Encoder:
    """Decide, once for each class, how its instances are encoded. The first rule that fits applies."""
    for base in cls.__mro__:
        if base in _registered:
            return _converted(cls, b"r", _registered[base])
        if "__flow_key__" in vars(base):
            return _converted(cls, b"k", lambda value: value.__flow_key__(), ".__flow_key__()")
    standard = standard_type(cls) or alias_reduction(cls)
    if standard is not None:
        return container(reduced(*standard))
    if issubclass(cls, type):
        return global_name
    if issubclass(cls, Flag):
        return _converted(cls, b"m", lambda value: value._value_)  # a combination has no name of its own
    if issubclass(cls, Enum):
        return _converted(cls, b"m", lambda value: value._name_)
    for base in cls.__mro__:
        reduction = reduction_of(base)
        if reduction is not None:
            encoder = container(reduced(*reduction))
            return encoder if base is cls or reduction_of(cls) else _under_path(cls, encoder)
    fields = _declared(cls)
    inherited = _inherited(cls)
    if fields is not None:
        return fields if inherited is None else _both(fields, inherited)
    return inherited or _by_custom(cls) or _refuse


def _declared(cls: type) -> Encoder | None:
    """Encoder of a class that declares its fields."""
    if hasattr(cls, "__attrs_attrs__"):
        return _fields(cls, _attrs_fields(cls.__attrs_attrs__))
    if dataclasses.is_dataclass(cls):
        return _fields(cls, [(field.name, None) for field in dataclasses.fields(cls) if field.compare])
    parts = model_parts(cls)
    return None if parts is None else _parts(model_class(cls), b"p", parts)


def _inherited(cls: type) -> Encoder | None:
    """Encoder of a class that extends a built-in or standard one: what counts there, and attributes."""
    names = getattr(cls, "_fields", None)
    if issubclass(cls, tuple) and isinstance(names, tuple):
        return _and_attributes(cls, tuple, _fields(cls, [(name, None) for name in names]))
    for base in cls.__mro__[1:]:
        if base in _SUBCLASSABLE:
            return _and_attributes(cls, base, _converted(cls, b"v", _SUBCLASSABLE[base]))
        standard = standard_type(base)
        if base in BUILTIN or standard is not None:
            encoder = BUILTIN[base] if base in BUILTIN else container(reduced(*standard))  # type: ignore[misc]
            return _and_attributes(cls, base, _under_path(cls, encoder))
    return None


def _by_custom(cls: type) -> Encoder | None:
    """Encoder of a class that follows a common custom: exceptions, mappings, sets."""
    if issubclass(cls, BaseException):
        slots = _slots(cls, BaseException)
        return _parts(cls, b"x", lambda value: [*exception_parts(value), *_slotted(value, slots)])
    if issubclass(cls, abc.Mapping) and cls.__eq__ is abc.Mapping.__eq__:
        return _converted(cls, b"v", lambda value: dict(value.items()))
    if issubclass(cls, abc.Set) and cls.__eq__ is abc.Set.__eq__:
        return _converted(cls, b"v", frozenset)
    convert = model_value(cls)
    return None if convert is None else _converted(cls, b"v", convert)


def _under_path(cls: type, encoder: Encoder) -> Encoder:
    """Encoder of a subclass: the path of *cls*, then the encoding of its base."""
    head = b"o" + framed(object_path(cls)) + b"v"
    return lambda value, depth, memo: head + encoder(value, depth, memo)


def _both(fields: Encoder, inherited: Encoder) -> Encoder:
    """Encoder of a class that declares fields and extends a built-in class."""
    return lambda value, depth, memo: b"w" + inherited(value, depth, memo) + fields(value, depth, memo)


def _and_attributes(cls: type, base: type, encoder: Encoder) -> Encoder:
    """Encoder of a subclass of the built-in *base*: the result of *encoder*, and its attributes if any."""
    slots = _slots(cls, base)

    def encode_both(value: Any, depth: int, memo: Memo) -> bytes:
        code = encoder(value, depth, memo)
        try:
            held = object.__getattribute__(value, "__dict__")
        except AttributeError:
            held = {}
        if held is value:  # a dict that is its own attributes
            held = {}
        if not held and not slots:
            return code
        parts = [*held.items(), *_slotted(value, slots)]
        return b"w" + code + _named(value, parts, depth + 1, memo) if parts else code

    return encode_both


def _slots(cls: type, base: type) -> list[MemberDescriptorType]:
    """The slots that classes written in Python add to *base*. (C classes have no ``__slots__``.)"""
    return [
        member
        for owner in cls.__mro__
        if owner not in base.__mro__ and "__slots__" in vars(owner)
        for member in vars(owner).values()
        if isinstance(member, MemberDescriptorType)
    ]


def _slotted(value: Any, slots: Iterable[MemberDescriptorType]) -> Iterable[tuple[str, object]]:
    for member in slots:
        try:
            yield member.__name__, member.__get__(value)
        except AttributeError:  # not set
            continue


# Content of a subclass as an exact builtin. It ignores all methods that the subclass overrides.
_SUBCLASSABLE: dict[type, _Convert] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    bytearray: lambda value: memoryview(value).tobytes(),
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}


# ------------------------------------------------------------------------------------ everything else


def _refuse(value: Any, _depth: int, _memo: Memo) -> bytes:
    """Encoder of types that have none. It accepts only an instance that wraps a function, found by its
    path."""
    path = _own_path(value)
    if path is not None:
        return b"g" + framed(path)
    if hasattr(type(value), "__next__"):
        raise Unkeyable("", value, "can be read only once; pass a list instead")
    name = type(value).__qualname__
    raise Unkeyable(
        "",
        value,
        "has no canonical encoding",
        f"register an encoder with @encode.register({name}), make it a dataclass if it is yours, "
        "or give it __flow_key__()",
    )


def _own_path(value: Any) -> str | None:
    """The path of a decorated function (``lru_cache``, ``@step``) whose module has it under its name."""
    if not callable(value):
        return None
    try:
        module, name = value.__module__, value.__qualname__
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except (AttributeError, KeyError, TypeError):
        return None
    return object_path(value) if found is value else None


class _Encode:
    """``encode(value)`` and ``encode.register(Type)``."""

    def __call__(self, value: object) -> bytes:
        """Give the canonical encoding of *value*.

        Returns bytes. Two values get the same bytes exactly if they are of the same type and equal (see the
        head of the module). Raises :class:`Unkeyable`, an :class:`~flowdsl.errors.UnkeyableArgument`, for a
        value that has no encoding.

        >>> encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})
        True
        >>> encode(1) == encode(True)
        False
        """
        try:
            return ENCODERS[type(value)](value, 0, None)
        except Unkeyable as error:
            raise error.settle() from None
        except RecursionError:
            raise Unkeyable.no_stack(value) from None

    def register(self, cls: type[_T], /) -> Callable[[Callable[[_T], object]], Callable[[_T], object]]:
        """Decorator that says how instances of *cls* are encoded, and of subclasses without their own way.

        The decorated function takes an instance and returns any value that has an encoding. That is encoded
        under the instance's class path. Registering again replaces. Raises ``TypeError`` for a builtin or
        standard type, whose encoding is fixed.

        >>> class Money:
        ...     def __init__(self, amount): self.amount = amount
        >>> @encode.register(Money)
        ... def _(money): return money.amount
        >>> encode(Money(1)) == encode(Money(1))
        True
        >>> encode.unregister(Money)
        """
        if not isinstance(cls, type):
            raise TypeError(f"register() takes a class, not {preview(cls, 60)}")
        if cls in BUILTIN or cls is object or standard_type(cls) is not None:
            raise TypeError(f"the encoding of {cls.__qualname__} is fixed; register a subclass of your own")

        def decorate(convert: Callable[[_T], object]) -> Callable[[_T], object]:
            _registered[cls] = convert
            ENCODERS.reset()
            return convert

        return decorate

    def unregister(self, cls: type, /) -> None:
        """Forget what was registered for *cls*. If nothing was, that is no error."""
        _registered.pop(cls, None)
        ENCODERS.reset()


ENCODERS.plan_with(_plan)
encode = _Encode()
