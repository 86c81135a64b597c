"""The checks of ``flowdsl doctor`` for an SQLite storage. They only read; nothing is made or repaired."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from attrs import field, frozen

from flowdsl.core.words import size
from flowdsl.storage.migrations import migrations
from flowdsl.storage.sqlite.file import APPLICATION_ID

__all__ = ["OK", "PROBLEM", "WARNING", "Check", "sqlite_checks", "sqlite_race"]

OK, WARNING, PROBLEM = "ok", "warning", "problem"

_LOW, _VERY_LOW = 256 << 20, 16 << 20  # bytes of free disk
_LARGE_WAL = 64 << 20  # SQLite restarts its log long before that, unless a reader never ends
_NETWORK = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs")

_RACE_FIXED = (3, 51, 3)
_RACE_FIXED_IN_BRANCH = ((3, 44, 6), (3, 50, 7))

_SYNCHRONOUS = {
    "full": "full: what was acknowledged survives a power failure",
    "normal": "normal: a power failure may lose the last commits; a killed process loses nothing",
}


@frozen(slots=True)
class Check:
    """One line of the report. Programs read *name* and *facts*, as JSON."""

    name: str
    state: str
    message: str
    facts: dict[str, object] = field(factory=dict)


def sqlite_race(version: tuple[int, ...]) -> bool:
    """Whether this version of SQLite has the WAL-reset race.

    >>> sqlite_race((3, 40, 1)), sqlite_race((3, 50, 7)), sqlite_race((3, 51, 3))
    (True, False, False)
    """
    in_branch = any(version[:2] == fixed[:2] and version >= fixed for fixed in _RACE_FIXED_IN_BRANCH)
    return version < _RACE_FIXED and not in_branch


def sqlite_checks(path: Path, synchronous: str) -> Iterator[Check]:
    """Check the database file *path*. Ends early if the file cannot be read further."""
    if path.is_dir():
        yield Check("schema", PROBLEM, "this is a directory; give the path of a file in it")
        return
    yield _permissions(path)
    yield from _space(path)
    try:
        # A read-only connection neither creates nor migrates anything.
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)) as database:
            schema = _schema(database)
            yield schema
            if schema.state != PROBLEM:
                yield _integrity(database)
                yield Check(
                    "synchronous", OK, _SYNCHRONOUS.get(synchronous, synchronous), {"mode": synchronous}
                )
    except sqlite3.Error as error:
        yield Check("schema", PROBLEM, f"cannot be read: {error}")


def _schema(database: sqlite3.Connection) -> Check:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    supported = migrations("sqlite")[-1].version
    facts: dict[str, object] = {"version": version, "supported": supported}
    if application != APPLICATION_ID and (application or version or tables):
        return Check("schema", PROBLEM, "this is the database of another application", facts)
    if version > supported:
        text = f"version {version}, and this flowdsl knows versions up to {supported}: upgrade flowdsl"
        return Check("schema", PROBLEM, text, facts)
    if version < supported:
        text = f"version {version}; the next program that opens it brings it to {supported}"
        return Check("schema", WARNING, text, facts)
    return Check("schema", OK, f"version {version}, the one that this flowdsl writes", facts)


def _integrity(database: sqlite3.Connection) -> Check:
    found = [" ".join(str(row[0]).split()) for row in database.execute("PRAGMA quick_check(5)")]
    if found == ["ok"]:
        return Check("integrity", OK, "quick_check found no damage")
    advice = "stop all programs that use it, copy it with its -wal file, salvage with: sqlite3 FILE .recover"
    return Check("integrity", PROBLEM, f"damaged: {'; '.join(found)}. {advice}", {"found": found})


# ------------------------------------------------------------------------------------------- around the file


def _permissions(path: Path) -> Check:
    """Who can read and write the file. Loading a stored pickle can execute code, so whoever can write can do
    that."""
    folder = stat.S_IMODE(path.parent.stat().st_mode)
    mode = stat.S_IMODE(path.stat().st_mode)
    shown = f"mode {mode:04o}"
    entered = folder & (stat.S_IXGRP | stat.S_IXOTH)
    replaceable = folder & stat.S_IWOTH and not folder & stat.S_ISVTX
    if not os.access(path, os.R_OK | os.W_OK):
        state, text = PROBLEM, f"this user cannot read and write it ({shown})"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        state, text = PROBLEM, f"this user cannot create files in {path.parent}, which SQLite has to"
    elif entered and (mode & (stat.S_IWGRP | stat.S_IWOTH) or replaceable):
        state = PROBLEM
        text = f"other users can change it ({shown}), and so execute code in your programs: chmod 600 {path}"
    elif entered and mode & (stat.S_IRGRP | stat.S_IROTH):
        state, text = WARNING, f"other users can read arguments and results ({shown}): chmod 600 {path}"
    elif mode & (stat.S_IRWXG | stat.S_IRWXO):
        state = WARNING
        text = f"only the folder keeps other users out ({shown}): chmod 600 {path}"
    else:
        state, text = OK, f"{shown}: no other user can read it"
    return Check("permissions", state, text, {"mode": f"{mode:04o}"})


def _space(path: Path) -> Iterator[Check]:
    wal = path.with_name(path.name + "-wal")
    main, log = path.stat().st_size, wal.stat().st_size if wal.exists() else 0
    yield Check("size", OK, size(main), {"bytes": main})
    if log > _LARGE_WAL:
        text = f"{size(log)}: a program that reads for very long keeps it from being merged into the file"
        yield Check("write_ahead_log", WARNING, text, {"bytes": log})
    else:
        yield Check("write_ahead_log", OK, size(log), {"bytes": log})
    free = shutil.disk_usage(path.parent).free
    state = PROBLEM if free < _VERY_LOW else WARNING if free < max(_LOW, log) else OK
    text = f"{size(free)} free" + (": make room before it is full" if state != OK else "")
    yield Check("disk", state, text, {"free": free})
    kind = file_system(path)
    if kind.startswith(_NETWORK):
        text = f"on a network file system ({kind}), where SQLite may lose data: put it on a local disk"
        yield Check("file_system", PROBLEM, text, {"type": kind})


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds *path*, or ``""`` if it cannot be found out."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split(" ")[4].replace("\\040", " ")
        if len(mount) >= len(best) and path.is_relative_to(mount):
            best, kind = mount, right.split(" ")[0]
    return kind
