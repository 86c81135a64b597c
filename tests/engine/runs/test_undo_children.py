"""Undo across runs: children, forks, and runs that are cancelled from elsewhere."""

import itertools
import threading
from collections.abc import Callable, Sequence

import pytest
from sagas import is_undo_record, saga
from support import ONCE, Crash, Declined, Effects, Mortal, Relay, script, spawn

from flowdsl import RunStatus, Runtime, StepStatus, step, wait_for, workflow
from flowdsl.core.records import RunFilter, Step
from flowdsl.errors import FlowError, RunFinished, RunTimeout
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import ClaimRun, Operation, Outcome, UpdateRun
from flowdsl.testing import VirtualClock


def test_cancelling_an_interrupted_run_undoes_its_steps(storage, clock, flavour, effects: Effects):
    """Cancelling an interrupted run takes it over and undoes its steps."""
    w, _ = saga(flavour, effects, [])
    with Runtime(Mortal(storage, 3), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock) as rt:
        rt.cancel("w")
        assert rt.run("w").status is RunStatus.CANCELLED
    assert effects.log[-2:] == [("release", "r1"), ("release", "r0")]


def reserving(flavour, effects: Effects, name: str):
    """A child of one step that can be undone. It returns how often that step was executed."""

    @flavour.step(name=f"{name}.release")
    def release(result):
        effects("release")

    @flavour.step(undo=release, name=f"{name}.reserve")
    def reserve():
        return effects("reserve")

    @flavour.workflow(name=f"{name}.child")
    def child():
        return (yield reserve())

    return child


def test_a_completed_child_is_undone_by_its_own_steps(storage, clock, flavour):
    """A completed child is undone by its own steps, after a crash too, and keeps its status."""
    for at in range(1, 20):
        effects = Effects()

        @flavour.step(name="child.release")
        def release(result):
            effects("release", result)

        @flavour.step(undo=release, name="child.reserve")
        def reserve(n):
            return n

        @flavour.workflow(name="child.w")
        def child(n):
            yield reserve(n)
            yield reserve(n + 1)
            return n

        @flavour.workflow(name="parent.w", id="w")
        def parent():
            yield reserve(0)
            yield child(10)
            raise Declined

        try:
            with Runtime(Mortal(storage, at), clock=clock):
                flavour.call(parent)
        except (Crash, Declined):
            pass
        with Runtime(storage, clock=clock) as rt:
            record = rt.storage.get_run("w")
            if record is not None and record.status is RunStatus.RUNNING:
                with pytest.raises(Declined):
                    flavour.call(parent)
            run = rt.run("w")
            assert run.status is RunStatus.FAILED
            (inner,) = run.children()
            assert inner.status is RunStatus.COMPLETED
            assert {s.status for s in inner.steps() if s.kind == "step"} == {StepStatus.UNDONE}
            for n in (0, 10, 11):
                assert 1 <= effects.count("release", n) <= 2
            assert list(dict.fromkeys(effects.log)) == [("release", 11), ("release", 10), ("release", 0)]
            rt.delete(inner.id)
            rt.delete("w")


def test_an_undo_that_failed_in_a_child_is_not_tried_again_after_a_kill(flavour):
    """An undo that failed for good in a child, or in a child of that, is not tried again, wherever the process
    dies."""

    @flavour.step(name="deep.release", retry=ONCE)
    def release(n):
        effects("release", n)
        raise OSError

    @flavour.step(undo=release, name="deep.reserve")
    def reserve(n):
        return n

    @flavour.workflow(name="deep.inner")
    def inner():
        yield reserve(3)

    @flavour.workflow(name="deep.outer")
    def outer():
        yield reserve(1)
        yield inner()

    @flavour.workflow(id="w", name="deep.w")
    def w():
        yield outer()
        raise Declined

    for at in itertools.count():
        effects, storage = Effects(), MemoryStorage()
        dies = Mortal(storage, at, after=True)
        with Runtime(dies, clock=VirtualClock()), pytest.raises((Crash, Declined)):
            flavour.call(w)
        with Runtime(storage, clock=VirtualClock()) as rt:
            if rt.run("w").status is RunStatus.RUNNING:
                with pytest.raises(Declined):
                    flavour.call(w)
            assert effects == [("release", 3), ("release", 1)]
            assert [run.status for run in rt.runs()] == [RunStatus.COMPLETED] * 2 + [RunStatus.FAILED]
            assert [run.error_preview for run in storage.list_runs(RunFilter(parent="w"))] == [""]
            children = [s for run in rt.runs() for s in run.steps() if s.kind == "child"]
            assert [s.status for s in children] == [StepStatus.UNDONE] * 2
        if not dies.dead:
            break
    assert at > 15


