"""A real terminal of a given width, to see what a person sees."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable

import forked

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _plain(text: str) -> str:
    """The text without what moves the cursor; where it goes to the top, a new picture begins."""
    return _ESCAPES.sub("", text.replace("\x1b[H", "\n"))


class Terminal:
    """Runs *command* in a terminal of *width* columns to its end.

    *seen_so_far* is told what came so far, *follow* the number of the process as well.
    """

    def __init__(
        self,
        command: list[str],
        width: int,
        seen_so_far: Callable[[str], None] | None = None,
        follow: Callable[[str, int], None] | None = None,
        **environment: str,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", **environment}
        process = forked.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        seen = b""
        while chunk := self._read():
            seen += chunk
            text = _plain(seen.decode("utf-8", "replace"))
            if seen_so_far is not None:
                seen_so_far(text)
            if follow is not None:
                follow(text, process.pid)
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
        return _plain(self.raw)

    @property
    def lines(self) -> list[str]:
        """The lines of :attr:`text`."""
        return self.text.splitlines()

    def close(self) -> None:
        """Give the terminal back."""
        os.close(self._master)
