"""What is different in another process, for the life of a process that is thrown away afterwards.

:func:`another_host` is for the whole process, before any code of the user is imported. Each of ``CHANGES``
is a context manager. Nothing here is ever used in the process of the test.
"""

import locale
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from flowdsl.testing.replay.causes import CLOCK, DIRECTORY, ENVIRONMENT, ORDER, OUTSIDE, ZONE
from flowdsl.testing.replay.side_effects import is_program
from flowdsl.testing.replay.user_code import user_frame

__all__ = ["CHANGES", "another_host", "elsewhere"]

SHIFT = timedelta(days=190, hours=13, minutes=7)
"""How much later the run is continued: another date, month, weekday and half of the day."""


def another_host() -> None:
    """Another machine: its name, its number of processors, and names that count threads and tasks."""
    real = os.uname() if hasattr(os, "uname") else None
    if real is not None:
        named = os.uname_result((real.sysname, "elsewhere", *tuple(real)[2:]))
        os.uname = lambda: named
    socket.gethostname = lambda: "elsewhere"
    platform.node = lambda: "elsewhere"
    cpus = (os.cpu_count() or 1) + 1
    os.cpu_count = lambda: cpus
    ctime, asctime = time.ctime, time.asctime  # these two read the clock of the machine in any case
    time.ctime = lambda seconds=None: ctime(time.time() if seconds is None else seconds)
    time.asctime = lambda t=None: asctime(time.localtime() if t is None else t)
    sys.argv = ["elsewhere"]


@contextmanager
def later() -> Iterator[None]:
    """All clocks are half a year ahead. Needs time-machine; without it they are ahead by what it took."""
    try:
        import time_machine
    except ImportError:
        yield
        return
    with time_machine.travel(datetime.now(UTC) + SHIFT), _numpy_later():
        yield


@contextmanager
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


@contextmanager
def other_environment() -> Iterator[None]:
    """All variables have other values, and those that are not set are."""
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


@contextmanager
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


@contextmanager
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


@contextmanager
def no_files() -> Iterator[None]:
    """Code of the user finds none of the files that lie here, except those of the program."""
    real: Any = os.stat

    def absent(path: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(path, int) and not is_program(os.fsdecode(path)) and user_frame(2) is not None:
            raise FileNotFoundError(2, "it lies on another machine", path)
        return real(path, *args, **kwargs)

    os.stat = absent
    try:
        yield
    finally:
        os.stat = real


CHANGES: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    CLOCK: later,
    ENVIRONMENT: other_environment,
    ZONE: other_zone,
    DIRECTORY: other_directory,
    OUTSIDE: no_files,
    ORDER: nullcontext,  # who plays the bodies back sees to that
}
"""What may have changed, and how."""


@contextmanager
def elsewhere(changes: tuple[str, ...]) -> Iterator[None]:
    """Execute the block where all of *changes* have happened."""
    with ExitStack() as stack:
        for name in changes:
            stack.enter_context(CHANGES[name]())
        yield
