"""Processes that cost a fork: a campaign has everything imported, and each life is a copy of it.

The campaign itself has no threads and no open storage, so that its copies are whole.
"""

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable

from attrs import frozen

__all__ = ["Ended", "Life"]

_HUNG = 120  # seconds after which a life is ended by the system: it hangs


@frozen
class Ended:
    """How a life ended: by which *signal*, or with which *code*; *stopped* when it only stands still."""

    signal: int = 0
    code: int = 0
    stopped: bool = False

    @property
    def killed(self) -> bool:
        """Whether it was SIGKILL."""
        return self.signal == signal.SIGKILL


class Life:
    """A forked process that executes *work* and ends with what it returns as its exit code."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._end, held = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.close(self._end)
                signal.alarm(_HUNG)
                code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(held)

    def wait(self, *, stopped: bool = False) -> Ended:
        """Wait until it ends, or with *stopped* until it stands still."""
        _, status = os.waitpid(self.pid, os.WUNTRACED if stopped else 0)
        if os.WIFSTOPPED(status):
            return Ended(stopped=True)
        os.close(self._end)
        if os.WIFSIGNALED(status):
            return Ended(signal=os.WTERMSIG(status))
        return Ended(code=os.WEXITSTATUS(status))

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
