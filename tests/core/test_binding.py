"""Binding calls: which arguments count, which are left out, which are refused, and calling again."""

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.binding import NO_RECEIVER, Binder, changed_defaults, has_identity
from flowdsl.core.keys import content_digest, object_path, step_key
from flowdsl.errors import UnkeyableArgument

NAMES = ["a", "b", "c", "d"]

# --------------------------------------------------------------------------- any signature, any call


@st.composite
def functions(draw: st.DrawFn) -> Callable[..., Any]:
    """Functions of all kinds of parameters, which return what they were called with."""
    count = draw(st.integers(0, 4))
    kinds = sorted(draw(st.lists(st.sampled_from("pmk"), min_size=count, max_size=count)), key="pmk".index)
    positional_defaults = draw(st.integers(0, count))
    texts, without_default = [], count - positional_defaults
    for place, kind in enumerate(kinds):
        has_default = draw(st.booleans()) if kind == "k" else place >= without_default
        texts.append(f"{NAMES[place]}={place * 10}" if has_default else NAMES[place])
    star = draw(st.sampled_from(["", "*more"]))
    if "k" in kinds:
        texts.insert(kinds.index("k"), star or "*")
    elif star:
        texts.append(star)
    if "p" in kinds:
        texts.insert(kinds.count("p"), "/")
    if draw(st.booleans()):
        texts.append("**rest")
    namespace: dict[str, Any] = {}
    exec(f"def task({', '.join(texts)}): return dict(locals())", namespace)
    made: Callable[..., Any] = namespace["task"]
    return made


values = st.integers(0, 40) | st.booleans() | st.text(max_size=1) | st.lists(st.integers(0, 1), max_size=1)
calls = st.tuples(
    st.lists(values, max_size=5).map(tuple), st.dictionaries(st.sampled_from([*NAMES, "e", "rest"]), values)
)


@st.composite
def fitting(draw: st.DrawFn, task: Callable[..., Any]) -> Any:
    """Arguments that fit, passed by place or by name, defaults sometimes passed and sometimes not."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, parameter in inspect.signature(task).parameters.items():
        value = (
            draw(values | st.just(parameter.default))
            if parameter.default != parameter.empty
            else draw(values)
        )
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += draw(st.lists(values, max_size=2)) if not kwargs else []
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update(draw(st.dictionaries(st.sampled_from(["x", "y"]), values)))
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            args.append(value)
        elif parameter.kind is parameter.KEYWORD_ONLY or kwargs or draw(st.booleans()):
            if parameter.default is parameter.empty or draw(st.booleans()):
                kwargs[name] = value
        else:
            args.append(value)
    return tuple(args), kwargs


@given(functions(), calls)
def test_binding_is_pythons(task: Callable[..., Any], call: Any) -> None:
    """Binding accepts or refuses a call exactly as Python does, and the call can be made again."""
    args, kwargs = call
    binder = Binder(task, path="jobs.task")
    try:
        expected = task(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match=r"^task\(\) .* \(step 'jobs.task'\)$"):
            binder.bind(args, kwargs)
        return
    arguments = binder.bind(args, kwargs).arguments
    assert arguments == expected
    assert list(arguments) == list(inspect.signature(task).parameters)
    again_args, again_kwargs = binder.call_with(pickle.loads(pickle.dumps(arguments)))
    assert task(*again_args, **again_kwargs) == expected


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1,), {}, "missing a required argument: 'c'"),
        ((1, 2, 3), {"c": 1}, "takes 2 positional arguments, but 3 were given"),
        ((1, 2), {"b": 1, "c": 1}, "multiple values for argument 'b'"),
        ((1,), {"c": 1, "x": 1}, "got an unexpected keyword argument 'x'"),
        ((1,), {"c": 1, "a": 1}, "got an unexpected keyword argument 'a'"),
    ],
)
def test_calls_that_do_not_fit_are_refused_like_pythons(args: Any, kwargs: Any, message: str) -> None:
    """The error for a wrong call has Python's message, and names the step."""

    def task(a: Any, /, b: Any = 0, *, c: Any) -> None: ...

    with pytest.raises(TypeError) as caught:
        Binder(task, path="jobs.task").bind(args, kwargs)
    assert str(caught.value) == f"task() {message} (step 'jobs.task')"


