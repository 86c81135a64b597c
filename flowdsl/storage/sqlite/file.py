"""The database file: creating it, opening it, bringing its schema up to date, and what its errors mean."""

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from flowdsl.errors import CorruptPayload, SchemaMismatch, StorageError, StorageFull, StorageUnavailable
from flowdsl.storage.migrations import Migration, migrations

__all__ = ["APPLICATION_ID", "connect", "create", "is_busy", "patiently", "prepare", "translate"]

T = TypeVar("T")

APPLICATION_ID = int.from_bytes(b"flow", "big")
"""Written into the file's header, so that we never take another application's database for ours."""

_ATTEMPT = 0.5  # seconds that SQLite itself waits for a lock, and the longest that Ctrl-C goes unheard
PAUSE = 0.005  # seconds before trying again where SQLite refuses at once
NEW_FILE = ("PRAGMA page_size = 2048",)
WRITER = ("wal_autocheckpoint = 0", "journal_size_limit = 67108864", "cache_size = -16000")
"""Small pages make a step cheaper, because it touches two pages of whatever size. ``checkpoint.py`` decides
when the log is moved into the file."""

_OLDEST = (3, 35, 0)
_SPARE = 1 << 20  # bytes: less room than this counts as full

_NOT_A_DATABASE = "{} is not an SQLite database; give another path or move that file away"

# When a process opens and closes a file, it loses all its locks on it (so POSIX says). So no thread may be
# between creating a file and its first lock while another thread creates it too.
_creating = threading.Lock()

# Result codes, see https://www.sqlite.org/rescode.html.
_PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT = 3, 5, 6, 8, 10, 11
_FULL, _CANTOPEN, _PROTOCOL, _AUTH, _NOTADB = 13, 14, 15, 23, 26
_IOERR_WRITE, _IOERR_SHMSIZE, _IOERR_TRUNCATE = 778, 4874, 1546


# Errors -----------------------------------------------------------------------------------------------------


def is_busy(error: sqlite3.Error) -> bool:
    """Whether *error* only says that another connection is at work."""
    return _code(error) & 0xFF in (_BUSY, _LOCKED, _PROTOCOL)


def translate(error: sqlite3.Error, path: Path) -> StorageError:
    """What *error* of the driver means to a user of *path*. Only this function says so."""
    code = _code(error)
    primary = code & 0xFF
    if primary == _FULL or (code in (_IOERR_WRITE, _IOERR_SHMSIZE, _IOERR_TRUNCATE) and _no_room(path)):
        return StorageFull(
            f"no space left for {path} ({error}); nothing acknowledged is lost. "
            f"Make room (disk, quota or file size limit) and run again"
        )
    if is_busy(error):
        return StorageUnavailable(
            f"another process has kept {path} locked for very long ({error}); "
            f"find it with 'fuser {path}', end it, and run again",
            lasting=True,
        )
    if primary == _CORRUPT:
        return StorageError(
            f"{path} is damaged ({error}). Stop all processes that use it, copy it with its '-wal' file, "
            f"and salvage what can be read with: sqlite3 {path} .recover | sqlite3 salvaged.db"
        )
    if primary == _NOTADB:
        return StorageUnavailable(_NOT_A_DATABASE.format(path), lasting=True)
    if primary in (_PERM, _READONLY, _CANTOPEN, _AUTH):
        return StorageUnavailable(
            f"cannot open {path} for writing ({error}); check that its directory exists, "
            f"that this user can write to both, and that the file system is not read-only",
            lasting=True,
        )
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return StorageUnavailable(f"{path} was closed while it was in use", lasting=True)
    if "decode" in str(error):
        return CorruptPayload(f"a text in {path} is damaged: {error}", path=str(path))
    return StorageError(f"SQLite failed on {path}: {error}")


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) or 0


def _no_room(path: Path) -> bool:
    """Whether a file size limit, a full disk or an exhausted quota explains a failed write."""
    try:
        import resource
    except ImportError:  # pragma: no cover - not on POSIX
        pass
    else:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY:
            sizes = [file.stat().st_size for file in path.parent.glob(path.name + "*")]
            if max(sizes, default=0) + _SPARE > limit:
                return True
    try:
        disk = os.statvfs(path.parent)
        return disk.f_bavail * disk.f_frsize < _SPARE
    except OSError:
        return False


def patiently(attempt: Callable[[], T], path: Path, patience: float) -> T:
    """Call *attempt* until no lock is in its way, for *patience* seconds. Raise what its error means."""
    limit = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() > limit:
                raise translate(error, path) from error
        time.sleep(PAUSE)


# Opening ----------------------------------------------------------------------------------------------------


