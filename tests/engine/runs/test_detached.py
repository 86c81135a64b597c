"""``options(detached=True)``: a run that another one starts and does not wait for."""

import threading

import pytest
from support import Crash
from verbtools import until, with_a_crash_at_each_commit

from flowdsl import Runtime, current_run, wait_for, workflow
from flowdsl.storage import MemoryStorage


def test_exactly_one_run_for_each_call(flavour):
    """Each call starts one run, after a crash at each commit, and the caller does not wait for it."""

    @flavour.workflow
    def other(n):
        return n * 2

    @flavour.step
    def note():
        pass

    @flavour.workflow(id="w")
    def w():
        first = other.options(detached=True).start(1)
        second = other.options(detached=True).start(1)
        yield note()
        return first.id, second.id

    for rt, (first, second) in with_a_crash_at_each_commit(MemoryStorage, lambda rt: flavour.call(w)):
        assert first != second
        runs = {run.id: run for run in rt.runs(workflow=other)}
        assert set(runs) == {first, second}
        rt.recover()
        for run in runs.values():
            assert run.result(60) == 2
            assert run.started_by == "w"
            assert run.parent is None
        assert rt.run("w").children() == []


def test_the_caller_ends_and_is_cancelled_without_it(storage):
    """The caller ends and is cancelled without the detached run."""

    @workflow(id="other-{n}")
    def other(n):
        return wait_for("go")

    @workflow(id="w-{n}")
    def w(n):
        other.options(detached=True).start(n)
        if n:
            wait_for("never")

    with Runtime(storage) as rt:
        w(0)
        assert rt.run("w-0").status == "completed"
        assert rt.run("other-0").status == "running"
        caller = w.start(1)
        until(lambda: rt.run("other-1"))
        caller.cancel()
        with pytest.raises(Exception, match="cancelled"):
            caller.result(60)
        for n in (0, 1):
            rt.run(f"other-{n}").signal("go", n)
            assert rt.run(f"other-{n}").result(60) == n


def test_a_failing_caller_undoes_nothing_of_it(runtime, effects):
    """A failing caller does not undo a detached run."""
    from flowdsl import step

    @step(undo=lambda: effects("undone"))
    def act():
        effects("done")

    @workflow
    def other():
        act()

    @workflow(id="w")
    def w():
        run = other.options(detached=True).start()
        run.result()
        raise LookupError("fails")

    with pytest.raises(LookupError):
        w()
    assert effects == ["done"]


def test_a_chain_of_starts_leaves_no_ancestor_running(runtime):
    """In a chain of starts each starter ends without waiting for the next run."""

    @workflow(id="link-{n}")
    def link(n):
        if n < 200:
            link.options(detached=True).start(n + 1)
        return n

    link(0)
    assert runtime.run("link-0").status == "completed"
    assert until(lambda: runtime.run("link-200")).result(60) == 200
    until(lambda: not runtime.runs(status="running"))
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("flowdsl-link-")])


def test_outside_a_run_it_is_an_ordinary_start(runtime):
    """Outside a run a detached start is an ordinary start, and ``started_by`` is ``None``."""

    @workflow
    def other():
        return current_run().started_by

    assert other.options(detached=True).start().result() is None


def test_a_detached_call_that_waits_is_refused(runtime):
    """A detached call that would wait is refused, and the message names ``.start``."""

    @workflow
    def other():
        pass

    @workflow
    def w():
        other.options(detached=True)()

    with pytest.raises(TypeError, match="start"):
        w()


def test_a_starter_that_dies_has_started_it(storage):
    """The detached run is recorded before ``start`` returns, so it executes although the starter dies."""

    @workflow
    def other():
        return "ran"

    @workflow(id="w")
    def w():
        other.options(detached=True).start()
        raise Crash

    with Runtime(storage), pytest.raises(Crash):
        w()
    with Runtime(storage) as rt:
        rt.recover()
        (run,) = rt.runs(workflow=other)
        assert run.result(60) == "ran"
