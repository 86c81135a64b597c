"""Odd exceptions, generated: whatever a class does, storing its exceptions raises nothing and keeps the type."""

import dataclasses
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from odd import raised

from flowdsl import Runtime, step, workflow
from flowdsl.codecs import JsonCodec, PickleCodec
from flowdsl.codecs.exceptions.handling import add_note, args_of, cause_of, set_cause, text_of
from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.previews import Previews
from flowdsl.core.retry import Retry
from flowdsl.errors import StepFailed

PLACE = ("run-1", "ab" * 20, "error")


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
    """An odd exception is stored, loaded, noted and shown without raising, and keeps its class or gets a
    subclass."""
    check(error, Payloads(PickleCodec()))
    _, loaded = Payloads(PickleCodec()).pack_error(error, *PLACE)
    assert issubclass(type(loaded), type(error)), text_of(loaded)


@settings(max_examples=60)
@given(raised())
def test_with_json_an_odd_exception_raises_nothing(error: BaseException) -> None:
    """With JSON an odd exception raises nothing, and becomes StepFailed if JSON cannot hold it."""
    check(error, Payloads(JsonCodec()))


@settings(max_examples=60)
@given(raised())
def test_without_previews_an_odd_exception_is_its_type(error: BaseException) -> None:
    """Without previews the text of an exception is never asked for."""
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
    """A frozen dataclass exception keeps type, fields and text, and takes notes and a cause."""
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
    """A pydantic error, whose class is final and fills ``args`` when loaded, comes back equal."""
    pydantic = pytest.importorskip("pydantic")
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    payload, loaded = Payloads(PickleCodec()).pack_error(caught.value, *PLACE)
    for one in (loaded, Payloads(PickleCodec()).unpack_error(payload, *PLACE)):
        assert type(one) is pydantic.ValidationError
        assert one.errors(include_url=False) == caught.value.errors(include_url=False)


def test_an_error_is_stored_when_the_stack_is_used_up() -> None:
    """A ``RecursionError`` that is packed near the end of the stack is stored as itself."""

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
    """A step with an odd exception executes once, ``except`` catches it now and on replay, and uncaught it
    fails the run."""
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
