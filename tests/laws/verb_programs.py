"""Random programs that use every verb: made by hypothesis or from a seed, executed as real workflows.

A program is data: a tuple of nodes ``(kind, *more)``, where *more* are programs in it. It is executed as a
real workflow over real steps (:class:`Player` says how each kind is). Every body notes what it did, and every
caller what it saw, in the :class:`World`, which lies outside every storage and says at once what must not
have been: what is recorded is never executed again, whether or not the caller lived to see it; what was
acknowledged is seen the same ever after; the attempts of a step go on where the dead process left them; a
wait ends when it was to end, neither in full again after a restart nor early; what was undone is not undone
again; from one life to the next the journal only advances.

The rest of the laws, and the lives that end anywhere, are in ``verb_laws.py``.
"""

import asyncio
import contextvars
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from attrs import define, field, frozen
from hypothesis import strategies as st
from support import Crash, Flavour

import flowdsl
import flowdsl.aio
from flowdsl import Retry, RunStatus, StepStatus
from flowdsl.core.records import RunFilter
from flowdsl.errors import WaitTimeout
from flowdsl.storage import Storage
from flowdsl.testing import VirtualClock

__all__ = [
    "BESIDE",
    "ENDINGS",
    "HOLDERS",
    "LEAVES",
    "PLAYERS",
    "Failed",
    "Fault",
    "Program",
    "Snapshot",
    "World",
    "kinds_of",
    "programs",
    "random_program",
]

Program = tuple[Any, ...]
Slot = tuple[Any, ...]

# The grammar ------------------------------------------------------------------------------------------------

LEAVES = """
step flaky handled silent memo doubt undoable plainly_undoable stubborn try_
increment push set delete get items store_in_step
sleep sleep_until early late chosen two_signals in_vain
now uuid4 rng log send schedule schedule_from_step
""".split()
"""Kinds of nodes that hold no others."""

HOLDERS = ["nested", "retried", "child", "started", "lost_child", "branches", "submitted", "mapped", "plain"]
"""Kinds of nodes that hold a program: a sequence, or branches that execute at the same time."""

BESIDE = {"started", "branches", "submitted", "mapped", "plain", "late", "schedule", "schedule_from_step"}
"""Kinds in which things happen at the same time, so that the order of completion is a matter of timing."""

ENDINGS = ["return", "raise", "retry", "cancel"]
"""How a program ends: with its result; with an exception; with one, and is then retried; it is cancelled."""

Choose = Callable[[Sequence[Any]], Any]


def _program(choose: Choose, depth: int, most: int) -> Program:
    return tuple(_node(choose, depth) for _ in range(choose(range(1, most + 1))))


def _node(choose: Choose, depth: int) -> Any:
    if depth and choose([False, False, True]):
        return (choose(HOLDERS), _program(choose, depth - 1, 3))
    return (choose(LEAVES),)


def random_program(seed: Any) -> Program:
    """The program of a *seed* (anything that ``random.Random`` takes)."""
    return _program(random.Random(seed).choice, 2, 5)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """All programs; hypothesis can shrink them."""
    return _program(lambda options: draw(st.sampled_from(options)), 2, 5)


def kinds_of(program: Program) -> set[str]:
    """Every kind in *program*."""
    found = set()
    for kind, *inner in program:
        found.add(kind)
        for one in inner:
            found |= kinds_of(one)
    return found


# Faults -----------------------------------------------------------------------------------------------------


@frozen
class Fault:
    """Where a life ends: at its *at*-th commit (from 0), before it takes effect or *after*; or, with *body*,
    when its *at*-th body begins."""

    at: int
    after: bool = False
    body: bool = False