def typed(value: Any) -> Any:
    """A value with its types, so that ``1 == True`` is false."""
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return type(value), value


@given(functions(), st.data())
def test_two_calls_have_one_key_exactly_if_they_mean_the_same(task: Any, data: st.DataObject) -> None:
    """Two calls have one key exactly if the function gets the same arguments."""
    binder = Binder(task, path="jobs.task")
    a = binder.bind(*data.draw(fitting(task)))
    b = binder.bind(*data.draw(fitting(task)))
    assert (a.canonical == b.canonical) == (typed(a.arguments) == typed(b.arguments))


@given(functions(), st.data())
def test_an_added_optional_parameter_changes_nothing(task: Any, data: st.DataObject) -> None:
    """A new optional parameter changes neither key nor defaults of old calls."""
    old = Binder(task, path="jobs.task")
    signature = inspect.signature(task)
    extra = inspect.Parameter("extra", inspect.Parameter.KEYWORD_ONLY, default=5)
    more = inspect.Parameter("more", inspect.Parameter.VAR_POSITIONAL)
    added = {parameter.name: parameter for parameter in [*signature.parameters.values(), extra, more]}
    ordered = sorted(added.values(), key=lambda parameter: parameter.kind)

    def newer(*args: Any, **kwargs: Any) -> None: ...

    newer.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    new = Binder(newer, path="jobs.task")
    args, kwargs = data.draw(fitting(task))
    before, after = old.bind(args, kwargs), new.bind(args, kwargs)
    assert after.canonical == before.canonical
    assert changed_defaults(before.defaults, after.defaults) == []


# ----------------------------------------------------------------------------------------- what counts


def charge(amount: Any, currency: str = "EUR", *, client: Any = None) -> None: ...


def moved(*, client: Any = None, currency: str = "EUR", amount: Any) -> None: ...


def renamed(total: Any, currency: str = "EUR") -> None: ...


def key_of(fn: Any, *args: Any, **kwargs: Any) -> str:
    return Binder(fn, path="shop.charge").bind(args, kwargs).key()


def test_names_count_and_places_do_not() -> None:
    """Parameters may change places and kinds; a renamed one changes the key."""
    assert key_of(charge, 10) == key_of(moved, amount=10) != key_of(renamed, 10)


def test_what_encodes_as_the_default_is_left_out() -> None:
    """An explicit default is left out; a value that is only equal to it is not."""

    def task(count: Any = 1, items: Any = (1, [2]), ratio: Any = 0.5) -> None: ...

    assert key_of(task) == key_of(task, 1, (1, [2]), float("0.5")) == key_of(task, ratio=float("0.5"))
    assert len({key_of(task), key_of(task, 1.0), key_of(task, True), key_of(task, 1, (1, [3]))}) == 4


def test_a_key_is_that_of_its_parts() -> None:
    """``Bound.key`` is the step key of path, scope, version, arguments and occurrence."""
    call = Binder(charge, path="shop.charge").bind((10,), {})
    assert call.key("s", "2", 3) == step_key(content_digest("s", "shop.charge", "2", call.canonical), 3)


def test_ignored_parameters_do_not_count() -> None:
    """An ignored parameter is not encoded, not stored, and not shown."""
    binder = Binder(charge, path="shop.charge", ignore=("client",))
    call = binder.bind((10,), {"client": object()})
    assert call.canonical == binder.bind((10,), {"client": object()}).canonical
    assert call.arguments == {"amount": 10, "currency": "EUR"}
    assert call.preview() == "amount=10, currency='EUR'"
    assert Binder(charge, path="shop.charge", ignore="client").ignored == ("client",)


