"""Values that a body, child or branch may act upon are durable before it begins."""

import threading

import pytest
from support import Crash, Effects, Mortal, Relay
from verbsupport import until

import flowdsl
from flowdsl import Runtime, StepStatus, now, step, workflow
from flowdsl.engine.effects import run_async, run_sync
from flowdsl.engine.execution import current
from flowdsl.engine.record import commit
from flowdsl.runtime import engine_of
from flowdsl.storage.base import PutStep


def test_a_body_does_not_begin_while_another_branch_commits_the_value_that_it_got(storage):
    """A third body does not begin while the commit of the value that it got is under way."""
    started, go, held = threading.Event(), threading.Event(), threading.Event()
    durable = []

    class Holding(Relay):
        """Holds the commit of the step beside until the next body has begun, or waits to be allowed to."""

        def commit(self, operations):
            steps = [op.step for op in operations if isinstance(op, PutStep)]
            if any((s.path, s.status) == ("buffer.beside", StepStatus.COMPLETED) for s in steps):
                held.set()
                until(lambda: durable or engine_of(rt).committer._pending)
            return self.inner.commit(operations)

    @step(name="buffer.beside")
    def beside():
        started.set()
        go.wait(60)

    @step
    def act(at):
        durable.append([s.path for s in storage.list_steps("w") if s.kind == "value"])

    @workflow(id="w")
    def w():
        future = beside.submit()
        started.wait(60)
        at = now()
        go.set()
        held.wait(60)
        act(at)
        future.result()

    with Runtime(Holding(storage)) as rt:
        w()
    assert durable == [["flowdsl.now"]]


def nothing(run):
    """A commit of what the run has buffered, if anything."""
    yield from commit(run, None)
    return None, None


def test_a_flush_that_comes_too_late_commits_nothing(storage, flavour):
    """A branch whose values another branch has just committed commits nothing."""

    @flavour.workflow(id="w")
    def w():
        run = current.get().run
        now()
        for _ in range(2):  # as a branch does that saw the value before another one had stored it
            yield run_async(nothing(run)) if flavour.is_async else run_sync(nothing(run))

    with Runtime(storage):
        flavour.call(w)
    assert [s.kind for s in storage.list_steps("w")] == ["value"]


@pytest.mark.parametrize(
    ("verb", "storage"),
    [("call", "memory"), ("start", "sqlite"), ("schedule", "memory"), ("send", "sqlite"), ("step", "memory")],
    indirect=["storage"],
)
def test_whoever_gets_the_time_gets_the_same_after_a_crash(storage, clock, flavour, verbs, verb):
    """Wherever the process dies, a call that got the time gets the same time, without a second child or a
    divergence."""
    seen = []

    @flavour.step(name="buffer.act")
    def act(at):
        seen.append(at)
        return at

    @flavour.step(name="buffer.sent", mode="send")
    def sent(at):
        seen.append(at)

    @flavour.workflow(name="buffer.child")
    def child(at):
        return (yield act(at))

    @flavour.workflow(name="buffer.w", id="w")
    def w():
        at = now()
        if verb == "call":
            yield child(at)
        elif verb == "start":
            run = child.start(at)
            yield run if flavour.is_async else act(run.result())
        elif verb == "schedule":
            yield verbs.schedule(act, at)
        elif verb == "send":
            yield sent(at)
        else:
            yield act(at)
        return at

    for at in range(10):
        for after in (False, True):
            seen.clear()
            try:
                with Runtime(Mortal(storage, at, after=after), clock=clock):
                    flavour.call(w)
            except Crash:
                pass
            clock.advance(60)
            with Runtime(storage, clock=clock) as rt:
                moment = flavour.call(w)
                children = rt.run("w").children()
                assert len(children) == (verb in ("call", "start"))
                for run in (*children, rt.run("w")):
                    rt.delete(run.id)
            assert set(seen) <= {moment}


def test_values_stand_before_the_step_behind_them(runtime, effects: Effects):
    """A fork from a child's call replays the time taken before it."""

    @workflow(name="buffer.inner")
    def inner():
        assert current.get() is not None

    @workflow(id="w")
    def w():
        at = now()
        inner()
        return at

    old = w()
    engine_of(runtime).clock.sleep(60)
    point = next(s for s in runtime.run("w").steps() if s.kind == "child")
    assert runtime.fork("w", before=point.key, id="x").result() == old
    assert flowdsl.current_run() is None
