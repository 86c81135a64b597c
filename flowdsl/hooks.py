"""Hooks: objects that are told about runs and steps, and that can wrap their bodies.

Subclass :class:`Hooks`, override what you need, and give an instance to ``Runtime(hooks=…)``. Several hooks
are called in the order given. :func:`installed` gives hooks to every runtime of the process.

The rules
    An ``on_…`` method only hears what happens. What it returns is ignored. An exception in it is logged and
    changes nothing. The other methods take part: what ``execute_body`` returns or raises counts as the
    outcome of the body. A method that nobody overrides costs nothing.
"""

import logging
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Literal

from attrs import define

from flowdsl.blocks import block

__all__ = ["BodyView", "HookChain", "Hooks", "installed"]

logger = logging.getLogger("flowdsl")

BodyKind = Literal["workflow", "step", "undo", "handler", "callback"]


@define(slots=True, eq=False)
class BodyView:
    """A body that is about to be executed.

    * ``kind``: ``"workflow"``, ``"step"`` (whatever its mode), ``"undo"``, ``"handler"`` (of an event) or
      ``"callback"`` (``on_complete``, ``on_error``).
    * ``path``: the name of the workflow or step, or of the function.
    * ``run_id``: the run that it belongs to; ``""`` outside a run.
    * ``step``: the same view that ``on_step_start`` gets; ``None`` for workflows and callbacks.
    * ``fn``: the function. ``args``, ``kwargs``: the arguments of the call, without ``self``. ``shown``:
      these arguments as one line of text.
    * ``is_async``: whether ``execute_body_async`` is called for it. ``scope``: the scope of the call, as in
      ``run.steps()``.
    """

    kind: BodyKind
    path: str
    run_id: str
    step: Any
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shown: str
    is_async: bool
    scope: str = ""

    def hold(self) -> Any:
        """Execute nothing. Wait until the run must stop (it is cancelled, interrupted, or failed elsewhere),
        and raise the reason. Use it in ``execute_body``. Raises ``TypeError`` outside a run."""
        raise TypeError(f"{self.path} executes outside any run, so nothing would end the wait")

    async def ahold(self) -> Any:
        """The same as :meth:`hold`, for ``execute_body_async``."""
        self.hold()

    def unused(self) -> list[Any]:
        """The records of the run that no call has asked for so far, as rows of the storage."""
        return []


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
        """A step returned its recorded result. ``result`` is that value, or the exception."""

    def on_step_error(self, step: Any, error: BaseException, attempt: int) -> None:
        """An attempt has failed."""

    def on_step_retry(self, step: Any, error: BaseException, attempt: int, delay: float) -> None:
        """The step will be tried again in *delay* seconds."""

    def on_signal(self, run: Any, signal: Any) -> None:
        """A waiting run took a signal."""

    def called_outside(self, path: str) -> None:
        """A step was called in a thread or forked process that does not know the run that is executing, so it
        was a plain call. Called each time. A warning also says so, once per process."""

    def execute_body(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        """Execute a sync body. ``proceed()`` executes it, and returns or raises what the body does. What this
        method returns or raises counts as the outcome of the body.

        It is called where the body executes: in its thread, within its timeout, and in its context, so
        ``current_step()`` and verbs work. If the body executes on an executor in another process,
        ``proceed()`` sends it there and waits. If there are several hooks, the first is the outermost.

        >>> class Offline(Hooks):
        ...     def execute_body(self, body, proceed):
        ...         return 42 if body.path.endswith("fetch") else proceed()
        """
        return proceed()

    async def execute_body_async(self, body: BodyView, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """The same as :meth:`execute_body`, for async bodies: ``await proceed()``, in the task of the body.

        >>> class Timed(Hooks):
        ...     async def execute_body_async(self, body, proceed):
        ...         with span(body.path):
        ...             return await proceed()
        """
        return await proceed()

    def carry(self) -> Callable[[], AbstractContextManager[Any]] | None:
        """Called when a body is sent to another process, inside ``execute_body``. Return a picklable function
        that makes a context manager. The body executes in that context manager, in the other process.

        So a value in a ContextVar, such as the span of a trace, can reach the body. If it returns ``None``,
        nothing is carried.
        """
        return None

    def jitter(self) -> float:
        """A number in [0, 1) that spreads one retry: the delay is shortened by that share of the policy's
        ``jitter``. If there are several hooks, the last one counts."""
        return _random.random()

    def winner(self, run_id: str, key: str) -> int | None:
        """Called when a ``race`` begins. Return which one shall win, by its place, from 0. ``None``: the
        first that succeeds wins. If the chosen one fails, the first of the others that succeeds wins. If
        there are several hooks, the last one counts."""
        return None

    def wrap_storage(self, storage: Any) -> Any:
        """Called with the storage when a runtime is made. Return the storage that the runtime shall use: the
        same one, or one that relays to it."""
        return storage


_random = random.Random()  # spreads retries of many processes; never part of a result


def _no_winner(_run_id: str, _key: str) -> None:
    """No hook chooses a winner."""


_EVENTS = (*(name for name in vars(Hooks) if name.startswith("on_")), "called_outside")
_PARTS = ("execute_body", "execute_body_async", "carry", "jitter", "winner", "wrap_storage")


def _overridden(hook: Any) -> dict[str, Any]:
    """The methods that *hook* overrides. A chain calls only these."""
    found = {}
    for name in (*_EVENTS, *_PARTS):
        method = getattr(hook, name, None)
        if callable(method) and getattr(method, "__func__", method) is not getattr(Hooks, name):
            if iscoroutinefunction(method) and name != "execute_body_async":
                raise TypeError(f"a hook is called, not awaited: make {name} of {hook!r} a plain function")
            if name == "execute_body_async" and not iscoroutinefunction(method):
                raise TypeError(f"{name} of {hook!r} is awaited: write `async def {name}`")
            found[name] = method
    if isinstance(hook, type) or not (found or isinstance(hook, Hooks)):
        raise TypeError(f"hooks= takes instances of flowdsl.Hooks; got {hook!r}")
    return found


class HookChain:
    """The hooks of one runtime, and the hooks that are installed in the process.

    ``chain.has("on_step_start")`` says whether any hook has this method. ``listens`` says whether any hook
    has any method, so a runtime without hooks needs only one look-up. ``around`` and ``around_async`` execute
    a body within the hooks that override ``execute_body``. They are ``None`` if no hook does. Without
    *tells*, an exception of a hook is logged without its text.
    """

    __slots__ = (
        *(
            "__weakref__",
            "_listeners",
            "_tells",
            "around",
            "around_async",
            "hooks",
            "jitter",
            "listens",
            "own",
            "winner",
        ),
    )

    def __init__(
        self, hooks: Hooks | Iterable[Any] = (), *, everywhere: bool = True, tells: bool = True
    ) -> None:
        if isinstance(hooks, Hooks):
            hooks = (hooks,)
        if not isinstance(hooks, Iterable):
            raise TypeError(f"hooks= takes an instance of flowdsl.Hooks, or several; got {hooks!r}")
        self.own = tuple(hooks)
        self._tells = tells
        with _installing:
            self.build(everywhere)
            if everywhere:
                _chains.add(self)

    def build(self, everywhere: bool = True) -> None:
        """Read the hooks again: its own, and the installed ones (*everywhere*)."""
        self.hooks = (*_installed, *self.own) if everywhere else self.own
        found: dict[str, tuple[Any, ...]] = {}
        for hook in self.hooks:
            for name, method in _overridden(hook).items():
                found[name] = (*found.get(name, ()), method)
        self.around: Callable[[BodyView, Callable[[], Any]], Any] | None = _nested(found.get("execute_body"))
        self.around_async: Callable[[BodyView, Callable[[], Awaitable[Any]]], Awaitable[Any]] | None = (
            _nested(found.get("execute_body_async"))
        )
        self.jitter: Callable[[], float] = found.get("jitter", (_random.random,))[-1]
        self.winner: Callable[[str, str], int | None] = found.get("winner", (_no_winner,))[-1]
        self.listens = any(name in found for name in _EVENTS)
        self._listeners = found

    def has(self, event: str) -> bool:
        """Whether any hook listens to *event*."""
        return event in self._listeners

    def carried(self) -> tuple[Callable[[], AbstractContextManager[Any]], ...]:
        """What the hooks send to the other process with a body."""
        return tuple(found for carry in self._listeners.get("carry", ()) if (found := carry()) is not None)

    def wrapped(self, storage: Any) -> Any:
        """*storage* as the hooks wrap it."""
        for wrap in self._listeners.get("wrap_storage", ()):
            storage = wrap(storage)
        return storage

    def fire(self, event: str, *args: Any) -> None:
        """Call *event* on each hook that has it."""
        for listener in self._listeners.get(event, ()):
            try:
                listener(*args)
            except Exception:  # a hook must not change a run
                about = args[0] if args else None
                where = {
                    "run": getattr(about, "run_id", getattr(about, "id", None)),
                    "step": getattr(about, "key", None),
                }
                logger.error(
                    "hook %s raised; the run is not affected", event, exc_info=self._tells, extra=where
                )


def _nested(methods: tuple[Any, ...] | None) -> Callable[..., Any] | None:
    """One call that goes through all *methods*, the first outermost."""
    if not methods:
        return None

    def around(body: BodyView, proceed: Callable[[], Any]) -> Any:
        for method in reversed(methods):
            proceed = partial(method, body, proceed)
        return proceed()

    return around


_installed: list[Hooks] = []
_chains: "weakref.WeakSet[HookChain]" = weakref.WeakSet()
_installing = threading.RLock()


@block
def installed(*hooks: Hooks) -> Iterator[None]:
    """Give *hooks* to every runtime of this process, open or yet to be made, while the block lasts.

    They wrap the runtimes' own hooks. The last installed is the outermost. Raises the same errors as
    ``Runtime(hooks=…)``.

    >>> class Count(Hooks):
    ...     bodies = 0
    ...     def execute_body(self, body, proceed):
    ...         self.bodies += body.kind == "step"
    ...         return proceed()
    >>> from flowdsl import Runtime, step
    >>> @step
    ... def double(x):
    ...     return 2 * x
    >>> with installed(count := Count()), Runtime("memory://") as rt:
    ...     rt.do(double, 21), count.bodies
    (42, 1)
    """
    for hook in hooks:
        _overridden(hook)  # raises if it is not a hook, before anything has changed
    with _installing:
        _installed[:0] = hooks
        _rebuild()
    try:
        yield
    finally:
        with _installing:
            for hook in hooks:
                _installed.remove(hook)
            _rebuild()


def _rebuild() -> None:
    for chain in list(_chains):
        chain.build()
