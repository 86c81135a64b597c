"""JSON that keeps types: what comes back, what other languages see, and what is refused."""

import json
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.codecs import TypedJsonCodec
from flowdsl.codecs.payloads import Payloads
from flowdsl.errors import MissingClass, ResultNotStorable


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Line:
    sku: str
    price: Decimal
    note: str = field(default="", init=False)


@dataclass
class Order:
    number: int
    lines: list[Line]
    colour: Colour = Colour.RED


CODEC = TypedJsonCodec(types=[Order, Line, Colour])
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
typed = (
    st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary()
    | st.builds(Order, st.integers(), st.lists(st.builds(Line, st.text("ab"), st.decimals(allow_nan=False))))
)
hashable = plain | typed.filter(lambda value: not isinstance(value, Order))
values = st.recursive(
    plain | typed,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "$type", "$value", "b"]), inner)
        | st.dictionaries(hashable, inner)
        | st.frozensets(hashable)
    ),
    max_leaves=12,
)


@given(values)
def test_every_value_comes_back_as_itself(value):
    """Values of all types keep their type at any depth, and a member named ``$type`` stays plain data."""
    found = CODEC.loads(CODEC.dumps(value))
    assert found == value
    assert repr(type(found)) == repr(type(value))


def test_other_languages_see_names_and_plain_values():
    """A value is stored in the documented form: an object with the type's name and the plain value."""
    order = Order(7, [Line("tea", Decimal("1.50"))])
    assert json.loads(CODEC.dumps({"order": order, "at": date(2024, 2, 29)})) == {
        "order": {
            "$type": "Order",
            "$value": {
                "number": 7,
                "lines": [
                    {
                        "$type": "Line",
                        "$value": {"sku": "tea", "price": {"$type": "decimal", "$value": "1.50"}, "note": ""},
                    }
                ],
                "colour": {"$type": "Colour", "$value": "red"},
            },
        },
        "at": {"$type": "date", "$value": "2024-02-29"},
    }


def test_pydantic_models_come_back_validated():
    """A pydantic model is written as pydantic writes JSON, and read by ``model_validate``."""
    pydantic = pytest.importorskip("pydantic")

    class Item(pydantic.BaseModel):
        name: str
        at: datetime

    class Cart(pydantic.BaseModel):
        items: list[Item] = []

    codec = TypedJsonCodec(types=[Cart])
    cart = Cart(items=[Item(name="tea", at=datetime(2024, 1, 1, tzinfo=UTC))])
    assert json.loads(codec.dumps(cart))["$value"]["items"][0]["at"] == "2024-01-01T00:00:00Z"
    assert codec.loads(codec.dumps([cart])) == [cart]


def test_a_payload_cannot_name_another_type():
    """Only the given types are made; another name raises ``MissingClass``."""
    with pytest.raises(MissingClass, match="'os.system'"):
        CODEC.loads(b'{"$type": "os.system", "$value": "true"}')
    with pytest.raises(MissingClass, match="'Line'"):
        TypedJsonCodec(types=[Colour]).loads(CODEC.dumps(Line("a", Decimal(1))))


@pytest.mark.parametrize("value", [object(), namedtuple("P", "x")(1), float("nan"), {"a": {1, object()}}, 1j])
def test_everything_else_is_refused(value):
    """A value of another type is refused and not silently changed, except where JsonCodec does so."""
    if isinstance(value, tuple):
        assert CODEC.loads(CODEC.dumps(value)) == [1]
    else:
        with pytest.raises(ResultNotStorable):
            CODEC.dumps(value)


class Row(dict):
    pass


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize("make", [dict, OrderedDict, lambda data: defaultdict(list, data), Row])
def test_plain_data_makes_no_object(make):
    """A mapping that looks like the stored form of an object comes back as a dict."""
    data = {"$type": "Order", "$value": {"number": 7, "lines": []}}
    for value in (make(data), [make(data)], {"a": make(data)}):
        assert CODEC.loads(CODEC.dumps(value)) == value
    assert CODEC.loads(CODEC.dumps(Pair(make(data), 1))) == [data, 1]


@pytest.mark.parametrize("types", [[int], ["Order"], [object]], ids=str)
def test_types_that_it_cannot_keep_are_refused(types):
    """A class that is no model, dataclass or enum is refused."""
    with pytest.raises(TypeError, match="pydantic models"):
        TypedJsonCodec(types=types)


def test_two_types_of_one_name_are_refused():
    """Two types with one name are refused."""
    with pytest.raises(ValueError, match="'Order'"):
        TypedJsonCodec(types=[Order, dataclass(type("Order", (), {"__qualname__": "Order"}))])


def test_errors_are_stored_too():
    """An exception with an argument of a given type keeps its type."""
    payloads = Payloads(CODEC)
    payload, loaded = payloads.pack_error(ValueError("no", 7), "r", "k", "error")
    assert loaded.args == payloads.unpack_error(payload, "r", "k", "error").args == ("no", 7)


def test_times_of_day_and_spans_are_exact():
    """Times and spans keep microseconds and signs."""
    for value in (time(1, 2, 3, 4), timedelta(days=-1, microseconds=7), UUID(int=7)):
        assert CODEC.loads(CODEC.dumps(value)) == value