def test_an_unknown_name_in_ignore_is_refused_when_built() -> None:
    """An unknown name in ``ignore=`` is refused, and the message lists the parameters."""
    with pytest.raises(ValueError, match=r"'shop.charge'.*'clint'.*'amount', 'currency', 'client'"):
        Binder(charge, path="shop.charge", ignore=("clint",))


def test_key_stands_for_the_arguments() -> None:
    """With ``key=`` only its result counts, and it gets the arguments as they were passed."""
    binder = Binder(charge, path="shop.charge", key=lambda amount, **_: amount["id"])
    one = binder.bind(({"id": 1, "x": object()},), {})
    assert one.canonical == binder.bind(({"id": 1},), {"currency": "USD"}).canonical
    assert one.canonical != binder.bind(({"id": 2},), {}).canonical
    assert one.defaults == ""
    plain = Binder(charge, path="shop.charge").bind((1,), {})
    assert one.canonical != plain.canonical


def test_arguments_are_checked_before_key_is_called() -> None:
    """A call that does not fit is refused before ``key=`` is called."""
    binder = Binder(charge, path="shop.charge", key=lambda **_: 1 / 0)
    with pytest.raises(TypeError, match="missing a required argument: 'amount'"):
        binder.bind((), {})
    with pytest.raises(ZeroDivisionError):
        binder.bind((), {"amount": 1})


def test_variable_arguments_count_under_their_names() -> None:
    """``*args`` is encoded as a tuple and ``**kwargs`` as a dict; empty ones are left out."""

    def task(*args: Any, **kwargs: Any) -> None: ...

    binder = Binder(task, path="jobs.task")
    assert binder.bind((), {}).arguments == {"args": (), "kwargs": {}}
    assert binder.bind((), {}).preview() == ""
    call = binder.bind((1, 2), {"x": 3})
    assert call.arguments == {"args": (1, 2), "kwargs": {"x": 3}}
    assert call.preview() == "args=(1, 2), kwargs={'x': 3}"
    call.arguments["kwargs"]["x"] = 4
    assert call.arguments["kwargs"] == {"x": 3}
    binder.bind((), {}).arguments["kwargs"]["y"] = 1
    assert Binder(lambda **rest: rest, path="p").bind((), {"": 5}).arguments == {"rest": {"": 5}}
    assert binder.bind((), {}).arguments["kwargs"] == {}


# ------------------------------------------------------------------------------------------- receivers


class Shop:
    def sell(self, item: str) -> None: ...

    def sell_loosely(*args: Any) -> None: ...


class Branch(Shop):
    def __init__(self, city: Any) -> None:
        self.city = city

    def __flow_key__(self) -> Any:
        return self.city


def test_a_receiver_counts_if_it_has_an_identity() -> None:
    """``self`` counts only with ``__flow_key__``, and ``cls`` by its path."""
    binder = Binder(Shop.sell, path="shop.sell", receiver=True)
    plain = binder.bind(("pen",), {}, Shop())
    assert plain.canonical == binder.bind(("pen",), {}, Shop()).canonical
    assert plain.canonical == binder.bind(("pen",), {}).canonical
    assert plain.arguments == {"item": "pen"}
    found = [Shop(), Branch("Rome"), Branch("Oslo"), Shop, Branch]
    assert len({binder.bind(("pen",), {}, receiver).canonical for receiver in found}) == len(found)
    assert (
        binder.bind(("pen",), {}, Branch("Rome")).canonical
        == binder.bind(("pen",), {}, Branch("Rome")).canonical
    )


def test_who_has_an_identity() -> None:
    """A class and an instance with ``__flow_key__`` have an identity, and a function needs none."""
    assert [has_identity(it) for it in (Shop(), Shop, Branch(1), NO_RECEIVER)] == [False, True, True, True]
    assert Binder.has_identity(Branch(1))


def test_the_receiver_can_be_ignored() -> None:
    """``ignore=("self",)`` leaves out even a receiver with an identity."""
    binder = Binder(Shop.sell, path="shop.sell", receiver=True, ignore=("self",))
    assert binder.bind(("pen",), {}, Branch(1)).canonical == binder.bind(("pen",), {}, Branch(2)).canonical


