"""Storages that fail at a chosen moment, and a log of effects that no crash touches.

The rules
    A crash takes everything with it: nothing that the dead code does afterwards reaches the storage. A
    failure concerns one commit. It did not happen (*lost*), or nobody knows whether it did (*unknown*). The
    next commit works again.
"""

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from flowdsl.errors import StorageUnavailable
from flowdsl.storage import relay
from flowdsl.storage.base import Operation, Outcome, Storage
from flowdsl.storage.step_transactions import StepTransaction

__all__ = ["CrashingStorage", "EffectLog", "RelayStorage", "SimulatedCrash"]

When = Literal["before", "after"]
Effect = Literal["crash", "acknowledged", "lost", "unknown", "kill"]


class SimulatedCrash(BaseException):
    """The process "died" here. This is no ``Exception``, so code under test does not handle it by mistake."""


class RelayStorage(relay.RelayStorage):
    """A storage that passes everything on to another one. Subclass it to stand in between. Closing it leaves
    the other one open, because that is needed after the crash.

    >>> from flowdsl.storage import MemoryStorage
    >>> RelayStorage(MemoryStorage()).list_runs()
    []
    """

    def close(self) -> None:
        """Leave the other one open."""


class CrashingStorage(RelayStorage):
    """*storage*, until its *at*-th commit (from 1; ``None``: never).

    At that commit, *when* ``"before"`` or ``"after"`` it took effect, the *outcome* is one of these:

    * ``"crash"``: :class:`SimulatedCrash` is raised, then and at every later commit, because nothing comes
      out of a dead process. Continue with a new runtime over ``crashing.storage``.
    * ``"acknowledged"``: the caller still hears that the commit took effect (so only ``"after"``). Everything
      later crashes.
    * ``"lost"``: ``StorageUnavailable``. The commit did not happen (so only ``"before"``). Later ones work.
    * ``"unknown"``: ``StorageUnavailable`` with ``outcome_unknown``. Later ones work.
    * ``"kill"``: this process gets SIGKILL.

    ``commits`` counts those begun so far. So a first run with ``at=None`` tells how many crash points there
    are. A commit counts only if *counts* is true for its operations; by default all count. Raises
    ``ValueError`` for senseless values.

    >>> from flowdsl import Runtime, step, workflow
    >>> from flowdsl.storage import MemoryStorage
    >>> @step
    ... def charge(): ...
    >>> @workflow
    ... def checkout():
    ...     charge()
    ...     return "paid"
    >>> storage = CrashingStorage(MemoryStorage(), at=2, when="after")
    >>> try:
    ...     with Runtime(storage):
    ...         checkout()
    ... except SimulatedCrash:
    ...     with Runtime(storage.storage):
    ...         checkout()  # the step is recorded already
    'paid'
    """

    def __init__(
        self,
        storage: Storage,
        at: int | None,
        *,
        when: When = "before",
        outcome: Effect = "crash",
        counts: Callable[[Sequence[Operation]], bool] | None = None,
    ) -> None:
        if at is not None and (isinstance(at, bool) or not isinstance(at, int) or at < 1):
            raise ValueError(f"at is the number of a commit, 1 or more, or None; got {at!r}")
        if when not in ("before", "after"):
            raise ValueError(f"when is 'before' or 'after'; got {when!r}")
        if outcome not in get_args(Effect):
            raise ValueError(f"outcome is one of {', '.join(map(repr, get_args(Effect)))}; got {outcome!r}")
        if outcome == "lost" and when == "after":
            raise ValueError("a commit that is lost did not happen: outcome='lost' goes with when='before'")
        if outcome == "acknowledged" and when == "before":
            raise ValueError("what is acknowledged did happen: outcome='acknowledged' goes with when='after'")
        super().__init__(storage)
        self.at = at
        self.when = when
        self.outcome = outcome
        self.commits = 0
        self.dead = False
        self._counts = counts
        self._lock = threading.Lock()

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        """Commit, unless the moment has come."""
        with self._lock:
            if not self._counted(operations):
                return self.storage.commit(operations)
            return self._struck(self.storage.commit(operations) if self.when == "after" else [])

    def commit_transaction(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        """As :meth:`commit`, for commits that share the transaction of a body."""
        with self._lock:
            if not self._counted(operations):
                return self.storage.commit_transaction(transaction, operations)
            after = self.when == "after"
            return self._struck(self.storage.commit_transaction(transaction, operations) if after else [])

    async def commit_transaction_async(
        self, transaction: StepTransaction, operations: Sequence[Operation], /
    ) -> list[Outcome]:
        """As :meth:`commit_transaction`, from a coroutine."""
        if not self._counted(operations):
            return await self.storage.commit_transaction_async(transaction, operations)
        if self.when == "before":
            return self._struck([])
        return self._struck(await self.storage.commit_transaction_async(transaction, operations))

    def _counted(self, operations: Sequence[Operation]) -> bool:
        """Count a commit. Returns whether it is the chosen one."""
        if self.dead:
            raise SimulatedCrash("nothing comes out of a dead process")
        if self._counts is not None and not self._counts(operations):
            return False
        self.commits += 1
        if self.commits != self.at:
            return False
        self.dead = self.outcome in ("crash", "acknowledged")
        return True

    def _struck(self, outcomes: list[Outcome]) -> list[Outcome]:
        if self.outcome == "acknowledged":
            return outcomes
        if self.outcome == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        where = f"{self.when} commit {self.at}"
        if self.outcome == "crash":
            raise SimulatedCrash(f"the process died {where}")
        raise StorageUnavailable(
            f"made to fail {where}", outcome_unknown=self.outcome == "unknown", lasting=True
        )


class EffectLog:
    """An append-only file of what really happened. It is outside every storage, so it can say what a crash
    must not repeat.

    Each :meth:`note` is one line of JSON, written by one system call. So a line noted before a SIGKILL is
    there after it, and lines of many processes do not mix.

    >>> import tempfile
    >>> log = EffectLog(tempfile.mkdtemp() + "/effects")
    >>> log.note("charge", 17)
    >>> log.count("charge", 17), log.read()
    (1, [['charge', 17]])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def note(self, *what: Any) -> None:
        """Append a line. It holds values that JSON can hold."""
        line = json.dumps(what).encode() + b"\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def read(self) -> list[Any]:
        """All lines, in order, each as a list. There are none if there is no file yet."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def count(self, *what: Any) -> int:
        """How many lines begin with *what*."""
        wanted = json.loads(json.dumps(what))
        return sum(line[: len(wanted)] == wanted for line in self.read())
