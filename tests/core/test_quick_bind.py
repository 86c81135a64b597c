"""Generated binders: the same as binding step by step, for every signature and every call."""

import inspect
from inspect import Parameter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.binding import NO_RECEIVER, Binder, Bound
from flowdsl.errors import UnkeyableArgument

KINDS = [
    Parameter.POSITIONAL_ONLY,
    Parameter.POSITIONAL_OR_KEYWORD,
    Parameter.VAR_POSITIONAL,
    Parameter.KEYWORD_ONLY,
    Parameter.VAR_KEYWORD,
]
NAMES = ["a", "b", "type", "left_out", "int", "encoders", "café", "self"]
small = st.sampled_from([0, 1, True, "x", 1.5, None, (), {}])


@st.composite
def functions(draw: Any) -> Any:
    """A function of any signature; its defaults are of types that cannot be changed in place."""
    kinds = sorted(draw(st.lists(st.sampled_from(KINDS), max_size=5)))
    kinds = [k for i, k in enumerate(kinds) if "VAR" not in k.name or k not in kinds[:i]]
    parameters, defaulted = [], False
    for name, kind in zip(draw(st.permutations(NAMES)), kinds, strict=False):
        default = Parameter.empty
        if "VAR" not in kind.name:
            keyword = kind is Parameter.KEYWORD_ONLY
            if draw(st.booleans()) or (defaulted and not keyword):
                default, defaulted = draw(st.sampled_from([0, 1, "x", None])), defaulted or not keyword
        parameters.append(Parameter(name, kind, default=default))

    def function() -> None: ...

    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    ignored = draw(st.lists(st.sampled_from([p.name for p in parameters]), max_size=1)) if parameters else []
    return Binder(function, path="shop.f", ignore=ignored)


def outcome(bind: Any) -> Any:
    """What a binding gives, or how it is refused."""
    try:
        bound = bind()
    except TypeError as error:
        return type(error), str(error)
    return bound.canonical, bound.defaults, bound.arguments, bound.preview()


@given(
    functions(),
    st.lists(small, max_size=4).map(tuple),
    st.dictionaries(st.sampled_from([*NAMES, "other"]), small, max_size=3),
)
def test_a_generated_binder_is_the_stepwise_one(
    binder: Binder, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """A generated binder gives the same values, encoding, defaults and refusals as binding step by step."""
    assert outcome(lambda: binder.bind(args, kwargs)) == outcome(
        lambda: binder._bind_stepwise(args, kwargs, NO_RECEIVER, Bound())
    )


@pytest.mark.parametrize("name", ["flow_left_out", "class", "not a name"])
def test_a_signature_that_cannot_be_written_down_is_bound_step_by_step(name: str) -> None:
    """A parameter may have any name that ``inspect.Signature`` accepts."""

    def function() -> None: ...

    parameter = Parameter("x", Parameter.POSITIONAL_OR_KEYWORD)
    parameter._name = name  # type: ignore[attr-defined]
    function.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    assert Binder(function, path="f").bind((1,), {}).arguments == {name: 1}


def test_what_has_no_encoding_is_named() -> None:
    """The quick way refuses a value with the same message as binding step by step."""

    def charge(order: Any, *rest: Any, **facts: Any) -> None: ...

    binder = Binder(charge, path="shop.charge")
    with pytest.raises(UnkeyableArgument, match=r"argument 'order' has no key: order\[0\]"):
        binder.bind(([object()],), {})
    with pytest.raises(UnkeyableArgument, match=r"argument 'facts' has no key: facts\['x'\]"):
        binder.bind((1,), {"x": object()})


def test_an_error_in_the_users_code_is_the_users() -> None:
    """An exception of ``__flow_key__`` is raised as it is."""

    class Broken:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __flow_key__(self) -> Any:
            raise self.error

    def charge(order: Any) -> None: ...

    binder = Binder(charge, path="shop.charge")
    for error in (ValueError("mine"), TypeError("mine"), KeyError("mine")):
        with pytest.raises(type(error), match="mine"):
            binder.bind((Broken(error),), {})
