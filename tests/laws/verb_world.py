"""The world: what really happened in all processes of a random program, kept outside every storage.

Every body notes here what it did, and every caller what it saw. The world raises at once if one of these laws
is broken. A recorded step never executes again, even if its caller died before it saw the result. An
acknowledged result never changes. The attempts of a step go on where the dead process left them. A wait ends
at its time, and neither early nor a whole wait later. An undone step is not undone again. From one process to
the next the journal only advances.
"""

import math
from collections import Counter
from typing import Any

import worlds
from attrs import define, field, frozen
from grammar import BESIDE, Slot, kinds_of
from support import Crash

import flowdsl
from flowdsl import RunStatus, StepStatus
from flowdsl.core.records import RunFilter
from flowdsl.storage import Storage
from flowdsl.testing import VirtualClock

__all__ = ["Failed", "Refused", "Snapshot", "World"]


class Failed(Exception):
    """How a program fails, if it does."""


class Refused(Exception):
    """What a step raises for good: an exception whose constructor is not that of its base."""

    def __init__(self, code: int, slot: Slot) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.slot = slot


@frozen
class Snapshot:
    """What a life leaves behind in the storage."""

    runs: dict[str, Any]
    steps: dict[tuple[str, str], Any]

    @classmethod
    def of(cls, storage: Storage) -> "Snapshot":
        runs = {run.id: run for run in storage.list_runs(RunFilter(newest_first=False))}
        # who continued a run is noted, and is no part of its work
        steps = [s for run_id in runs for s in storage.list_steps(run_id) if s.kind != "audit"]
        return cls(runs, {(s.run_id, s.key): s for s in steps})


