"""Names of steps, workflows and event handlers.

Decorating only registers a definition under its name. Registering the name again replaces it. Definitions
are held weakly: when its module or its caller drops a function, it is gone from here too.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from flowdsl.engine.definitions import Decorated, Invocation, StepDef, WorkflowDef, step_definition
from flowdsl.engine.user import Args, Function, Named, Value
from flowdsl.errors import StepNotFound

__all__ = ["HANDLERS", "STEPS", "WORKFLOWS", "Handler", "Registry", "step_called", "step_named"]

D = TypeVar("D", StepDef, WorkflowDef)


class Registry(Generic[D]):
    """Definitions of one kind by their names."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._items: weakref.WeakValueDictionary[str, D] = weakref.WeakValueDictionary()

    def add(self, definition: D) -> None:
        """Register *definition* under its path. It replaces what was there."""
        before = self._items.pop(definition.path, None)  # so that the new one comes last
        if before is not None:
            definition.joins(before)
        self._items[definition.path] = definition

    def get(self, path: str) -> D | None:
        """What is registered under exactly this path."""
        return self._items.get(path)

    def find(self, name: str) -> D:
        """What *name* means: a full path, or a last part that only one path has.

        Among functions local to another function, the last registered counts. Raises
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

    def rename(self, before: str, after: str) -> None:
        """Give what is registered in module *before* the same name in module *after*."""
        for path, definition in list(self._items.items()):
            if path.startswith(f"{before}."):
                del self._items[path]
                definition.rename(after + path.removeprefix(before))
                self.add(definition)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._items.keys()))


class Handler(NamedTuple):
    """What to call for an event: *fn*, and the name to report it by."""

    path: str
    fn: Function
    is_async: bool


class Handlers:
    """Handlers by the events that they are called for."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, Handler]] = {}

    def add(self, event: str, handler: Handler) -> Callable[[], None]:
        """Register *handler*; the same path again replaces. Returns what unregisters it."""
        self._handlers.setdefault(event, {})[handler.path] = handler

        def unsubscribe() -> None:
            handlers = self._handlers.get(event, {})
            if handlers.get(handler.path) is handler:
                del handlers[handler.path]

        return unsubscribe

    def of(self, event: str) -> list[Handler]:
        """The handlers of *event*, in order of registration."""
        return list(self._handlers.get(event, {}).values())


STEPS: Registry[StepDef] = Registry("step")
WORKFLOWS: Registry[WorkflowDef] = Registry("workflow")
HANDLERS = Handlers()


def step_named(step: Value) -> StepDef:
    """The definition of a decorated step, or of the step of that name. Raises
    :class:`~flowdsl.errors.StepNotFound`, and ``TypeError`` for anything else."""
    if isinstance(step, str):
        return STEPS.find(step)
    found = step_definition(step)
    if found is None:
        raise TypeError(f"a step is a function decorated with @step, or the name of one; got {step!r}")
    return found


def step_called(step: Value, args: Args, kwargs: Named) -> Invocation[StepDef]:
    """A call of a decorated step, or of the step of that name."""
    defn = step_named(step)
    return step.invocation(args, kwargs) if isinstance(step, Decorated) else defn.call(args, kwargs)
