"""Hooks: watch runs and steps without changing them.

Subclass :class:`Hooks`, override what you need, and give it to ``Runtime(hooks=…)``; several are called in
the order given. A hook is only told: what it returns is ignored, and an exception in it is logged and changes
nothing.
"""

import logging
from collections.abc import Iterable
from inspect import iscoroutinefunction
from typing import Any

__all__ = ["HookChain", "Hooks"]

logger = logging.getLogger("flowdsl")


class Hooks:
    """Override the methods you need. ``run`` is a :class:`flowdsl.Run`; ``step`` a view with ``run_id key
    path mode attempt started_at duration`` (seconds); ``signal`` one with ``run_id name payload sender key
    created_at``.

    >>> class Print(Hooks):
    ...     def on_step_complete(self, step, result):
    ...         print(step.path, result)
    """

    def on_run_start(self, run: Any) -> None:
        """A run starts executing, for the first time or continued."""

    def on_run_complete(self, run: Any, result: Any) -> None:
        """A run has completed; its result is stored."""

    def on_run_fail(self, run: Any, error: BaseException) -> None:
        """A run has failed; its error is stored."""

    def on_run_cancel(self, run: Any) -> None:
        """A run was cancelled; its undo has ended."""

    def on_step_start(self, step: Any) -> None:
        """An attempt of a step starts."""

    def on_step_complete(self, step: Any, result: Any) -> None:
        """A step has completed; its result is stored (mode ``do``)."""

    def on_step_replay(self, step: Any, result: Any) -> None:
        """A recorded step answered; ``result`` is its value or exception."""

    def on_step_error(self, step: Any, error: BaseException, attempt: int) -> None:
        """An attempt has failed."""

    def on_step_retry(self, step: Any, error: BaseException, attempt: int, delay: float) -> None:
        """The step will be tried again in *delay* seconds."""

    def on_signal(self, run: Any, signal: Any) -> None:
        """A waiting run took a signal."""


_EVENTS = tuple(name for name in vars(Hooks) if name.startswith("on_"))


def _overridden(hook: Any) -> dict[str, Any]:
    """The methods of *hook* that do something: a chain calls no others."""
    found = {}
    for name in _EVENTS:
        method = getattr(hook, name, None)
        if callable(method) and getattr(method, "__func__", method) is not getattr(Hooks, name):
            if iscoroutinefunction(method):
                raise TypeError(f"a hook is called, not awaited: make {name} of {hook!r} a plain function")
            found[name] = method
    if isinstance(hook, type) or not (found or isinstance(hook, Hooks)):
        raise TypeError(f"hooks= takes instances of flowdsl.Hooks; got {hook!r}")
    return found


class HookChain:
    """Calls one event on several hooks, in order, and logs what they raise.

    ``chain.has("on_step_start")`` tells whether anybody listens, so that the silent case costs one look-up.
    """

    __slots__ = ("_listeners", "hooks")

    def __init__(self, hooks: Hooks | Iterable[Any] = ()) -> None:
        if isinstance(hooks, Hooks):
            hooks = (hooks,)
        if not isinstance(hooks, Iterable):
            raise TypeError(f"hooks= takes an instance of flowdsl.Hooks, or several; got {hooks!r}")
        self.hooks = tuple(hooks)
        self._listeners: dict[str, tuple[Any, ...]] = {}
        for hook in self.hooks:
            for name, method in _overridden(hook).items():
                self._listeners[name] = (*self._listeners.get(name, ()), method)

    def has(self, event: str) -> bool:
        """Whether any hook listens to *event*."""
        return event in self._listeners

    def fire(self, event: str, *args: Any) -> None:
        """Call *event* on each hook that has it."""
        for listener in self._listeners.get(event, ()):
            try:
                listener(*args)
            except Exception:
                about = args[0] if args else None
                where = {
                    "run": getattr(about, "run_id", getattr(about, "id", None)),
                    "step": getattr(about, "key", None),
                }
                logger.exception("hook %s raised; the run is not affected", event, extra=where)