# The world outside ------------------------------------------------------------------------------------------


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
class World:
    """What happened over all lives of a program."""

    flavour: Flavour
    program: Program
    ending: str = "return"
    cancel_at: int = 0
    clock: VirtualClock = field(factory=VirtualClock)
    wrong: list[str] = field(factory=list)
    done: Counter[Slot] = field(factory=Counter)
    tries: Counter[Slot] = field(factory=Counter)
    seen: dict[Slot, Any] = field(factory=dict)
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
    fault: Fault | None = None
    process: Any = None
    began: float = 0.0
    begun: set[tuple[str, str]] = field(factory=set)
    lock: Any = field(factory=threading.RLock)

    # What bodies tell

    def did(self, slot: Slot) -> None:
        """A body executes at *slot*."""
        view = flowdsl.current_step()
        assert view is not None
        place = (view.run_id, view.key)
        with self.lock:
            if self.process.dead:
                raise Crash
            number = self.bodies[-1]
            self.bodies[-1] += 1
            if self.fault is not None and self.fault.body and number == self.fault.at:
                raise self.process.die()
            if view.mode == "do":
                self._may(slot, place, view.attempt)
            self.places[place] = slot
            self.taken_back.discard(slot)
            self.done[slot] += 1
            cancel = self.ending == "cancel" and not self.cancelled and sum(self.bodies) > self.cancel_at
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

    def saw(self, slot: Slot, value: Any) -> None:
        """The caller at *slot* sees *value*, which must be the same ever after."""
        with self.lock:
            if self.process.dead:
                return
            if self.seen.setdefault(slot, value) != value:
                self.wrong.append(f"{slot} was seen as {self.seen[slot]} and then as {value}")

    def expect(self, slot: Slot, value: Any, expected: Any) -> None:
        """The caller at *slot* has to see *expected*."""
        if (type(value), value) != (type(expected), expected) and not self.process.dead:
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
            if self.process.dead:
                raise Crash
            if slot in self.taken_back:
                self.wrong.append(f"{slot} was undone, which was recorded, and is undone again")
            self.undone.append(slot)

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
            if due is None or self.process.dead or slot in self.woken:
                return
            self.woken.add(slot)
            # threads of the body's own count for no virtual clock: any other wait may end meanwhile
            kinds = kinds_of(self.program)
            late = math.inf if "plain" in kinds else 60 if BESIDE & kinds else 1
            if not due - 0.01 <= now <= max(due, self.began) + late:
                self.wrong.append(
                    f"{slot} was to wait until {due - self.began:+} and woke at {now - self.began:+}"
                )

    # Lives

    def begin(self, process: Any, fault: Fault | None) -> None:
        """A life begins."""
        global _world
        _world = self
        self.process, self.fault, self.began = process, fault, self.clock.now()
        self.bodies.append(0)
        self.begun.clear()
        self.armed.clear()

    def end(self, storage: Storage) -> None:
        """A life has ended: what it left only advances from what was left before."""
        self.commits.append(self.process.commits)
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
        self.woken |= set(self.lengths)


_world: World = World(Flavour(False), ())


# How each kind of node is executed --------------------------------------------------------------------------


@flowdsl.on("laws.event")
def _hear(slot: Slot) -> None:
    with _world.lock:
        _world.heard[slot] += 1


