"""Models of pydantic and structs of msgspec: the encoding covers what ``==`` compares."""

from typing import Any, Generic, TypeVar

import pytest

from flowdsl.core.encoding import encode
from flowdsl.errors import UnkeyableArgument

pydantic = pytest.importorskip("pydantic")
msgspec = pytest.importorskip("msgspec")

T = TypeVar("T")


class Item(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    name: str


class Order(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    number: int
    items: list[Item] = []


class Open(pydantic.BaseModel):  # type: ignore[name-defined, misc]
    model_config = {"extra": "allow"}
    a: int = 1
    _seen: Any = pydantic.PrivateAttr(default=None)


class Box(pydantic.BaseModel, Generic[T]):  # type: ignore[name-defined, misc]
    x: T


class Root(pydantic.RootModel[list[int]]):  # type: ignore[name-defined, misc]
    pass


class Point(msgspec.Struct):  # type: ignore[name-defined, misc]
    x: int
    y: int = 0


class Vector(msgspec.Struct):  # type: ignore[name-defined, misc]
    x: int
    y: int = 0


def seen(a: int, value: Any) -> Any:
    made = Open(a=a)
    made._seen = value
    return made


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (Order(number=1, items=[Item(name="tea")]), Order(items=[Item(name="tea")], number=1)),
        (Order(number=1), Order(number=1, items=[])),  # a default that was given is the same
        (Open(b=2), Open(a=1, b=2)),
        (Box[int](x=1), Box(x=1)),
        (Root([1]), Root(root=[1])),
        (pydantic.SecretStr("x"), pydantic.SecretStr("x")),
        (pydantic.AnyUrl("http://a.b/c"), pydantic.AnyUrl("http://a.b/c")),
        (Point(1), Point(1, 0)),
        (msgspec.UNSET, msgspec.UNSET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_equal_models_have_one_encoding(one: Any, same: Any) -> None:
    """Models that are equal for their library have one encoding."""
    assert one == same
    assert encode(one) == encode(same)


def test_other_values_and_types_have_other_encodings() -> None:
    """Fields, extra fields, private attributes and the class change the encoding."""
    values = [
        Order(number=1),
        Order(number=2),
        Order(number=1).model_dump(),
        Open(),
        Open(a=2),
        Open(b=1),
        Open(_seen=1),
        seen(1, 3),
        Item(name="a"),
        Root([1]),
        [1],
        Point(1),
        Point(1, 1),
        Vector(1),
        {"x": 1, "y": 0},
        pydantic.SecretStr("x"),
        pydantic.SecretStr("y"),
        "x",
        msgspec.UNSET,
    ]
    assert len({encode(value) for value in values}) == len(values)


def test_a_part_without_encoding_is_named() -> None:
    """The error names the field without an encoding."""
    with pytest.raises(UnkeyableArgument, match=r"value\._seen \(object\)"):
        encode(seen(1, object()))
