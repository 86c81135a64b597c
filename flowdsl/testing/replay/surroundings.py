"""What is different when a run is continued in another process: the time, the environment, the order of
sets, and nothing in memory.

Each is a context manager that changes that one thing for the code of a workflow, and for nobody else.
"""

import copy
import datetime as datetime_module
import functools
import os
import sys
import time as time_module
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from flowdsl.engine.execution import current
from flowdsl.testing.replay.sets import other_set_order

__all__ = ["CHANGES", "Memory", "elsewhere", "user_frame"]

SHIFT = datetime_module.timedelta(days=190, hours=13, minutes=7)
"""How much later the run is continued: another date, month, weekday and half of the day."""

_STDLIB = os.path.dirname(os.__file__)
_TESTING = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PACKAGE = os.path.dirname(_TESTING)
_CONTAINERS = (dict, list, set, deque, bytearray)
_PLAIN = (int, float, str, bytes, bool, type(None), tuple, frozenset)


def user_frame(depth: int = 1) -> Any:
    """The innermost frame if user code stands behind no code but the standard library's, else ``None``."""
    frame: Any = sys._getframe(depth)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE) and not name.startswith(_TESTING):
            return None
        library = name.startswith((_STDLIB, _PACKAGE, "<frozen"))
        if not library:
            return frame
        frame = frame.f_back
    return None


def in_workflow_body() -> bool:
    """Whether the body of a workflow, not that of a step, is executing here."""
    frame = current.get()
    return frame is not None and frame.step is None


def _namespaces(fn: Any, wanted: Callable[[Any], bool]) -> list[dict[str, Any]]:
    """The globals of *fn*, and those of other modules that are *wanted*."""
    own: dict[str, Any] = fn.__globals__
    others = [vars(module) for module in list(sys.modules.values()) if wanted(module)]
    return [own, *(names for names in others if names is not own)]


def _is_users(module: Any) -> bool:
    """Whether *module* is neither the standard library's, nor installed, nor ours."""
    file = getattr(module, "__file__", None)
    if not isinstance(module, ModuleType) or not isinstance(file, str):
        return False
    return not file.startswith((_STDLIB, _PACKAGE)) and "site-packages" not in file


# ------------------------------------------------------------ the wall clock


class _Meta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__mro__[1])

    def __subclasscheck__(cls, subclass: Any) -> bool:
        return issubclass(subclass, cls.__mro__[1])


class _LaterDatetime(datetime_module.datetime, metaclass=_Meta):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime_module.datetime(*args, **kwargs)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime_module.datetime.now(tz) + SHIFT

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime_module.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


class _LaterDate(datetime_module.date, metaclass=_Meta):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime_module.date(*args, **kwargs)

    @classmethod
    def today(cls) -> Any:
        return _LaterDatetime.now().date()


