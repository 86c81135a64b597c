"""Canonical encoding of classes, functions and instances; registration; refusals, cycles and depth."""

import copy
import pickle
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from dataclasses import dataclass, field, make_dataclass
from enum import Enum, Flag, IntEnum
from functools import lru_cache, partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import attrs
import pytest

from flowdsl.core import encoders
from flowdsl.core.encoding import ENCODERS, encode
from flowdsl.core.unkeyable import MAX_DEPTH, Unkeyable
from flowdsl.errors import UnkeyableArgument

# -------------------------------------------------------------------------------------------- classes


@dataclass
class Order:
    id: int
    items: list[Any]
    note: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    price: float = 0.0


@attrs.define
class Parcel:
    _weight: int
    label: str = attrs.field(eq=str.lower, default="")
    cache: object = attrs.field(eq=False, default=None)
    data: object = attrs.field(eq=attrs.cmp_using(eq=lambda a, b: a == b), default=None)


class Point(NamedTuple):
    x: int
    y: int


class Place(NamedTuple):
    x: int
    y: int


class Colour(Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796 - an alias
    BLUE = 2


class Other(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Access(Flag):
    READ = 1
    WRITE = 2


class MyInt(int):
    def __int__(self) -> int:
        raise AssertionError("not to be called")


class MyFloat(float):
    pass


class MyStr(str):
    def __str__(self) -> str:
        return "always the same"


class MyBytes(bytes):
    def __bytes__(self) -> bytes:
        return b""


class MyList(list[Any]):
    def __len__(self) -> int:
        return 0


class MyTuple(tuple[Any, ...]):
    pass


class MyDict(dict[Any, Any]):
    def __len__(self) -> int:
        return 0


class MySet(set[Any]):
    pass


class MyFrozenset(frozenset[Any]):
    pass


class MyBytearray(bytearray):
    pass


class MyComplex(complex):
    pass


SUBCLASSES = [
    (MyInt(1), MyInt(2), 1),
    (MyFloat(1.0), MyFloat(2.0), 1.0),
    (MyComplex(1), MyComplex(2), 1 + 0j),
    (MyStr("a"), MyStr("b"), "a"),
    (MyBytes(b"a"), MyBytes(b"b"), b"a"),
    (MyBytearray(b"a"), MyBytearray(b"b"), bytearray(b"a")),
    (MyList([1]), MyList([2]), [1]),
    (MyTuple((1,)), MyTuple((2,)), (1,)),
    (MyDict(a=1), MyDict(a=2), {"a": 1}),
    (MySet({1}), MySet({2}), {1}),
    (MyFrozenset({1}), MyFrozenset({2}), frozenset({1})),
    (defaultdict(int, a=1), defaultdict(int, a=2), {"a": 1}),
    (OrderedDict(a=1), OrderedDict(a=2), {"a": 1}),
    (Counter(a=1), Counter(a=2), {"a": 1}),
    (Level.LOW, Colour.RED, 1),
]


@pytest.mark.parametrize(("value", "other", "base"), SUBCLASSES, ids=lambda value: type(value).__name__)
def test_a_subclass_is_not_its_base(value: Any, other: Any, base: Any) -> None:
    """A subclass of a built-in type differs from it, and its content counts, whatever it overrides."""
    assert encode(value) != encode(base)
    assert encode(value) != encode(other)
    assert encode(value) == encode(copy.deepcopy(value))


def test_dataclasses_count_the_fields_that_they_compare() -> None:
    """A dataclass is encoded by its class and the fields that it compares, with or without slots."""
    assert encode(Order(1, ["a"], note="x")) == encode(Order(1, ["a"], note="y"))
    assert encode(Order(1, ["a"])) != encode(Order(1, ["b"]))
    assert encode(Line("a")) != encode(Line("a", -0.0))
    assert encode(Line("a")) not in (encode({"name": "a", "price": 0.0}), encode(("a", 0.0)))


def test_attrs_classes_count_as_they_compare() -> None:
    """An attrs class is encoded by its comparison: ``eq=False`` is left out, ``eq=function`` counts by its
    result."""
    assert encode(Parcel(1, "Box", cache=object())) == encode(Parcel(1, "bOX"))
    assert encode(Parcel(1)) != encode(Parcel(2))
    assert encode(Parcel(1, data=[1])) != encode(Parcel(1, data=[2]))


def test_named_tuples_are_known_by_their_class() -> None:
    """Named tuples of two classes differ from each other and from a tuple."""
    assert len({encode(Point(1, 2)), encode(Place(1, 2)), encode((1, 2)), encode(Point(2, 1))}) == 4


def test_enum_members_are_known_by_class_and_name() -> None:
    """An enum alias equals its member; members of other enums, combined flags and plain values differ."""
    assert encode(Colour.RED) == encode(Colour.CRIMSON)
    members = [
        Colour.RED,
        Colour.BLUE,
        Other.RED,
        Access.READ,
        Access.WRITE,
        Access.READ | Access.WRITE,
        Access(0),
    ]
    assert len({encode(member) for member in [*members, 1, 2, "RED"]}) == len(members) + 3


def test_mappings_that_compare_in_their_own_way() -> None:
    """OrderedDict counts its order, Counter no zeros, defaultdict no factory."""
    assert encode(OrderedDict(a=1, b=2)) != encode(OrderedDict(b=2, a=1))
    assert encode(Counter(a=1, b=0)) == encode(Counter(a=1))
    assert encode(defaultdict(int, a=1)) == encode(defaultdict(list, a=1))


def test_classes_and_functions_are_known_by_path() -> None:
    """A class or function is encoded by the path where it is found."""
    found = [Order, Line, int, len, str.upper, dict.fromkeys, dict.__init__, local_function, cached]
    assert len({encode(value) for value in found}) == len(found)
    assert b"test_encoding.Order" in encode(Order)


@lru_cache
def cached(x: int) -> int:
    return x


class Account:
    def __init__(self, number: Any) -> None:
        self.number = number

    def __flow_key__(self) -> Any:
        return self.number

    def show(self) -> None: ...


class Savings(Account):
    pass


def test_flow_key_speaks_for_an_instance() -> None:
    """The result of ``__flow_key__`` counts, together with the class."""
    assert encode(Account(1)) == encode(Account(1))
    assert len({encode(Account(1)), encode(Account(2)), encode(Savings(1)), encode(1)}) == 4


class Fresh:
    """Its key is a new object each time, which is gone as soon as it was encoded."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __flow_key__(self) -> Any:
        return (self.number,) * 50


def test_keys_made_on_the_fly_are_not_mixed_up() -> None:
    """An object made by ``__flow_key__`` is never mistaken for a later one at the same address."""
    different: Any = [Fresh(number) for number in range(20)]
    equal: Any = [Fresh(0) for _ in range(20)]
    for _ in range(encoders._FOLD_DEPTH):
        different, equal = [different], [equal]
    assert encode(different) != encode(equal)


def test_the_order_of_fields_does_not_count() -> None:
    """The order of fields in the class does not count."""

    def make(*names: str) -> Any:
        cls = make_dataclass("Pair", names)
        cls.__module__ = __name__
        return cls(**{name: len(name) for name in names})

    assert encode(make("x", "yy")) == encode(make("yy", "x")) != encode(make("x", "zz"))


def test_bound_methods_count_with_their_object() -> None:
    """A bound method is encoded by its function and its object, and refused if the object has no encoding."""
    assert encode(Account(1).show) == encode(Account(1).show)
    assert encode(Account(1).show) != encode(Account(2).show)
    with pytest.raises(Unkeyable, match=r"__self__"):
        encode(Plain().show)


class Plain:
    def show(self) -> None: ...


class Derived(Plain):
    pass


@pytest.fixture
def registered_plain() -> Any:
    @encode.register(Plain)
    def _(plain: Plain) -> Any:
        return plain.__dict__

    yield
    encode.unregister(Plain)


def test_registered_types_are_encoded_under_their_path(registered_plain: None) -> None:
    """A registered encoder also serves subclasses, which stay different; unregistering removes it."""
    one, two = Plain(), Plain()
    two.x = 1  # type: ignore[attr-defined]
    assert encode(one) == encode(Plain())
    assert len({encode(one), encode(two), encode(Derived()), encode({})}) == 4
    encode.unregister(Plain)
    with pytest.raises(Unkeyable):
        encode(one)


def test_registering_again_replaces(registered_plain: None) -> None:
    """A second registration counts at once, even if the class was encoded before."""
    before = encode(Derived())
    encode.register(Plain)(lambda plain: "something else")
    assert encode(Derived()) != before


def test_the_nearest_class_decides(registered_plain: None) -> None:
    """A subclass's ``__flow_key__`` wins over an encoder that is registered for its base."""

    class Keyed(Plain):
        def __flow_key__(self) -> str:
            return "mine"

    assert b"mine" in encode(Keyed())


@pytest.mark.parametrize("cls", [int, dict, object, OrderedDict])
def test_builtin_encodings_are_fixed(cls: type) -> None:
    """A built-in type cannot be registered, because that would change stored keys."""
    with pytest.raises(TypeError, match="fixed"):
        encode.register(cls)


def test_register_takes_a_class() -> None:
    """``@encode.register`` without a class is refused at once."""
    with pytest.raises(TypeError, match="takes a class"):
        encode.register(lambda value: value)  # type: ignore[arg-type]


def test_plans_of_classes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that are no longer used are not kept alive."""
    monkeypatch.setattr(encoders, "_MAX_PLANS", len(ENCODERS) + 10)
    for number in range(50):
        encode(type(f"C{number}", (int,), {})(1))
    assert len(ENCODERS) <= encoders._MAX_PLANS
    assert encode([1]) == b"l1:i1;"


# ------------------------------------------------------------------------------------------- refusals


@dataclass
class Basket:
    items: list[Any]


class Slotted:
    __slots__ = ("client",)


@dataclass
class Half:
    whole: int = field(init=False)


def local_function() -> None: ...


def make_local() -> Any:
    def local() -> None: ...

    return local


REFUSED = [
    (object(), "", "no canonical encoding"),
    ([1, object()], "[1]", "no canonical encoding"),
    ({"a": (0, object())}, "['a'][1]", "no canonical encoding"),
    ({object()}, "{…}", "no canonical encoding"),
    (Basket([0, 1, 2, Basket([object()])]), ".items[3].items[0]", "no canonical encoding"),
    (Parcel(1, data=object()), ".data", "no canonical encoding"),
    (Account({"x": object()}), ".__flow_key__()['x']", "no canonical encoding"),
    (Point(1, object()), ".y", "no canonical encoding"),  # type: ignore[arg-type]
    (OrderedDict(a=object()), "['a']", "no canonical encoding"),
    (slice(object()), "[…]", "no canonical encoding"),
    (SimpleNamespace(a=[object()]), ".a[0]", "no canonical encoding"),
    (MappingProxyType({"a": object()}), "['a']", "no canonical encoding"),
    (ChainMap({}, {"a": object()}), "['a']", "no canonical encoding"),
    (UserDict(a=object()), "['a']", "no canonical encoding"),
    (deque([1, object()]), "[1]", "no canonical encoding"),
    (lambda: None, "", "lambda"),
    (make_local(), "", "local"),
    ([].append, "", "bound to an object"),
    (partial(int), "", "no canonical encoding"),
    ((n for n in ()), "", "read only once"),
    (iter([]), "", "read only once"),
    (memoryview(b""), "", "no canonical encoding"),
    (Slotted(), "", "no canonical encoding"),
    (Half(), ".whole", "never set"),
    (pytest, "", "no canonical encoding"),
]


@pytest.mark.parametrize(("value", "where", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_what_has_no_encoding_is_refused_with_its_place(value: Any, where: str, reason: str) -> None:
    """The error for a value without an encoding names its attribute path and the reason."""
    with pytest.raises(Unkeyable, match=reason) as caught:
        encode(value)
    assert caught.value.where == where
    assert isinstance(caught.value, UnkeyableArgument)


def test_a_cycle_is_refused_where_it_closes() -> None:
    """A value that contains itself is refused, and the message names the place."""
    value: dict[str, Any] = {"a": [1]}
    value["a"].append({"back": value["a"]})
    with pytest.raises(Unkeyable, match="contains itself") as caught:
        encode(value)
    assert caught.value.where == "['a'][1]['back']"
    assert caught.value.kind == "list"


def test_a_flow_key_that_returns_its_object_is_a_cycle() -> None:
    """A ``__flow_key__`` that returns ``self`` is refused."""
    account = Account(None)
    account.number = account
    with pytest.raises(Unkeyable, match="contains itself"):
        encode(account)


def test_a_flow_key_that_recurses_is_refused() -> None:
    """A ``__flow_key__`` that recurses without end is refused."""

    class Endless:
        def __flow_key__(self) -> Any:
            return self.__flow_key__()

    with pytest.raises(Unkeyable, match="too deeply for the stack"):
        encode(Endless())


@pytest.mark.parametrize(
    ("step", "wrap"),
    [(1, lambda inner: [inner]), (1, lambda inner: {"a": inner}), (2, lambda inner: Basket([inner]))],
)
def test_deep_nesting_is_encoded_up_to_a_limit_and_then_refused(step: int, wrap: Any) -> None:
    """Up to ``MAX_DEPTH`` levels are encoded, and deeper values are refused."""
    value: Any = 0
    for _ in range(MAX_DEPTH // step):
        value = wrap(value)
    assert encode(value) == encode(copy.deepcopy(value))
    for levels in (1, 20_000):
        deeper = value
        for _ in range(levels):
            deeper = wrap(deeper)
        with pytest.raises(Unkeyable, match="nested more than") as caught:
            encode(deeper)
        assert len(caught.value.where) < 100


def test_a_refusal_survives_being_stored() -> None:
    """A pickled refusal keeps everything but the value."""
    with pytest.raises(Unkeyable) as caught:
        encode([object()])
    loaded = pickle.loads(pickle.dumps(caught.value))
    assert type(loaded) is Unkeyable
    assert str(loaded) == str(caught.value)
    assert loaded.where == "[0]"


class Prompt(str):
    model: str

    def __new__(cls, text: str, model: str) -> "Prompt":
        self = super().__new__(cls, text)
        self.model = model
        return self


class Rows(list[Any]):
    __slots__ = ("name",)

    def __init__(self, items: list[Any], name: str | None = None) -> None:
        super().__init__(items)
        if name is not None:
            self.name = name


class Record(dict[str, Any]):
    """The kind of dict that is its own attributes."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        self.__dict__ = self


@dataclass
class Named(list[int]):
    name: str


def named(name: str, *items: int) -> Named:
    found = Named(name)
    found.extend(items)
    return found


def test_attributes_of_subclasses_of_builtins_count() -> None:
    """Each attribute of a subclass of a built-in type counts, in ``__dict__`` and in slots."""
    values = [
        Prompt("hi", "small"),
        Prompt("hi", "large"),
        Prompt("ho", "small"),
        "hi",
        Rows([1]),
        Rows([1], "a"),
        Rows([1], "b"),
        Rows([2], "a"),
        Record(a=1),
        Record(a=2),
        named("a"),
        named("a", 1),
        named("b", 1),
    ]
    assert len({encode(value) for value in values}) == len(values)
    assert encode(Prompt("hi", "small")) == encode(Prompt("hi", "small"))
    assert encode(Record(a=1)) == encode(Record(a=1))


def test_an_attribute_without_encoding_is_named() -> None:
    """The error names the attribute without an encoding, at any depth, or the cycle."""
    with pytest.raises(Unkeyable) as caught:
        encode([Prompt("hi", object())])  # type: ignore[arg-type]
    assert caught.value.where == "[0].model"
    loop = Prompt("hi", "small")
    loop.model = [loop]  # type: ignore[assignment]
    with pytest.raises(Unkeyable, match="contains itself"):
        encode(loop)


class Declined(Exception):
    __slots__ = ("card",)


def declined(*args: Any, **attributes: Any) -> Declined:
    found = Declined(*args)
    for name, value in attributes.items():
        setattr(found, name, value)
    return found


def test_exceptions_count_with_class_arguments_and_attributes() -> None:
    """An exception is encoded by class, arguments and attributes; notes, causes and tracebacks do not
    count."""
    values = [
        declined("no"),
        declined("yes"),
        declined("no", card=1),
        declined("no", code=1),
        ValueError("no"),
        OSError(2, "gone", "a"),
        OSError(2, "gone", "b"),
        ImportError("no", name="a"),
        ImportError("no", name="b"),
        ExceptionGroup("two", [ValueError(1), KeyError(2)]),
        ExceptionGroup("two", [ValueError(1), KeyError(3)]),
    ]
    assert len({encode(value) for value in values}) == len(values)
    raised = declined("no")
    try:
        raise raised from KeyError("k")
    except Declined:
        raised.add_note("step shop.charge of run 7 failed")
    assert encode(raised) == encode(declined("no"))
