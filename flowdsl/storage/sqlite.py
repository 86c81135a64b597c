"""The storage for one machine: a single file that any number of threads and processes share.

How it is put together:

* One *writer* connection per process, behind a lock. ``BEGIN IMMEDIATE`` or a single statement, so a
  transaction never begins as a reader and finds itself outdated when it wants to write.
* *Readers* have connections of their own from a pool; with a write-ahead log they wait for nobody.
* A lock held by another process is waited for, inside SQLite and around it, and never reported as "locked".
* SQLite connections do not survive a fork, and worse, SQLite remembers locks that the child does not hold. So
  before a fork everything is closed, and both sides open again when they need to.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from attrs import define

from flowdsl.core.records import Memo, Run, RunFilter, Signal, Step
from flowdsl.errors import StorageUnavailable
from flowdsl.storage import sqlite_rows as sql
from flowdsl.storage.base import Attention, Done, Operation, Outcome, PutStep, Storage, UpdateRun
from flowdsl.storage.checks import require_id, require_limit, validate
from flowdsl.storage.sqlite_file import (
    NEW_FILE,
    PAUSE,
    WRITER,
    connect,
    create,
    is_busy,
    patiently,
    prepare,
    translate,
)
from flowdsl.storage.sqlite_pool import ReaderPool
from flowdsl.storage.sqlite_writer import Transaction, changes_of, is_unstorable, unstorable
from flowdsl.storage.urls import sqlite_path, sqlite_url

__all__ = ["SQLiteStorage"]

A = TypeVar("A")
T = TypeVar("T")

_POLL = 0.02  # seconds between two looks for commits of other processes, while somebody waits for them
_CHECK = 0.05  # seconds between two looks whether the file is still in its place
_LEVELS = ("full", "normal")


@define(slots=True)
class _Handles:
    """What is open in this process. Replaced as a whole, never repaired."""

    writer: sqlite3.Connection
    readers: ReaderPool
    file: tuple[int, int]
    data_version: int
    checked: float = 0.0

    def close(self) -> bool:
        # The writer goes last: whoever closes last moves the write-ahead log into the file.
        done = self.readers.retire()
        self.writer.close()
        return done


class SQLiteStorage(Storage):
    """Keeps runs in the SQLite file *path*, which is created with its directory if it is missing.

    * *synchronous*: ``"full"`` (default) waits for the disk at each commit, so that what was acknowledged
      survives a power failure. ``"normal"`` does not: a killed process loses nothing, a power failure may
      lose the last commits.
    * *busy_timeout*: seconds to wait for another process that holds the write lock, before
      ``StorageUnavailable``.

    Safe for many threads and processes on one machine; not for network file systems. It can be pickled: the
    copy opens the same file. Raises :class:`~flowdsl.errors.StorageUnavailable` if the file cannot be opened
    or is not ours, and :class:`~flowdsl.errors.SchemaMismatch` if a newer flowdsl wrote it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory, SQLiteStorage(f"{directory}/flow.db") as storage:
    ...     storage.set_run(Run(id="order-17", workflow="shop.checkout", key="k"))
    ...     storage.get_run("order-17").status
    <RunStatus.PENDING: 'pending'>
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: str = "full", busy_timeout: float = 60.0
    ) -> None:
        super().__init__()
        if synchronous not in _LEVELS:
            raise ValueError(f"synchronous is one of {', '.join(_LEVELS)}, not {synchronous!r}")
        if os.fspath(path) in ("", ":memory:"):
            raise ValueError(
                "an SQLiteStorage needs a file; for a storage in memory take MemoryStorage or 'memory://'"
            )
        self._path = Path(os.path.abspath(path))
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self.url = sqlite_url(self._path, synchronous)
        self.inline = synchronous != "full"
        self._lock = threading.Lock()
        self._watched = False
        self._looked = 0.0
        self._box: list[_Handles] = []
        self._closed = False
        self._finalize = weakref.finalize(self, _close, self._box)
        _living.add(self)
        with self._lock:
            self._open()

    @classmethod
    def from_url(cls, url: str, /) -> Self:
        """The storage for ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, with
        ``?synchronous=normal`` if wanted.

        Raises ``ValueError`` for a malformed URL.
        """
        path, options = sqlite_path(url)
        return cls(path, **options)

    def __repr__(self) -> str:
        return f"SQLiteStorage({str(self._path)!r}, synchronous={self._synchronous!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), str(self._path), self._synchronous, self._busy_timeout)

    # Writing ------------------------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        validate(operations)
        with self._lock:
            outcomes = self._write(self._commit, operations)
        self.notify()
        return outcomes

    def _commit(self, writer: sqlite3.Connection, operations: Sequence[Operation]) -> list[Outcome]:
        if len(operations) == 1:
            operation = operations[0]
            fast = _FAST.get(type(operation))
            if fast is not None and (outcome := fast(self, writer, operation)) is not None:
                return [outcome]
        elif not operations:
            return []
        return self._transact(writer, operations)

    def _insert_step(self, writer: sqlite3.Connection, op: PutStep) -> Outcome | None:
        """Try to store a new step in a single statement; ``None`` if this one needs a closer look."""
        step, epoch = op.step, op.epoch
        try:
            if epoch is None:
                cursor = writer.execute(sql.INSERT_STEP, (*sql.step_values(step), step.run_id))
            else:
                cursor = writer.execute(sql.INSERT_STEP_FENCED, (*sql.step_values(step), step.run_id, epoch))
        except Exception as error:
            if is_unstorable(error):
                return unstorable(error)
            raise
        return Done(cursor.lastrowid or 0) if cursor.rowcount == 1 else None

    def _update_run(self, writer: sqlite3.Connection, op: UpdateRun) -> Outcome | None:
        """The same for an update without tags, which stand in another table."""
        if "tags" in op.changes or not (changes := changes_of(op, self.now())):
            return None
        values = [sql.encode_run_field(name, value) for name, value in changes.items()]
        fence = () if op.epoch is None else (op.epoch,)
        statuses = tuple(status.value for status in op.if_status)
        statement = sql.update_run_if(tuple(changes), bool(fence), len(statuses))
        try:
            cursor = writer.execute(statement, (*values, op.run_id, *fence, *statuses))
        except Exception as error:
            if is_unstorable(error):
                return unstorable(error)
            raise
        return Done() if cursor.rowcount == 1 else None

    def _transact(self, writer: sqlite3.Connection, operations: Sequence[Operation] | None) -> list[Outcome]:
        """Apply *operations* in a transaction of several statements; ``None`` clears everything."""
        outcomes: list[Outcome] = []
        writer.execute(sql.BEGIN)
        try:
            transaction = Transaction(writer, self.now())
            if operations is None:
                transaction.clear()
            else:
                outcomes = transaction.apply(operations)
            writer.execute(sql.COMMIT)
        except BaseException:
            if writer.in_transaction:
                writer.execute(sql.ROLLBACK)
            raise
        return outcomes

    def _write(self, work: Callable[[sqlite3.Connection, A], T], argument: A) -> T:
        """Do *work* with the writer, whose lock is held. A lock of another process is waited for, errors are
        mapped."""
        limit = None
        while True:
            handles = self._box[0] if self._box else self._current()
            self._check_file(handles)
            try:
                return work(handles.writer, argument)
            except sqlite3.Error as error:
                limit = limit or time.monotonic() + self._busy_timeout
                if not is_busy(error) or time.monotonic() > limit:
                    self._drop()  # what an error leaves behind is not known: begin anew the next time
                    raise translate(error, self._path) from error
            time.sleep(PAUSE)

    def _check_file(self, handles: _Handles) -> None:
        """Refuse to write into a file that was moved or deleted: nobody would ever find it again."""
        now = time.monotonic()
        if now < handles.checked + _CHECK:
            return
        handles.checked = now
        try:
            status = os.stat(self._path)
            moved = (status.st_dev, status.st_ino) != handles.file
        except OSError:
            moved = True
        if moved:
            self._drop()
            raise StorageUnavailable(
                f"{self._path} was moved, replaced or deleted while it was in use; "
                f"the next call opens what stands there then"
            )

    # Reading ------------------------------------------------------------------------------------------------

    def get_run(self, run_id: str, /) -> Run | None:
        require_id(run_id)
        rows = self._read(sql.GET_RUN, (run_id,))
        return sql.run_of(rows[0]) if rows else None

    def list_runs(self, where: RunFilter = RunFilter(), /) -> list[Run]:  # noqa: B008 - frozen
        require_limit(where.limit)
        return [sql.run_of(row) for row in self._read(*sql.list_runs(where))]

    def get_step(self, run_id: str, key: str, /) -> Step | None:
        require_id(run_id)
        require_id(key, "step key")
        steps = sql.steps_of(run_id, self._read(sql.GET_STEP, (run_id, key)))
        return steps[0] if steps else None

    def list_steps(self, run_id: str, /, *, after: int = 0, limit: int | None = None) -> list[Step]:
        require_id(run_id)
        require_limit(limit)
        return sql.steps_of(run_id, self._read(sql.LIST_STEPS, sql.list_steps(run_id, after, limit)))

    def list_signals(
        self, run_id: str, /, *, name: str | None = None, unread: bool = False, limit: int | None = None
    ) -> list[Signal]:
        require_id(run_id)
        require_limit(limit)
        rows = self._read(*sql.list_signals(run_id, name, unread, limit))
        return [sql.signal_of(run_id, row) for row in rows]

    def get_memo(self, key: str, /) -> Memo | None:
        require_id(key, "memo key")
        rows = self._read(sql.GET_MEMO, (key,))
        return Memo(*rows[0]) if rows else None

    def attention(self, run_ids: Iterable[str], /) -> list[Attention]:
        wanted = list(run_ids)
        for run_id in wanted:
            require_id(run_id)
        found = {}
        for start in range(0, len(wanted), 512):
            chunk = wanted[start : start + 512]
            size = next(size for size in (1, 8, 64, 512) if size >= len(chunk))  # few sizes: few statements
            for row in self._read(sql.attention(size), [*chunk, *chunk[:1] * (size - len(chunk))]):
                found[row[0]] = Attention(row[0], row[1], sql.run_status(row[2]), row[3], row[4])
        return [found[run_id] for run_id in wanted if run_id in found]

    def _read(self, statement: str, values: Sequence[Any]) -> list[sql.Row]:
        readers, reader = self._lend()
        try:
            rows = reader.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            readers.discard(reader)
            if is_busy(error):
                return patiently(lambda: self._read_once(statement, values), self._path, self._busy_timeout)
            raise translate(error, self._path) from error
        except BaseException:
            readers.discard(reader)
            raise
        readers.give_back(reader)
        return rows

    def _read_once(self, statement: str, values: Sequence[Any]) -> list[sql.Row]:
        readers, reader = self._lend()
        try:
            return reader.execute(statement, values).fetchall()
        finally:
            readers.discard(reader)

    def _lend(self) -> tuple[ReaderPool, sqlite3.Connection]:
        while True:
            try:
                readers = self._box[0].readers
            except IndexError:
                with self._lock:
                    readers = self._current().readers
            if (reader := readers.lend()) is not None:
                return readers, reader

    # Changes ------------------------------------------------------------------------------------------------

    def wait_for_change(self, seen: int, timeout: float, /) -> int:
        self._require_open()
        end = time.monotonic() + timeout
        leading = False
        try:
            while True:
                with self._changed:
                    leading = leading or not self._watched
                    self._watched = True
                if leading:
                    self._look_around()
                with self._changed:
                    remaining = end - time.monotonic()
                    if self._version != seen or remaining <= 0 or self._closed:
                        return self._version
                    self._waiting += 1
                    try:
                        self._changed.wait(min(remaining, _POLL) if leading else remaining)
                    finally:
                        self._waiting -= 1
        finally:
            if leading:  # one of those who still wait takes over
                with self._changed:
                    self._watched = False
                    self._changed.notify()

    def _look_around(self) -> None:
        """Notice commits of other processes: a connection's own do not change its ``data_version``."""
        if time.monotonic() - self._looked < _POLL or not self._lock.acquire(blocking=False):
            return  # whoever holds the lock is committing, and will notify
        try:
            self._looked = time.monotonic()
            handles = self._current()
            (version,) = handles.writer.execute(sql.DATA_VERSION).fetchone()
            changed, handles.data_version = version != handles.data_version, version
        except sqlite3.Error as error:
            if not is_busy(error):
                raise translate(error, self._path) from error
            changed = False
        finally:
            self._lock.release()
        if changed:
            self.notify()

    # Life ---------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        with self._lock:
            self._write(self._transact, None)
        self.notify()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._drop()
        self.notify()

    def _require_open(self) -> None:
        if self._closed:
            raise StorageUnavailable(f"the storage on {self._path} was closed; open it again")

    def _current(self) -> _Handles:
        """What is open; opened again if a fork or an error closed it. The lock is held."""
        self._require_open()
        return self._box[0] if self._box else self._open()

    def _open(self) -> _Handles:
        create(self._path)
        handles = patiently(self._connect, self._path, self._busy_timeout)
        self._box.append(handles)
        return handles

    def _connect(self) -> _Handles:
        writer = connect(self._path, *NEW_FILE)
        try:
            prepare(writer, self._path)
            for setting in (f"synchronous = {self._synchronous}", *WRITER):
                writer.execute(f"PRAGMA {setting}").close()
            status = os.stat(self._path)
            (data_version,) = writer.execute(sql.DATA_VERSION).fetchone()
        except BaseException:
            writer.close()
            raise
        readers = ReaderPool(lambda: connect(self._path, "PRAGMA query_only = 1"))
        return _Handles(writer, readers, (status.st_dev, status.st_ino), data_version)

    def _drop(self) -> bool:
        return _close(self._box)


# Operations that one statement, and so one transaction without BEGIN and COMMIT, can do when all is as usual.
_FAST: dict[type, Callable[[SQLiteStorage, sqlite3.Connection, Any], Outcome | None]] = {
    PutStep: SQLiteStorage._insert_step,
    UpdateRun: SQLiteStorage._update_run,
}


def _reopen(cls: type[SQLiteStorage], path: str, synchronous: str, busy_timeout: float) -> SQLiteStorage:
    return cls(path, synchronous=synchronous, busy_timeout=busy_timeout)


def _close(box: list[_Handles]) -> bool:
    return box.pop().close() if box else True


# ------------------------------------------------------------------------------------------------------- fork

_living: "weakref.WeakSet[SQLiteStorage]" = weakref.WeakSet()
_held: list[SQLiteStorage] = []


def _before_fork() -> None:
    for storage in list(_living):
        storage._lock.acquire()
        storage._changed.acquire()
        _held.append(storage)
        storage._drop()


def _after_fork() -> None:
    while _held:
        storage = _held.pop()
        storage._changed.release()
        storage._lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
