"""Odd exceptions, generated: whatever a class does, storing its exceptions raises nothing and keeps the type."""

import dataclasses
import threading
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowdsl import Runtime, step, workflow
from flowdsl.codecs import JsonCodec, PickleCodec
from flowdsl.codecs.exceptions.handling import add_note, args_of, cause_of, set_cause, set_context, text_of
from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.previews import Previews
from flowdsl.core.retry import Retry
from flowdsl.errors import StepFailed

PLACE = ("run-1", "ab" * 20, "error")
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


def check(error: BaseException, payloads: Payloads) -> None:
    """Everything that is done with the exception of a body."""
    add_note(error, "at step shop.charge")
    shown = payloads.previews.error(error)
    assert shown.replace("\n", "").isprintable()
    Retry(never=()).should_retry(error, 1)
    Retry().delay(1, 0.5, error)
    payload, loaded = payloads.pack_error(error, *PLACE)
    again = payloads.unpack_error(payload, *PLACE)
    assert type(again).__qualname__ == type(loaded).__qualname__
    assert text_of(again) == text_of(loaded)
    if not isinstance(loaded, StepFailed):
        assert issubclass(type(loaded), type(error))
        assert issubclass(type(again), type(error))


@settings(max_examples=60)
@given(raised())
def test_with_pickle_an_odd_exception_comes_back_as_its_type(error: BaseException) -> None:
    """It is stored, loaded, noted and shown without raising, and is of its class or a subclass of it."""
    check(error, Payloads(PickleCodec()))
    _, loaded = Payloads(PickleCodec()).pack_error(error, *PLACE)
    assert issubclass(type(loaded), type(error)), text_of(loaded)


@settings(max_examples=60)
@given(raised())
def test_with_json_an_odd_exception_raises_nothing(error: BaseException) -> None:
    """The same with a codec that stores plain values; StepFailed stands for what it cannot hold."""
    check(error, Payloads(JsonCodec()))


@settings(max_examples=60)
@given(raised())
def test_without_previews_an_odd_exception_is_its_type(error: BaseException) -> None:
    """No text of it is asked for."""
    assert Previews(shown=False).error(error) == type(error).__name__


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    detail: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSlots(Exception):
    code: int


@attrs.frozen
class AttrsFrozen(Exception):
    code: int


@pytest.mark.parametrize("codec", [PickleCodec(), JsonCodec()], ids=lambda codec: codec.id)
@pytest.mark.parametrize(
    "error", [Frozen(7, "no"), FrozenSlots(code=7), AttrsFrozen(7)], ids=lambda e: type(e).__name__
)
def test_frozen_exceptions_come_back_equal(error: Any, codec: Any) -> None:
    """Type, fields and text of a frozen dataclass are as they were, and it takes notes and a cause."""
    add_note(error, "a note")
    set_cause(error, KeyError("k"))
    payload, loaded = Payloads(codec).pack_error(error, *PLACE)
    for one in (loaded, Payloads(codec).unpack_error(payload, *PLACE)):
        assert type(one) is type(error)
        assert one.code == 7
        assert text_of(one) == text_of(error)
        assert one.__notes__ == ["a note"]
        assert args_of(cause_of(one)) == ("k",)


def test_a_validation_error_of_pydantic_comes_back() -> None:
    """Its class is final and fills ``args`` when it is loaded; it is the same error."""
    pydantic = pytest.importorskip("pydantic")
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    payload, loaded = Payloads(PickleCodec()).pack_error(caught.value, *PLACE)
    for one in (loaded, Payloads(PickleCodec()).unpack_error(payload, *PLACE)):
        assert type(one) is pydantic.ValidationError
        assert one.errors(include_url=False) == caught.value.errors(include_url=False)


def test_an_error_is_stored_when_the_stack_is_used_up() -> None:
    """A ``RecursionError`` that is packed near the end of the stack is stored as what it is."""

    def deeper() -> Any:
        try:
            return deeper()
        except RecursionError as error:
            return Payloads(PickleCodec()).pack_error(error, *PLACE)

    assert type(deeper()[1]) is RecursionError


bodies: list[int] = []
thrown: list[BaseException] = []


@step(retry=Retry(attempts=1))
def throw() -> None:
    bodies.append(1)
    raise thrown[-1]


@workflow
def catch() -> str:
    try:
        throw()
    except Exception as error:
        return "as itself" if issubclass(type(error), type(thrown[-1])) else type(error).__name__
    return "nothing"


@workflow
def let_through() -> None:
    throw()


@settings(max_examples=40)
@given(raised().filter(lambda error: isinstance(error, Exception)))
def test_a_step_that_raises_an_odd_exception_raises_it_in_its_workflow(error: Exception) -> None:
    """The body executes once, ``except`` catches it now and on replay, and an uncaught one fails the run."""
    bodies.clear()
    thrown.append(error)
    with Runtime("memory://") as runtime:
        assert catch.options(id="a")() == "as itself"
        assert catch.options(id="a")() == "as itself"
        assert len(bodies) == 1
        for _ in range(2):
            with pytest.raises(BaseException) as caught:
                let_through.options(id="c")()
            assert issubclass(type(caught.value), type(error)), repr(type(caught.value))
        assert str(runtime.run("c").status) == "failed"  # type: ignore[union-attr]
