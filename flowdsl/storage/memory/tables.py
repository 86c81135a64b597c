"""What the storage in memory keeps, and how it finds it again.

Whoever reads or changes a table holds the lock of the storage.
"""

from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, evolve

from flowdsl.core.ownership import LIVE, own_tags
from flowdsl.core.records import (
    Item,
    Memo,
    QueueRow,
    Run,
    ScheduleRow,
    Signal,
    Step,
    WorkerRow,
    changed,
)
from flowdsl.storage.memory.numbered import NumberedRuns
from flowdsl.storage.outcomes import Fenced, Missing

__all__ = ["RunData", "Tables", "copy_of"]

_MISSING = Missing()


@define(slots=True, init=False, eq=False, repr=False)
class RunData:
    """A run with all that belongs to it.

    * ``steps``: by key, in order of ``seq``, which stands beside each. ``last``: the highest ``seq`` so far.
    * ``signals``: by id, in order of arrival. ``unread``: ids of those that nobody has taken. ``sent``: the
      ``seq`` of those that have a key, by name and key.
    * ``channels``: the items of each channel, by number.
    """

    run: Run
    nonce: str
    steps: dict[str, tuple[int, Step]]
    last: int
    signals: dict[str, Signal]
    unread: dict[str, None]
    sent: dict[tuple[str, str], int]
    channels: dict[str, dict[int, Item]]

    def __init__(self, run: Run, nonce: str) -> None:
        self.run = run
        self.nonce = nonce
        self.last = 0
        self.steps, self.signals, self.unread = {}, {}, {}
        self.sent, self.channels = {}, {}

    def rewrite(self, changes: dict[str, Any]) -> None:
        """Set fields of the run on which nothing else here depends."""
        self.run = changed(self.run, changes)

    def append(self, step: Step) -> int:
        """Put *step* at the end of the journal. Returns its ``seq``."""
        steps, key = self.steps, step.key
        if key in steps:
            del steps[key]  # so that the new one stands last
        self.last = seq = self.last + 1
        steps[key] = (seq, step)
        return seq

    def receive(self, signal: Signal) -> None:
        """Add a message that nobody has taken."""
        self.signals[signal.id] = signal
        self.unread[signal.id] = None
        if signal.key is not None:
            self.sent[signal.name, signal.key] = signal.seq

    def forget(self, signal: Signal) -> None:
        """Remove a message that was taken."""
        del self.signals[signal.id]
        if signal.key is not None:
            self.sent.pop((signal.name, signal.key), None)


class Tables:
    """All records, by id. *now* tells the storage's time, in seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.highest_epoch = 0  # of all deleted runs
        self._last_signal = 0
        self.forget_all()

    def forget_all(self) -> None:
        """Drop all records."""
        self.runs: dict[str, RunData] = {}
        self.stubs: dict[str, Run] = {}  # of runs that were deleted with a tombstone
        self.memos: dict[str, Memo] = {}
        self.queues: dict[str, QueueRow] = {}
        self.schedules: dict[str, ScheduleRow] = {}
        self.workers: dict[str, WorkerRow] = {}
        self._opened: dict[str, str] = {}  # nonce of an opening → id of its run
        self._numbered: dict[str, NumberedRuns] = {}  # by key
        self._unfinished: dict[str, None] = {}  # ids, in the order of their last change

    def unfinished(self) -> Iterator[RunData]:
        """Runs that are pending or running."""
        return map(self.runs.__getitem__, self._unfinished)

    def all_runs(self, pruned: bool) -> list[Run]:
        """All runs; with *pruned*, the stubs instead."""
        return list(self.stubs.values()) if pruned else [data.run for data in self.runs.values()]

    def numbered(self, key: str) -> NumberedRuns:
        """The numbered runs of *key*. The list is made at the first look."""
        found = self._numbered.get(key)
        if found is None:
            found = self._numbered[key] = NumberedRuns()
        return found

    def opened_by(self, nonce: str) -> RunData | None:
        """The run that an opening with this *nonce* has inserted."""
        run_id = self._opened.get(nonce)
        return None if run_id is None else self.runs.get(run_id)

    def owned(self, run_id: str, epoch: int | None) -> RunData | Fenced | Missing:
        """The run, if it exists with this epoch. Otherwise the outcome that says why not."""
        data = self.runs.get(run_id)
        if data is None:
            return _MISSING
        return data if epoch is None or epoch == data.run.epoch else Fenced(copy_of(data.run))

    def insert(self, run: Run, nonce: str) -> None:
        """Add a run."""
        self.runs[run.id] = RunData(run, nonce)
        self._enter(run)
        if nonce:
            self._opened[nonce] = run.id

    def change(self, data: RunData, changes: dict[str, Any]) -> None:
        """Set fields of a run."""
        if "tags" in changes:
            changes["tags"] = own_tags(changes["tags"])
        before = data.run
        data.run = after = changed(before, changes)
        if ("key" in changes or "number" in changes) and (
            (before.key, before.number) != (after.key, after.number)
        ):
            self._leave(before)
            self._enter(after)
            return
        self._unfinished.pop(after.id, None)
        if after.status in LIVE:
            self._unfinished[after.id] = None
        if after.number is not None:
            self._numbered[after.key].replace(before, after)

    def take(self, data: RunData, changes: dict[str, Any], nonce: str) -> None:
        """Set fields of a run that a claim with this *nonce* takes."""
        self.change(data, changes)
        self._opened.pop(data.nonce, None)
        data.nonce = nonce

    def remove(self, data: RunData) -> None:
        """Remove a run with all that belongs to it."""
        del self.runs[data.run.id]
        self._opened.pop(data.nonce, None)
        self._leave(data.run)

    def keep_epoch(self, epoch: int) -> None:
        """Remember the epoch of a run that is deleted."""
        self.highest_epoch = max(self.highest_epoch, epoch)

    def next_signal(self) -> int:
        """The ``seq`` of the next message."""
        self._last_signal += 1
        return self._last_signal

    def _enter(self, run: Run) -> None:
        if run.status in LIVE:
            self._unfinished[run.id] = None
        if run.number is not None:
            self.numbered(run.key).add(run)

    def _leave(self, run: Run) -> None:
        self._unfinished.pop(run.id, None)
        if run.number is not None:
            numbered = self._numbered[run.key]
            numbered.remove(run)
            if not numbered.numbers:
                del self._numbered[run.key]


def copy_of(run: Run) -> Run:
    """A copy that the caller may change. Everything in a run is immutable but its tags."""
    return evolve(run, tags=dict(run.tags)) if isinstance(run.tags, dict) else run
