"""One run's journal: what was recorded, and what that means for a call made now.

The rules
    A call has a *scope*, a *key* (path, arguments, occurrence) and an *ordinal* (the n-th call of its path in
    the scope, whatever the arguments). For each call the journal decides one of three:

    =========  ===============================================================================================
    recorded   a closed record of this key exists: its stored outcome is the answer
    execute    there is none, and nothing speaks against executing the body
    diverged   there is none, but an unused record of the same scope, path and ordinal was made with other
               arguments: the code now asks for something else
    =========  ===============================================================================================

The theory
    Keys are by content. So calls can be removed, reordered and added between two executions, and the recorded
    ones still match. Content alone cannot tell an *added* call from a *changed* one. For sequential code, the
    ordinal tells them apart. The ordinal of concurrent calls depends on timing. So these do not diverge, and
    are no evidence of divergence. A record that overlapped another call of its scope is stored as
    ``concurrent``.

    A record is *used* once a call has matched it. Some records are no evidence either: those made before an
    undo or a forget (``seq <= floor``), undone ones, those of another version of the step, and open failures
    (which execute again anyway).

The implementation
    One dict from key to record. The index by position is built at the first call without a record. A replay
    that only matches never pays for it.

If you edit this
    ``decide`` may have no side effect but marking records as used. It may read only its arguments and the
    journal. The laws in ``tests/core/test_journal.py`` check it over generated programs, and every promise
    about replay depends on it.
"""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from flowdsl.core.binding import changed_defaults
from flowdsl.core.kinds import SILENT, STEP
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus

__all__ = ["CALLBACKS", "Decision", "Journal", "Verdict"]

CALLBACKS = ("on_complete", "on_error")
"""The scopes of callbacks. A retried run asks for none of their records, unless it ends so again."""

_COMPLETED = StepStatus.COMPLETED
_FAILED = StepStatus.FAILED
_PENDING = StepStatus.PENDING
_UNDONE = StepStatus.UNDONE


class Verdict(Enum):
    """What a call means, given the journal."""

    RECORDED = "recorded"
    EXECUTE = "execute"
    DIVERGED = "diverged"


class Decision(NamedTuple):
    """A verdict with the record that it rests on.

    ``record`` depends on the verdict. *Recorded*: the closed record. *Execute*: the record of an unfinished
    earlier execution, or ``None``. *Diverged*: the record that the call contradicts.
    """

    verdict: Verdict
    record: Step | None = None


_EXECUTE = Decision(Verdict.EXECUTE)


