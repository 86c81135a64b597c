"""Cancelling a run: its children, its process, and where it stands."""

import asyncio
import threading

import pytest
from support import Crash, Effects, Flavour, Mortal, script, spawn
from verbsupport import until

import flowdsl
from flowdsl import Hooks, RunStatus, Runtime, aio, step, workflow
from flowdsl.errors import RunCancelled


def test_cancelling_the_parent_cancels_the_children(storage, flavour, verbs):
    """Cancelling a parent cancels its called and started children while they wait."""

    @flavour.workflow(name="c.child")
    def child(n):
        yield verbs.wait_for("never")

    @flavour.workflow(id="w", name="c.parent")
    def parent():
        child.start(1)
        yield child(2)

    with Runtime(storage) as rt:
        run = parent.start()
        until(lambda: sum(bool(c.steps()) for c in run.children()) == 2)
        run.cancel()
        with pytest.raises(RunCancelled):
            run.result(60)
        assert [c.status for c in run.children()] == [RunStatus.CANCELLED] * 2
        assert rt.run("w").status is RunStatus.CANCELLED


def test_cancelling_an_interrupted_parent_cancels_its_children(storage, clock, flavour, verbs):
    """Cancelling an interrupted parent leaves no child unfinished."""

    @flavour.workflow(name="i.child")
    def child():
        yield verbs.sleep(5)
        yield verbs.sleep(5)

    @flavour.workflow(id="w", name="i.parent")
    def parent():
        yield child()

    with Runtime(Mortal(storage, 4), clock=clock), pytest.raises(Crash):
        flavour.call(parent)
    with Runtime(storage, clock=clock) as rt:
        rt.cancel("w")
        assert rt.run("w").status is RunStatus.CANCELLED
        assert [c.status for c in rt.run("w").children()] == [RunStatus.CANCELLED]


def test_a_cancel_that_its_process_did_not_live_to_see_is_kept(storage, clock, flavour, verbs, effects):
    """A request to cancel is kept if the process dies, and the next process cancels and executes nothing."""
    from flowdsl.storage.base import UpdateRun

    @flavour.step
    def f():
        effects("f")

    @flavour.workflow(id="w")
    def w():
        yield verbs.sleep(5)
        yield f()

    with Runtime(Mortal(storage, 2), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    storage.commit([UpdateRun("w", {"cancel_requested": 1.0})])
    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(RunCancelled):
            flavour.call(w)
        assert rt.run("w").status is RunStatus.CANCELLED
    assert not len(effects)


@pytest.mark.parametrize("how", ["sleep", "submit", "body"])
def test_an_async_run_is_cancelled_at_once_wherever_it_stands(storage, how):
    """An async run is cancelled at once while it sleeps, waits for a submitted step, or is in a step's
    body."""
    here = threading.Event()

    @step
    async def long():
        here.set()
        await asyncio.sleep(3600)

    @workflow(id="w")
    async def w():
        if how == "submit":
            long.submit()
        elif how == "body":
            await long()
        here.set() if how == "sleep" else None
        await aio.sleep(3600)

    with Runtime(storage):
        run = w.start()
        here.wait(60)
        run.cancel()
        with pytest.raises(RunCancelled):
            run.result(60)
        assert run.status is RunStatus.CANCELLED


def test_a_run_is_cancelled_from_another_process(tmp_path):
    """A sleeping run of another process is cancelled within about a second."""
    code = script(
        tmp_path / "sleeps.py",
        """
        from flowdsl import Runtime, sleep, workflow
        from flowdsl.errors import NondeterminismError, RunCancelled
        @workflow(id="w")
        def w(): sleep(3600)
        with Runtime("sqlite:///flow.db"):
            try: w()
            except RunCancelled: print("cancelled")
        """,
    )
    process = spawn(code)
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        until(lambda: rt.run("w") and rt.run("w").steps())
        rt.cancel("w")
        assert process.communicate(timeout=60)[0] == "cancelled\n"
        assert rt.run("w").status is RunStatus.CANCELLED


class CancelsAtTheFirstReplay(Hooks):
    """A cancel that comes while a continued run has yet to ask for records."""

    def on_step_replay(self, step, result):
        flowdsl.current_runtime().cancel(step.run_id)


def test_a_cancel_during_a_replay_comes_where_the_journal_ends(
    storage, clock, flavour: Flavour, effects: Effects
):
    """A cancel during a replay takes effect after the recorded steps, so clean-up code sees all that was
    done."""
    dies = [True]

    @flavour.step
    def work(n):
        effects("work", n)

    @flavour.step
    def give_back(done):
        effects("give back", done)

    @flavour.workflow(id="w")
    def w():
        done = 0
        try:
            for n in range(4):
                yield work(n)
                done += 1
                if dies and n == 2:
                    dies.clear()
                    raise KeyboardInterrupt
        finally:
            yield give_back(done)

    with Runtime(storage, clock=clock), pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    with Runtime(storage, clock=clock, hooks=[CancelsAtTheFirstReplay()]) as rt:
        with pytest.raises(RunCancelled):
            flavour.call(w)
        assert rt.run("w").status is RunStatus.CANCELLED
    assert effects == [("work", 0), ("work", 1), ("work", 2), ("give back", 3)]


def test_a_run_that_waits_for_another_one_is_cancelled_at_once(storage):
    """A sync run that waits for the result of another run is cancelled at once."""

    @workflow(id="other")
    def other():
        flowdsl.wait_for("go")

    @step
    def begin(how):
        begun.set()

    @workflow(id="w-{how}")
    def w(how):
        begin(how)
        return other.options(detached=True).start().result() if how == "result" else other()

    with Runtime(storage) as runtime:
        blocking = other.start()
        for how in ("result", "call"):
            begun = threading.Event()
            run = w.start(how)
            assert begun.wait(60)
            run.cancel()
            assert isinstance(run.exception(), RunCancelled)
        assert blocking.status is RunStatus.RUNNING
        runtime.signal("other", "go")
        blocking.result()
