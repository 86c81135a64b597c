"""``effects()``: what bodies really executed, for assertions such as "charged once"."""

import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from flowdsl.blocks import block
from flowdsl.core.keys import object_path
from flowdsl.testing.seam import substituting

__all__ = ["Effects", "Execution", "effects"]


@frozen(slots=True)
class Execution:
    """One execution of a step's body: its *run*, the *path* and *key* of the step, the *attempt*, and the
    arguments.
    """

    run: str
    path: str
    key: str
    attempt: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    def __str__(self) -> str:
        shown = [repr(arg) for arg in self.args] + [
            f"{name}={value!r}" for name, value in self.kwargs.items()
        ]
        again = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        return f"{self.name}({', '.join(shown)}){again}"


class Effects:
    """Executions in the order in which they began. You can iterate over it. ``len`` is their number."""

    def __init__(self) -> None:
        self._executions: list[Execution] = []
        self._lock = threading.Lock()

    def add(self, execution: Execution) -> None:
        """Note one execution."""
        with self._lock:
            self._executions.append(execution)

    def of(self, step: Any) -> list[Execution]:
        """Executions of *step*: the decorated function or an undo function, its path, or the last part of
        the path."""
        path = getattr(step, "path", step)
        if inspect.isfunction(path):
            path = object_path(path)
        if not isinstance(path, str):
            raise TypeError(f"a step is the decorated function or its name; got {step!r}")
        with self._lock:
            return [one for one in self._executions if path in (one.path, one.name)]

    def count(self, step: Any, *args: Any, **kwargs: Any) -> int:
        """How often the body of *step* was executed. With arguments: how often with exactly these."""
        found = self.of(step)
        if not args and not kwargs:
            return len(found)
        return sum(one.args == args and one.kwargs == kwargs for one in found)

    @property
    def names(self) -> list[str]:
        """The last parts of the paths, in order."""
        return [one.name for one in self]

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._executions.clear()

    def __iter__(self) -> Iterator[Execution]:
        with self._lock:
            return iter(list(self._executions))

    def __len__(self) -> int:
        with self._lock:
            return len(self._executions)

    def __repr__(self) -> str:
        return f"[{', '.join(map(str, self))}]"


@block
def effects() -> Iterator[Effects]:
    """Record each execution of each step body, on any runtime of this process, while the block lasts.

    Yields :class:`Effects`. It holds undo functions and handlers of events too. It does not hold a step that
    is answered from its record, because that executes nothing. It does not hold plain calls outside any run.
    The arguments are those of the call, without ``self``: the objects themselves, not copies.

    >>> from flowdsl import step, workflow
    >>> from flowdsl.testing import fresh_runtime
    >>> @step
    ... def charge(amount): ...
    >>> @workflow
    ... def checkout(amount):
    ...     charge(amount)
    >>> with fresh_runtime(), effects() as done:
    ...     checkout(5)
    >>> done.count(charge), done
    (1, [charge(5)])
    """
    log = Effects()

    def note(
        view: Any, _: bool, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., Any]:
        log.add(Execution(view.run_id, view.path, view.key, view.attempt, args, kwargs))
        return fn

    with substituting(note):
        yield log