class Journal:
    """The records of one run.

    Threads :meth:`add` to it without a lock, because each change of a dict or a set is one step of the
    interpreter. Whoever reads it and then changes it holds the lock of the run.
    """

    __slots__ = ("_floor", "_open", "_positions", "_steps", "_used", "get", "quiet", "use")

    def __init__(self, steps: Iterable[Step] = (), open_failures: Iterable[str] = (), floor: int = 0) -> None:
        self._steps = {step.key: step for step in steps} if steps else {}
        self.get = self._steps.get  # key → its record, whatever the status, or None
        self._used: set[str] = set()
        self.use = self._used.add  # key: its record counts as used, although its call may not ask for it
        # A failure that was executed again is no longer open. The process may have died before the run ended.
        self._open: set[str] = set()
        for key in open_failures:
            if key in self._steps and self._steps[key].status is _FAILED:
                self._open.add(key)
        self._floor = floor
        self._positions: dict[tuple[str, str, int], Step] | None = None
        # No record can speak against a call without one, as in every first execution.
        self.quiet = not self._steps

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(list(self._steps.values()))  # other threads may add to them meanwhile

    def answer(self, key: str, defaults: str) -> Step | None:
        """The record that answers a call as it is. It counts as used from now on. For all other calls, ask
        :meth:`decide`."""
        record = self._steps.get(key)
        if (
            record is None
            or record.status is not _COMPLETED
            or record.defaults != defaults
            or key in self._open
        ):
            return None
        self._used.add(key)
        return record

    def decide(
        self,
        key: str,
        scope: str,
        path: str,
        ordinal: int,
        *,
        defaults: str = "",
        version: str = "",
        sequential: bool = True,
    ) -> Decision:
        """Decide what a call means.

        Parameters: *key*, *scope*, *path* and *ordinal* of the call; *defaults*, the digest of the arguments
        left to their default; *version* of the step; *sequential*, false for a call that overlaps another one
        of its scope, or that comes from another task or thread.

        >>> Journal().decide("k", "", "shop.charge", 0).verdict
        <Verdict.EXECUTE: 'execute'>
        """
        record = self._steps.get(key)
        if record is not None:
            self._used.add(key)
            status = record.status
            if status is _PENDING:
                return Decision(Verdict.EXECUTE, record)
            if status is _UNDONE or (self._open and key in self._open):
                return _EXECUTE
            if (
                record.defaults != defaults
                and record.kind == STEP
                and changed_defaults(record.defaults, defaults)
            ):
                return Decision(Verdict.DIVERGED, record)
            return Decision(Verdict.RECORDED, record)
        if sequential and self._steps:
            other = self._evidence(scope, path, ordinal, version)
            if other is not None:
                return Decision(Verdict.DIVERGED, other)
        return _EXECUTE

    def _evidence(self, scope: str, path: str, ordinal: int, version: str) -> Step | None:
        if self._positions is None:
            self._positions = {
                (step.scope, step.path, step.ordinal): step
                for step in self
                if step.key not in self._used
                and not step.concurrent
                and step.seq > self._floor
                and step.status is not _UNDONE
                and step.kind not in SILENT
            }
            self.quiet = not self._positions
        other = self._positions.get((scope, path, ordinal))
        if other is None or other.key in self._used or other.key in self._open:
            return None
        if other.version != version:  # another key, on purpose
            return None
        return other

    def answers(self, key: str) -> bool:
        """Whether a call of *key* is answered by its record."""
        record = self._steps.get(key)
        return record is not None and record.status in (_COMPLETED, _FAILED) and key not in self._open

    def add(self, step: Step) -> None:
        """Take a record that was just stored."""
        key, steps = step.key, self._steps
        self._used.add(key)  # first, so that nobody finds the record unused
        if key in steps:
            del steps[key]  # to keep the order of storing
        steps[key] = step
        if self._open:
            self._open.discard(key)

    def reopen(self, keys: Iterable[str]) -> None:
        """Let the failures of *keys* execute again."""
        self._open.update(keys)

    def drop(self, key: str, floor: int) -> None:
        """Forget the record of *key*. Records up to *floor* are no evidence of divergence from now on."""
        self._steps.pop(key, None)
        self._used.discard(key)
        self._floor = max(self._floor, floor)
        self._positions = None
        self.quiet = False

    def replayable(self) -> int:
        """How many steps a replay can answer from the journal."""
        return sum(
            1
            for step in self
            if step.kind == STEP
            and (step.status is _COMPLETED or (step.status is _FAILED and step.key not in self._open))
        )

    def unused(self) -> list[Step]:
        """Closed records that no call of this execution asked for. Records of callbacks are left out, and
        those under a scope that its own record answered."""
        if self._steps.keys() <= self._used:  # as after most executions
            return []
        unused = [
            step
            for step in self
            if step.key not in self._used
            and step.status is not _UNDONE
            and step.kind not in SILENT
            and step.key not in self._open
        ]
        return [step for step in unused if not self._is_no_evidence(step.scope)]

    def _is_no_evidence(self, scope: str) -> bool:
        """Whether the record of *scope*, or of one around it, answered it, or a callback is around it. Branch
        scopes are ``<scope>/<branch>``."""
        while scope:
            if scope in CALLBACKS:
                return True
            if "/" in scope:
                scope = scope.rpartition("/")[0]
                continue
            scope = scope.partition("~")[0]  # the body of an undone step has another name each time
            record = self._steps.get(scope)
            if record is None:
                return False
            if record.key in self._used and record.status is not _PENDING:
                return True
            scope = record.scope
        return False
