"""What is different in another process, for the life of a process that is thrown away afterwards.

:func:`another_host` is for the whole process, before any code of the user is imported. Each of ``CHANGES``
is a context manager. Nothing here is ever used in the process of the test.
"""

import functools
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
from flowdsl.testing.user_code import is_asked_by_user, is_thread_of_user, user_frame

__all__ = ["CHANGES", "IMPORTED", "another_host", "elsewhere"]

SHIFT = timedelta(days=190, hours=13, minutes=7)
"""How much later the run is continued: another date, month, weekday and half of the day."""


_HOST = "elsewhere"
_MORE = "FLOWDSL_ELSEWHERE"  # a variable
_OURS = frozenset(["FLOWDSL_OLD_SECRET_KEY", "FLOWDSL_SECRET_KEY", "FLOWDSL_STORAGE"])
_real_uname = getattr(os, "uname", None)
_real_cpu_count = os.cpu_count
_if_unset = "elsewhere"  # what a variable is that is not set here
_files_are_here = True
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


def another_host(if_unset: str) -> None:
    """Another machine: its name and its processors. Code of the user that is imported later finds these.
    Variables that are not set will be *if_unset*."""
    global _if_unset
    _if_unset = if_unset
    for name in ("stat", "lstat", "access"):
        _replace(name)
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
    """All clocks are half a year ahead, numpy's too."""
    with clocks_later(), _numpy_later():
        yield


@block
def clocks_later() -> Iterator[None]:
    """All clocks but numpy's are half a year ahead. Needs time-machine; without it they are ahead by what it
    took."""
    time_machine = _time_machine()
    if time_machine is None:
        yield
        return
    time.ctime, time.asctime = ctime, asctime
    try:
        with time_machine.travel(datetime.now(UTC) + SHIFT):
            yield
    finally:
        time.ctime, time.asctime = _real_ctime, _real_asctime


@block
def _numpy_later() -> Iterator[None]:
    """numpy reads the clock of the machine by itself, so its type of dates is replaced."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or _time_machine() is None:
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
    """All variables but ours have other values, and those that are not set are, for user code; there is one
    more. A directory is another one that exists."""
    os.environ[_MORE] = _HOST
    for name, value in list(os.environ.items()):
        if name not in _OURS:
            os.environ[name] = _other_value(value)
    kind: Any = type(os.environ)
    read = kind.__getitem__

    def set_elsewhere(self: Any, name: Any) -> Any:
        try:
            return read(self, name)
        except KeyError:
            if not is_asked_by_user(2):
                raise
            return _if_unset

    kind.__getitem__ = set_elsewhere
    try:
        yield
    finally:
        kind.__getitem__ = read
        del os.environ[_MORE]


def _other_value(value: str) -> str:
    if value.isdecimal():
        return str(int(value) + 1)
    return tempfile.gettempdir() if os.path.isabs(value) and os.path.isdir(value) else f"{value}-elsewhere"


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
    global _files_are_here
    _files_are_here = False
    try:
        yield
    finally:
        _files_are_here = True


def _is_absent(path: Any) -> bool:
    if _files_are_here or isinstance(path, int) or is_program(os.fsdecode(path)):
        return False
    return user_frame(3) is not None or is_thread_of_user(3)


def _replace(name: str) -> None:
    """Let ``os.<name>`` find nothing where files are absent. Code that imports it later gets this one."""
    real = getattr(os, name)

    @functools.wraps(real)
    def look(path: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_absent(path):
            return real(path, *args, **kwargs)
        if name == "access":
            return False
        raise FileNotFoundError(2, "it lies on another machine", path)

    for able in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks, os.supports_effective_ids):
        if real in able:
            able.add(look)
    for module in (os, sys.modules.get("posix", os)):
        setattr(module, name, look)


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


Changes = Mapping[str, Callable[[], AbstractContextManager[None]]]

CHANGES: Changes = {
    CLOCK: later,
    ENVIRONMENT: other_environment,
    ZONE: other_zone,
    DIRECTORY: other_directory,
    OUTSIDE: no_files,
    PROCESS: other_names,
    ORDER: nullcontext,  # who plays the bodies back sees to that
}
"""What may have changed, and how."""

IMPORTED: Changes = {
    CLOCK: clocks_later,  # pandas would keep numpy's
    ENVIRONMENT: other_environment,
    ZONE: other_zone,
    DIRECTORY: other_directory,
}
"""What may have changed before a module is imported, and how."""


@block
def elsewhere(changes: tuple[str, ...], how: Changes = CHANGES) -> Iterator[None]:
    """Execute the block where all of *changes* have happened."""
    with ExitStack() as stack:
        for name in changes:
            stack.enter_context(how[name]())
        yield