def test_key_gets_the_receiver_if_it_asks_for_it() -> None:
    """A ``key=`` function whose first parameter is ``self`` gets the receiver; others do not."""
    with_self = Binder(Shop.sell, path="shop.sell", receiver=True, key=lambda self, item: (self.city, item))
    without = Binder(Shop.sell, path="shop.sell", receiver=True, key=lambda item: item)
    assert with_self.bind(("pen",), {}, Branch(1)).arguments == {"item": "pen"}
    assert (
        with_self.bind(("pen",), {}, Branch(1)).canonical != with_self.bind(("pen",), {}, Branch(2)).canonical
    )
    assert without.bind(("pen",), {}, Shop()).canonical == without.bind(("pen",), {}, Shop()).canonical


def test_a_method_that_takes_its_receiver_among_others() -> None:
    """A method ``def m(*args)`` binds without its receiver."""
    binder = Binder(Shop.sell_loosely, path="shop.sell", receiver=True)
    assert binder.bind(("pen",), {}, Shop()).arguments == {"args": ("pen",)}


# -------------------------------------------------------------------------------------------- defaults


def defaults_of(fn: Any, *args: Any) -> str:
    return Binder(fn, path="jobs.task").bind(args, {}).defaults


def test_a_changed_default_is_told_and_an_added_one_is_not() -> None:
    """The stored defaults show changed defaults by type and value, and no added ones."""

    def old(a: Any = 1, b: Any = "x", c: Any = None) -> None: ...

    def new(a: Any = True, b: Any = "x", d: Any = 4) -> None: ...

    assert changed_defaults(defaults_of(old), defaults_of(new)) == ["a"]
    assert changed_defaults(defaults_of(old), defaults_of(old)) == []
    assert changed_defaults(defaults_of(old, 5), defaults_of(new)) == []
    assert changed_defaults("", defaults_of(new)) == []


def test_a_mutable_default_is_looked_at_each_time() -> None:
    """A default list that a body has changed is left out of the key, but recorded as changed."""

    def task(seen: list[int] = []) -> None: ...

    binder = Binder(task, path="jobs.task")
    before = binder.bind((), {})
    assert binder.bind(([],), {}).canonical == before.canonical
    task.__defaults__[0].append(1)  # type: ignore[index]
    after = binder.bind((), {})
    assert after.canonical == before.canonical == binder.bind(([1],), {}).canonical
    assert binder.bind(([],), {}).canonical != before.canonical
    assert changed_defaults(before.defaults, after.defaults) == ["seen"]


def test_a_default_without_an_encoding_is_no_problem() -> None:
    """A default without an encoding is left out and recorded by type; passing such an object is refused."""
    unset = object()

    def task(value: Any = unset) -> None: ...

    binder = Binder(task, path="jobs.task")
    assert binder.bind((unset,), {}).canonical == binder.bind((), {}).canonical
    assert binder.bind((), {}).defaults.startswith("value=")
    assert binder.bind((3,), {}).canonical != binder.bind((), {}).canonical
    with pytest.raises(UnkeyableArgument):
        binder.bind((object(),), {})


# ------------------------------------------------------------------------------------------- refusals


@dataclass
class Order:
    items: list[Any]


