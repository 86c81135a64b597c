"""Taking an exception apart, and putting it together without calling its ``__init__``."""

from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any
from weakref import WeakKeyDictionary, ref

from flowdsl.codecs.exceptions.handling import args_of, dict_of, set_args, text_of

__all__ = [
    "HEAP_TYPE",
    "TEXT",
    "TRACE",
    "alike",
    "attributes_of",
    "members_of",
    "original_type",
    "put_together",
]

TRACE = "__flow_traceback__"
TEXT = "__flow_text__"

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, not in C


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Return the attributes in ``__dict__``, without those of flowdsl."""
    return {name: value for name, value in dict_of(error).items() if name not in (TRACE, TEXT)}


def members_of(error: BaseException) -> dict[str, Any]:
    """Return the values in slots, and in the C fields of built-in exceptions (``errno``, ``start``)."""
    found: dict[str, Any] = {}
    for name, member in _members(type(error)).items():
        try:
            found[name] = member.__get__(error)
        except Exception:  # not set, or (UnicodeError) not set yet
            continue
    return found


def _members(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base in (BaseException, BaseExceptionGroup, object):
            continue
        for name, member in vars(base).items():
            if isinstance(member, MemberDescriptorType | GetSetDescriptorType) and name not in found:
                found[name] = member
    for name in ("__dict__", "__weakref__"):
        found.pop(name, None)
    if issubclass(cls, AttributeError):
        # `obj` of an AttributeError: the object without the attribute. Pickle does not store it either.
        found.pop("obj", None)
    return found


def put_together(
    cls: type[BaseException],
    args: tuple[Any, ...],
    attributes: dict[str, Any],
    members: dict[str, Any],
    text: str | None = None,
) -> BaseException:
    """Return an exception of *cls* without calling its ``__init__``.

    With *text*, it is a subclass of the same name, whose ``str()`` is that text.
    """
    if text is not None:
        cls = _with_text(cls)
    error = _new(cls, args)
    known = _members(cls)
    set_by_new = {name for name, value in members_of(error).items() if value is not None}
    for name, value in members.items():
        try:
            # None in a C field means that it is not set. If it were set to None, OSError would show a second
            # file name.
            if value is not None or name in set_by_new or _is_slot(known[name]):
                known[name].__set__(error, value)
        except (KeyError, AttributeError, TypeError):  # no longer in the class, or read-only
            continue
    dict_of(error).update(attributes)
    if text is not None:
        dict_of(error)[TEXT] = text
    set_args(error, args)
    return error


def _is_slot(member: Any) -> bool:
    return bool(member.__objclass__.__flags__ & HEAP_TYPE)


def _new(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Call the ``__new__`` of the nearest built-in base, because that of the class may need other
    arguments."""
    for base in cls.__mro__:
        if issubclass(base, BaseException) and not base.__flags__ & HEAP_TYPE:
            try:
                return base.__new__(cls, *args)
            except TypeError:  # there are several built-in bases, and another one decides
                continue
    return cls.__new__(cls, *args)


# ------------------------------------------------------------------------------------- with a text of its own


class _WithText:
    """Mixed into a subclass of an exception class, to give it the original text."""

    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        """Do not tell the exception class about this subclass, because the class may keep a registry of
        subclasses."""

    def __str__(self) -> str:
        return str(dict_of(self)[TEXT])  # type: ignore[arg-type]

    def __reduce_ex__(self, _: Any) -> Any:
        return put_together, (
            original_type(self),  # type: ignore[arg-type]
            args_of(self),  # type: ignore[arg-type]
            attributes_of(self),  # type: ignore[arg-type]
            members_of(self),  # type: ignore[arg-type]
            str(self),
        )


_text_classes: "WeakKeyDictionary[type, ref[type]]" = WeakKeyDictionary()


def _with_text(cls: type[BaseException]) -> type[BaseException]:
    known = _text_classes.get(cls)
    made = known() if known is not None else None
    if made is None:
        metaclass: Any = type(cls)
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        made = metaclass(cls.__name__, (_WithText, cls), {**names, "__flow_original__": cls})
        _text_classes[cls] = ref(made)
    return made


def original_type(error: BaseException) -> type[BaseException]:
    """Return the class of *error*, and not the subclass that flowdsl made for its text."""
    cls = type(error)
    original: type[BaseException] = cls.__dict__.get("__flow_original__", cls)
    return original


# ------------------------------------------------------------------------------------------------- comparison


def same_exception(one: BaseException, two: BaseException) -> bool:
    """Say whether *two*, which was loaded, equals *one* in type, text, arguments and attributes.

    A class that defines how it is pickled may fill ``args`` in another way, as pydantic's do.
    """
    return (
        type(one) is type(two)
        and text_of(one) == text_of(two)
        and (alike(args_of(one), args_of(two)) or _reduces_itself(type(one)))
        and alike(attributes_of(one), attributes_of(two))
        and alike(members_of(one), members_of(two))
    )


def _reduces_itself(cls: type[BaseException]) -> bool:
    return cls.__reduce__ is not BaseException.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__


def alike(one: Any, two: Any, depth: int = 0) -> bool:
    """Say whether *two* counts as equal to *one*. Objects that do not define equality are compared by
    type."""
    if one is two:
        return True
    if type(one) is not type(two) or depth > 20:
        return depth > 20
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(alike(a, b, depth + 1) for a, b in zip(one, two, strict=True))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key], depth + 1) for key in one)
    if isinstance(one, BaseException):
        return text_of(one) == text_of(two)
    equality: Any = type(one).__eq__
    if equality is object.__eq__:
        return True
    try:
        return bool(one == two) or one != one
    except Exception:  # whatever the user's __eq__ raises
        return True
