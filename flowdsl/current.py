"""Which Runtime is meant here.

The rules
    Inside ``with Runtime(…)`` that Runtime is meant, in whatever the block calls (a ContextVar says so). A
    thread of a pool has another context. There, the Runtime that the process entered last and has not left is
    meant. If there is none, the default is meant: that of :func:`flowdsl.configure`, or one that is made at
    the first use.
    In a body the Runtime that executes it is meant, unless the body itself has entered another one.
    At the end of the process all open Runtimes are closed.
"""

import atexit
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Generic, NamedTuple, Protocol, TypeVar

from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, current

__all__ = ["Current"]


class _Closable(Protocol):
    def close(self) -> None: ...


R = TypeVar("R", bound=_Closable)


class _Entered(NamedTuple, Generic[R]):
    """A Runtime, and the run whose body has entered it (``None``: it was entered outside any)."""

    runtime: R
    body: Execution | None


def _executing() -> Execution | None:
    frame = current.get()
    return None if frame is None else frame.run


class Current(Generic[R]):
    """The open runtimes of this process. *make* makes a default one, *engine_of* gives a runtime's engine,
    *is_open* says whether it is one of the open ones: a set of weak references takes long to ask."""

    def __init__(
        self, make: Callable[[], R], engine_of: Callable[[R], Engine], is_open: Callable[[R], bool]
    ) -> None:
        self._make = make
        self._engine_of = engine_of
        self._is_open = is_open
        self._here: ContextVar[_Entered[R] | None] = ContextVar("flowdsl_runtime", default=None)
        self._entered: list[R] = []
        self._open: weakref.WeakSet[R] = weakref.WeakSet()
        self._default: R | None = None
        self._lock = threading.Lock()
        atexit.register(self._at_exit)

    # Opening and closing ----------------------------------------------------------------------------------

    def opened(self, runtime: R) -> None:
        """*runtime* is open from now on."""
        self._open.add(runtime)

    def closed(self, runtime: R) -> None:
        """*runtime* is closed."""
        self._open.discard(runtime)

    def enter(self, runtime: R) -> Token["_Entered[R] | None"]:
        """Make *runtime* the current one here; returns what :meth:`leave` needs."""
        self._entered.append(runtime)
        return self._here.set(_Entered(runtime, _executing()))

    def leave(self, runtime: R, token: Token["_Entered[R] | None"]) -> None:
        """Make current again what was before."""
        if runtime in self._entered:
            del self._entered[len(self._entered) - 1 - self._entered[::-1].index(runtime)]
        here = self._here.get()
        if here is not None and here.runtime is not runtime:
            return  # one that was entered later is still open
        try:
            self._here.reset(token)
        except ValueError:  # entered in another context, as some async fixtures do
            self._here.set(None)

    # Asking -----------------------------------------------------------------------------------------------

    def entered_in_body(self) -> R | None:
        """The runtime that the executing body has itself entered, if it has."""
        here, body = self._here.get(), _executing()
        if here is None or body is None or here.body is not body or here.runtime not in self._open:
            return None
        return here.runtime

    def find(self) -> R | None:
        """The runtime that is meant here, ``None`` where there is none yet."""
        body = _executing()
        if body is not None:
            found = self.entered_in_body()
            if found is None:
                found = next((one for one in self._open if self._engine_of(one) is body.engine), None)
            if found is not None:
                return found
        here = self._here.get()
        if here is not None and self._is_open(here.runtime):
            return here.runtime
        for runtime in reversed(self._entered):
            if runtime in self._open:
                return runtime
        return self._default if self._default in self._open else None

    def get(self) -> R:
        """The runtime that is meant here; a default one is made where there is none."""
        found = self.find()
        if found is not None:
            return found
        with self._lock:
            if self._default is None or self._default not in self._open:
                self._default = self._make()
            return self._default

    def replace_default(self, runtime: R | None) -> R | None:
        """Make *runtime* the default; returns the previous one, if there is one that is open. It stays so."""
        with self._lock:
            previous, self._default = self._default, runtime
        return previous if previous in self._open else None

    def _at_exit(self) -> None:
        """Close all open runtimes at the same time, so that together they take no longer than one."""
        beside = [threading.Thread(target=runtime.close, daemon=True) for runtime in list(self._open)[1:]]
        for thread in beside:
            try:
                thread.start()
            except RuntimeError:  # Python starts no more threads
                break
        for runtime in list(self._open):
            runtime.close()  # or wait for the thread that closes it
