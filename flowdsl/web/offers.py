"""Queues, schedules and workers, where the runtime offers them. Elsewhere their pages do not exist."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from flowdsl.runtime import Runtime

__all__ = ["Offers", "Row", "offers_of"]


@runtime_checkable
class Named(Protocol):
    """Rows that can be paused: queues and schedules."""

    def list(self) -> Iterable[Any]: ...
    def pause(self, name: str, /) -> Any: ...
    def resume(self, name: str, /) -> Any: ...


@frozen
class Row:
    """One queue, schedule or worker: its name, whether it is paused, and what else is known of it."""

    name: str
    paused: bool
    facts: Mapping[str, str]


@frozen
class Offers:
    """What this runtime has; ``None`` for what it has not."""

    queues: Named | None = None
    schedules: Named | None = None
    workers: Any = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The pages that exist."""
        return tuple(kind for kind in ("queues", "schedules", "workers") if getattr(self, kind) is not None)

    def rows(self, kind: str) -> list[Row]:
        """The rows of a page."""
        found = self.workers() if kind == "workers" else getattr(self, kind).list()
        return [_row(one) for one in found]

    def change(self, kind: str, name: str, action: str) -> None:
        """Pause, resume or trigger one. Raises ``LookupError`` if there is none of this name."""
        if not any(row.name == name for row in self.rows(kind)):
            raise LookupError(f"there is no such {kind.removesuffix('s')}")
        getattr(getattr(self, kind), action)(name)


def offers_of(runtime: Runtime) -> Offers:
    """What *runtime* offers."""
    queues, schedules = getattr(runtime, "queues", None), getattr(runtime, "schedules", None)
    workers = getattr(runtime, "workers", None)
    return Offers(
        queues if isinstance(queues, Named) else None,
        schedules if isinstance(schedules, Named) else None,
        workers if callable(workers) else None,
    )


_HIDDEN = ("name", "id", "paused", "args", "kwargs")


def _row(one: Any) -> Row:
    given = one if isinstance(one, Mapping) else {name: getattr(one, name) for name in _names(one)}
    facts = {
        name.replace("_", " "): _text(value)
        for name, value in given.items()
        if name not in _HIDDEN and not name.startswith("_") and value is not None
    }
    return Row(str(given.get("name") or given.get("id") or ""), bool(given.get("paused", False)), facts)


def _names(one: Any) -> list[str]:
    fields = getattr(type(one), "__attrs_attrs__", None) or ()
    return [field.name for field in fields] or [name for name in dir(one) if not name.startswith("_")]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    path = getattr(value, "path", None)  # a decorated workflow
    text = path if isinstance(path, str) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"
