"""Real child processes for storage tests: scripts that talk to the test in lines."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

import forked

PRELUDE = """
import os, sys
from flowdsl.core.records import *
from flowdsl.core.status import *
from flowdsl.storage import *
from flowdsl.storage.base import *
from flowdsl.testing.storage.samples import *

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline().strip()

url = sys.argv[1]
"""


class Child:
    """A process that runs *script* with ``url`` set, and is gone when the block ends."""

    def __init__(self, script: str, url: str, *arguments: object) -> None:
        command = [sys.executable, "-W", "error", "-c", PRELUDE + script, url, *map(str, arguments)]
        self.process = forked.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def hear(self) -> str:
        """The next line that the child says; ``""`` when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str = "") -> None:
        """Send a line to the child."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def rest(self) -> list[str]:
        """What else the child says until it ends, which it must do well."""
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return out.splitlines()

    def kill(self) -> list[str]:
        """Kill it at once; what it had said before."""
        self.process.send_signal(signal.SIGKILL)
        out, _ = self.process.communicate(timeout=60)
        return out.splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()


def in_fork(work: Callable[[], str]) -> str:
    """What *work* returns, or the error it raises, in a forked child that leaves without cleaning up."""
    result, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                said = work()
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            os.write(say, said.encode())
        finally:
            os._exit(0)  # whatever happens: the child is no second test run
    os.close(say)
    with open(result, encoding="utf-8") as file:
        said = file.read()
    os.waitpid(child, 0)
    return said