class Player:
    """The steps and workflows of one flavour, and what each kind of node does with them."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.verbs: Any = flowdsl.aio if flavour.is_async else flowdsl
        self._steps()
        self._undoing_steps()
        self._workflows()

    def _step(self, name: str, **options: Any) -> Any:
        return self.flavour.step(name=f"laws.{self.flavour!r}.{name}", **options)

    def _steps(self) -> None:
        quick = Retry(attempts=4, initial=1, jitter=0)

        @self._step("work")
        def work(slot: Slot) -> Any:
            _world.did(slot)
            return slot

        @self._step("timed")
        def timed(slot: Slot) -> Any:
            _world.woke(slot, _world.dues.get(slot))
            _world.did(slot)
            return slot

        @self._step("flaky", retry=quick)
        def flaky(slot: Slot) -> Any:
            pushed = yield self.verbs.store.push("flaky", slot)
            flowdsl.log("attempt", slot=repr(slot))
            yield work((*slot, "inner"))
            _world.did(slot)
            if _attempt() < 3:
                raise OSError(slot)
            return pushed

        @self._step("refused", retry=Retry(attempts=2, initial=1, jitter=0))
        def refused(slot: Slot) -> Any:
            _world.did(slot)
            raise Refused(17, slot)

        @self._step("gate", retry=Retry(attempts=1))
        def gate(slot: Slot) -> Any:
            _world.did(slot)
            if not _world.open:
                raise Failed
            return slot

        @self._step("memo", memo=True, expires="1 hour", ignore=("slot",))
        def memo(number: int, slot: Slot = ()) -> Any:
            _world.did(slot)
            return ("memo", number)

        @self._step("doubt", in_doubt="raise")
        def doubt(slot: Slot) -> Any:
            _world.did(slot)
            return slot

        @self._step("tried", mode="try")
        def tried(slot: Slot) -> Any:
            _world.did(slot)
            return slot

        @self._step("act", ignore=("value",))
        def act(slot: Slot, value: Any = None) -> Any:
            _world.act(slot, value)
            return slot

        @self._step("tell")
        def tell(run_id: str, name: str, payload: Any, slot: Slot) -> Any:
            _world.did(slot)
            flowdsl.current_runtime().signal(run_id, name, payload, sender="laws", key=repr(slot))
            return slot

        @self._step("storing", retry=quick)
        def storing(slot: Slot) -> Any:
            found = [(yield self.verbs.store.increment("of steps", 2))]
            yield self.verbs.store.set(repr(slot), slot)
            found.append((yield self.verbs.store.delete(repr(slot))))
            found.append((yield self.verbs.store.push("of steps too", slot)))
            _world.did(slot)
            if _attempt() < 2:
                raise OSError(slot)
            return found

        @self._step("scheduling")
        def scheduling(slot: Slot) -> Any:
            _world.did(slot)
            yield self.verbs.schedule(work, (*slot, "scheduled"), delay="1 hour")
            return slot

        @self._step("nested")
        def nested(slot: Slot, body: Program) -> Any:
            return (yield from self.play(slot, body))

        @self._step("retried", retry=quick)
        def retried(slot: Slot, body: Program) -> Any:
            found = yield from self.play(slot, body)
            if _attempt() < 2:
                raise OSError(slot)
            return found

        self.work, self.timed, self.flaky, self.refused, self.gate = work, timed, flaky, refused, gate
        self.memo, self.doubt, self.tried, self.act, self.tell = memo, doubt, tried, act, tell
        self.storing, self.scheduling, self.nested, self.retried = storing, scheduling, nested, retried

    def _undoing_steps(self) -> None:
        @self._step("take_back", retry=Retry(attempts=3, initial=1, jitter=0))
        def take_back(slot: Slot) -> None:
            _world.tries["undo", *slot] += 1
            if _world.tries["undo", *slot] == 1:
                raise OSError("at the second attempt")
            _world.take_back(slot)

        @self._step("cannot_take_back", retry=Retry(attempts=2, initial=1, jitter=0))
        def cannot_take_back(slot: Slot) -> None:
            raise OSError("never")

        def undoing(name: str, undo: Any) -> Any:
            @self._step(name, undo=undo)
            def undoable(slot: Slot) -> Any:
                yield self.verbs.store.push("undoables", slot)
                _world.did(slot)
                return slot

            return undoable

        self.undoable = undoing("undoable", take_back)
        self.plainly_undoable = undoing("plainly_undoable", self.flavour.body(_take_back))
        self.stubborn = undoing("stubborn", cannot_take_back)

    def _workflows(self) -> None:
        name = f"laws.{self.flavour!r}"

        @self.flavour.workflow(name=f"{name}.child")
        def child(slot: Slot, body: Program) -> Any:
            return (yield from self.play(slot, body))

        @self.flavour.workflow(name=f"{name}.lost")
        def lost(slot: Slot, body: Program) -> Any:
            yield from self.play(slot, body)
            yield self.refused((*slot, "lost"))

        @self.flavour.workflow(
            name=f"{name}.main",
            id="main",
            on_complete=lambda run: _world.ends.append("complete"),
            on_error=lambda run, error: _world.ends.append(type(error).__name__),
        )
        def main() -> Any:
            found = yield from self.play((), _world.program)
            if _world.ending == "raise":
                raise Failed
            if _world.ending == "retry":
                yield self.gate(("gate",))
            return found, (yield self.verbs.store.items())

        self.child, self.lost, self.main = child, lost, main

    def play(self, at: Slot, body: Program) -> Any:
        """Execute *body* whose place is *at*; what its nodes gave."""
        found = []
        for n, (kind, *inner) in enumerate(body):
            slot = (*at, n)
            found.append((yield from getattr(self, f"on_{kind}")(slot, *inner)))
        return found

    # Steps

    def _same(self, slot: Slot, call: Any) -> Any:
        value = yield call
        _world.expect(slot, value, slot)
        _world.saw(slot, value)
        return value

    def on_step(self, slot: Slot) -> Any:
        return (yield from self._same(slot, self.work(slot)))

    def on_doubt(self, slot: Slot) -> Any:
        return (yield from self._same(slot, self.doubt(slot)))

    def on_try_(self, slot: Slot) -> Any:
        value = yield self.tried(slot)
        _world.expect(slot, value, slot)
        return value

    def on_flaky(self, slot: Slot) -> Any:
        value = yield self.flaky(slot)
        _world.saw(slot, value)
        return value is not None

    def on_undoable(self, slot: Slot) -> Any:
        yield from self._same(slot, self.undoable(slot))
        with _world.lock:
            if slot not in _world.undoables and not _world.process.dead:
                _world.undoables.append(slot)

    def on_plainly_undoable(self, slot: Slot) -> Any:
        yield from self._same(slot, self.plainly_undoable(slot))
        with _world.lock:
            if slot not in _world.undoables and not _world.process.dead:
                _world.undoables.append(slot)

    def on_stubborn(self, slot: Slot) -> Any:
        yield from self._same(slot, self.stubborn(slot))

    def on_memo(self, slot: Slot) -> Any:
        """The second call is answered by the memo, which may have expired when that is replayed."""
        for at in (slot, (*slot, "again")):
            value = yield self.memo(len(slot) % 2, at)
            _world.expect(at, value, ("memo", len(slot) % 2))
            _world.saw(at, value)
        return value

    def on_handled(self, slot: Slot) -> Any:
        try:
            yield self.refused(slot)
        except Refused as error:
            _world.expect(slot, (error.code, error.slot, str(error)), (17, slot, "code 17"))
            yield self.work((*slot, "handled"))
            _world.saw(slot, "handled")
            return error.code
        raise AssertionError

    def on_silent(self, slot: Slot) -> Any:
        try:
            yield self.refused(slot)
        except Refused as error:
            _world.saw(slot, error.code)
            return error.code
        raise AssertionError

    def on_nested(self, slot: Slot, body: Program) -> Any:
        return (yield self.nested(slot, body))

    def on_retried(self, slot: Slot, body: Program) -> Any:
        return (yield self.retried(slot, body))

    # The run store

    def on_increment(self, slot: Slot) -> Any:
        value = yield self.verbs.store.increment("n", 1)
        _world.saw(slot, value)
        return value > 0

    def on_push(self, slot: Slot) -> Any:
        value = yield self.verbs.store.push("l", slot)
        _world.saw(slot, value)
        return value > 0

    def on_set(self, slot: Slot) -> Any:
        yield self.verbs.store.set(repr(slot), slot)
        value = yield self.verbs.store.get(repr(slot))
        _world.expect(slot, value, slot)

    def on_delete(self, slot: Slot) -> Any:
        yield self.verbs.store.set(repr(slot), 1)
        found = (yield self.verbs.store.delete(repr(slot))), (yield self.verbs.store.delete(repr(slot)))
        _world.expect(slot, found, (True, False))

    def on_get(self, slot: Slot) -> Any:
        value = yield self.verbs.store.get("n", "none")
        if flowdsl.current_step() is None:  # in a step, reads are live
            yield self.act(slot, value)
            _world.saw(slot, value)

    def on_items(self, slot: Slot) -> Any:
        value = yield self.verbs.store.items()
        if flowdsl.current_step() is None:
            yield self.act(slot, value)
            _world.saw(slot, value)

    def on_store_in_step(self, slot: Slot) -> Any:
        value = yield self.storing(slot)
        _world.saw(slot, value)
        return len(value)

    # Time and signals

    def on_sleep(self, slot: Slot) -> Any:
        seconds = _world.length(slot, 72)
        due = _world.due("sleep", f"{seconds:g} s", seconds)
        yield self.verbs.sleep(timedelta(seconds=seconds))
        _world.woke(slot, due)

    def on_sleep_until(self, slot: Slot) -> Any:
        moment = flowdsl.now() + timedelta(hours=5)
        yield self.verbs.sleep_until(moment)
        if moment.timestamp() > _world.clock.now() + 0.01 and not _world.process.dead:
            _world.wrong.append(f"{slot} slept until {moment} and woke before that")

    def on_early(self, slot: Slot) -> Any:
        name = f"early {slot}"
        yield self.tell(flowdsl.current_run().id, name, slot, (*slot, "tell"))
        value = yield self.verbs.wait_for(name, timeout="1 day")
        _world.expect(slot, value, slot)

    def on_late(self, slot: Slot) -> Any:
        name = f"late {slot}"
        run_id = flowdsl.current_run().id
        yield self.verbs.schedule(self.tell, run_id, name, slot, (*slot, "scheduled"), delay="1 hour")
        value = yield self.verbs.wait_for(name, timeout="10 days")
        _world.expect(slot, value, slot)

    def on_chosen(self, slot: Slot) -> Any:
        name, run_id = f"chosen {slot}", flowdsl.current_run().id
        yield self.tell(run_id, name, {"to": "others"}, (*slot, "tell", 0))
        yield self.tell(run_id, name, {"to": "me", "slot": slot}, (*slot, "tell", 1))
        value = yield self.verbs.wait_for(name, where={"to": "me"})
        _world.expect(slot, value, {"to": "me", "slot": slot})
        value = yield self.verbs.wait_for(name, where=lambda payload: payload["to"] == "others")
        _world.expect(slot, value, {"to": "others"})

    def on_two_signals(self, slot: Slot) -> Any:
        name, run_id = f"two {slot}", flowdsl.current_run().id
        for n in range(2):
            yield self.tell(run_id, name, n, (*slot, "tell", n))
        for n in range(2):
            value = yield self.verbs.wait_for(name)
            _world.expect(slot, value, n)

    def on_in_vain(self, slot: Slot) -> Any:
        name, seconds = f"never {slot}", _world.length(slot, 2)
        due = _world.due("wait", repr(name), seconds)
        try:
            yield self.verbs.wait_for(name, timeout=seconds)
        except WaitTimeout:
            _world.woke(slot, due)
            return "in vain"
        raise AssertionError

    # Recorded values

    def on_now(self, slot: Slot) -> Any:
        yield self.act(slot, flowdsl.now())

    def on_uuid4(self, slot: Slot) -> Any:
        value = str(flowdsl.uuid4())
        yield self.act(slot, value)
        return value

    def on_rng(self, slot: Slot) -> Any:
        value = flowdsl.rng().random()
        yield self.act(slot, value)
        return value

    def on_log(self, slot: Slot) -> Any:
        flowdsl.log("line", slot=repr(slot))
        return None
        yield

    def on_send(self, slot: Slot) -> Any:
        with _world.lock:
            _world.sent.add(slot)
        flowdsl.send("laws.event", slot)
        return None
        yield

    # Branches and children

    def on_schedule(self, slot: Slot) -> Any:
        seconds, there = _world.length(slot, 1), (*slot, "scheduled")
        _world.arm(there, _world.due("schedule", f"slot={there!r}", seconds))
        yield self.verbs.schedule(self.timed, there, delay=seconds)

    def on_schedule_from_step(self, slot: Slot) -> Any:
        yield self.scheduling(slot)

    def on_child(self, slot: Slot, body: Program) -> Any:
        return (yield self.child(slot, body))

    def on_started(self, slot: Slot, body: Program) -> Any:
        run = self.child.start(slot, body)
        yield self.work((*slot, "beside"))
        return (yield run if self.flavour.is_async else run.result())

    def on_lost_child(self, slot: Slot, body: Program) -> Any:
        try:
            yield self.lost(slot, body)
        except Refused as error:
            yield self.work((*slot, "handled"))
            return error.code
        raise AssertionError

    def on_submitted(self, slot: Slot, body: Program) -> Any:
        futures = [self.nested.submit((*slot, n), (node,)) for n, node in enumerate(body)]
        return (yield self.verbs.gather(*futures))

    def on_mapped(self, slot: Slot, body: Program) -> Any:
        return (yield self.nested.map([(*slot, n) for n in range(len(body))], [(node,) for node in body]))

    def on_branches(self, slot: Slot, body: Program) -> Any:
        if not self.flavour.is_async:
            futures = [self.nested.submit((*slot, n), (node,)) for n, node in enumerate(body)]
            return [future.result() for future in reversed(futures)][::-1]
        branch = self.flavour.body(lambda at, body: (yield from self.play(at, body)))
        return (yield self.verbs.gather(*(branch((*slot, n), (node,)) for n, node in enumerate(body))))

    def on_plain(self, slot: Slot, body: Program) -> Any:
        """Tasks or threads of the body's own, each with several steps of its own content."""
        calls = [((*slot, n), (("step",), node, ("step",))) for n, node in enumerate(body)]
        if self.flavour.is_async:
            return (yield asyncio.gather(*(self._two(at, nodes) for at, nodes in calls)))
        return _in_threads([lambda at=at, nodes=nodes: self._two_now(at, nodes) for at, nodes in calls])

    async def _two(self, at: Slot, nodes: Program) -> Any:
        return [await self.nested((*at, "a"), nodes), await self.work((*at, "b"))]

    def _two_now(self, at: Slot, nodes: Program) -> Any:
        return [self.nested((*at, "a"), nodes), self.work((*at, "b"))]


def _take_back(slot: Slot) -> None:
    _world.take_back(slot)


def _attempt() -> int:
    view = flowdsl.current_step()
    assert view is not None
    return view.attempt


def _in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    found: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def work(n: int) -> None:
        try:
            found[n] = calls[n]()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(work, n), daemon=True)
        for n in range(len(calls))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


PLAYERS = {False: Player(Flavour(False)), True: Player(Flavour(True))}