@define(eq=False)
class World(worlds.World):
    """What happened over all lives of a program."""

    is_async: bool = False
    ending: str = "return"
    cancel_at: int = 0
    clock: VirtualClock = field(factory=VirtualClock)
    done: Counter[Slot] = field(factory=Counter)
    tries: Counter[Slot] = field(factory=Counter)
    acted: dict[Any, Any] = field(factory=dict)
    heard: Counter[Slot] = field(factory=Counter)
    sent: set[Slot] = field(factory=set)
    undone: list[Slot] = field(factory=list)
    undoables: list[Slot] = field(factory=list)
    ends: list[str] = field(factory=list)
    woken: set[Slot] = field(factory=set)
    lengths: dict[Slot, int] = field(factory=dict)
    dues: dict[Slot, float | None] = field(factory=dict)
    armed: set[Slot] = field(factory=set)
    open: bool = False
    cancelled: bool = False
    closed: set[tuple[str, str]] = field(factory=set)
    taken_back: set[Slot] = field(factory=set)
    places: dict[tuple[str, str], Slot] = field(factory=dict)
    before: Snapshot = field(factory=lambda: Snapshot({}, {}))
    commits: list[int] = field(factory=list)
    bodies: list[int] = field(factory=list)
    began: float = 0.0
    begun: set[tuple[str, str]] = field(factory=set)

    # What bodies tell

    def did(self, slot: Slot) -> None:
        """A body executes at *slot*."""
        view = flowdsl.current_step()
        assert view is not None
        place = (view.run_id, view.key)
        with self.lock:
            self.process.body()
            if view.mode == "do":
                self._may(slot, place, view.attempt)
            self.places[place] = slot
            self.taken_back.discard(slot)
            self.done[slot] += 1
            bodies = sum(self.bodies) + self.process.bodies
            cancel = self.ending == "cancel" and not self.cancelled and bodies > self.cancel_at
            self.cancelled = self.cancelled or cancel
        if cancel:
            flowdsl.current_runtime().cancel("main")

    def _may(self, slot: Slot, place: tuple[str, str], attempt: int) -> None:
        if place in self.closed:
            self.wrong.append(f"{slot} was recorded and executed again")
        if slot in self.seen:
            self.wrong.append(f"{slot} was acknowledged and executed again")
        if place in self.begun:
            return
        self.begun.add(place)
        left = self.before.steps.get(place)
        if left is not None and left.status is StepStatus.PENDING and attempt != left.attempts + 1:
            self.wrong.append(f"{slot} had made {left.attempts} attempts and went on with number {attempt}")

    def expect(self, slot: Slot, value: Any, expected: Any) -> None:
        """The caller at *slot* has to see *expected*."""
        if (type(value), value) != (type(expected), expected) and not self.dead:
            self.wrong.append(f"{slot} is {expected!r} and was seen as {value!r}")

    def act(self, slot: Slot, value: Any) -> None:
        """A body acts upon a recorded *value*."""
        self.did(slot)
        view = flowdsl.current_step()
        assert view is not None
        with self.lock:
            if self.acted.setdefault((view.run_id, view.key), value) != value:
                self.wrong.append(f"{slot} acted upon a value and then upon another one")

    def take_back(self, slot: Slot) -> None:
        """What was done at *slot* is undone."""
        with self.lock:
            if self.dead:
                raise Crash
            if slot in self.taken_back:
                self.wrong.append(f"{slot} was undone, which was recorded, and is undone again")
            self.undone.append(slot)

    def fails_to_take_back(self, slot: Slot, attempt: int) -> None:
        """The *attempt* of an undo at *slot* fails. It is the last one, or another follows."""
        with self.lock:
            if self.process.dead:
                raise Crash
            if attempt < self.tries["in vain", *slot]:
                self.wrong.append(f"{slot} could not be undone, which was recorded, and is undone again")
            self.tries["in vain", *slot] = attempt

    # What waits tell

    def length(self, slot: Slot, hours: int) -> int:
        """How many seconds the wait at *slot* takes; no two take the same, so records can be told apart."""
        with self.lock:
            return hours * 3600 + self.lengths.setdefault(slot, len(self.lengths))

    def due(self, kind: str, shown: str, wait: float) -> float | None:
        """When a wait that is begun now must end; ``None`` for one that has ended already."""
        for step in self.before.steps.values():
            if step.kind == kind and step.args == shown:
                ended = kind != "schedule" and step.status is not StepStatus.PENDING
                return None if ended else float(step.created_at) + wait
        return self.clock.now() + wait

    def arm(self, slot: Slot, due: float | None) -> None:
        """What is done at *slot* is scheduled; only the first call in a life counts."""
        with self.lock:
            if slot not in self.armed:
                self.armed.add(slot)
                self.dues[slot] = due

    def woke(self, slot: Slot, due: float | None) -> None:
        """The wait at *slot* has ended."""
        now = self.clock.now()
        with self.lock:
            if due is None or self.dead or slot in self.woken:
                return
            self.woken.add(slot)
            # threads of the body's own count for no virtual clock: any other wait may end meanwhile
            kinds = kinds_of(self.program)
            late = math.inf if "own_tasks" in kinds else 60 if BESIDE & kinds else 1
            if not due - 0.01 <= now <= max(due, self.began) + late:
                self.wrong.append(
                    f"{slot} was to wait until {due - self.began:+} and woke at {now - self.began:+}"
                )

    # Lives

    def begin(self, process: Any) -> None:
        """A life begins."""
        worlds.meet(self)
        self.process, self.began = process, self.clock.now()
        self.begun.clear()
        self.armed.clear()

    def end(self, storage: Storage) -> None:
        """A life has ended: what it left only advances from what was left before."""
        self.commits.append(self.process.commits)
        self.bodies.append(self.process.bodies)
        now, before = Snapshot.of(storage), self.before
        self._advanced(before, now)
        self.before = now
        self.closed = {
            place
            for place, step in now.steps.items()
            if step.status is StepStatus.COMPLETED
            or (step.status is StepStatus.FAILED and (step.kind != "undo" or self.ending != "retry"))
        }  # an undo that failed is tried again when a run that was retried fails once more
        for run in now.runs.values():
            if run.status is RunStatus.RUNNING:  # a failed one that is being retried
                self.closed -= {
                    (run.id, key)
                    for key in run.open_failures
                    if now.steps[run.id, key].status is StepStatus.FAILED
                }
        for place, step in now.steps.items():
            if step.status is StepStatus.UNDONE and place in self.places:
                self.taken_back.add(self.places[place])

    def _advanced(self, before: Snapshot, now: Snapshot) -> None:
        for run_id, run in before.runs.items():
            left = now.runs.get(run_id)
            if left is None:
                self.wrong.append(f"run {run_id} is gone")
            elif (
                run.status in (RunStatus.COMPLETED, RunStatus.CANCELLED)
                and left.status is not run.status
                and not left.undoing
            ):
                self.wrong.append(f"run {run_id} was {run.status} and is {left.status}")
        for place, step in before.steps.items():
            if place not in self.closed:
                continue
            left = now.steps.get(place)
            if place[0] in now.runs and now.runs[place[0]].generation != before.runs[place[0]].generation:
                continue  # it began anew: its journal is dropped
            if left is None:
                self.wrong.append(f"the record of {step.path}({step.args}) is gone")
            elif left.status is not StepStatus.UNDONE and (step.status, step.payload, step.args) != (
                left.status,
                left.payload,
                left.args,
            ):
                self.wrong.append(f"the record of {step.path}({step.args}) has changed")

    def reopen(self) -> None:
        """The failed program is called again, and will succeed."""
        self.open = True
        for run in self.before.runs.values():
            if run.status is RunStatus.FAILED:
                self.closed -= {(run.id, key) for key in run.open_failures}
        self.seen.clear()  # what was undone executes again, and with it what it had called
        for slot in [slot for slot in self.tries if slot[0] == "in vain"]:
            del self.tries[slot]  # such an undo is tried again if the run fails once more
        self.woken |= set(self.lengths)
