"""The laws, over generated programs that use every verb, killed at any commit and again while they recover.

A program is a tuple of nodes. Every body notes what it did in a list that no crash touches. Then, wherever
the process died: the result is that of an execution without faults, what was acknowledged is not done again,
the run store holds the same, and no run is left unfinished.
"""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import FLAVOURS, Crash, Flavour, Mortal, examples

import flowdsl
import flowdsl.aio
from flowdsl import Retry, RunStatus, Runtime, StepStatus
from flowdsl.errors import WaitTimeout
from flowdsl.storage import MemoryStorage
from flowdsl.testing import VirtualClock

LEAVES = [
    "step",
    "flaky",
    "undoable",
    "increment",
    "push",
    "set",
    "get",
    "delete",
    "sleep",
    "wait",
    "timeout",
]
LEAVES += ["now", "uuid4", "log", "caught", "schedule", "memo"]


def nodes() -> st.SearchStrategy[Any]:
    """Programs: leaves, and nodes that hold programs."""
    leaf = st.sampled_from(LEAVES).map(lambda kind: (kind,))

    def holding(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        body = st.lists(inner, min_size=1, max_size=3).map(tuple)
        kinds = st.sampled_from(["nested", "child", "started", "branches", "submitted"])
        return st.tuples(kinds, body)

    return st.lists(st.recursive(leaf, holding, max_leaves=6), min_size=1, max_size=5).map(tuple)


class Failed(Exception):
    """How a program fails, if it does."""


class World:
    """What happened, outside of every storage, and the code of a program."""

    def __init__(self, flavour: Flavour, program: Any, *, fails: bool) -> None:
        self.flavour = flavour
        self.program = program
        self.fails = fails
        self.done: Counter[Any] = Counter()
        self.acknowledged: set[Any] = set()
        self.again: list[Any] = []
        self.tries: Counter[Any] = Counter()
        self.undone: list[Any] = []
        self.undoables: set[Any] = set()
        self.acted: dict[Any, Any] = {}
        self.verbs: Any = flowdsl.aio if flavour.is_async else flowdsl
        self.build()

    def did(self, slot: Any) -> None:
        """A body executes."""
        if slot in self.acknowledged:
            self.again.append(slot)
        self.done[slot] += 1

    def build(self) -> None:
        """Steps and workflows of this world."""
        step, world = self.flavour.step, self

        @step(name="laws.work")
        def work(slot: Any) -> Any:
            world.did(slot)
            return slot

        @step(name="laws.flaky", retry=Retry(attempts=4, jitter=0))
        def flaky(slot: Any) -> Any:
            pushed = yield world.verbs.store.push("flaky", slot)
            yield work((*slot, "inner"))
            world.did(slot)
            world.tries[slot] += 1
            if world.tries[slot] < 3:
                raise OSError(slot)
            return pushed

        @step(name="laws.refused", retry=Retry(attempts=1))
        def refused(slot: Any) -> Any:
            world.did(slot)
            raise KeyError(slot)

        @step(name="laws.take_back")
        def take_back(slot: Any) -> Any:
            world.undone.append(slot)

        @step(name="laws.undoable", undo=take_back)
        def undoable(slot: Any) -> Any:
            world.did(slot)
            return slot

        @step(name="laws.nested")
        def nested(slot: Any, body: Any) -> Any:
            return (yield from world.play(slot, body))

        @step(name="laws.act", ignore=("value",))
        def act(slot: Any, value: Any) -> Any:
            if world.acted.setdefault(slot, value) != value:
                world.again.append(slot)

        @step(name="laws.memo", memo=True)
        def memo(slot: Any) -> Any:
            world.did(slot)
            return "memo"

        @self.flavour.workflow(name="laws.child")
        def child(slot: Any, body: Any) -> Any:
            return (yield from world.play(slot, body))

        @self.flavour.workflow(name="laws.main", id="main")
        def main() -> Any:
            found = yield from world.play((), world.program)
            if world.fails:
                raise Failed
            return found, (yield world.verbs.store.items())

        self.work, self.flaky, self.refused, self.undoable = work, flaky, refused, undoable
        self.act, self.nested, self.memo, self.child, self.main = act, nested, memo, child, main

    def play(self, at: Any, body: Any) -> Any:
        """Execute *body* whose place is *at*; what its nodes gave."""
        found = []
        for n, node in enumerate(body):
            slot = (*at, n)
            value = yield from getattr(self, f"on_{node[0]}", self.on_store)(slot, *node)
            self.acknowledged.add(slot)
            found.append(value)
        return found

    def on_step(self, slot: Any, kind: str) -> Any:
        return (yield self.work(slot))

    def on_flaky(self, slot: Any, kind: str) -> Any:
        return (yield self.flaky(slot)) is not None

    def on_undoable(self, slot: Any, kind: str) -> Any:
        found = yield self.undoable(slot)
        self.undoables.add(slot)
        return found

    def on_memo(self, slot: Any, kind: str) -> Any:
        return (yield self.memo(slot))

    def on_caught(self, slot: Any, kind: str) -> Any:
        try:
            yield self.refused(slot)
        except KeyError as error:
            yield self.work((*slot, "handled"))
            return error.args
        raise AssertionError

    def on_store(self, slot: Any, kind: str) -> Any:
        store = self.verbs.store
        if kind == "increment":
            value = yield store.increment("n", 1)
            return value > 0
        if kind == "push":
            return (yield store.push("l", slot)) > 0
        if kind == "get":
            return (yield store.get(repr(slot), "none"))
        if kind == "delete":
            yield store.set(repr(slot), 1)
            return (yield store.delete(repr(slot)))
        return (yield store.set(repr(slot), slot))

    def on_sleep(self, slot: Any, kind: str) -> Any:
        return (yield self.verbs.sleep("3 days"))

    def on_wait(self, slot: Any, kind: str) -> Any:
        run = flowdsl.current_run()
        run.signal(repr(slot), [slot], key="once")
        return (yield self.verbs.wait_for(repr(slot), timeout="1 day"))

    def on_timeout(self, slot: Any, kind: str) -> Any:
        try:
            yield self.verbs.wait_for(f"never {slot}", timeout="2 hours")
        except WaitTimeout:
            return "in vain"
        raise AssertionError

    def on_now(self, slot: Any, kind: str) -> Any:
        yield self.act(slot, flowdsl.now())

    def on_uuid4(self, slot: Any, kind: str) -> Any:
        yield self.act(slot, (flowdsl.uuid4(), flowdsl.rng().random()))

    def on_log(self, slot: Any, kind: str) -> Any:
        flowdsl.log("line", slot=repr(slot))
        return None
        yield

    def on_schedule(self, slot: Any, kind: str) -> Any:
        yield self.verbs.schedule(self.work, (*slot, "scheduled"), delay="1 hour")

    def on_nested(self, slot: Any, kind: str, body: Any) -> Any:
        return (yield self.nested(slot, body))

    def on_child(self, slot: Any, kind: str, body: Any) -> Any:
        return (yield self.child(slot, body))

    def on_started(self, slot: Any, kind: str, body: Any) -> Any:
        run = self.child.start(slot, body)
        yield self.work((*slot, "beside"))
        return (yield run if self.flavour.is_async else run.result())

    def on_submitted(self, slot: Any, kind: str, body: Any) -> Any:
        futures = [self.nested.submit((*slot, n), (node,)) for n, node in enumerate(body)]
        return (yield self.verbs.gather(*futures))

    def on_branches(self, slot: Any, kind: str, body: Any) -> Any:
        if not self.flavour.is_async:
            return (yield self.nested.map([(*slot, n) for n in range(len(body))], [(b,) for b in body]))
        branch = self.flavour.body(lambda at, body: (yield from self.play(at, body)))
        return (yield self.verbs.gather(*(branch((*slot, n), (node,)) for n, node in enumerate(body))))


def outcome(world: World, storage: Any, clock: VirtualClock) -> Any:
    """Call the program; its result, or its failure."""
    with Runtime(storage, clock=clock):
        try:
            return world.flavour.call(world.main)
        except Failed:
            return "failed"


def shape(storage: Any, fails: bool) -> Any:
    """What is left in the storage when a program has ended. (A branch may begin or not while its run fails.)"""
    runs = storage.list_runs()
    assert {run.status for run in runs} <= {RunStatus.COMPLETED, RunStatus.FAILED}, "an orphan"
    assert all(run.owner is None for run in runs)
    logs = [s.extra for run in runs for s in storage.list_steps(run.id) if s.kind == "log"]
    steps = [
        s for run in runs for s in storage.list_steps(run.id) if s.kind in ("step", "child", "wait", "sleep")
    ]
    assert not [s for s in steps if s.status is StepStatus.PENDING]
    counted = [s for s in steps if not (fails and s.scope.endswith("/scheduled"))]
    return len(runs), sorted(logs), Counter((s.kind, s.path, str(s.status)) for s in counted)


def state(storage: Any, found: Any) -> Any:
    """The result with the lists of the store sorted, since branches interleave."""
    if found == "failed":
        return found
    value, items = found
    return value, {k: sorted(v) if isinstance(v, list) else v for k, v in items.items()}


def check(flavour: Flavour, program: Any, fails: bool, at: list[int], after: bool) -> int:
    """Compare a program that is killed at the commits *at* with one that is not; how many commits it has."""
    calm = World(flavour, program, fails=fails)
    counting = Mortal(MemoryStorage())
    expected = outcome(calm, counting, VirtualClock())
    harmed, storage, clock = World(flavour, program, fails=fails), MemoryStorage(), VirtualClock()
    for n in at:
        try:
            ended(harmed, Mortal(storage, n % counting.commits, after=after), clock)
        except Crash:
            pass
        clock.sleep(1)
    found = ended(harmed, storage, clock)
    assert state(storage, found) == state(counting.inner, expected)
    assert shape(storage, fails) == shape(counting.inner, fails)
    assert not harmed.again
    for world in (calm, harmed):
        assert set(world.undone) == (world.undoables if fails else set())
    return counting.commits


def ended(world: World, storage: Any, clock: VirtualClock) -> Any:
    """The outcome of a program: call it, unless it has failed already (to call it would retry it)."""
    record = storage.get_run("main")
    if record is not None and record.status is RunStatus.FAILED:
        return "failed"
    return outcome(world, storage, clock)


crashes = st.lists(st.integers(0, 200), min_size=1, max_size=3)


@pytest.mark.parametrize("flavour", FLAVOURS, ids=repr)
@settings(max_examples=examples(25))
@given(program=nodes(), fails=st.booleans(), at=crashes, after=st.booleans())
def test_programs_of_all_verbs_survive_kills(flavour, program, fails, at, after):
    """Whatever the program, wherever it dies and dies again: as if it had not."""
    check(flavour, program, fails, at, after)


ALL = tuple((kind,) for kind in LEAVES)
WHOLE = (*ALL, *((kind, (("step",), ("increment",), ("flaky",))) for kind in ["nested", "child", "started"]))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("flavour", FLAVOURS, ids=repr)
def test_a_program_with_every_verb_survives_a_kill_at_every_commit(flavour, fails):
    """Before and after each of its commits, and once more while it recovers."""
    commits = check(flavour, WHOLE, fails, [10**9], False)
    assert commits > 30
    for at in range(commits):
        check(flavour, WHOLE, fails, [at, at // 2], bool(at % 2))
