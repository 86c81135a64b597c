"""Rows that are compared, hashed and shown by their fields."""

import attrs
import pytest

from flowdsl.core.by_fields import ByFields


@attrs.frozen(slots=True)
class Made:
    """Its methods are written by attrs."""

    name: str
    number: float = 1.0
    tags: object = ()


@attrs.frozen(slots=True, eq=False, repr=False)
class Row(ByFields):
    """Its methods are those of the base."""

    name: str
    number: float = 1.0
    tags: object = ()


@attrs.frozen(slots=True, eq=False, repr=False)
class Closer(Row):
    """Another class with the same fields."""


VALUES = [("a",), ("a", 1), ("a", 2.0), ("b", 1.0, ("x",)), ("a", float("nan")), ("", 1.0, [1])]


@pytest.mark.parametrize("one", VALUES)
def test_a_row_is_shown_as_attrs_would_show_it(one: tuple[object, ...]) -> None:
    """The text names the class, and every field with its value."""
    assert repr(Row(*one)) == repr(Made(*one)).replace("Made", "Row")  # type: ignore[arg-type]


@pytest.mark.parametrize("one", VALUES)
@pytest.mark.parametrize("other", VALUES)
def test_rows_are_equal_where_attrs_would_say_so(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    """Rows of one class are equal if all fields are, and what is not equal to itself makes no equal rows."""
    assert (Row(*one) == Row(*other)) is (Made(*one) == Made(*other))  # type: ignore[arg-type]
    assert (Row(*one) != Row(*other)) is (Made(*one) != Made(*other))  # type: ignore[arg-type]


def test_equal_rows_have_one_hash() -> None:
    """They are one member of a set; a row that holds a list has no hash."""
    assert len({Row("a"), Row("a", 1), Row("b")}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Row("a", 1.0, [1]))


def test_rows_of_different_classes_are_different() -> None:
    """A subclass with the same values is another row, in either order."""
    assert Row("a") != Closer("a")
    assert Closer("a") != Row("a")
    assert Row("a") != ("a", 1.0, ())
