"""What is different in another process, for the life of a process that is thrown away afterwards.

:func:`another_host` is for the whole process, before any code of the user is imported. Each of ``CHANGES``
is a context manager. Nothing here is ever used in the process of the test.
"""

import importlib
import locale
import os
import platform
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from flowdsl.blocks import block
from flowdsl.testing.replay.causes import CLOCK, DIRECTORY, ENVIRONMENT, ORDER, OUTSIDE, PROCESS, ZONE
from flowdsl.testing.replay.side_effects import is_program
from flowdsl.testing.user_code import user_frame

__all__ = ["CHANGES", "another_host", "elsewhere"]

SHIFT = timedelta(days=190, hours=13, minutes=7)
"""How much later the run is continued: another date, month, weekday and half of the day."""


_HOST = "elsewhere"
_MORE = "FLOWDSL_ELSEWHERE"  # a variable
_real_uname = getattr(os, "uname", None)
_real_cpu_count = os.cpu_count
_real_ctime, _real_asctime = time.ctime, time.asctime


def uname() -> Any:
    """That of another host."""
    assert _real_uname is not None
    real = tuple(_real_uname())
    return os.uname_result((real[0], _HOST, *real[2:]))


def gethostname() -> str:
    """That of another host."""
    return _HOST


def cpu_count() -> int:
    """One more than here."""
    return (_real_cpu_count() or 1) + 1


def ctime(seconds: Any = None) -> str:
    """As ``time.ctime``, which would ask the machine."""
    return _real_ctime(time.time() if seconds is None else seconds)


def asctime(moment: Any = None) -> str:
    """As ``time.asctime``, which would ask the machine."""
    return _real_asctime(time.localtime() if moment is None else moment)


def another_host() -> None:
    """Another machine: its name and its processors. Code of the user that is imported later finds these."""
    low_level = [sys.modules[name] for name in ("posix", "_socket") if name in sys.modules]
    for module in (os, socket, *low_level):
        for name, fn in (("uname", uname), ("cpu_count", cpu_count), ("gethostname", gethostname)):
            if hasattr(module, name):
                setattr(module, name, fn)
    _time_machine()  # once for all executions
    platform.node = gethostname
    sys.argv = [_HOST]


def _time_machine() -> Any:
    """The package, ``None`` where it is not installed; without pytest, which it would import for a plugin."""
    found = sys.modules.get("time_machine")
    if found is None:
        pytest: Any = sys.modules.get("pytest")
        sys.modules["pytest"] = None  # type: ignore[assignment]
        try:
            found = importlib.import_module("time_machine")
        except ImportError:
            found = None
        finally:
            del sys.modules["pytest"]
            if pytest is not None:
                sys.modules["pytest"] = pytest
    return found


@block
def later() -> Iterator[None]:
    """All clocks are half a year ahead. Needs time-machine; without it they are ahead by what it took."""
    time_machine = _time_machine()
    if time_machine is None:
        yield
        return
    time.ctime, time.asctime = ctime, asctime
    with time_machine.travel(datetime.now(UTC) + SHIFT), _numpy_later():
        yield
    time.ctime, time.asctime = _real_ctime, _real_asctime


@block
def _numpy_later() -> Iterator[None]:
    """numpy reads the clock of the machine by itself, so its type of dates is replaced."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        yield
        return
    real = numpy.datetime64

    class Instances(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real)

    class Later(real, metaclass=Instances):  # type: ignore[misc, valid-type]
        def __new__(cls, value: Any = None, *unit: Any) -> Any:
            made = real(value, *unit) if value is not None else real()
            return made + numpy.timedelta64(SHIFT) if value in ("now", "today") else made

    numpy.datetime64 = Later
    try:
        yield
    finally:
        numpy.datetime64 = real


@block
def other_environment() -> Iterator[None]:
    """All variables have other values, and those that are not set are; there is one more."""
    os.environ[_MORE] = _HOST
    for name, value in list(os.environ.items()):
        os.environ[name] = str(int(value) + 1) if value.isdecimal() else f"{value}-elsewhere"
    kind: Any = type(os.environ)
    read = kind.__getitem__

    def set_elsewhere(self: Any, name: Any) -> Any:
        try:
            return read(self, name)
        except KeyError:
            if user_frame(2) is None:
                raise
            return "elsewhere"

    kind.__getitem__ = set_elsewhere
    try:
        yield
    finally:
        kind.__getitem__ = read
        del os.environ[_MORE]


@block
def other_zone() -> Iterator[None]:
    """Another time zone and another locale."""
    east = -time.timezone < 0
    os.environ["TZ"] = "XST-9:30" if east else "XST+3:30"
    if hasattr(time, "tzset"):
        time.tzset()
    with ExitStack() as stack:
        for name in ("C", "C.UTF-8"):
            try:
                if locale.setlocale(locale.LC_CTYPE) != name:
                    stack.callback(locale.setlocale, locale.LC_CTYPE, locale.setlocale(locale.LC_CTYPE))
                    locale.setlocale(locale.LC_CTYPE, name)
                    break
            except locale.Error:
                continue
        yield


@block
def other_directory() -> Iterator[None]:
    """Another working directory, and another one for temporary files."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
        os.chdir(folder)
        tempfile.tempdir = folder
        try:
            yield
        finally:
            os.chdir(before)
            tempfile.tempdir = None


@block
def no_files() -> Iterator[None]:
    """Code of the user finds none of the files that lie here, except those of the program."""
    found: Any = {name: getattr(os, name) for name in ("stat", "lstat", "access")}

    def is_absent(path: Any) -> bool:
        return not isinstance(path, int) and not is_program(os.fsdecode(path)) and user_frame(3) is not None

    def absent(name: str) -> Callable[..., Any]:
        def look(path: Any, *args: Any, **kwargs: Any) -> Any:
            if is_absent(path):
                raise FileNotFoundError(2, "it lies on another machine", path)
            return found[name](path, *args, **kwargs)

        return look

    def no_access(path: Any, *args: Any, **kwargs: Any) -> bool:
        return not is_absent(path) and bool(found["access"](path, *args, **kwargs))

    os.stat, os.lstat, os.access = absent("stat"), absent("lstat"), no_access
    try:
        yield
    finally:
        os.stat, os.lstat, os.access = found["stat"], found["lstat"], found["access"]


@block
def other_names() -> Iterator[None]:
    """Another command line, and another name of the thread."""
    thread = threading.current_thread()
    before = thread.name, sys.argv
    thread.name, sys.argv = _HOST, [_HOST]
    try:
        yield
    finally:
        thread.name, sys.argv = before


CHANGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    CLOCK: later,
    ENVIRONMENT: other_environment,
    ZONE: other_zone,
    DIRECTORY: other_directory,
    OUTSIDE: no_files,
    PROCESS: other_names,
    ORDER: nullcontext,  # who plays the bodies back sees to that
}
"""What may have changed, and how."""


@block
def elsewhere(changes: tuple[str, ...]) -> Iterator[None]:
    """Execute the block where all of *changes* have happened."""
    with ExitStack() as stack:
        for name in changes:
            stack.enter_context(CHANGES[name]())
        yield
