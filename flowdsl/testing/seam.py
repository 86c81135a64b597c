"""The place of tests between the engine and the bodies that it executes. A test can note each execution here,
or replace a body.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowdsl.blocks import block
from flowdsl.engine.registry import STEPS
from flowdsl.hooks import BodyView, Hooks, installed

__all__ = ["Fakes", "Substitute", "fake_body", "fakes_by_path", "substituting"]


Substitute = Callable[[Any, bool, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Callable[..., Any]]
"""Called with ``(view, is_async, fn, args, kwargs)`` just before each execution of a step's body, of an undo
function or of an event's handler. Returns the function to call in place of *fn*, or *fn* itself."""


class _Substituting(Hooks):
    """Asks *substitute* what to execute in place of each body, except bodies of workflows."""

    def __init__(self, substitute: Substitute) -> None:
        self._substitute = substitute

    def execute_body(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        return self._of(body, proceed)(*body.args, **body.kwargs)

    async def execute_body_async(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        return await self._of(body, proceed)(*body.args, **body.kwargs)

    def _of(self, body: BodyView, proceed: Callable[[], Any]) -> Callable[..., Any]:
        @functools.wraps(body.fn)
        def fn(*_: Any, **__: Any) -> Any:
            return proceed()

        if body.step is None:
            return fn
        return self._substitute(body.step, body.is_async, fn, body.args, body.kwargs)


@block
def substituting(substitute: Substitute) -> Iterator[None]:
    """Within the block, ask *substitute* about every step body of this process that begins, in any thread."""
    with installed(_Substituting(substitute)):
        yield


Fakes = Mapping[Any, Callable[..., Any]]
"""Maps steps (or their names) and undo functions to what executes in place of their bodies."""


def fakes_by_path(fakes: Fakes | None) -> dict[str, Callable[..., Any]]:
    """*fakes* by the paths of the steps. Raises for anything that is no step, and for unknown names."""
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
