"""Faults in system calls: ``faults.c``, compiled where there is a C compiler, and preloaded into a campaign."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "BREAK", "CUTS", "FAIL", "KILL", "OPENS", "SHORTEN", "SYNCS", "TEAR", "WRITES", "preload", "preloaded", "shim",
]  # fmt: skip

WRITES, SYNCS, CUTS, OPENS = 1, 2, 4, 8
"""Kinds of calls."""

KILL, TEAR, FAIL, BREAK, SHORTEN = 1, 2, 3, 4, 5
"""What happens at the n-th call: SIGKILL before it; half of a write, then SIGKILL; an error, once; an error, from
then on; half of a write, once."""

_VARIABLE = "FLOWDSL_FAULTS"  # set in a process that was started with the shim, or without it for a reason


def preload(module: str, arguments: list[str]) -> None:
    """Start this program (``python -m module arguments``) anew with the shim, unless that was done already."""
    if _VARIABLE in os.environ:
        return
    environment = {**os.environ, **preloaded()}
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


def preloaded() -> dict[str, str]:
    """The variables with which a process begins with the shim. They name a library that was compiled just now."""
    library, reason = _compile()
    found = {_VARIABLE: reason}
    if library:
        found["LD_PRELOAD"] = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), library]))
    return found


def _compile() -> tuple[str, str]:
    """The path of the compiled shim, or ``""`` and the reason."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not sys.platform.startswith("linux"):
        return "", "faults are injected on Linux only"
    if compiler is None:
        return "", "no C compiler (cc, gcc, clang) was found"
    library = Path(tempfile.mkdtemp(prefix="flowdsl-faults-")) / "faults.so"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-o",
        library,
        Path(__file__).with_name("faults.c"),
        "-ldl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(library.parent)
        return "", f"faults.c does not compile here: {done.stderr[:200]}"
    return str(library), ""


class Shim:
    """The shim in this process. ``reason`` says why it is not there, or is empty."""

    def __init__(self) -> None:
        self.reason = os.environ.get(_VARIABLE, "the campaign was not started as a program")
        self._library: Any = None
        if not self.reason:
            self._library = ctypes.CDLL(None)
            number, long = ctypes.c_int, ctypes.c_long
            self._library.faults_arm.argtypes = [ctypes.c_char_p, number, long, number, number]
            self._library.faults_seen.restype = long
            if libraries := os.environ.pop("LD_PRELOAD", "").split():  # a fork has no variable of its own
                *others, mine = libraries
                shutil.rmtree(
                    os.path.dirname(mine), ignore_errors=True
                )  # loaded: nobody needs the file any more
                if others:
                    os.environ["LD_PRELOAD"] = " ".join(others)

    def __bool__(self) -> bool:
        return self._library is not None

    def arm(self, part: str, kinds: int, at: int, action: int, error: int = 0) -> None:
        """From now on count the calls of *kinds* on files with *part* in their path; strike at the *at*-th (0:
        never)."""
        self._library.faults_arm(part.encode(), kinds, at, action, error)

    def disarm(self) -> int:
        """Strike no more; how many calls were counted."""
        self._library.faults_disarm()
        return int(self._library.faults_seen())


@cache
def shim() -> Shim:
    """The shim of this process."""
    return Shim()
