"""Where tests stand between the engine and the bodies it executes: to note each execution, or to put
another body in its place.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowdsl.engine import step as step_module
from flowdsl.engine.context import Frame, StepView
from flowdsl.engine.drive import Body

__all__ = ["Substitute", "fake_body", "substituting"]


Substitute = Callable[
    [StepView, Frame, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Callable[..., Any]
]
"""Called with ``(view, frame, fn, args, kwargs)`` as each execution of a step's body is about to begin;
returns the function to call in place of *fn*, or *fn* itself."""

_step: Any = step_module
_active: list[Substitute] = []
_lock = threading.Lock()


class _Substituted(Body):
    """A body that asks whoever is listening what to execute."""

    __slots__ = ()

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        frame: Frame,
        timeout: float | None = None,
    ) -> None:
        view = frame.step
        assert view is not None
        for substitute in tuple(_active):  # the innermost is the last to be asked, and has the last word
            fn = substitute(view, frame, fn, args, kwargs)
        super().__init__(fn, args, kwargs, frame, timeout)


@contextmanager
def substituting(substitute: Substitute) -> Iterator[None]:
    """Ask *substitute* about every step body of this process that begins within the block, in whatever
    thread.
    """
    with _lock:
        _active.append(substitute)
        _step.Body = _Substituted
    try:
        yield
    finally:
        with _lock:
            _active.remove(substitute)
            if not _active:
                _step.Body = Body


def fake_body(fake: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """*fake* as a body of a sync or an async step."""
    if not is_async:
        return fake

    @functools.wraps(fake)
    async def body(*args: Any, **kwargs: Any) -> Any:
        found = fake(*args, **kwargs)
        return await found if hasattr(found, "__await__") else found

    return body
