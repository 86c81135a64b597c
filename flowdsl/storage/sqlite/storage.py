"""The storage for one machine: a single file that any number of threads and processes share.

How it is put together:

* One *writer* connection per process, behind a lock. ``BEGIN IMMEDIATE`` or a single statement, so no
  transaction begins as a reader and then finds that it is outdated when it wants to write.
* *Readers* take their own connections from a pool. With a write-ahead log they wait for nobody.
* If another process holds a lock, we wait for it, inside SQLite and around it. "Locked" is never reported.
* SQLite connections do not survive a fork. SQLite even remembers locks that the child does not hold. So
  everything is closed before a fork, and both sides open again when they need to.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from flowdsl.blocks import block
from flowdsl.errors import CorruptPayload, StorageError, StorageFull, StorageUnavailable
from flowdsl.storage.forking import rest_before_fork
from flowdsl.storage.operations import Operation, require_operations
from flowdsl.storage.outcomes import Outcome
from flowdsl.storage.pulses import Pulses
from flowdsl.storage.sqlite import rows
from flowdsl.storage.sqlite.apply import apply
from flowdsl.storage.sqlite.checkpoint import Checkpoints
from flowdsl.storage.sqlite.connections import Connections, Reader, ReaderPool
from flowdsl.storage.sqlite.file import PAUSE, copy_file, is_busy, translate
from flowdsl.storage.sqlite.fragments import chunks_of
from flowdsl.storage.sqlite.read_statements import pulses
from flowdsl.storage.sqlite.reading import SQLiteReading
from flowdsl.storage.sqlite.step_transactions import SQLiteTransaction, begun
from flowdsl.storage.sqlite.transaction import Transaction
from flowdsl.storage.sqlite.url import sqlite_path, sqlite_url
from flowdsl.storage.sqlite.writer import Writer

__all__ = ["SQLiteStorage"]

A = TypeVar("A")

_POLL = 0.02  # seconds between two looks for commits of other processes, if somebody waits for them
_REST = 5.0  # seconds that a fork waits for a commit that has begun
_LEVELS = ("full", "normal")
_PATIENCE = 30.0  # seconds that a writer waits for other processes


class SQLiteStorage(SQLiteReading):
    """Keeps runs in the SQLite file *path*, which is created with its directory if it is missing.

    * *synchronous*: ``"full"`` (default) waits for the disk at each commit. So what was acknowledged survives
      a power failure. ``"normal"`` does not wait: a killed process loses nothing, but a power failure may
      lose the last commits.
    * *patience*: seconds to wait for another process that holds the write lock, before
      ``StorageUnavailable``.

    It is safe for many threads and processes on one machine, but not on network file systems. It can be
    pickled. The copy opens the same file. Raises :class:`~flowdsl.errors.StorageUnavailable` if the file
    cannot be opened or is not ours, and :class:`~flowdsl.errors.SchemaMismatch` if a newer flowdsl wrote it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory, SQLiteStorage(f"{directory}/flow.db") as storage:
    ...     storage.set_run(Run(id="order-17", workflow="shop.checkout", key="k"))
    ...     storage.get_run("order-17").status
    <RunStatus.PENDING: 'pending'>
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: str = "full", patience: float = _PATIENCE
    ) -> None:
        super().__init__()
        synchronous = synchronous.lower() if isinstance(synchronous, str) else synchronous
        if synchronous not in _LEVELS:
            raise ValueError(f"synchronous is one of {', '.join(_LEVELS)}, not {synchronous!r}")
        if not 0 <= patience < float("inf"):
            raise ValueError(f"patience is a number of seconds, not {patience!r}")
        if os.fspath(path) in ("", ":memory:"):
            raise ValueError(
                "an SQLiteStorage needs a file; for a storage in memory take MemoryStorage or 'memory://'"
            )
        if "://" in os.fsdecode(path):
            raise ValueError(f"an SQLiteStorage takes a path; for a URL, write open_storage({path!r})")
        self._path = Path(os.path.abspath(path))
        self._synchronous = synchronous
        self.patience = patience
        options: dict[str, Any] = {"synchronous": synchronous, "patience": patience}
        usual = {"synchronous": "full", "patience": _PATIENCE}
        self.url = sqlite_url(str(self._path), **{k: v for k, v in options.items() if v != usual[k]})
        self.inline = synchronous != "full"
        self.shares = self.transacts = self.alone = self.merges_tags = True
        self._lock = threading.Lock()  # guards the writer, and all that is open
        self._open: list[Connections] = []  # one or none; whoever needs it opens it again
        self._checkpoints = Checkpoints(self._path, self._lock)
        self._pulses = Pulses()
        self._watching = threading.Lock()  # held by the waiter that looks on behalf of all
        self._refusal = ""
        self._rests = False
        self._transactions = 0  # transactions of bodies that are open now
        weakref.finalize(self, _close_at_the_end, self._lock, self._open)
        rest_before_fork(self)
        with self._lock:
            self._connections()

    @classmethod
    def from_url(cls, url: str, /) -> Self:
        """The storage for ``sqlite:///relative.db`` or ``sqlite:////absolute.db?synchronous=normal&patience=30``.

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
        require_operations(operations)
        outcomes = self._write(Writer.commit, operations, len(operations))
        self.announce(operations)
        return outcomes

    def commit_within(self, connection: Any, operations: Sequence[Operation], /) -> list[Outcome]:
        if not isinstance(connection, sqlite3.Connection):
            return super().commit_within(connection, operations)
        require_operations(operations)
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        return apply(Transaction(connection, self.now()), operations)

    @block
    def transaction(self) -> Iterator[SQLiteTransaction]:
        with self._lock:
            self._connections()  # the file has not been moved
        with begun(self._path, self._synchronous, self.patience, self.now) as transaction:
            self._transactions += 1
            try:
                yield transaction
            finally:
                self._transactions -= 1
        with self._lock:
            if transaction.committed and self._open:
                self._checkpoints.count(self._open[0].writer.connection, 2)

    def clear(self) -> None:
        self._write(Writer.clear, None, 1)
        self.notify()

    def _write(
        self, work: Callable[[Writer, A, float], list[Outcome]], argument: A, size: int
    ) -> list[Outcome]:
        """Do *work* with the writer. Wait for the locks of other processes, and map errors."""
        limit = None
        with self._lock:
            while True:
                writer = self._connections().writer
                try:
                    outcomes = work(writer, argument, self.now())
                except sqlite3.Error as error:
                    limit = limit or time.monotonic() + self.patience
                    if not is_busy(error) or time.monotonic() > limit:
                        meaning = translate(error, self._path)
                        if writer.connection.in_transaction or not isinstance(meaning, StorageFull):
                            self._drop()  # nobody knows what the error left behind
                        raise meaning from error
                else:
                    self._checkpoints.count(writer.connection, size)
                    return outcomes
                time.sleep(PAUSE)

    # Reading -----------------------------------------------------------------------------------------------

    def _read(self, statement: str, values: Sequence[Any], of: str = "") -> list[rows.Row]:
        """The rows of a statement. If a text of run *of* is no UTF-8, the error names the run. Where rows of
        many runs are read, such a text comes as bytes, so that the other rows are read."""
        text: Callable[[bytes], Any] = str if of else rows.or_bytes
        limit = None
        while True:
            readers = self._readers()
            reader: Reader | None = None
            try:
                if (reader := readers.lend()) is None:
                    continue  # it was closed in between
                found = reader.read(statement, values, text)
            except UnicodeEncodeError:  # no row holds such a text, because writing it is refused
                if reader is not None:
                    readers.give_back(reader)
                return []
            except sqlite3.Error as error:
                if reader is not None:
                    reader.close()
                limit = limit or time.monotonic() + self.patience
                if not is_busy(error) or time.monotonic() > limit:
                    meaning = translate(error, self._path)
                    if of and isinstance(meaning, CorruptPayload):
                        meaning = CorruptPayload(f"a text of run {of!r} is damaged: {error}", run=of)
                    raise meaning from error
            else:
                readers.give_back(reader)
                return found
            time.sleep(PAUSE)

    def _readers(self) -> ReaderPool:
        try:
            return self._open[0].readers  # without the lock: a writer may hold it as long as an fsync takes
        except IndexError:
            with self._lock:
                return self._connections().readers

    # Changes -----------------------------------------------------------------------------------------------

    def wait_for_change(self, seen: int, timeout: float, /, topics: Iterable[str] = ()) -> int:
        """As in the base class. One of those who wait also looks for commits of other processes."""
        self._require_open()
        wanted = frozenset(topics)
        if self._look(wanted):
            return self._changes.version
        watches = False

        def pause(left: float) -> float:
            nonlocal watches
            watches = watches or self._watching.acquire(blocking=False)
            if not self._refusal:
                self._look(wanted)  # once more: it may have missed a look for those who waited before it
            return self._watch(left) if watches else left

        try:
            return self._changes.wait(seen, timeout, wanted, pause)
        finally:
            if watches:
                self._watching.release()
            if not self._watching.locked():
                self._changes.nudge()  # another waiter takes over

    def _look(self, topics: Iterable[str]) -> bool:
        """Tell which of *topics* may have changed since they were looked at. Returns whether any has."""
        changed = self._pulses.look(topics, self._read_pulses)
        if changed:
            self._changes.say(changed)
        return bool(changed)

    def _watch(self, left: float) -> float:
        """Look for commits of other processes, and tell what they changed. Returns how long to sleep then."""
        if self._refusal:
            self._changes.say()
        elif self._others_committed():
            self._pulses.outdate()
            self._changes.say()  # for those who wait for any change
            try:
                self._look(self._changes.waited_for())
            except StorageError:
                self._changes.say_all()  # nobody looks at this commit again
                raise
        return min(left, _POLL)

    def _read_pulses(self, run_ids: list[str]) -> list[tuple[str, int]]:
        return [
            (row[0], row[1]) for chunk in chunks_of(run_ids) for row in self._read(pulses(len(chunk)), chunk)
        ]

    def _others_committed(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False  # whoever holds it commits, and will notify
        try:
            return self._connections().changed()
        except sqlite3.Error as error:
            if is_busy(error):
                return False
            raise translate(error, self._path) from error
        finally:
            self._lock.release()

    # Life --------------------------------------------------------------------------------------------------

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy everything into the new file *path*, as it is at one moment. Others may go on writing.

        The copy is a whole database, and opens like any other. It gets its name only when it is complete and
        on disk. Raises ``FileExistsError`` if there is something of that name already, and
        :class:`~flowdsl.errors.StorageError` if the copy cannot be made.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory, SQLiteStorage(f"{directory}/flow.db") as storage:
        ...     storage.backup(f"{directory}/copy.db")
        ...     SQLiteStorage(f"{directory}/copy.db").close()
        """
        self._require_open()
        copy_file(self._path, Path(os.path.abspath(path)))

    def close(self) -> None:
        with self._lock:
            self._refusal = f"the storage on {self._path} was closed; open it again"
            self._drop()
        self.notify()

    def _require_open(self) -> None:
        if self._refusal:
            raise StorageUnavailable(self._refusal, lasting=True)

    def _connections(self) -> Connections:
        """All that is open. It is opened again if a fork or an error has closed it. The caller holds the
        lock."""
        if self._open:
            connections = self._open[0]
            complaint = connections.complaint()
            if not complaint:
                return connections
            self._drop()
            raise StorageUnavailable(f"{complaint}; the next call opens what stands there then", lasting=True)
        self._require_open()
        connections = Connections.open(self._path, self._synchronous, self.patience)
        self._open.append(connections)
        self._changes.say_all()  # nobody has looked meanwhile
        return connections

    def _drop(self) -> None:
        if self._open:
            self._open.pop().close()

    # SQLite connections do not survive a fork. SQLite even remembers locks of this process that the child
    # does not hold, and a new connection of the child would rely on them. So nothing is open during a fork.

    def before_fork(self) -> None:
        self._rests = (
            not self._transactions and self._checkpoints.acquire(_REST) and self._lock.acquire(timeout=_REST)
        )
        if self._rests:
            self._drop()
        self._changes.before_fork()

    def after_fork(self, in_child: bool) -> None:
        self._changes.after_fork(in_child)
        if self._rests:
            self._lock.release()
            self._checkpoints.release()
        if in_child:
            self._watching = threading.Lock()
        if in_child and not self._rests:
            _leaked.extend(self._open)
            self._open.clear()
            self._refusal = (
                f"this process was forked while {self._path} was busy, and cannot use it; "
                "start processes with 'spawn'"
            )
            self._lock = threading.Lock()


_leaked: list[Connections] = []
"""Connections of the parent: to close them here would end the parent's locks."""


def _close_at_the_end(lock: threading.Lock, connections: list[Connections]) -> None:
    """Close what nobody has closed, unless another thread still works with it while the interpreter exits."""
    if lock.acquire(timeout=1.0):
        try:
            while connections:
                connections.pop().close(patience=0.2)
        finally:
            lock.release()
