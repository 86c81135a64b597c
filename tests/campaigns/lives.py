"""Processes that start quickly: a campaign imports everything once, and each life is a fork of it.

The campaign itself has no threads and no open storage, so it can be forked safely.
"""

import contextlib
import os
import select
import signal
import traceback
from collections.abc import Callable

from attrs import frozen

__all__ = ["Ended", "Life", "end_all"]

_living: set[int] = set()


def end_all() -> None:
    """Kill whoever still lives, and wait for them: their files can be removed then."""
    while _living:
        pid = _living.pop()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it was just waited for
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@frozen
class Ended:
    """How a life ended: by which *signal*, or with which *code* and *error*; *stopped* when it only stands still."""

    signal: int = 0
    code: int = 0
    stopped: bool = False
    error: str = ""

    @property
    def killed(self) -> bool:
        """Whether it was SIGKILL."""
        return self.signal == signal.SIGKILL


class Life:
    """A forked process that executes *work* and ends with what it returns as its exit code, or is ended by the
    system after *limit* seconds: it hangs."""

    def __init__(self, work: Callable[[], int], limit: int = 120) -> None:
        self._end, held = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.close(self._end)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.alarm(limit)
                code = work()
            except BaseException:
                os.write(held, traceback.format_exc()[-1500:].encode())
            finally:
                os._exit(code)
        os.close(held)
        _living.add(self.pid)

    def wait(self, *, stopped: bool = False) -> Ended:
        """Wait until it ends, or with *stopped* until it stands still."""
        _, status = os.waitpid(self.pid, os.WUNTRACED if stopped else 0)
        if os.WIFSTOPPED(status):
            return Ended(stopped=True)
        _living.discard(self.pid)
        with open(self._end, encoding="utf-8", errors="replace") as said:
            error = said.read()
        if os.WIFSIGNALED(status):
            return Ended(signal=os.WTERMSIG(status), error=error)
        return Ended(code=os.WEXITSTATUS(status), error=error)

    def over(self, seconds: float) -> bool:
        """Whether it ends within *seconds*: the other end of its pipe is closed then."""
        return bool(select.select([self._end], [], [], max(0.0, seconds))[0])

    def kill_after(self, seconds: float) -> Ended:
        """Let it live for *seconds*, then SIGKILL."""
        if not self.over(seconds):
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def go_on(self) -> None:
        """Wake it, if it stands still."""
        os.kill(self.pid, signal.SIGCONT)