class _Module:
    """A module in which some names mean something else."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def _later_time() -> float:
    return time_module.time() + SHIFT.total_seconds()


def _later_time_ns() -> int:
    return time_module.time_ns() + int(SHIFT.total_seconds()) * 10**9


_LATER: list[tuple[Any, Any]] = [
    (datetime_module, _Module(datetime_module, datetime=_LaterDatetime, date=_LaterDate)),
    (datetime_module.datetime, _LaterDatetime),
    (datetime_module.date, _LaterDate),
    (time_module, _Module(time_module, time=_later_time, time_ns=_later_time_ns)),
    (time_module.time, _later_time),
    (time_module.time_ns, _later_time_ns),
]


@contextmanager
def later(fn: Any, memory: "Memory") -> Iterator[None]:
    """The module of *fn*, and all modules of the user, see a wall clock that is half a year ahead."""
    if memory.clocks is None:
        memory.clocks = [
            (names, name, old, new)
            for names in _namespaces(fn, _is_users)
            for name, value in list(names.items())
            for old, new in _LATER
            if value is old and not name.startswith("__")
        ]
    for names, name, _, new in memory.clocks:
        names[name] = new
    try:
        yield
    finally:
        for names, name, old, _ in memory.clocks:
            names[name] = old


# ------------------------------------------------------------ the environment


@contextmanager
def other_environment(_fn: Any, _: "Memory") -> Iterator[None]:
    """The bodies of workflows, but not those of steps, read other values of environment variables."""
    kind: Any = type(os.environ)
    read = kind.__getitem__

    def other(self: Any, key: Any) -> Any:
        value = read(self, key)
        if not in_workflow_body() or user_frame(2) is None:
            return value
        return str(int(value) + 1) if value.isdecimal() else f"{value}-elsewhere"

    kind.__getitem__ = other
    try:
        yield
    finally:
        kind.__getitem__ = read


# ------------------------------------------------------------------------------------------------- the memory


class Memory:
    """What the module of a workflow, others of its package, and its closure, keep in memory: globals, caches,
    counters.

    *keep* are objects that are not to be touched. ``clocks`` are names that mean a clock, once looked for.
    """

    clocks: list[tuple[dict[str, Any], str, Any, Any]] | None = None

    def __init__(self, fn: Any, keep: tuple[Any, ...] = ()) -> None:
        package = str(fn.__globals__.get("__name__")).partition(".")
        prefix = "".join(package[:2]) if package[1] else "\0"  # of nothing, where there is no package
        self._namespaces = _namespaces(fn, lambda module: getattr(module, "__name__", "").startswith(prefix))
        self._keep = {id(one) for one in keep}
        self._cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
        self.start = self._snapshot(copy.deepcopy)
        self.end = self.start

    def remember_end(self) -> None:
        """This is how the memory is to be left."""
        self.end = self._snapshot(copy.copy)

    def _values(self) -> Iterator[tuple[Any, Any]]:
        for names in self._namespaces:
            for name, value in list(names.items()):
                if not name.startswith("__"):
                    yield (names, name), value
        for cell in self._cells.values():
            try:
                yield cell, cell.cell_contents
            except ValueError:
                pass

    def _snapshot(self, copying: Callable[[Any], Any]) -> list[tuple[Any, Any, Any]]:
        found: list[tuple[Any, Any, Any]] = []
        for place, value in self._values():
            if id(value) in self._keep or isinstance(value, type):
                continue
            if isinstance(value, _CONTAINERS):
                try:
                    found.append((place, value, copying(value)))
                except Exception:  # something in it cannot be copied
                    found.append((place, value, copy.copy(value)))
            elif isinstance(value, functools._lru_cache_wrapper):
                found.append((place, value, None))
            elif type(value) in _PLAIN:
                found.append((place, value, value))
            elif type(value).__module__ == "itertools":
                found.append((place, None, copy.copy(value)))
        return found

    def restore(self, snapshot: list[tuple[Any, Any, Any]]) -> None:
        """Put everything back, in place where others may hold it."""
        for place, value, content in snapshot:
            if isinstance(value, functools._lru_cache_wrapper):
                value.cache_clear()
                continue
            if isinstance(value, _CONTAINERS):
                _refill(value, copy.copy(content))
                content = value
            elif value is None and content is not None:
                content = copy.copy(content)
            if isinstance(place, tuple):
                names, name = place
                names[name] = content
            else:
                place.cell_contents = content


def _refill(container: Any, content: Any) -> None:
    if isinstance(container, bytearray):
        container[:] = content
        return
    container.clear()
    if isinstance(container, dict | set):
        container.update(content)
    else:
        container.extend(content)


@contextmanager
def empty_memory(_fn: Any, memory: Memory) -> Iterator[None]:
    """Module and closure are as they were before the first execution; afterwards as they were at its end."""
    memory.restore(memory.start)
    try:
        yield
    finally:
        memory.restore(memory.end)


# ------------------------------------------------------------ all together


@contextmanager
def other_endings(_fn: Any, _: Memory) -> Iterator[None]:
    """Concurrent steps end in another order. Who plays their bodies back sees to that."""
    yield


CHANGES: Mapping[str, Callable[[Any, Memory], Any]] = {
    "the wall clock": later,
    "the environment": other_environment,
    "the order of a set": other_set_order,
    "what is kept in memory (globals, caches)": empty_memory,
    "the order in which concurrent steps end": other_endings,
}
"""What may differ in another process, and how."""


@contextmanager
def elsewhere(fn: Any, memory: Memory, changes: tuple[str, ...]) -> Iterator[None]:
    """Execute *fn* where all of *changes* have happened."""
    with ExitStack() as stack:
        for name in changes:
            stack.enter_context(CHANGES[name](fn, memory))
        yield
