"""What the bodies of workflows do to the world outside, and read from it, beside their steps.

Python tells *audit hooks* of files that are opened, of directories that are listed, of sockets and processes.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from flowdsl.blocks import block
from flowdsl.testing.replay.observed import Life
from flowdsl.testing.user_code import in_workflow_body, is_thread_of_user, line_of, program_paths, user_frame

__all__ = ["is_program", "listening"]

_EFFECTS = frozenset(
    [
        "os.chmod",
        "os.chown",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.link",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.spawn",
        "os.symlink",
        "os.system",
        "os.truncate",
        "os.utime",
        "shutil.copyfile",
        "shutil.move",
        "shutil.rmtree",
        "tempfile.mkdtemp",
        "tempfile.mkstemp",
        "subprocess.Popen",
        "syslog.syslog",
        "webbrowser.open",
        "socket.connect",
        "socket.sendto",
        "socket.sendmsg",
        "ftplib.connect",
        "http.client.connect",
        "imaplib.open",
        "poplib.connect",
        "smtplib.connect",
        "sqlite3.connect",
        "urllib.Request",
    ]
)
_READS = frozenset(
    [
        "builtins.input",
        "glob.glob",
        "os.listdir",
        "os.scandir",
        "os.getxattr",
        "os.listxattr",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
        "socket.getnameinfo",
    ]
)
_CODE = (".py", ".pyc", ".so", ".pyd")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND

_listeners: list[Life] = []
_hooked = False


def is_program(path: str) -> bool:
    """Whether *path* belongs to the program and its libraries, or is no file at all."""
    place = os.path.abspath(path)
    in_memory = place.startswith("/dev/shm" + os.sep)  # files of somebody, although devices are none
    return path.endswith(_CODE) or (place.startswith(program_paths()) and not in_memory)


def _kind(event: str, args: tuple[Any, ...]) -> str:
    """What an event means: ``"effect"``, ``"read"``, or ``""``, neither."""
    if event == "open":
        if isinstance(args[0], int) or os.fsdecode(args[0]) == os.devnull:
            return ""
        if isinstance(args[2], int) and args[2] & _WRITING:
            return "" if "__pycache__" in os.fsdecode(args[0]) else "effect"
        return "" if is_program(os.fsdecode(args[0])) else "read"
    if event in _EFFECTS:
        return "" if event == "sqlite3.connect" and args[0] == ":memory:" else "effect"
    if event not in _READS:
        return ""
    return "" if event.startswith("os.") and isinstance(args[0], str) and is_program(args[0]) else "read"


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _listeners or (event != "open" and event not in _EFFECTS and event not in _READS):
        return
    if not in_workflow_body(2):
        return
    kind = _kind(event, args)
    frame = user_frame(2) if kind else None
    if frame is not None or (kind and is_thread_of_user(2)):
        shown = args[1] if event == "socket.connect" else args[0] if args else ""
        place = "in a thread of its own" if frame is None else f"at {line_of(frame)}"
        what = f"{event} {shown!s}\n      {place}"
        found = _listeners[-1].effects if kind == "effect" else _listeners[-1].reads
        if what not in found:
            found.append(what)


@block
def listening(life: Life) -> Iterator[None]:
    """Note in *life* what the bodies of workflows do and read."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    _listeners.append(life)
    try:
        yield
    finally:
        _listeners.remove(life)
