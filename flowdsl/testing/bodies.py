"""Where tests stand between the engine and the bodies it executes: to note each execution, or to put
another body in its place.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowdsl.engine import futures as futures_module
from flowdsl.engine import step as step_module
from flowdsl.engine.context import Frame, StepView
from flowdsl.engine.drive import Body, Result
from flowdsl.engine.workers import RemoteBody

__all__ = ["Substitute", "fake_body", "substituting"]


Substitute = Callable[
    [StepView, Frame, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Callable[..., Any]
]
"""Called with ``(view, frame, fn, args, kwargs)`` as each execution of a step's body is about to begin;
returns the function to call in place of *fn*, or *fn* itself."""

_step: Any = step_module
_futures: Any = futures_module
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
        super().__init__(_substituted(frame, fn, args, kwargs), args, kwargs, frame, timeout)


class _SubstitutedRemote(RemoteBody):
    """The same for a body that executes in another process: what stands in for it executes in this one."""

    __slots__ = ()

    def sync(self) -> Result:
        call, frame = self.call, self.frame

        def elsewhere(*_: Any, **__: Any) -> Any:
            error, value = RemoteBody.sync(self)
            if error is not None:
                raise error
            return value

        fn = _substituted(frame, elsewhere, call.args, call.kwargs)
        return Body(fn, call.args, call.kwargs, frame).sync()


def _substituted(
    frame: Frame, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[..., Any]:
    view = frame.step
    assert view is not None
    for substitute in tuple(_active):  # the innermost is the last to be asked, and has the last word
        fn = substitute(view, frame, fn, args, kwargs)
    return fn


@contextmanager
def substituting(substitute: Substitute) -> Iterator[None]:
    """Ask *substitute* about every step body of this process that begins within the block, in whatever
    thread.
    """
    with _lock:
        _active.append(substitute)
        _step.Body = _Substituted
        _futures.RemoteBody = _SubstitutedRemote
    try:
        yield
    finally:
        with _lock:
            _active.remove(substitute)
            if not _active:
                _step.Body = Body
                _futures.RemoteBody = RemoteBody


def fake_body(fake: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """*fake* as a body of a sync or an async step."""
    if not is_async:
        return fake

    @functools.wraps(fake)
    async def body(*args: Any, **kwargs: Any) -> Any:
        found = fake(*args, **kwargs)
        return await found if hasattr(found, "__await__") else found

    return body
