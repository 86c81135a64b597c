"""Odd exceptions, generated."""

import threading
from typing import Any

from hypothesis import strategies as st

from flowdsl.codecs.exceptions.handling import set_cause, set_context

__all__ = ["raised"]

BASES = [Exception, ValueError, KeyError, OSError, UnicodeDecodeError, StopIteration, SystemExit, ImportError]
ODD_VALUES = [
    "x", "\udc80", "two\nlines \x1b[31m\0", "x" * 100_000, 10**5000, float("nan"), b"\xff", None, (), [[1]],
    threading.Lock(), lambda: None, object(), ValueError("inner"),
]  # fmt: skip


def refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("not with me")


def give_number(_: Any) -> Any:
    return 3


METHODS: dict[str, list[Any]] = {
    "__str__": [
        refuse,
        give_number,
        lambda self: type("S", (str,), {})("mine"),
        lambda self: repr(vars(self)),
    ],
    "__repr__": [refuse, give_number],
    "__setattr__": [refuse],
    "__delattr__": [refuse],
    "__getattr__": [refuse],
    "__eq__": [refuse, lambda self, other: True],
    "__hash__": [None, refuse],
    "__bool__": [refuse, lambda self: False],
    "__len__": [lambda self: 0],
    "__reduce__": [refuse, give_number, lambda self: (ValueError, ("other",))],
    "__reduce_ex__": [refuse],
    "__getstate__": [refuse],
    "__setstate__": [refuse],
    "__init__": [lambda self, *, needed: None],
    "__init_subclass__": [refuse],
    "__copy__": [refuse],
    "add_note": [refuse],
    "with_traceback": [refuse],
    "args": [property(refuse)],
    "__notes__": [property(refuse), "text", ("a",)],
    "__cause__": [property(refuse)],
    "__context__": [property(refuse)],
    "__traceback__": [property(refuse)],
    "__dict__": [property(refuse)],
    "retry_after": [property(refuse), "soon"],
    "__class__": [property(lambda self: int)],
}

made: dict[str, type[BaseException]] = {}


@st.composite
def classes(draw: Any) -> type[BaseException]:
    """A class that behaves as a few of METHODS say; found by name in this module."""
    base = draw(st.sampled_from(BASES))
    chosen = draw(st.lists(st.sampled_from(sorted(METHODS)), max_size=4, unique=True))
    behaviour = {name: draw(st.sampled_from(METHODS[name])) for name in chosen}
    name = f"Odd{len(made)}"
    body = {**behaviour, "__module__": __name__, "__qualname__": name}
    if draw(st.booleans()):
        body["__slots__"] = ("slot",)
    made[name] = globals()[name] = type(name, (base,), body)
    return made[name]


def built(cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    """An exception of *cls*, past its ``__init__`` and ``__setattr__``."""
    native = next(base for base in cls.__mro__ if base in BASES)
    error = native.__new__(cls, *args)
    if native is UnicodeDecodeError:
        native.__init__(error, "utf-8", b"\xff", 0, 1, "bad")  # what prints it reads beyond what is not set
    vars(BaseException)["__dict__"].__get__(error).update(attributes)
    return error


errors = st.builds(
    built,
    classes(),
    st.lists(st.sampled_from(ODD_VALUES), max_size=3).map(tuple),
    st.dictionaries(st.sampled_from(["code", "client", "me"]), st.sampled_from(ODD_VALUES), max_size=2),
)


@st.composite
def raised(draw: Any) -> BaseException:
    """An odd exception with causes, contexts and notes; sometimes a group of odd ones."""
    error = draw(errors)
    if draw(st.booleans()):
        set_cause(error, draw(errors))
    if draw(st.booleans()):
        set_context(error, error if draw(st.booleans()) else draw(errors))
    if draw(st.integers(0, 4)) == 0:
        error = BaseExceptionGroup("several", [error, draw(errors)])
    return error
