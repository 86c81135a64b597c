"""Runs in runs."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from support import ONCE, Crash, Declined, Effects, Flavour, Mortal, Relay

import flowdsl
import flowdsl.aio
from flowdsl import RunStatus, Runtime, continue_as_new, step, workflow
from flowdsl.storage import MemoryStorage, Storage
from flowdsl.storage.base import Operation, Outcome, PutStep, Restart


def test_a_child_is_a_run_of_its_own(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A child's id derives from the parent's step key, and handle, parent and children name each other."""

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def child(x):
        return (yield f(x))

    @flavour.workflow(id="p")
    def parent():
        a = yield child(1)
        b = yield child(1)
        return a, b

    assert flavour.call(parent) == (1, 2)
    run = runtime.run("p")
    children = run.children()
    assert [c.parent for c in children] == [run, run]
    assert len({c.id for c in children}) == 2
    assert [(s.kind, s.status) for s in run.steps()] == [("child", "completed")] * 2
    assert flavour.call(parent) == (1, 2)
    assert len(effects) == 2


def test_a_child_that_was_interrupted_continues_with_its_parent(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """An interrupted child continues with its parent, by the same call."""
    stop = [True]

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def child():
        a = yield f(1)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        b = yield f(2)
        return a, b

    @flavour.workflow
    def parent():
        return (yield child())

    with pytest.raises(KeyboardInterrupt):
        flavour.call(parent)
    assert flavour.call(parent) == (1, 1)
    assert len(runtime.runs()) == 2
    assert len(effects) == 2


def test_a_failed_child_continues_when_its_parent_is_called_again(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """When the parent is called again, the child's open step executes, and its other steps are replayed."""
    fixed = []

    @flavour.step
    def good():
        return effects("good")

    @flavour.step(retry=ONCE)
    def bad():
        effects("bad")
        if not fixed:
            raise Declined("no")
        return "fine"

    @flavour.workflow
    def child():
        yield good()
        return (yield bad())

    @flavour.workflow
    def parent():
        return (yield child())

    with pytest.raises(Declined, match="no"):
        flavour.call(parent)
    fixed.append(True)
    assert flavour.call(parent) == "fine"
    assert effects == ["good", "bad", "bad"]
    assert {str(r.status) for r in runtime.runs()} == {"completed"}


def test_a_divergent_child_is_no_failure_of_the_parent(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A divergence in a child stops the parent too, and does not fail it."""
    from flowdsl.errors import NondeterminismError

    args = [1]

    @flavour.step
    def f(x):
        return x

    @flavour.workflow
    def child():
        yield f(args[0])
        if args[0] == 1:
            raise KeyboardInterrupt

    @flavour.workflow
    def parent():
        try:
            yield child()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
        return "swallowed"

    with pytest.raises(KeyboardInterrupt):
        flavour.call(parent)
    args[0] = 2
    with pytest.raises(NondeterminismError):
        flavour.call(parent)
    assert {str(r.status) for r in runtime.runs()} == {"running"}


# Children that nobody waits for any more --------------------------------------------------------------------


@pytest.fixture
def verbs(flavour: Flavour) -> Any:
    """The verbs of this flavour: those of ``flowdsl``, or of ``flowdsl.aio``."""
    return flowdsl.aio if flavour.is_async else flowdsl


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set, the threads of children of ``w`` do not begin."""
    held, begins = threading.Event(), threading.Thread.run

    def run(thread: threading.Thread) -> None:
        if thread.name.startswith("flowdsl-w/"):
            assert held.wait(60)
        begins(thread)

    monkeypatch.setattr(threading.Thread, "run", run)
    return held


def statuses(runtime: Runtime) -> dict[str, str]:
    """How the runs stand: ``w``, and its child."""
    return {"w" if run.id == "w" else "child": str(run.status) for run in runtime.runs()}


@pytest.mark.parametrize("end", ["begins anew", "completes", "fails"])
def test_a_loser_that_has_not_begun_ends_with_its_parent(
    storage: Storage, flavour: Flavour, verbs: Any, gate: threading.Event, end: str
):
    """A child that loses a race before its thread or task has begun is cancelled, however its parent ends."""

    @flavour.step
    def work():
        return 1

    @flavour.workflow
    def idle():
        yield verbs.wait_for("nothing")

    @flavour.workflow(id="w")
    def w(n=0):
        if n:
            return statuses(runtime)
        winner = work.submit()
        yield verbs.gather(winner)
        try:
            yield verbs.race(winner, idle.start())
            if end == "begins anew":
                continue_as_new(1)
            if end == "fails":
                raise Declined
        finally:
            gate.set()

    with Runtime(storage) as runtime:
        if end == "fails":
            with pytest.raises(Declined):
                flavour.call(w)
        elif end == "begins anew":
            assert flavour.call(w) == {"w": "running", "child": "cancelled"}
        else:
            flavour.call(w)
        assert statuses(runtime) == {"w": "failed" if end == "fails" else "completed", "child": "cancelled"}
        assert runtime.recover() == []


class Changes(Relay):
    """Tells when the next generation was asked for."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.changed = threading.Event()

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        if any(isinstance(operation, Restart) for operation in operations):
            self.changed.set()
        return self.inner.commit(operations)


def test_the_next_generation_waits_until_a_loser_was_given_back(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    """A child that does not begin is given back before anybody learns that it has ended, however late its thread
    is with what follows."""
    storage, called = Changes(), Future._invoke_callbacks  # type: ignore[attr-defined]

    def late(future: "Future[object]") -> None:
        if threading.current_thread().name.startswith("flowdsl-w/"):
            storage.changed.wait(60)
        called(future)

    monkeypatch.setattr(Future, "_invoke_callbacks", late)

    @step
    def work():
        return 1

    @workflow
    def idle():
        flowdsl.wait_for("nothing")

    @workflow(id="w")
    def w(n=0):
        if n:
            return statuses(runtime)
        try:
            flowdsl.race(work.submit(), idle.start())
            continue_as_new(1)
        finally:
            gate.set()

    with Runtime(storage) as runtime:
        assert w()["child"] == "cancelled"


def test_a_child_whose_task_is_cancelled_before_it_begins_is_cancelled(runtime: Runtime):
    """A child whose task the body cancels before it begins is cancelled, and does not stay running."""

    @workflow
    async def idle():
        await flowdsl.aio.wait_for("nothing")

    @workflow(id="w")
    async def w():
        before = asyncio.all_tasks()
        idle.start()
        (task,) = asyncio.all_tasks() - before
        task.cancel()

    asyncio.run(w())
    assert statuses(runtime) == {"w": "completed", "child": "cancelled"}


@pytest.mark.parametrize("end", ["begins anew", "completes"])
def test_a_child_that_nobody_asks_for_again_ends_with_its_parent(
    storage: Storage, flavour: Flavour, verbs: Any, gate: threading.Event, end: str
):
    """A loser that a dead process has left is cancelled, although a record answers the step that had started
    it."""

    @flavour.step
    def work():
        return 1

    @flavour.workflow
    def idle():
        yield verbs.wait_for("nothing")

    @flavour.step
    def holds():
        winner = work.submit()
        yield verbs.gather(winner)
        yield verbs.race(winner, idle.start())

    @flavour.step
    def after():
        pass

    @flavour.workflow(id="w")
    def w(n=0):
        if n:
            return statuses(runtime)
        try:
            yield holds()
            yield after()
            if end == "begins anew":
                continue_as_new(1)
        finally:
            gate.set()
        return None

    def is_after(operations: Sequence[Operation]) -> bool:
        return any(isinstance(one, PutStep) and one.step.path.endswith("after") for one in operations)

    with Runtime(Mortal(storage, is_after)) as runtime, pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage) as runtime:
        found = flavour.call(w)
        assert found == ({"w": "running", "child": "cancelled"} if end == "begins anew" else None)
        assert statuses(runtime) == {"w": "completed", "child": "cancelled"}
        assert runtime.recover() == []


@pytest.mark.parametrize("started", [False, True])
def test_one_child_for_each_call_across_crashes(storage, clock, flavour, started):
    """Each call has exactly one child, whatever crashes, and parent and child know each other."""

    @flavour.step(name="kids.f")
    def f(n):
        return n

    @flavour.workflow(name="kids.child")
    def child(n):
        return (yield f(n))

    @flavour.workflow(name="kids.parent", id="w")
    def parent():
        if started:
            run = child.start(1)
            assert run.status is not None
            return (yield run if flavour.is_async else run.result())
        return (yield child(1))

    for at in range(9):
        for after in (False, True):
            try:
                with Runtime(Mortal(storage, at, after=after), clock=clock):
                    flavour.call(parent)
            except Crash:
                pass
            with Runtime(storage, clock=clock) as rt:
                assert flavour.call(parent) == 1
                (inner,) = rt.run("w").children()
                assert inner.parent == rt.run("w")
                assert len(rt.runs()) == 2
                rt.delete(inner.id)
                rt.delete("w")


def test_children_that_wait_for_children_do_not_deadlock(runtime):
    """A hundred children that each start a child and wait for it do not deadlock."""

    @workflow(name="deep.child")
    def child(n, depth):
        return n if not depth else child.start(n, depth - 1).result()

    @workflow
    def w():
        return [run.result() for run in [child.start(n, 2) for n in range(40)]]

    assert w() == list(range(40))


def test_a_failing_child_raises_in_its_parent_and_continues_with_it(runtime, flavour, effects: Effects):
    """The parent gets the child's own error, and its retry continues the child."""
    broken = [True]

    @flavour.step(retry=ONCE)
    def f(n):
        effects(n)
        if n == 2 and broken:
            raise KeyError("child")

    @flavour.workflow
    def child():
        for n in range(3):
            yield f(n)

    @flavour.workflow(id="w")
    def parent():
        yield child()

    with pytest.raises(KeyError):
        flavour.call(parent)
    broken.clear()
    flavour.call(parent)
    assert effects == [0, 1, 2, 2]
    assert [run.status for run in runtime.run("w").children()] == [RunStatus.COMPLETED]


def test_a_failed_child_whose_parent_died_is_not_executed_again(storage, clock, flavour, effects: Effects):
    """A failed child whose parent died before recording that is not executed again."""

    @flavour.step(retry=ONCE, name="lost.f")
    def f():
        effects("f")
        raise KeyError("child")

    @flavour.workflow(name="lost.child")
    def child():
        yield f()

    @flavour.workflow(name="lost.parent", id="w")
    def parent():
        try:
            yield child()
        except KeyError:
            return "handled"

    for at, after in [(3, True), (4, False), (4, True), (5, False)]:  # 3 stores the child's end
        effects.log.clear()
        with pytest.raises(Crash):
            with Runtime(Mortal(storage, at, after=after), clock=clock):
                flavour.call(parent)
                raise Crash
        with Runtime(storage, clock=clock) as rt:
            (inner,) = rt.run("w").children()
            assert inner.status is RunStatus.FAILED
            assert flavour.call(parent) == "handled"
            assert effects == ["f"]
            rt.delete(inner.id)
            rt.delete("w")


def test_a_run_started_in_a_callback_is_independent(runtime: Runtime):
    """A run that a callback starts is no child of the run."""

    @workflow(id="other")
    def other():
        return 1

    @workflow(id="w", on_complete=lambda run: other.start())
    def w():
        return 2

    assert w() == 2
    assert runtime.run("other").result(60) == 1
    assert runtime.run("other").parent is None


def test_a_workflow_called_inside_a_runtime_of_the_body_is_no_child(runtime: Runtime):
    """A workflow that is called inside ``with Runtime()`` in a body is no child."""

    @workflow
    def inner():
        return len(flowdsl.current_runtime().runs())

    @workflow(id="w")
    def outer():
        with Runtime("memory://") as scratch:
            inner()
            return len(scratch.runs())

    assert outer() == 1
    assert [run.id for run in runtime.runs()] == ["w"]
