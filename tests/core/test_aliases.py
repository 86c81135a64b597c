"""Types as values: annotations have encodings, equal ones the same."""

import typing
from typing import Any

import pytest

from flowdsl.core.encoding import encode
from flowdsl.errors import UnkeyableArgument

DISTINCT = [
    int,
    list,
    list[int],
    list[str],
    dict[str, int],
    tuple[int, ...],
    typing.List[int],  # noqa: UP006
    typing.List,  # noqa: UP006
    int | None,
    int | str,
    typing.Literal["a"],
    typing.Literal[1],
    typing.Literal[True],
    typing.Literal["a", "b"],
    typing.Annotated[int, "x"],
    typing.Annotated[int, "y"],
    typing.Callable[[int], str],
    typing.Callable[[str], int],
    typing.Any,
    typing.ForwardRef("X"),
    ("Union", frozenset({int, str})),
]


def test_other_types_have_other_encodings() -> None:
    """Two different annotations never share an encoding, nor with their parts."""
    assert len({encode(value) for value in DISTINCT}) == len(DISTINCT)


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (int | str, str | int),
        (typing.Optional[int], int | None),  # noqa: UP045
        (typing.Union[int, str], str | int),  # noqa: UP007
        (typing.Literal["a", "b"], typing.Literal["b", "a"]),
        (list[int], list[int]),
    ],
    ids=str,
)
def test_equal_types_have_one_encoding(one: Any, same: Any) -> None:
    """Unions and literals have no order, so equal types have one encoding."""
    assert one == same
    assert encode(one) == encode(same)


def test_what_is_known_by_its_identity_only_is_refused() -> None:
    """A type variable is refused, because no other process has the same one."""
    with pytest.raises(UnkeyableArgument):
        encode(typing.TypeVar("T"))
