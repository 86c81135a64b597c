"""Who executes a run, and whether that process still lives.

An owner is written as ``host|boot|namespace|pid|started|token``. If its host, boot and pid namespace are
ours, the process table tells at once whether it is gone: it looks for a process with that pid and that start
time, and a zombie does not count. Nothing can be told here of any other owner, so its lease has to run out.
"""

import os
import socket
import sys
import uuid
from collections.abc import Callable
from enum import Enum
from functools import cache
from pathlib import Path

from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus, is_final
from flowdsl.storage.base import Storage

__all__ = [
    "Liveness",
    "is_abandoned",
    "is_interrupted",
    "liveness",
    "new_owner",
    "register_here",
    "shown_status",
]


class Liveness(Enum):
    """What is known of an owner."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


_here: dict[str, Callable[[str], bool]] = {}
"""Maps owner tokens of this process to a function: does it execute a run of this id right now?"""

os.register_at_fork(after_in_child=_here.clear)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@cache
def _host_of(_pid: int) -> str:
    boot = _read("/proc/sys/kernel/random/boot_id")
    if not boot and sys.platform == "darwin":
        boot = _run("sysctl", "-n", "kern.bootsessionuuid")
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}|{boot}|{namespace}".replace("\n", " ")


def _run(*command: str) -> str:
    import subprocess  # not needed on Linux

    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _process_start(pid: int) -> str | None:
    """When process *pid* started, in a unit that is the same at each call. ``None`` if it is gone; ``""`` if
    unknown."""
    if sys.platform.startswith("linux"):
        stat = _read(f"/proc/{pid}/stat")
        if not stat:
            return None
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return _run("ps", "-o", "lstart=", "-p", str(pid)).replace("|", " ")


@cache
def _own_start(pid: int) -> str:
    return _process_start(pid) or ""


def new_owner() -> tuple[str, str]:
    """A new owner of this process: its full text, and its token."""
    pid = os.getpid()
    token = uuid.uuid4().hex
    return f"{_host_of(pid)}|{pid}|{_own_start(pid)}|{token}", token


def register_here(token: str, executes: Callable[[str], bool]) -> None:
    """Let :func:`liveness` ask *executes(run_id)* for owners of this process with this token."""
    _here[token] = executes


def liveness(owner: str, run_id: str) -> Liveness:
    """Tell whether *owner* still executes run *run_id*."""
    host, _, rest = owner.rpartition("|")
    host, _, started = host.rpartition("|")
    host, _, pid = host.rpartition("|")
    token = rest
    if host != _host_of(os.getpid()) or not pid.isdigit():
        return Liveness.UNKNOWN
    if int(pid) == os.getpid() and started == _own_start(int(pid)):
        executes = _here.get(token)
        return Liveness.ALIVE if executes is not None and executes(run_id) else Liveness.DEAD
    now = _process_start(int(pid))
    if now is None or (now and started and now != started):
        return Liveness.DEAD
    return Liveness.ALIVE if now and started else Liveness.UNKNOWN


def is_abandoned(owner: str, run_id: str, lease_until: float, now: float) -> bool:
    """Whether a run may be taken from *owner*: its lease is over, or the owner is provably gone.

    The lease decides, even if the process still exists: it may be stopped, may hang, or may have lost the run
    to a full disk. Proof of death shortens a lease. Nothing prolongs it.
    """
    return lease_until <= now or liveness(owner, run_id) is Liveness.DEAD


def is_interrupted(storage: Storage, record: Run) -> bool:
    """Whether the run has not ended and nobody executes it."""
    if is_final(record.status):
        return False
    return record.owner is None or is_abandoned(record.owner, record.id, record.lease_until, storage.now())


def shown_status(storage: Storage, record: Run) -> str:
    """The status of a run as people see it. A ``running`` one that nobody executes is ``interrupted``."""
    if record.status is RunStatus.RUNNING and is_interrupted(storage, record):
        return "interrupted"
    return str(record.status)
