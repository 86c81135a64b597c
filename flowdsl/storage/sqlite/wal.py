"""Whether the write-ahead log holds commits that SQLite will not see.

After a crash, SQLite reads its log up to the first frame with a wrong checksum. It takes the rest for a
commit that never happened. That is right for the one commit that was being made. It is wrong if the log was
damaged later: then acknowledged commits vanish without a word, and the next commit overwrites them. So we
look at the log before SQLite opens it.

SQLite itself tells how far it will read: it opens a copy of the log beside an empty database. The frames
behind that tell the rest. Each has the salt of its log, and the last frame of each commit has a mark. One
mark may be the commit that was being made. Two cannot.
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
    """How many acknowledged commits of the database *path* SQLite will not see. 0 if all is well.

    Others may be writing the log at this moment, so we look twice. Damage stays.
    """
    first = _unseen(path)
    if first is None:
        return 0
    again = _unseen(path)
    return again[1] if again is not None and again[0] == first[0] else 0


def _unseen(path: Path) -> tuple[bytes, int] | None:
    """The first frame that SQLite will not read, and how many commits are there and behind it. ``None`` for
    fewer than two."""
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
        return None  # there is no log, or no room for a copy. SQLite will say what it finds
    # A damaged header hides all frames, and the salt in it may be wrong.
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
    import tempfile  # slow to import, and needed only after a crash

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
            for setting in ("synchronous = OFF", "user_version"):  # any read makes SQLite read the log
                with suppress(sqlite3.Error):
                    connection.execute(f"PRAGMA {setting}").fetchone()
            with open(f"{copy}-shm", "rb") as file:
                (seen,) = struct.unpack("=I", file.read(20)[16:])
    return int(seen)
