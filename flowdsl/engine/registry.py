"""Names of steps, workflows and event handlers.

Decorating registers a name and nothing else; registering it again replaces it. Names are held weakly: a
function that its module or its caller no longer holds is gone from here too.
"""

import weakref
from collections.abc import Callable
from typing import Any

from flowdsl.errors import StepNotFound

__all__ = ["HANDLERS", "STEPS", "WORKFLOWS", "Registry"]


class Registry:
    """Names of one kind of thing."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._items: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def add(self, path: str, item: Any) -> None:
        """Register *item* under *path*, replacing what was there."""
        self._items.pop(path, None)
        self._items[path] = item

    def get(self, path: str) -> Any | None:
        """What is registered under exactly this path."""
        return self._items.get(path)

    def find(self, name: str) -> Any:
        """What *name* means: a full path, or its last part where only one ends so.

        Among functions local to another function the one registered last counts. Raises
        :class:`~flowdsl.errors.StepNotFound` with near matches.
        """
        if not isinstance(name, str):
            raise TypeError(f"a {self._what} is named by a string; got {name!r}")
        if not name.strip():
            raise ValueError(f"a {self._what} is named by a non-empty string; got {name!r}")
        item = self._items.get(name)
        if item is not None:
            return item
        paths = list(self._items.keys())
        ending = [path for path in paths if path.endswith("." + name)]
        lasting = [path for path in ending if "<locals>" not in path]
        if len(lasting) == 1 or (ending and not lasting):
            item = self._items.get((lasting or ending)[-1])
            if item is not None:
                return item
        import difflib  # only for this message

        near = lasting or difflib.get_close_matches(name, paths + [p.rpartition(".")[2] for p in paths], n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "is its module imported?"
        raise StepNotFound(f"no {self._what} named {name!r}: {hint}", step=name)

    def __iter__(self) -> Any:
        return iter(list(self._items.keys()))


class Handlers:
    """Functions to call for an event."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, Callable[..., Any]]] = {}

    def add(self, event: str, path: str, handler: Callable[..., Any]) -> Callable[[], None]:
        """Register *handler*; the same path again replaces. Returns what unregisters it."""
        self._handlers.setdefault(event, {})[path] = handler

        def unsubscribe() -> None:
            handlers = self._handlers.get(event, {})
            if handlers.get(path) is handler:
                del handlers[path]

        return unsubscribe

    def of(self, event: str) -> list[Callable[..., Any]]:
        """The handlers of *event*, in the order of registration."""
        return list(self._handlers.get(event, {}).values())


STEPS = Registry("step")
WORKFLOWS = Registry("workflow")
HANDLERS = Handlers()
