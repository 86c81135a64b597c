"""A real terminal of a given width, to see what a person sees."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs *command* in a terminal of *width* columns to its end; *seen_so_far* is told what came so far."""

    def __init__(
        self,
        command: list[str],
        width: int,
        seen_so_far: Callable[[str], None] | None = None,
        **environment: str,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", **environment}
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        seen = b""
        while chunk := self._read():
            seen += chunk
            if seen_so_far is not None:
                seen_so_far(_ESCAPES.sub("", seen.decode("utf-8", "replace")))
        self.code = process.wait()
        self.raw = seen.decode("utf-8").replace("\r\n", "\n")

    def _read(self) -> bytes:
        try:
            return os.read(self._master, 65536)
        except OSError:  # how Linux says that the other side is closed
            return b""

    @property
    def text(self) -> str:
        """What is on the terminal, without colours."""
        return _ESCAPES.sub("", self.raw)

    @property
    def lines(self) -> list[str]:
        """The lines of :attr:`text`."""
        return self.text.splitlines()

    def close(self) -> None:
        """Give the terminal back."""
        os.close(self._master)
