"""Locks that a process cannot lose by reading its own database file.

SQLite locks its files the POSIX way. When a process closes any handle on a file, POSIX drops all locks of the
process on it: ``shutil.copy("flow.db", …)`` is enough. Nobody tells SQLite. The next process that closes the
database then takes itself for the last one. It deletes the write-ahead log, to which this process goes on
writing.

So while a database is open, this process also holds *open file description* locks on it. They belong to the
handle, not to the process, so no other close drops them. One is a shared lock on the bytes that SQLite locks
exclusively before it deletes the log. The other is on the byte of the shared memory that tells whether
anybody is there. These locks only exist on Linux. Elsewhere, a look finds that a log was taken away (see
``Connections.complaint``).

If this module closed a handle of its own, that would drop SQLite's locks too. So all storages of a process on
one file share one handle. It is closed with the last of them.
"""

import os
import struct
import threading
from pathlib import Path

from attrs import define

try:
    import fcntl
except ImportError:  # pragma: no cover - not on POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileLocks"]

# Where SQLite locks, see https://www.sqlite.org/src/file/src/os.h and os_unix.c.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
_MEMORY_IN_USE = 128  # a byte of the file "-shm"

_guard = threading.Lock()
_held: dict[tuple[int, int], "_SharedHandle"] = {}  # by device and inode


@define(slots=True, eq=False, repr=False)
class _SharedHandle:
    """A handle shared by all storages of this process on one file."""

    handle: int
    users: int = 0


class FileLocks:
    """The locks of one open database, and of its shared memory."""

    def __init__(self, path: Path) -> None:
        self._files: list[tuple[tuple[int, int], int, int]] = []
        if not hasattr(fcntl, "F_OFD_SETLK"):  # pragma: no cover - not on Linux
            return
        try:
            self._hold(path, _SHARED_FIRST, _SHARED_SIZE)
            self._hold(path.with_name(path.name + "-shm"), _MEMORY_IN_USE, 1)
        except OSError:  # a file system without such locks
            self.yield_to_close()
            self.close()

    def _hold(self, path: Path, start: int, length: int) -> None:
        with _guard:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            held = _held.get(identity)
            if held is None:
                held = _held[identity] = _SharedHandle(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            held.users += 1
            self._files.append((identity, start, length))
            _set(held.handle, True, start, length)

    def yield_to_close(self) -> None:
        """If this is the process's last storage on the file, let SQLite take the file for itself."""
        with _guard:
            for identity, start, length in self._files:
                if _held[identity].users == 1:
                    _set(_held[identity].handle, False, start, length)

    def close(self) -> None:
        """Give the handles back. The last storage closes them. SQLite must have closed its own before."""
        with _guard:
            for identity, _, _ in self._files:
                held = _held[identity]
                held.users -= 1
                if not held.users:
                    del _held[identity]
                    os.close(held.handle)
            self._files = []


def _set(handle: int, shared: bool, start: int, length: int) -> None:
    """Take a shared lock on those bytes, or give it back."""
    assert fcntl is not None  # without fcntl nothing is held
    kind = fcntl.F_RDLCK if shared else fcntl.F_UNLCK
    flock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(handle, fcntl.F_OFD_SETLK, flock)
