"""Comparison, hash and text of a row, written once."""

from typing import Any, ClassVar

__all__ = ["ByFields"]


class ByFields:
    """Base of an attrs class whose objects are compared, hashed and shown by their fields.

    attrs can write these three methods for each class, but that is more than half of the time in which such a
    class is imported, and they are hardly called. So a class with this base leaves them out:

    >>> from attrs import frozen
    >>> @frozen(eq=False, repr=False)
    ... class Place(ByFields):
    ...     street: str
    ...     number: int = 1
    >>> Place("High Street") == Place("High Street", 1)
    True
    >>> Place("High Street")
    Place(street='High Street', number=1)
    """

    __slots__ = ()
    __attrs_attrs__: ClassVar[tuple[Any, ...]]

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(mine == its for mine, its in zip(_values(self), _values(other), strict=True))

    def __hash__(self) -> int:
        return hash((self.__class__, _values(self)))

    def __repr__(self) -> str:
        names = (one.name for one in self.__attrs_attrs__)
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(names, _values(self), strict=True))
        return f"{self.__class__.__qualname__}({shown})"


def _values(row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, one.name) for one in row.__attrs_attrs__)
