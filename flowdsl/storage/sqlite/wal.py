"""Whether the write-ahead log holds commits that SQLite will not see.

After a crash SQLite reads its log up to the first frame whose checksum is wrong, and takes what follows for
the remains of a commit that never happened. That is right for the one commit that was under way. It is wrong
for a log that was damaged later: then commits that were acknowledged vanish without a word, and the next one
writes over them. So the log is looked at before SQLite opens it.

How far SQLite will read is found by SQLite, on a copy of the log beside an empty database. What stands behind
that is told by the frames themselves: they carry the salt of the log they belong to, and the last frame of
each commit is marked. One mark may be the commit that was under way; two cannot.
"""

import os
import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path

__all__ = ["lost_commits"]

_HEADER = 32  # bytes of the log's header: magic, version, page size, count, two salts, checksum
_FRAME = 24  # bytes of a frame's header: page, size after commit or 0, two salts, checksum


def lost_commits(path: Path) -> int:
    """How many commits of the database *path* were acknowledged and will not be seen; 0 where all is well.

    A log that others are writing at this moment is looked at twice: what is damaged stays so.
    """
    first = _unseen(path)
    if first is None:
        return 0
    again = _unseen(path)
    return again[1] if again is not None and again[0] == first[0] else 0


def _unseen(path: Path) -> tuple[bytes, int] | None:
    """The first frame that SQLite will not read, and how many commits stand there and behind it, if at least
    two."""
    log = path.with_name(path.name + "-wal")
    try:
        if log.stat().st_size <= _HEADER + _FRAME:
            return None
        content = log.read_bytes()
        page_size = struct.unpack_from(">I", content, 8)[0]
        length = _FRAME + (page_size if page_size > 1 else 65536)
        frames = range(_HEADER, len(content) - length + 1, length)
        seen = _frames_seen(content, page_size)
    except (OSError, struct.error):
        return None  # there is no log, or no room for a copy: SQLite will say what it finds
    # A damaged header hides all frames, and its own salt may be wrong.
    salt = content[_HEADER + 8 : _HEADER + 16] if seen == 0 else content[16:24]
    marks = [
        start
        for start in frames[seen:]
        if content[start + 8 : start + 16] == salt and content[start + 4 : start + 8] != b"\0\0\0\0"
    ]
    if len(marks) < 2:
        return None
    start = frames[seen]
    return content[start : start + length], len(marks)


def _frames_seen(content: bytes, page_size: int) -> int:
    """How many frames SQLite reads of the log *content*."""
    import tempfile  # slow to import, and only needed after a crash

    with tempfile.TemporaryDirectory(prefix="flowdsl-") as directory:
        copy = os.path.join(directory, "copy")
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            for setting in (
                f"page_size = {page_size}",
                "journal_mode = WAL",
                "synchronous = OFF",
                "user_version = 1",
            ):
                connection.execute(f"PRAGMA {setting}")
        with open(f"{copy}-wal", "wb") as file:
            file.write(content)
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            for setting in ("synchronous = OFF", "user_version"):  # whatever reads makes it read the log
                with suppress(sqlite3.Error):
                    connection.execute(f"PRAGMA {setting}").fetchone()
            with open(f"{copy}-shm", "rb") as file:
                (seen,) = struct.unpack("=I", file.read(20)[16:])
    return int(seen)
