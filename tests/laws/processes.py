"""Storages for programs, and processes that die where a fault says so."""

import atexit
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from grammar import Fault
from postgres_server import postgres_url
from support import Crash, Mortal

from flowdsl.clock import Clock
from flowdsl.errors import FlowError
from flowdsl.runtime import engine_of
from flowdsl.storage import MemoryStorage, SQLiteStorage, Storage
from flowdsl.storage.base import Operation, UpdateRun

__all__ = ["Process", "fresh", "threads_die"]


@cache
def _kept(kind: str) -> Storage:
    """The one of this process: to empty it takes less than to make another one."""
    if kind == "postgres":
        from flowdsl.storage import PostgresStorage

        storage: Storage = PostgresStorage(postgres_url())
    else:
        folder = tempfile.TemporaryDirectory()
        atexit.register(folder.cleanup)
        storage = SQLiteStorage(Path(folder.name) / "flow.db", synchronous="normal")
    atexit.register(storage.close)
    return storage


@contextmanager
def fresh(kind: str) -> Iterator[Storage]:
    """An empty storage: ``memory``, ``sqlite`` or ``postgres``."""
    if kind == "memory":
        with MemoryStorage() as storage:
            yield storage
        return
    storage = _kept(kind)
    storage.clear()
    yield storage


@contextmanager
def threads_die() -> Iterator[None]:
    """A thread that the death of its process ends says nothing: the keeper, whose flush another one
    commits."""
    before = threading.excepthook
    threading.excepthook = lambda given: None if given.exc_type is Crash else before(given)
    try:
        yield
    finally:
        threading.excepthook = before


class Process(Mortal):
    """The storage of a process that dies as a whole: what waits in it does not wait on."""

    def __init__(self, storage: Storage, fault: Fault | None, clock: Clock) -> None:
        at = None if fault is None or fault.body else _completes if fault.end else fault.at
        super().__init__(storage, at, after=fault is not None and fault.after, error=self.die)
        self.bodies = 0
        self.runtime: Any = None
        self.died_at: float | None = None
        self._last_body = fault.at if fault is not None and fault.body else None
        self._clock = clock

    def body(self) -> None:
        """A body begins. The caller holds the lock of its world."""
        if self.dead:
            raise Crash
        number, self.bodies = self.bodies, self.bodies + 1
        if number == self._last_body:
            raise self.die()

    def die(self) -> BaseException:
        """Everything ends here."""
        self.dead = True
        if self.died_at is None:
            self.died_at = self._clock.now()
            for state in engine_of(self.runtime).owned.executions():
                if state is not None:
                    state.stop.halt(FlowError("the process is dead", run=state.id), outside=True)
        return Crash()


def _completes(operations: Sequence[Operation]) -> bool:
    """Whether a commit stores the outcome of the outermost run (the id of a child holds that of its parent)."""
    return any(
        isinstance(op, UpdateRun) and "/" not in op.run_id and op.changes.get("status") == "completed"
        for op in operations
    )
