"""Context managers that pass on unchanged whatever leaves their block.

``contextlib.contextmanager`` sets the ``__traceback__`` of an exception that leaves its block. Some
exceptions refuse that, such as one that is a frozen dataclass. The user would then get that refusal in place
of their own error. So flowdsl makes none of its context managers with ``contextlib``.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["block"]

P = ParamSpec("P")
T = TypeVar("T")


_ENDED = object()


class _Block(AbstractContextManager[T], Generic[T]):
    """What a generator does around a block."""

    __slots__ = ("_around",)

    def __init__(self, around: Iterator[T]) -> None:
        self._around: Any = around  # it is a generator

    def __enter__(self) -> T:
        entered: T = next(self._around)
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> bool:
        around = self._around
        try:
            if error is not None:
                around.throw(error)
            elif next(around, _ENDED) is _ENDED:
                return False
        except StopIteration as end:
            return error is not None and end is not error
        except BaseException as raised:  # whatever the block raises, or raises in its place
            if raised is error or (error is not None and raised.__cause__ is error and _is_stop(error)):
                return False
            raise
        raise RuntimeError("a block ends once")


def _is_stop(error: BaseException) -> bool:
    """Whether a generator cannot let *error* pass, and raises another one from it."""
    return issubclass(type(error), StopIteration)


def block(around: Callable[P, Iterator[T]]) -> Callable[P, AbstractContextManager[T]]:
    """Make a context manager of a generator function that yields once. The part before the ``yield`` is
    executed when the block begins, the part after it when the block ends.

    >>> @block
    ... def counted(counts):
    ...     counts.append("in")
    ...     try:
    ...         yield
    ...     finally:
    ...         counts.append("out")
    >>> counts = []
    >>> with counted(counts):
    ...     counts.append("block")
    >>> counts
    ['in', 'block', 'out']
    """

    @wraps(around)
    def made(*args: Any, **kwargs: Any) -> Any:
        return _Block(around(*args, **kwargs))

    return made