def test_a_retry_runs_a_child_anew_that_was_undone_before_its_parent_knew_its_outcome(
    storage, clock, flavour, effects: Effects
):
    """If a process dies between the end of a child and its record in the parent, and the child is undone, a
    retry of the parent starts a new child."""

    child = reserving(flavour, effects, "late")

    @flavour.workflow(id="w", name="late.w", timeout=60)
    def parent():
        return (yield child())

    dies = Mortal(storage, lambda ops: any(_ends_child(op) for op in ops), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(parent)
    clock.advance(100)
    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(RunTimeout):
            flavour.call(parent)
        assert effects == ["reserve", "release"]
        assert [(s.path, s.status) for s in rt.run("w").steps()] == [("late.child", StepStatus.UNDONE)]
        assert rt.retry("w").result() == 2
    assert effects == ["reserve", "release", "reserve"]


def _ends_child(op: Operation) -> bool:
    return isinstance(op, UpdateRun) and op.run_id != "w" and op.changes.get("status") == "completed"


class Claims(Relay):
    """Tells when a run that is being undone is claimed."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.claimed = threading.Event()

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        if any(isinstance(one, ClaimRun) and "undoing" in one.changes for one in operations):
            self.claimed.set()
        return self.inner.commit(operations)


def test_a_parent_waits_for_a_child_that_somebody_else_undoes(effects: Effects):
    """A child whose undo goes on elsewhere is not undone once more by its parent, which waits for it."""
    begun, storage = threading.Event(), Claims()

    @step(name="half.release")
    def release(n):
        effects("release", n)
        if begins:
            begun.set()
            storage.claimed.wait(0.2)

    @step(undo=release, name="half.reserve")
    def reserve(n):
        return n

    @workflow(id="child")
    def child():
        reserve(1)
        reserve(2)

    @workflow(id="w")
    def w():
        child()
        raise Declined

    begins = False
    dies = Mortal(storage, is_undo_record("half.release", StepStatus.COMPLETED), after=True)
    with Runtime(dies), pytest.raises(Crash):
        w()
    storage.claimed.clear()
    begins = True
    with Runtime(storage) as rt:
        rt.resume("child")
        assert begun.wait(60)
        with pytest.raises(Declined):
            w()
    assert effects == [("release", 2), ("release", 1)]


def test_a_run_is_settled_if_a_killed_process_had_undone_its_child(storage, clock, flavour, effects: Effects):
    """A run whose unfinished child was undone is settled, even if the process dies before that child ends."""
    broken = []

    @flavour.step(name="halfway.release")
    def release(n):
        effects("release")

    @flavour.step(undo=release, name="halfway.reserve")
    def reserve():
        effects("reserve")

    @flavour.workflow(name="halfway.child")
    def child():
        yield reserve()
        if not broken:
            raise KeyboardInterrupt

    @flavour.workflow(id="w", name="halfway.w")
    def parent():
        if broken:
            raise Declined
        yield child()

    with Runtime(storage, clock=clock), pytest.raises(KeyboardInterrupt):
        flavour.call(parent)
    broken.append(1)
    dies = Mortal(storage, is_undo_record("halfway.release", StepStatus.COMPLETED), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(parent)
    with Runtime(storage, clock=clock), pytest.raises(Declined):
        flavour.call(parent)
    broken.clear()
    with Runtime(storage, clock=clock), pytest.raises(Declined):
        flavour.call(parent)  # what it had done was taken back, so this gives its failure again
    assert effects == ["reserve", "release"]


def test_a_call_does_not_continue_a_run_whose_failed_child_was_undone(storage, clock, effects: Effects):
    """A run whose child failed and was undone is settled: the next call starts another run."""

    @step
    def release(result):
        effects("release")

    @step(undo=release)
    def reserve():
        effects("reserve")

    @workflow
    def child():
        reserve()
        if effects("child") == 1:
            raise Declined
        return "reserved"

    @workflow
    def parent():
        return child()

    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(Declined):
            parent()
        assert effects == ["reserve", "child", "release"]
        assert parent() == "reserved"
        assert effects == ["reserve", "child", "release", "reserve", "child"]
        assert [run.number for run in rt.runs(workflow=parent.path)] == [2, 1]


def test_an_undone_child_runs_again_when_its_parent_is_retried(runtime, flavour, effects: Effects):
    """A retry of the parent starts a new child, and the undone one stays as it was."""
    broken = [True]

    child = reserving(flavour, effects, "again")

    @flavour.step(retry=ONCE)
    def charge():
        if broken:
            raise Declined

    @flavour.workflow(id="w")
    def parent():
        found = yield child()
        yield charge()
        return found

    with pytest.raises(Declined):
        flavour.call(parent)
    broken.clear()
    assert runtime.retry("w").result() == 2
    assert effects == ["reserve", "release", "reserve"]
    assert len(runtime.run("w").children()) == 2


def test_a_child_with_nothing_to_undo_stays_as_it_is(runtime, flavour, effects: Effects):
    """A child without anything to undo stays as it is, and a retry of its parent replays it."""
    broken = [True]

    @flavour.step(name="plain.f")
    def f(n):
        return effects("f", n)

    @flavour.workflow(name="plain.child")
    def child(n):
        return (yield f(n))

    @flavour.step(retry=ONCE)
    def fails():
        if broken:
            raise Declined

    @flavour.workflow(id="w")
    def parent():
        found = yield child(1)
        yield fails()
        return found

    with pytest.raises(Declined):
        flavour.call(parent)
    broken.clear()
    assert flavour.call(parent) == 1
    assert effects == [("f", 1)]
    assert len(runtime.run("w").children()) == 1


@pytest.mark.parametrize("has_undo", [True, False])
def test_a_parent_that_fails_ends_children_of_a_killed_process(
    storage, clock, flavour, verbs, effects: Effects, has_undo
):
    """Children of a killed process fail and are undone with their parent, and continue with its retry."""
    broken = []

    @flavour.step(name="left.release")
    def release(result):
        effects("release", result)

    @flavour.step(undo=release if has_undo else None, name="left.reserve")
    def reserve(n):
        effects("reserve", n)
        return n

    @flavour.workflow(name="left.child")
    def child():
        yield reserve(1)
        yield verbs.sleep(60)
        yield reserve(2)

    @flavour.workflow(id="w", name="left.parent")
    def parent():
        if broken:
            raise Declined
        yield child()
        return "done"

    dies = Mortal(storage, is_undo_record("left.reserve", StepStatus.COMPLETED), after=True)
    with Runtime(dies, clock=clock), pytest.raises(Crash):
        flavour.call(parent)
    broken.append(1)
    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(Declined):
            flavour.call(parent)
        (inner,) = rt.run("w").children()
        assert inner.status is RunStatus.FAILED
        assert "parent" in str(inner.exception())
        assert effects == [("reserve", 1), ("release", 1)][: 1 + has_undo]
        broken.clear()
        assert (rt.retry("w").result() if has_undo else flavour.call(parent)) == "done"
        assert [one.status for one in rt.run("w").children()] == [RunStatus.COMPLETED]
    assert effects.count("reserve", 1) == 1 + has_undo
    assert effects.count("reserve", 2) == 1


def test_cancelling_where_the_code_is_not_loaded_leaves_a_request(tmp_path, caplog):
    """Cancelling without the code leaves a request; a process with the code undoes and cancels."""
    code = script(
        tmp_path / "faraway.py",
        """
        import os, sys
        from flowdsl import Runtime, step, workflow
        from flowdsl.errors import RunCancelled

        @step
        def release(result): print("release", result, flush=True)
        @step(undo=release)
        def reserve(n): return n
        @step
        def dies():
            if sys.argv[1] == "die": os._exit(9)
            print("executed", flush=True)
        @workflow(id="w")
        def w():
            reserve(1); reserve(2); dies()
        with Runtime("sqlite:///flow.db") as rt:
            if sys.argv[1] == "die": w()
            for run in rt.recover():
                try: run.result()
                except RunCancelled: print(run.status, flush=True)
        """,
    )
    spawn(code, "die").communicate(timeout=60)
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        rt.cancel("w")
        assert "undone" in caplog.text
        run = rt.run("w")
        assert (run.status, run.interrupted) == (RunStatus.RUNNING, True)
        out, _ = spawn(code, "recover").communicate(timeout=60)
        assert out.splitlines() == ["release 2", "release 1", "cancelled"]
        assert run.status is RunStatus.CANCELLED
        with pytest.raises(RunFinished):
            rt.cancel("w")


def test_cancelling_where_the_code_is_not_loaded_is_done_at_once_if_nothing_has_to_be_undone(storage, clock):
    """Cancelling without the code is done at once if nothing must be undone."""
    from flowdsl.core.records import Run as RunRecord

    with Runtime(storage, clock=clock) as rt:
        for record in (
            RunRecord("w", "gone.w", "k", status=RunStatus.RUNNING),
            RunRecord("w/1", "gone.child", "k", status=RunStatus.RUNNING, parent="w"),
        ):
            storage.set_run(record)
            storage.set_step(Step(record.id, "k", "gone.f"))
        rt.cancel("w")
        assert [rt.run(one).status for one in ("w", "w/1")] == [RunStatus.CANCELLED] * 2


def test_a_fork_that_fails_leaves_the_children_of_its_origin_alone(runtime, flavour, effects: Effects):
    """A fork that fails does not undo the children of the run from which it was made."""

    @flavour.step(name="origin.release")
    def release(result):
        effects("release", result)

    @flavour.step(undo=release, name="origin.reserve")
    def reserve(n):
        return n

    @flavour.workflow(name="origin.child")
    def child():
        return (yield reserve(1))

    @flavour.step(retry=ONCE, name="origin.last")
    def last():
        if effects("last") > 1:
            raise Declined

    @flavour.workflow(id="w", name="origin.w")
    def parent():
        yield child()
        yield last()

    flavour.call(parent)
    with pytest.raises(Declined):
        runtime.fork("w", before=last, id="again").result()
    (inner,) = runtime.run("w").children()
    assert [s.status for s in inner.steps()] == [StepStatus.COMPLETED]
    assert effects == ["last", "last"]


class Watched(Relay):
    """Notes how the child stands when its parent ends, and calls *asked* when the child is to be cancelled."""

    def __init__(self, asked: Callable[[], object]) -> None:
        super().__init__(MemoryStorage())
        self.asked = asked
        self.seen: list[RunStatus] = []

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        outcomes = self.inner.commit(operations)
        for one in operations:
            changes = one.changes if isinstance(one, UpdateRun) else {}
            if "finished_at" in changes and one.run_id == "w":
                self.seen.append(self.inner.get_run("child").status)
            if changes.get("cancel_requested") is not None and one.run_id == "child":
                self.asked()
        return outcomes


@pytest.mark.parametrize("ends", [RunStatus.CANCELLED, RunStatus.FAILED])
def test_a_child_that_an_interrupt_has_left_behind_ends_before_its_parent(effects: Effects, ends: RunStatus):
    """A child that an interrupt left behind in its thread ends before its parent, and its steps are
    undone."""
    begun, go = threading.Event(), threading.Event()
    fails: list[bool] = []

    @step(name="behind.act", undo=lambda token: effects("undo", token))
    def act(token):
        begun.set()
        go.wait(60)
        return token

    @workflow(id="child")
    def child():
        act(1)
        wait_for("nothing")

    @workflow(id="w")
    def w():
        if fails:
            raise Declined
        child.start()
        begun.wait(60)
        raise KeyboardInterrupt

    watched = Watched(go.set)
    with Runtime(watched) as runtime:
        with pytest.raises(KeyboardInterrupt):
            w()
        if ends is RunStatus.CANCELLED:
            runtime.cancel("w")
        else:
            fails.append(True)
            with pytest.raises(Declined):
                w()
    assert watched.seen == [ends]
    assert effects == [("undo", 1)]


@pytest.mark.parametrize("status", [RunStatus.CANCELLED, RunStatus.COMPLETED, RunStatus.FAILED])
def test_recovering_cancels_a_child_whose_parent_has_ended(storage, flavour, effects: Effects, status):
    """``recover`` cancels and undoes a child whose parent has ended, unless the parent can be retried."""

    @flavour.step(name="orphan.act", undo=flavour.body(lambda token: effects("undo", token)))
    def act(token):
        return token

    @flavour.workflow(id="child")
    def child():
        yield act(1)
        raise KeyboardInterrupt

    @flavour.workflow(id="w")
    def w():
        yield child()

    with Runtime(storage) as runtime:
        with pytest.raises(KeyboardInterrupt):
            flavour.call(w)
        storage.commit([UpdateRun("w", {"status": status, "finished_at": 1.0})])
        assert runtime.recover() == []
        if status is RunStatus.FAILED:
            assert runtime.run("child").status is RunStatus.RUNNING
            storage.commit([UpdateRun("child", {"cancel_requested": 1.0})])
            runtime.recover()
        assert runtime.run("child").status is RunStatus.CANCELLED
        assert effects == [("undo", 1)]


def test_closing_gives_back_a_child_whose_undo_has_begun(storage, flavour):
    """A runtime that is closed during the undo of a child gives the child back, and another one goes on."""
    undone = []

    @flavour.step(name="undone.take_back")
    def take_back(number):
        undone.append(number)
        if len(undone) == 1:
            rt.close()

    @flavour.step(undo=take_back, name="undone.act")
    def act(number):
        return number

    @flavour.workflow(name="undone.child", id="child")
    def child():
        yield act(1)
        yield act(2)

    @flavour.workflow(name="undone.parent", id="parent")
    def parent():
        yield child()
        raise Declined

    with Runtime(storage) as rt, pytest.raises(FlowError):
        flavour.call(parent)
    assert [(run.id, run.owner) for run in storage.list_runs()] == [("child", None), ("parent", None)]
    with Runtime(storage) as rt, pytest.raises(Declined):
        rt.resume("parent").result(60)
    assert undone == [2, 1]
