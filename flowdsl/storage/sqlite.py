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

from flowdsl.core.records import Memo, Run, RunFilter, Signal, Step
from flowdsl.errors import StorageFull, StorageUnavailable
from flowdsl.storage import sqlite_rows as sql
from flowdsl.storage.base import Attention, Operation, Outcome, Storage
from flowdsl.storage.checks import require_id, require_limit, validate
from flowdsl.storage.forking import rest_before_fork
from flowdsl.storage.sqlite_commit import clear, commit
from flowdsl.storage.sqlite_file import PAUSE, is_busy, translate
from flowdsl.storage.sqlite_handles import Handles
from flowdsl.storage.sqlite_pool import Reader, ReaderPool
from flowdsl.storage.sqlite_urls import sqlite_path, sqlite_url

__all__ = ["SQLiteStorage"]

A = TypeVar("A")

_POLL = 0.02  # seconds between two looks for commits of other processes, while somebody waits for them
_REST = 5.0  # seconds that a fork waits for a commit under way
_LEVELS = ("full", "normal")
_PATIENCE = 60.0  # seconds that a writer waits for other processes


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
        self, path: str | os.PathLike[str], *, synchronous: str = "full", busy_timeout: float = _PATIENCE
    ) -> None:
        super().__init__()
        synchronous = synchronous.lower() if isinstance(synchronous, str) else synchronous
        if synchronous not in _LEVELS:
            raise ValueError(f"synchronous is one of {', '.join(_LEVELS)}, not {synchronous!r}")
        if not 0 <= busy_timeout < float("inf"):
            raise ValueError(f"busy_timeout is a number of seconds, not {busy_timeout!r}")
        if os.fspath(path) in ("", ":memory:"):
            raise ValueError(
                "an SQLiteStorage needs a file; for a storage in memory take MemoryStorage or 'memory://'"
            )
        if "://" in os.fsdecode(path):
            raise ValueError(f"an SQLiteStorage takes a path; for a URL, write open_storage({path!r})")
        self._path = Path(os.path.abspath(path))
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        options: dict[str, Any] = {"synchronous": synchronous, "busy_timeout": busy_timeout}
        usual = {"synchronous": "full", "busy_timeout": _PATIENCE}
        self.url = sqlite_url(str(self._path), **{k: v for k, v in options.items() if v != usual[k]})
        self.inline = synchronous != "full"
        self._lock = threading.Lock()  # of the writer, and of what is open at all
        self._open: list[Handles] = []  # one, or none: opened again by who needs it
        self._refusal = ""
        self._watched = False
        self._rests = False
        weakref.finalize(self, _close_at_the_end, self._lock, self._open)
        rest_before_fork(self)
        with self._lock:
            self._handles()

    @classmethod
    def from_url(cls, url: str, /) -> Self:
        """The storage for ``sqlite:///relative.db`` or ``sqlite:////absolute.db?synchronous=normal``.

        Raises ``ValueError`` for a malformed URL.
        """
        path, options = sqlite_path(url)
        return cls(path, **options)

    def __repr__(self) -> str:
        return f"SQLiteStorage({str(self._path)!r}, synchronous={self._synchronous!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_url, (self.url,)

    # Writing -----------------------------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        validate(operations)
        outcomes = self._write(commit, operations)
        self.notify()
        return outcomes

    def clear(self) -> None:
        self._write(clear, None)
        self.notify()

    def _write(
        self, work: Callable[[sqlite3.Connection, A, float], list[Outcome]], argument: A
    ) -> list[Outcome]:
        """Do *work* with the writer. A lock of another process is waited for, errors are mapped."""
        limit = None
        with self._lock:
            while True:
                handles = self._handles()
                try:
                    return work(handles.writer, argument, self.now())
                except sqlite3.Error as error:
                    limit = limit or time.monotonic() + self._busy_timeout
                    if not is_busy(error) or time.monotonic() > limit:
                        meaning = translate(error, self._path)
                        if handles.writer.in_transaction or not isinstance(meaning, StorageFull):
                            self._drop()  # what the error left behind is not known: begin anew the next time
                        raise meaning from error
                time.sleep(PAUSE)

    # Reading -----------------------------------------------------------------------------------------------

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
                found[row[0]] = sql.attention_of(row)
        return [found[run_id] for run_id in wanted if run_id in found]

    def _read(self, statement: str, values: Sequence[Any]) -> list[sql.Row]:
        limit = None
        while True:
            readers = self._readers()
            reader: Reader | None = None
            try:
                if (reader := readers.lend()) is None:
                    continue  # all was closed in between
                rows = reader.execute(statement, values).fetchall()
            except UnicodeEncodeError:  # such a text is refused when it is written, so no row holds it
                if reader is not None:
                    readers.give_back(reader)
                return []
            except sqlite3.Error as error:
                if reader is not None:
                    reader.close()
                limit = limit or time.monotonic() + self._busy_timeout
                if not is_busy(error) or time.monotonic() > limit:
                    raise translate(error, self._path) from error
            else:
                readers.give_back(reader)
                return rows
            time.sleep(PAUSE)

    def _readers(self) -> ReaderPool:
        try:
            return self._open[0].readers  # without the lock: a writer may hold it for the time of an fsync
        except IndexError:
            with self._lock:
                return self._handles().readers

    # Changes -----------------------------------------------------------------------------------------------

    def wait_for_change(self, seen: int, timeout: float, /) -> int:
        """As in the base class; one of those who wait also looks for the commits of other processes."""
        self._require_open()
        end = time.monotonic() + timeout
        with self._changed:
            self._waiting += 1
            try:
                while self._version == seen and not self._refusal and (left := end - time.monotonic()) > 0:
                    if self._watched:
                        self._changed.wait(left)
                    else:
                        self._watch(seen, end)
            finally:
                self._waiting -= 1
            return self._version

    def _watch(self, seen: int, end: float) -> None:
        self._watched = True
        try:
            while self._version == seen and not self._refusal:
                if self._others_committed():
                    self.notify()
                elif (left := end - time.monotonic()) > 0:
                    self._changed.wait(min(left, _POLL))
                else:
                    return
        finally:
            self._watched = False
            self._changed.notify()  # somebody else takes over

    def _others_committed(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False  # whoever holds it is committing, and will notify
        try:
            return self._handles().changed()
        except sqlite3.Error as error:
            if is_busy(error):
                return False
            raise translate(error, self._path) from error
        finally:
            self._lock.release()

    # Life --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._lock:
            self._refusal = f"the storage on {self._path} was closed; open it again"
            self._drop()
        self.notify()

    def _require_open(self) -> None:
        if self._refusal:
            raise StorageUnavailable(self._refusal, lasting=True)

    def _handles(self) -> Handles:
        """What is open; opened again if a fork or an error closed it. The caller holds the lock."""
        if self._open:
            handles = self._open[0]
            if not handles.moved():
                return handles
            self._drop()
            raise StorageUnavailable(
                f"{self._path} was moved, replaced or deleted while it was in use; "
                f"the next call opens what stands there then",
                lasting=True,
            )
        self._require_open()
        handles = Handles.open(self._path, self._synchronous, self._busy_timeout)
        self._open.append(handles)
        self._version = next(self._versions)  # nobody has watched meanwhile
        return handles

    def _drop(self) -> None:
        if self._open:
            self._open.pop().close()

    # SQLite connections do not survive a fork, and worse: SQLite remembers locks of this process that the
    # child does not hold, so that even a new connection of the child would rely on them. A fork finds nothing
    # open.

    def before_fork(self) -> None:
        self._changed.acquire()
        self._rests = self._lock.acquire(timeout=_REST)
        if self._rests:
            self._drop()

    def after_fork(self, in_child: bool) -> None:
        if self._rests:
            self._lock.release()
        self._changed.release()
        if in_child:
            self._changed, self._waiting, self._watched = threading.Condition(), 0, False
        if in_child and not self._rests:
            _leaked.extend(self._open)
            self._open.clear()
            self._refusal = (
                f"this process was forked while {self._path} was busy, and cannot use it; "
                "start processes with 'spawn'"
            )
            self._lock = threading.Lock()


_leaked: list[Handles] = []
"""Handles of the parent: to close them here would end the parent's locks."""


def _close_at_the_end(lock: threading.Lock, handles: list[Handles]) -> None:
    """Close what nobody closed, unless another thread is at work with it while the interpreter exits."""
    if lock.acquire(timeout=1.0):
        try:
            while handles:
                handles.pop().close(patience=0.2)
        finally:
            lock.release()
