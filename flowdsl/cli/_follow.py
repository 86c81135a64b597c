"""Following a run: its present state, and what has changed since the last look.

Only new records are read. A record that changes gets a new number.
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import define, field, frozen

from flowdsl.cli._find import row_of
from flowdsl.core.kinds import CALLS, LOG
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus, is_final
from flowdsl.core.views import extra_of
from flowdsl.entries import LogLine
from flowdsl.handle import shown_status
from flowdsl.runtime import Runtime
from flowdsl.storage.topics import run_topic

__all__ = ["Follower", "Look", "waits"]

_TICK = 1.0  # seconds between two looks while nothing is written: a process that dies writes nothing
_PAUSE = 0.1  # seconds between two looks, at least


@frozen(slots=True)
class Look:
    """The result of one look. *fresh*: the records that changed since the last look; at the first look,
    all."""

    run: Run
    status: str
    now: float
    fresh: tuple[Step, ...]

    @property
    def ended(self) -> bool:
        """Whether the run has ended, unless somebody retries it."""
        return is_final(self.run.status)


@define
class Follower:
    """Looks at one run again and again. *steps* are its records by key. *logs* are its log lines, in
    order."""

    runtime: Runtime
    run_id: str
    steps: dict[str, Step] = field(factory=dict)
    logs: list[LogLine] = field(factory=list)
    _seq: int = 0
    _generation: int = 1

    def looks(self) -> Iterator[Look]:
        """Look now, after each change, each second, and once more when the run has ended."""
        storage, topics = self.runtime.storage, (run_topic(self.run_id),)
        seen = storage.wait_for_change(0, 0.0, topics)  # before the look, so no change is missed
        while True:
            look = self._look()
            yield look
            if look.ended:
                return
            time.sleep(_PAUSE)
            seen = storage.wait_for_change(seen, _TICK, topics)

    def _look(self) -> Look:
        run = row_of(self.runtime, self.run_id)  # before the records: nothing is recorded after the end
        changed = self.read(run)
        return Look(run, shown_status(self.runtime.storage, run), self.runtime.storage.now(), tuple(changed))

    def read(self, run: Run) -> list[Step]:
        """Read the new records of *run*, and return those that have changed.

        After ``continue_as_new`` a run has a new journal.
        """
        if run.generation != self._generation:
            self._generation, self._seq = run.generation, 0
            self.steps, self.logs = {}, []
        fresh = self.runtime.storage.list_steps(self.run_id, after=self._seq, payloads=False)
        changed = []
        for step in fresh:
            self._seq = max(self._seq, step.seq)
            before = self.steps.get(step.key)
            self.steps[step.key] = step
            if step.kind == LOG and before is None:
                self.logs.append(LogLine.of(step))
            if before is None or _state(before) != _state(step):
                changed.append(step)
        return changed

    def unfinished(self) -> list[Step]:
        """The steps that have begun and have no outcome, oldest first."""
        found = [s for s in self.steps.values() if s.kind in CALLS and s.status is StepStatus.PENDING]
        return sorted(found, key=lambda step: (step.created_at, step.seq))

    def counts(self) -> dict[str, int]:
        """How many steps are done, have failed, and are known. The names are those of ``Run.progress()``."""
        found = Counter(step.status for step in self.steps.values() if step.kind in CALLS)
        return {
            "done": found[StepStatus.COMPLETED],
            "failed": found[StepStatus.FAILED],
            "known": found.total() - found[StepStatus.UNDONE],
        }


def waits(step: Step) -> bool:
    """Whether a step without an outcome waits for a moment or a message, and does not execute."""
    return any(name in extra_of(step) for name in ("until", "deadline", "signal", "next"))


def _state(step: Step) -> tuple[Any, ...]:
    return step.status, step.attempts, step.extra, step.completed_at
