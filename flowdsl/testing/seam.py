"""Where tests stand between the engine and the bodies it executes: to note each execution, or to put
another body in its place.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flowdsl.engine import calls, events, futures, step, undo
from flowdsl.engine.context import Frame, StepView
from flowdsl.engine.definitions import StepDef
from flowdsl.engine.drive import Body, Flow, Result
from flowdsl.engine.registry import STEPS
from flowdsl.engine.services import Engine
from flowdsl.engine.workers import RemoteBody

__all__ = ["Fakes", "Substitute", "fake_body", "fakes_by_path", "substituting"]


Substitute = Callable[
    [StepView, bool, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Callable[..., Any]
]
"""Called with ``(view, is_async, fn, args, kwargs)`` as each execution of a step's body, of an undo function
or of an event's handler is about to begin; returns the function to call in place of *fn*, or *fn* itself."""

_active: list[Substitute] = []
_lock = threading.Lock()
_send_off = calls.send_off
_undo = undo._call


def _substituted(
    view: StepView | None,
    is_async: bool,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Callable[..., Any]:
    assert view is not None
    for substitute in tuple(_active):  # the innermost is the last to be asked, and has the last word
        fn = substitute(view, is_async, fn, args, kwargs)
    return fn


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
        fn = _substituted(frame.step, frame.is_async, fn, args, kwargs)
        super().__init__(fn, args, kwargs, frame, timeout)


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

        fn = _substituted(frame.step, False, elsewhere, call.args, call.kwargs)
        return Body(fn, call.args, call.kwargs, frame).sync()


def _substituted_send(
    engine: Engine,
    defn: StepDef,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    view: StepView,
) -> Any:
    fn = _substituted(view, defn.is_async, fn, args, kwargs)
    return _send_off(engine, defn, fn, args, kwargs, view)


def _substituted_undo(frame: Frame, defn: StepDef, fn: Any, value: Any) -> Flow:
    assert frame.step is not None
    return _undo(frame, defn, _substituted(frame.step, defn.is_async, fn, (value,), {}), value)


_PATCHES: list[tuple[Any, str, Any]] = [
    (step, "Body", _Substituted),
    (futures, "RemoteBody", _SubstitutedRemote),
    (calls, "send_off", _substituted_send),
    (events, "send_off", _substituted_send),
    (undo, "_call", _substituted_undo),
]
_originals = [getattr(module, name) for module, name, _ in _PATCHES]


@contextmanager
def substituting(substitute: Substitute) -> Iterator[None]:
    """Ask *substitute* about every step body of this process that begins within the block, in whatever
    thread.
    """
    with _lock:
        _active.append(substitute)
        for module, name, made in _PATCHES:
            setattr(module, name, made)
    try:
        yield
    finally:
        with _lock:
            _active.remove(substitute)
            if not _active:
                for (module, name, _), original in zip(_PATCHES, _originals, strict=True):
                    setattr(module, name, original)


Fakes = Mapping[Any, Callable[..., Any]]
"""Steps (or their names) and undo functions → what executes in place of their bodies."""


def fakes_by_path(fakes: Fakes | None) -> dict[str, Callable[..., Any]]:
    """*fakes* by the paths of the steps. Raises for what is no step, and for names that no step has."""
    found = {}
    for key, fake in (fakes or {}).items():
        if not callable(fake):
            raise TypeError(
                f"fakes= maps a step to a function to call in its place; got {fake!r} for {key!r}"
            )
        if isinstance(key, str):
            path = STEPS.find(key).path
        elif callable(key):
            path = getattr(key, "path", None) or f"{key.__module__}.{key.__qualname__}"
        else:
            raise TypeError(f"fakes= maps decorated steps, or their names, to functions; got {key!r}")
        found[path] = fake
    return found


def fake_body(fake: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """*fake* as a body of a sync or an async step."""
    if not is_async:
        return fake

    @functools.wraps(fake)
    async def body(*args: Any, **kwargs: Any) -> Any:
        found = fake(*args, **kwargs)
        return await found if hasattr(found, "__await__") else found

    return body
