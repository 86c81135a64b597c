"""Which code of the user is executing: the body of a workflow or that of a step, and on which line.

Each resume executes a workflow's body again. So only there does it matter what the code looks at. Code that
surrounds a body says here what it executes.
"""

import linecache
import os
import site
import sys
import sysconfig
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from flowdsl.blocks import block

__all__ = [
    "executing",
    "in_step_body",
    "in_workflow_body",
    "is_asked_by_user",
    "is_thread_of_user",
    "line_of",
    "line_of_code",
    "program_paths",
    "user_frame",
]

_TESTING = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_TESTING)
_INSTALLED = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    *site.getsitepackages(),
    os.path.dirname(os.__file__),
)
_GENERATED = ("<frozen", "<attrs", "<__array_function__")
_BY_THEMSELVES = frozenset(
    [
        "encodings",
        "gettext",
        "importlib",
        "inspect",
        "linecache",
        "logging",
        "mimetypes",
        "traceback",
        "warnings",
        "zoneinfo",
    ]
)
"""Modules whose own looks at files and clocks do not concern the code that calls them."""

_kind: ContextVar[str] = ContextVar("flowdsl-check-replay", default="")
_others: list[str] = []  # kinds of the bodies, other than workflows', that execute now
_known: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # threads that no workflow has started


@block
def executing(kind: str) -> Iterator[None]:
    """The code in the block is a body of this *kind*: ``"workflow"``, ``"step"``, or ``""`` for none."""
    token = _kind.set(kind)
    if kind == "workflow":
        _known.update(threading.enumerate())
    else:
        _others.append(kind)
    try:
        yield
    finally:
        _kind.reset(token)
        if kind != "workflow":
            _known.update(threading.enumerate())
            _others.remove(kind)


def in_workflow_body(depth: int = 1) -> bool:
    """Whether the body of a workflow executes here, and not the body of a step.

    A thread that appeared while no body of a step was executing is the workflow's too, if it is not ours.
    """
    kind = _kind.get()
    if kind or _others or threading.current_thread() in _known:
        return kind == "workflow"
    frame: Any = sys._getframe(depth)
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame is None


def in_step_body() -> bool:
    """Whether the body of a step executes here, and calls other steps."""
    return _kind.get() == "step"


def user_frame(depth: int = 1) -> Any:
    """The innermost frame of user code, if only libraries are before it. Otherwise ``None``.

    Our code hides it. So do libraries that look at files and clocks for their own purposes.
    """
    frame: Any = sys._getframe(depth)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            if not name.startswith(_TESTING):
                return None
        elif str(frame.f_globals.get("__name__")).partition(".")[0] in _BY_THEMSELVES:
            return None
        elif not name.startswith((*_INSTALLED, *_GENERATED)):
            return frame
        frame = frame.f_back
    return None


def is_asked_by_user(depth: int = 1) -> bool:
    """Whether user code asks what is asked here, itself or by functions of Python's own library. What other
    libraries ask concerns themselves."""
    frame: Any = sys._getframe(depth)
    while frame is not None:
        module = str(frame.f_globals.get("__name__")).partition(".")[0]
        if module in _BY_THEMSELVES:
            return False
        if module not in sys.stdlib_module_names:
            return not frame.f_code.co_filename.startswith((_PACKAGE, *_INSTALLED, *_GENERATED))
        frame = frame.f_back
    return is_thread_of_user(depth + 1)


def is_thread_of_user(depth: int = 1) -> bool:
    """Whether only libraries are here, down to the beginning of a thread of a pool. Then user code has given
    it what it executes, as ``asyncio.to_thread`` does."""
    frame: Any = sys._getframe(depth)
    in_pool = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] in _BY_THEMSELVES:
            return False
        if not frame.f_code.co_filename.startswith((*_INSTALLED, *_GENERATED)):
            return False
        in_pool = in_pool or module == "concurrent.futures.thread"
        frame = frame.f_back
    return in_pool


def line_of(frame: Any) -> str:
    """File, line and source of a frame, for people to read."""
    name, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, line).strip()
    return f"{name}:{line}" + (f": {text}" if text else "")


def line_of_code() -> str:
    """Where the workflow's code makes the call. ``""`` in a thread or task of its own."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_PACKAGE, *_INSTALLED, *_GENERATED)):
        if frame.f_code.co_name in ("_run_once", "_worker", "_bootstrap"):  # of an event loop, pool, thread
            return ""
        frame = frame.f_back
    return "" if frame is None else line_of(frame)


def program_paths() -> tuple[str, ...]:
    """Where the program and what Python installs with it are. Reading these is not reading data."""
    return (
        *_INSTALLED,
        _PACKAGE,
        sys.prefix + os.sep,
        sys.base_prefix + os.sep,
        "/usr/share/zoneinfo",
        "/dev/",
    )
