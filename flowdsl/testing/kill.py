"""``kill_after``: run a script in a child process, kill it at a commit or after some time, and run it again.

The child executes this module. It puts a :class:`~flowdsl.testing.crash.CrashingStorage` between the engine
and the storage that the script opens. Then it executes the script as ``__main__``. The script needs no
change."""

import argparse
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from attrs import frozen

from flowdsl.hooks import Hooks, installed
from flowdsl.storage.base import Storage
from flowdsl.testing.crash import CrashingStorage, When

__all__ = ["KillReport", "Life", "kill_after"]


@frozen(slots=True)
class Life:
    """One execution of the script: whether it was *killed*, its *returncode*, and its output."""

    killed: bool
    returncode: int
    stdout: str
    stderr: str


@frozen(slots=True)
class KillReport:
    """All executions of a script, in order. The last one was not killed."""

    lives: tuple[Life, ...]

    @property
    def kills(self) -> int:
        """How many executions were killed. One may end before its moment comes."""
        return sum(life.killed for life in self.lives)

    @property
    def last(self) -> Life:
        """The execution that was not killed."""
        return self.lives[-1]


def kill_after(
    script: str | os.PathLike[str],
    *args: str,
    commits: int | Sequence[int] = (),
    seconds: float | Sequence[float] = (),
    when: When = "after",
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
) -> KillReport:
    """Run a Python *script* with *args* in a child process, kill it with SIGKILL, and run it again to the
    end.

    *commits*: the number of the commit at which it is killed, from 1; *when*: ``"before"`` or ``"after"``
    that commit took effect; *seconds*: kill it after this time instead. Several numbers kill it several
    times, each time in a new process. The last run is not killed. *env* is added to the environment. Each
    process has *timeout* seconds. The storage must outlive the process, so give the script a file.

    Returns a :class:`KillReport`. Raises ``ValueError`` unless one of *commits* and *seconds* is given.
    Raises ``AssertionError`` with the output if a process ends with an error. Raises
    ``subprocess.TimeoutExpired``.

    ::

        env = {"FLOWDSL_STORAGE": f"sqlite:///{tmp_path}/flow.db"}
        report = kill_after("shop.py", commits=[3, 5], env=env)
        assert report.last.stdout == "paid\\n"

    For a random moment: ``seconds=random.uniform(0, 2)``.
    """
    ats = [commits] if isinstance(commits, int) else list(commits)
    waits = [seconds] if isinstance(seconds, int | float) else list(seconds)
    if bool(ats) == bool(waits):
        raise ValueError("give one of commits=… and seconds=…")
    base = [sys.executable, "-m", "flowdsl.testing.kill", "--when", when]
    plans: list[tuple[list[str], float | None]] = [(["--at", str(at)], None) for at in ats]
    plans += [([], wait) for wait in waits]
    plans.append(([], None))
    lives = []
    for flags, wait in plans:
        command = [*base, *flags, os.fspath(script), *args]
        lives.append(_live(command, wait, {**os.environ, **(env or {})}, cwd, timeout))
    return KillReport(tuple(lives))


def _live(command: list[str], wait: float | None, env: dict[str, str], cwd: Any, timeout: float) -> Life:
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            out, err = process.communicate(timeout=timeout if wait is None else wait)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            if wait is None:
                raise
    killed = process.returncode == -signal.SIGKILL
    if process.returncode and not killed:
        raise AssertionError(f"the script ended with {process.returncode}\n{out}\n{err}")
    return Life(killed, process.returncode, out, err)


def _child() -> None:
    parser = argparse.ArgumentParser("flowdsl.testing.kill")
    parser.add_argument("--at", type=int)
    parser.add_argument("--when", default="after")
    parser.add_argument("script")
    parser.add_argument("args", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    sys.argv = [given.script, *given.args]
    sys.path[0] = os.path.dirname(os.path.abspath(given.script))
    with nullcontext() if given.at is None else installed(_Killing(given.at, given.when)):
        runpy.run_path(given.script, run_name="__main__")


class _Killing(Hooks):
    """Kills this process at a commit of any runtime in it."""

    def __init__(self, at: int, when: When) -> None:
        self._at = at
        self._when: When = when

    def wrap_storage(self, storage: Storage) -> Storage:
        return CrashingStorage(storage, self._at, when=self._when, outcome="kill")


if __name__ == "__main__":
    _child()