def test_an_unkeyable_argument_is_named_with_its_place_and_what_to_do() -> None:
    """The error names step, parameter, attribute and class, says what to do, and can be stored."""
    binder = Binder(charge, path="shop.charge")
    with pytest.raises(UnkeyableArgument) as caught:
        binder.bind(({"order": Order([0, object()])},), {})
    error = caught.value
    assert (error.step, error.parameter, error.where) == (  # type: ignore[attr-defined]
        "shop.charge",
        "amount",
        "amount['order'].items[1]",
    )
    for part in ("step 'shop.charge'", "(object)", "ignore=('amount',)", "key=", "@encode.register(object)"):
        assert part in str(error)
    assert type(error) is UnkeyableArgument
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("binder", "receiver", "parameter"),
    [
        (Binder(charge, path="p", key=lambda amount: object()), NO_RECEIVER, "key()"),
        (Binder(Shop.sell, path="p", receiver=True), Branch(object()), "self"),
    ],
)
def test_unkeyable_results_of_key_and_flow_key_are_named(binder: Any, receiver: Any, parameter: str) -> None:
    """The error for a result of ``key=`` or ``__flow_key__`` names it, and gives no useless advice."""
    with pytest.raises(UnkeyableArgument) as caught:
        binder.bind((1,), {}, receiver)
    assert caught.value.parameter == parameter  # type: ignore[attr-defined]
    assert "ignore=" not in str(caught.value)


def test_deep_and_endless_arguments_are_refused() -> None:
    """Too deep arguments, cycles, and a used-up stack are typed refusals."""

    class Endless:
        def __flow_key__(self) -> Any:
            return self.__flow_key__()

    cyclic: list[Any] = []
    cyclic.append(cyclic)
    binder = Binder(charge, path="shop.charge")
    for value, reason in ((cyclic, "contains itself"), (Endless(), "stack")):
        with pytest.raises(UnkeyableArgument, match=reason):
            binder.bind((value,), {})


def test_what_has_no_signature_is_refused_when_built() -> None:
    """A C function without a signature is refused, and the message says what to do."""
    with pytest.raises(TypeError, match="wrap it in a function"):
        Binder(dict.update, path="builtins.update")


# ------------------------------------------------------------------------------------- calling again


def test_calling_again_needs_what_was_ignored() -> None:
    """A call with an ignored argument cannot be made again, unless the parameter has a default."""

    def task(client: Any, item: str, retries: int = 3) -> None: ...

    stored = Binder(task, path="jobs.task", ignore=("client",)).bind((object(), "pen"), {}).arguments
    with pytest.raises(TypeError, match=r"no value for 'client', because ignored arguments are not stored"):
        Binder(task, path="jobs.task", ignore=("client",)).call_with(stored)
    with pytest.raises(TypeError, match=r"no value for 'client';"):
        Binder(task, path="jobs.task").call_with(stored)
    optional = Binder(task, path="jobs.task", ignore=("retries",))
    assert optional.call_with({"client": 1, "item": "pen"}) == ((1, "pen", 3), {})


def test_calling_again_with_a_parameter_that_is_gone() -> None:
    """A stored argument whose parameter is gone is named."""
    with pytest.raises(TypeError, match="no parameter 'colour' any more"):
        Binder(charge, path="shop.charge").call_with({"amount": 1, "colour": "red"})


# -------------------------------------------------------------------------------------------- telling


def test_explanations_tell_what_went_into_the_key() -> None:
    """An explanation shows counted, defaulted and ignored arguments, and the key."""
    call = Binder(charge, path="shop.charge", ignore=("client",)).bind((10,), {})
    text = call.explain(scope="ab", version="2", occurrence=1)
    for line in (
        "amount=10",
        "currency='EUR' (equals its default)",
        "client (ignored)",
        call.key("ab", "2", 1),
    ):
        assert line in text
    by_key = Binder(charge, path="shop.charge", key=lambda amount: amount).bind((10,), {})
    assert "10 in place of the arguments" in by_key.explain()
    method = Binder(Shop.sell, path="shop.sell", receiver=True)
    assert "(not counted)" in method.bind(("pen",), {}, Shop()).explain()
    assert object_path(Branch) in method.bind(("pen",), {}, Branch).explain().replace("<class '", "")


def test_previews_never_raise() -> None:
    """An argument whose repr raises, or that is huge, is still shown."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

        def __flow_key__(self) -> int:
            return 1

    call = Binder(charge, path="shop.charge").bind((Broken(), "x" * 1000), {})
    assert "Broken whose repr raised RuntimeError>" in call.preview()
    assert len(call.preview(80)) == 80