def create(path: Path) -> None:
    """Make sure that *path* is a file. A new one can be read and written by its owner alone."""
    try:
        _refuse_orphaned_log(path)
        with _creating:
            _make_directory(path.parent)
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                pass
        if path.is_dir():
            raise StorageUnavailable(
                f"{path} is a directory; give the path of a file in it, such as {path / 'flow.db'}",
                lasting=True,
            )
        if 0 < path.stat().st_size < 512:  # SQLite would take it for a new database and write over it
            raise StorageUnavailable(_NOT_A_DATABASE.format(path), lasting=True)
        if not os.access(path, os.R_OK | os.W_OK):
            raise StorageUnavailable(
                f"cannot open {path} for writing; it belongs to another user or is read-only", lasting=True
            )
    except OSError as error:
        raise StorageUnavailable(
            f"cannot create {path}: {error.strerror}; give a path in a directory that can be written",
            lasting=True,
        ) from error


def _refuse_orphaned_log(path: Path) -> None:
    """Refuse a log whose database was moved away. SQLite would take it for the new file's, and delete it."""
    log = path.with_name(path.name + "-wal")
    if (not path.exists() or not path.stat().st_size) and log.exists() and log.stat().st_size:
        raise StorageError(
            f"{path} is not there, but its log {log} is, and holds commits that are nowhere else: the "
            f"database was moved or deleted without it. Nothing was changed. Move both files together, or "
            f"delete the log as well"
        )


def _make_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    missing = [directory, *directory.parents]
    missing = missing[: next(i for i, parent in enumerate(missing) if parent.exists())]
    directory.mkdir(parents=True, exist_ok=True)
    for made in missing:  # a new directory outlives a power failure only once the one above it is on disk
        handle = os.open(made.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def connect(
    path: Path, *settings: str, factory: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, after the statements *settings*.

    It opens an existing file and creates nothing. A new database beside the log of one that was moved away
    would end that log.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StorageUnavailable(
            f"this Python has SQLite {sqlite3.sqlite_version}; flowdsl needs "
            f"{'.'.join(map(str, _OLDEST))} or newer"
        )
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_ATTEMPT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=factory,
    )
    try:
        for statement in settings:
            connection.execute(statement).close()
    except BaseException:  # an interrupt, too, must leave no connection open
        sqlite3.Connection.close(connection)
        raise
    return connection


def copy_file(source: Path, target: Path) -> None:
    """Copy the database *source* to the new file *target*. SQLite itself does it, so the log is copied
    too."""
    if target.exists():
        raise FileExistsError(f"{target} is there already: give the name of a new file")
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    create(unfinished)
    try:
        with closing(connect(source)) as reader, closing(connect(unfinished)) as writer:
            reader.backup(writer)
            writer.execute("PRAGMA journal_mode = DELETE").close()  # one file, without a log beside it
            (found,) = writer.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StorageError(f"{source} is damaged, and so would be its copy: {found}")
        os.link(unfinished, target)  # unlike a rename, it never replaces a file that was made meanwhile
    except sqlite3.Error as error:
        raise translate(error, target) from error
    finally:
        unfinished.unlink(missing_ok=True)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is not ours, switch to WAL, update the schema. Call it again if it was busy."""
    supported = migrations("sqlite")
    newest = supported[-1].version
    found = _version(connection, path, newest)
    # Not in a transaction: the mode cannot change inside one.
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StorageUnavailable(
            f"{path} stands on a file system where SQLite cannot use its write-ahead log; "
            f"put it on a local disk",
            lasting=True,
        )
    if found < newest:
        _migrate(connection, path, supported)


def _version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """The schema's version; 0 in an empty file. Refuses a newer one, and a database that is not ours."""
    own = not connection.in_transaction
    if own:  # in one look, because another process may be making the schema now
        connection.execute("BEGIN")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if own:
        connection.execute("COMMIT")
    if application != APPLICATION_ID and (application or version or tables):
        raise StorageUnavailable(
            f"{path} is the database of another application; "
            f"flowdsl needs a file of its own: give another path",
            lasting=True,
        )
    if version > newest:
        raise SchemaMismatch(
            f"{path} has schema version {version}, and this flowdsl knows versions up to {newest}: "
            f"upgrade flowdsl, or give another path",
            found=version,
            supported=newest,
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path, supported: Sequence[Migration]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again: another process may have done it while this one waited for the lock.
        found = _version(connection, path, supported[-1].version)
        for migration in supported:
            if migration.version > found:
                for statement in statements(migration.sql):
                    connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {supported[-1].version}")
        connection.execute("COMMIT")
    except BaseException:  # an interrupt, too, must leave no transaction open
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(script: str) -> Iterator[str]:
    """The single statements of *script*. (``executescript`` would commit first.)"""
    statement = ""
    for piece in re.split("(?<=;)", script):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
