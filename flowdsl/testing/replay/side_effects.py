"""Effects outside of every step: files, sockets and processes that the bodies of workflows open."""

import linecache
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowdsl.testing.replay.observed import Life
from flowdsl.testing.replay.surroundings import in_workflow_body, user_frame

__all__ = ["listening"]

_EVENTS = frozenset(
    [
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.system",
        "os.truncate",
        "shutil.rmtree",
        "shutil.move",
        "shutil.copyfile",
        "socket.connect",
        "socket.sendto",
        "subprocess.Popen",
        "smtplib.connect",
        "http.client.connect",
        "sqlite3.connect",
    ]
)
_listeners: list[Life] = []
_hooked = False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _listeners or (event != "open" and event not in _EVENTS) or not in_workflow_body():
        return
    if event == "open":
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
        if not (isinstance(args[2], int) and args[2] & writes) or "__pycache__" in str(args[0]):
            return
    frame = user_frame(2)
    if frame is not None:
        name, line = frame.f_code.co_filename, frame.f_lineno
        what = f"{event} {args[0]!s}" if event != "socket.connect" else f"{event} {args[1]!s}"
        text = linecache.getline(name, line).strip()
        _listeners[-1].outside.append(f"{what}\n      at {name}:{line}: {text}")


@contextmanager
def listening(life: Life) -> Iterator[None]:
    """Note them in *life*."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    _listeners.append(life)
    try:
        yield
    finally:
        _listeners.remove(life)
