"""Following a run in a terminal: its steps and log lines as they are now."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import Factory, define, evolve, field

from flowdsl.cli._find import row_of
from flowdsl.core.kinds import CALLS, LOG
from flowdsl.core.records import Run, Step
from flowdsl.core.status import StepStatus
from flowdsl.core.views import extra_of
from flowdsl.entries import LogLine
from flowdsl.following import PAUSE, TICK, Following, Look
from flowdsl.runtime import Runtime
from flowdsl.storage.topics import run_topic

__all__ = ["Follower", "waits"]


@define
class Follower:
    """Looks at one run again and again. *steps* are its records by key. *logs* are its log lines, in
    order."""

    runtime: Runtime
    run_id: str
    steps: dict[str, Step] = field(factory=dict)
    logs: list[LogLine] = field(factory=list)
    _following: Following = field(
        init=False,
        default=Factory(lambda self: Following(self.runtime.storage, self.run_id), takes_self=True),
    )

    def looks(self) -> Iterator[Look]:
        """Look now, after each change, each second, and once more when the run has ended. ``fresh`` are the
        records that have changed since the last look."""
        storage, topics = self.runtime.storage, (run_topic(self.run_id),)
        seen = storage.wait_for_change(0, 0.0, topics)  # before the look, so no change is missed
        while True:
            look = self.read(row_of(self.runtime, self.run_id))
            yield look
            if look.ended:
                return
            time.sleep(PAUSE)
            seen = storage.wait_for_change(seen, TICK, topics)

    def read(self, run: Run) -> Look:
        """Read the new records of *run*, whose row was read just now."""
        look = self._following.look_at(run)
        if look.anew:
            self.steps, self.logs = {}, []
        changed = []
        for step in look.fresh:
            before = self.steps.get(step.key)
            self.steps[step.key] = step
            if step.kind == LOG and before is None:
                self.logs.append(LogLine.of(step))
            if before is None or _state(before) != _state(step):
                changed.append(step)
        return evolve(look, fresh=tuple(changed))

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
