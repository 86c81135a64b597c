"""What a storage is never asked: operations and readers refuse it with ``ValueError``."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import Attribute

from flowdsl.core.ownership import RUN_FIELDS
from flowdsl.core.records import Step

__all__ = ["an_address", "an_id", "require_id", "require_limit", "settable", "some_keys"]


def require_id(value: str, what: str = "run id") -> None:
    """Raise ``ValueError`` unless *value* is a non-empty string."""
    if not value or not isinstance(value, str):
        raise ValueError(f"{what} must be a non-empty string, not {value!r}")


def require_limit(limit: int | None) -> None:
    """Raise ``ValueError`` for a negative limit (0 is an empty page, ``None`` no limit)."""
    if limit is not None and limit < 0:
        raise ValueError(f"limit must not be negative, not {limit!r}")


def an_id(what: str, *names: str) -> Callable[[Any, "Attribute[Any]", Any], None]:
    """A validator: the value is an id, or these attributes of it are."""

    labels = [(name, f"{what} {name}".replace("run_id", "run id")) for name in names]

    def check_attributes(_: Any, __: "Attribute[Any]", value: Any) -> None:
        for name, label in labels:
            one = getattr(value, name)
            if type(one) is not str or not one:  # each run and each step comes through here
                require_id(one, label)

    def check_value(_: Any, __: "Attribute[Any]", value: Any) -> None:
        if type(value) is not str or not value:
            require_id(value, what)

    return check_attributes if labels else check_value


def an_address(step: Step) -> None:
    require_id(step.run_id)
    require_id(step.key, "step key")


def settable(_: Any, __: "Attribute[Any]", changes: Mapping[str, Any]) -> None:
    if changes and not RUN_FIELDS.issuperset(changes):
        unknown = ", ".join(sorted(set(changes) - RUN_FIELDS))
        raise ValueError(f"not a field of Run that can be set: {unknown}")


def some_keys(_: Any, __: "Attribute[Any]", keys: tuple[str, ...]) -> None:
    for key in keys:
        require_id(key, "step key")
