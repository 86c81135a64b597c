"""The table of runs that are ours: those that execute here, and those that are about to.

The rules
    A run is ours from the moment the storage may say so (:meth:`Owned.taking`), not from the moment its body
    begins. Otherwise this same process would take it for abandoned in between. It is ours until it has ended
    or was let go.

The implementation
    ``reserve`` and ``begin`` put a run in; ``release`` and ``end`` take it out. A reserved run has no
    execution yet, only the epoch that it became ours under. Who releases it names that epoch: once the
    storage has let the run go, somebody else here may have it under the next one. An owner's name belongs to
    a table. After :meth:`renew`, a run that an old name still holds counts as abandoned, unless it is in the
    table.

    A run is put in without the lock, by one step of the interpreter. Only if its last execution here has not
    been taken out yet, the lock keeps the two apart. ``begin`` enters the execution before it looks whether
    the run was cancelled, and ``cancels`` does it the other way round. So one of them sees the other.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeAlias, TypeVar

from flowdsl.core.records import Run
from flowdsl.engine.owner import new_owner, register_here

__all__ = ["Owned"]

E = TypeVar("E")


_Mark: TypeAlias = tuple[str, str, bool]
"""Who is about to own a run, its id (``""``: any), and whether that is a prefix, which a number follows."""


class Owned(Generic[E]):
    """Maps run ids to executions, and holds the name of their owner, which ends with a random token. Instead
    of an execution, the epoch of a run that is ours, but not begun."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, E | int] = {}
        self._cancelled: set[str] = set()
        self._taking: list[_Mark] = []
        self._watchers: list[Callable[[], None]] = []
        self._hurried: list[Callable[[], None]] = []
        self.owner = self.token = ""
        self.renew()

    def renew(self) -> None:
        """Become a new owner. Runs that the old one has not released count as abandoned."""
        owner, token = new_owner()
        ref = weakref.ref(self)

        def executes(run_id: str) -> bool:
            table = ref()
            return table is not None and (run_id in table or table._takes(owner, run_id))

        self.owner, self.token = owner, token
        register_here(token, executes)

    def taking(self, run: Run) -> _Mark:
        """From now on until :meth:`took`, a commit is under way that may make *run*, or the next number of
        it, ours. Returns the mark that ``took`` removes."""
        mark = (self.owner, run.id, run.number == 0)
        self._taking.append(mark)
        return mark

    def taking_any(self) -> _Mark:
        """As :meth:`taking`, for a commit that may make any run ours."""
        mark = (self.owner, "", False)
        self._taking.append(mark)
        return mark

    def took(self, mark: _Mark) -> None:
        """The commit that *mark* stands for has ended, and what it made ours is reserved."""
        self._taking.remove(mark)

    def _takes(self, owner: str, run_id: str) -> bool:
        return any(
            mark[0] == owner and mark[1] in ("", run_id.rpartition("-")[0] if mark[2] else run_id)
            for mark in list(self._taking)
        )

    def reserve(self, run_id: str, epoch: int) -> None:
        """A run is ours under *epoch*, but does not execute yet."""
        if self._runs.setdefault(run_id, epoch) is not epoch:
            with self._lock:
                self._runs[run_id] = epoch

    def release(self, run_id: str, epoch: int) -> None:
        """A run that is ours under *epoch* will not execute here after all. One that executes stays."""
        with self._lock:
            if self._runs.get(run_id) == epoch:
                del self._runs[run_id]
                self._cancelled.discard(run_id)

    def begin(self, run_id: str, execution: E) -> bool:
        """A run of ours executes from now on. Answers whether it was cancelled after it became ours."""
        self._runs[run_id] = execution
        cancelled = run_id in self._cancelled
        if cancelled:
            self._cancelled.discard(run_id)
        for watcher in self._watchers:
            watcher()
        return cancelled

    def cancels(self, run_id: str) -> E | None:
        """A run is to be cancelled. Returns its execution, if there is one, to be told. A run that has not
        begun is told when it begins."""
        with self._lock:
            found = self.get(run_id)
            if found is None and run_id in self._runs:
                self._cancelled.add(run_id)
                found = self.get(run_id)
                if found is not None:
                    self._cancelled.discard(run_id)
            return found

    def end(self, run_id: str, execution: E) -> None:
        """The run no longer executes here."""
        with self._lock:
            if self._runs.get(run_id) is execution:
                del self._runs[run_id]

    def on_begin(self, watcher: Callable[[], None]) -> None:
        """Call *watcher* whenever a run begins to execute here."""
        self._watchers.append(watcher)

    def on_hurry(self, watcher: Callable[[], None]) -> None:
        """Call *watcher* when something of a run should become durable soon."""
        self._hurried.append(watcher)

    def look_soon(self) -> None:
        """Somebody waits for what a run has buffered."""
        for watcher in self._hurried:
            watcher()

    def get(self, run_id: str) -> E | None:
        """The execution of a run here, if there is one."""
        found = self._runs.get(run_id)
        return None if isinstance(found, int) else found

    def executions(self) -> list[E]:
        """All that executes here now."""
        # The lock keeps no run from being put in, so they are copied by one step of the interpreter.
        return [found for found in list(self._runs.values()) if not isinstance(found, int)]

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._runs

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._runs))

    def reset_after_fork(self) -> None:
        """In a forked child: no run is ours."""
        self._lock = threading.Lock()
        self._runs, self._taking, self._cancelled = {}, [], set()
        self.renew()
