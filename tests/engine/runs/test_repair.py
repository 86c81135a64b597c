"""Repair by hand, and the audit entries of it."""

import os
import threading

import pytest
from support import ONCE, Crash, Effects, Mortal

import flowdsl
from flowdsl import RunStatus, Runtime, step, workflow
from flowdsl.errors import RunConflict, RunFinished, StepNotFound, StepOutcomeUnknown
from flowdsl.runtime import engine_of


def audits(rt, run_id):
    """What was done by hand to a run, each with who did it."""
    entries = rt.run(run_id).audit()
    assert all(f":{os.getpid()}" in entry.who and entry.at.tzinfo is not None for entry in entries)
    return [entry.action for entry in entries if entry.action != "continue"]


def three(flavour, effects, broken):
    """A run of three steps, the last of which fails while *broken*."""

    @flavour.step(name="three.f", retry=ONCE)
    def f(n):
        effects(n)
        if n == 2 and broken:
            raise OSError
        return n, effects.count(n)

    @flavour.workflow(id="w", name="three.w")
    def w():
        found = []
        for n in range(3):
            found.append((yield f(n)))
        return found

    return w, f


@pytest.mark.parametrize("by", ["key", "short key"])
def test_fork_copies_what_was_recorded_before_the_point(runtime, flavour, effects: Effects, by):
    """A fork replays what was recorded before the point and executes the rest, and the old run does not
    change."""
    w, f = three(flavour, effects, [])
    flavour.call(w)
    key = runtime.run("w").steps()[1].key
    new = runtime.fork("w", before=key if by == "key" else key[:10], id="again")
    assert new.result() == [(0, 1), (1, 2), (2, 2)]
    assert new.id == "again"
    assert effects == [0, 1, 2, 1, 2]
    assert audits(runtime, "again") == ["fork"]
    assert [s.result() for s in runtime.run("w").steps()] == [(0, 1), (1, 1), (2, 1)]


def test_fork_by_path_means_the_first_such_step(runtime, flavour, effects: Effects):
    """A fork point is a path, its end or the decorated function, the first such step counts, and an unknown
    one is named."""
    w, f = three(flavour, effects, [])
    flavour.call(w)
    for before in ("three.f", "f", f):
        assert runtime.fork("w", before=before).result()[0][0] == 0
    assert effects.count(0) == 4
    with pytest.raises(StepNotFound, match="three.f"):
        runtime.fork("w", before="nothing")
    with pytest.raises(RunConflict):
        runtime.fork("w", before=f, id="w")


def test_fork_takes_the_store_and_the_drawn_values_of_before(runtime):
    """A fork replays values of the store and of ``now`` and the like from before the point, and makes new
    ones after it."""

    @step
    def mark(n):
        return n

    @workflow(id="w")
    def w():
        flowdsl.store.push("l", "before")
        first = flowdsl.uuid4(), flowdsl.now()
        mark(1)
        flowdsl.store.push("l", "after")
        mark(2)
        return first, flowdsl.uuid4(), flowdsl.store.get("l")

    old = w()
    engine_of(runtime).clock.sleep(60)
    new = runtime.fork("w", before=runtime.run("w").steps()[-2].key, id="x").result()
    assert new[0] == old[0]
    assert new[1] != old[1]
    assert new[2] == old[2] == ["before", "after"]


def test_retry_executes_the_open_failure_and_leaves_an_entry(runtime, flavour, effects: Effects):
    """``rt.retry`` executes the open failure, and the audit says who did it."""
    broken = [True]
    w, f = three(flavour, effects, broken)
    with pytest.raises(OSError):
        flavour.call(w)
    broken.clear()
    assert runtime.retry("w").result() == [(0, 1), (1, 1), (2, 2)]
    assert audits(runtime, "w") == ["retry"]
    with pytest.raises(RunFinished):
        runtime.retry("w")


def test_resume_continues_an_interrupted_run_and_leaves_an_entry(storage, clock, flavour, effects: Effects):
    """``rt.resume`` executes what is missing from the stored arguments, and the audit says so."""
    w, f = three(flavour, effects, [])
    with Runtime(Mortal(storage, 2), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock) as rt:
        assert len(rt.resume("w").result()) == 3
        assert audits(rt, "w") == ["resume"]


def test_forget_inside_a_run_is_recorded_once(storage, clock, effects: Effects):
    """After ``forget`` the next replay executes the step again, once."""
    broken = [True]

    @step(name="forget.f")
    def f(n):
        return effects(n)

    @step(retry=ONCE)
    def fails():
        if broken:
            raise OSError

    @workflow(id="w")
    def w():
        found = f(1)
        f.forget(1)
        again = f(1)
        fails()
        return found, again

    with Runtime(storage, clock=clock) as rt:
        for _ in range(3):
            with pytest.raises(OSError):
                w()
        broken.clear()
        assert w() == (3, 2)
        assert audits(rt, "w") == ["forget"]
    assert effects.count(1) == 3


def test_reuse_takes_the_recorded_result_and_leaves_one_entry(storage, clock, flavour, effects: Effects):
    """With ``on_divergence="reuse"`` the audit says once what was called with what."""
    value, broken = ["a"], [True]

    @flavour.step(on_divergence="reuse")
    def f(x):
        effects(x)
        return x

    @flavour.step(retry=ONCE)
    def fails():
        if broken:
            raise OSError

    @flavour.workflow(id="w")
    def w():
        found = yield f(value[0])
        yield fails()
        return found

    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(OSError):
            flavour.call(w)
        value[0] = "b"
        with pytest.raises(OSError):
            flavour.call(w)
        broken.clear()
        assert flavour.call(w) == "a"
        assert audits(rt, "w") == ["reuse"]
        (entry,) = (s for s in rt.storage.list_steps("w") if s.path == "flowdsl.reuse")
    assert effects == ["a"]
    assert "'a'" in entry.args
    assert "'b'" in entry.args


@pytest.mark.parametrize(
    ("what", "answer"), [({"result": 7}, 7), ({"error": KeyError("k")}, KeyError), ({"rerun": True}, "body")]
)
def test_resolve_says_what_came_of_a_step_in_doubt(storage, clock, flavour, what, answer):
    """After a kill in the body the run stops, and continues when a person resolves the step."""
    calls = []

    @flavour.step(in_doubt="raise")
    def f():
        calls.append(1)
        return "body"

    @flavour.workflow(id="w")
    def w():
        return (yield f())

    with Runtime(Mortal(storage, 2), clock=clock), pytest.raises(Crash):
        flavour.call(w)
    with Runtime(storage, clock=clock) as rt:
        for _ in range(2):
            with pytest.raises(StepOutcomeUnknown, match="resolve"):
                flavour.call(w)
        assert rt.run("w").status is RunStatus.RUNNING
        rt.resolve("w", f, **what)
        if isinstance(answer, type):
            with pytest.raises(answer):
                flavour.call(w)
        else:
            assert flavour.call(w) == answer
        assert audits(rt, "w") == ["resolve"]
        with pytest.raises(TypeError):
            rt.resolve("w", f)
    assert len(calls) == (2 if "rerun" in what else 1)


def test_a_step_of_a_run_that_executes_is_not_in_doubt(runtime):
    """A step of a run that is executing cannot be resolved."""
    inside, go = threading.Event(), threading.Event()

    @step(in_doubt="raise", name="busy.f")
    def f():
        inside.set()
        go.wait(60)
        return "body"

    @workflow(id="w")
    def w():
        return f()

    run = w.start()
    inside.wait(60)
    with pytest.raises(RunConflict, match="executing"):
        runtime.resolve("w", f, result="person")
    go.set()
    assert run.result() == "body"
    assert audits(runtime, "w") == []


def test_resolve_by_path_means_the_step_without_an_outcome(storage, clock, flavour):
    """``resolve`` by path means the call without an outcome, although earlier calls have completed."""

    @flavour.step(in_doubt="raise", name="third.f")
    def f(n):
        if n == 2:
            raise KeyboardInterrupt
        return n

    @flavour.workflow(id="w")
    def w():
        found = []
        for n in range(3):
            found.append((yield f(n)))
        return found

    with Runtime(storage, clock=clock) as rt:
        with pytest.raises(KeyboardInterrupt):
            flavour.call(w)
        rt.resolve("w", "third.f", result="word")
        assert flavour.call(w) == [0, 1, "word"]
        with pytest.raises(RunFinished):
            rt.resolve("w", "third.f", rerun=True)


@pytest.mark.parametrize("by_id", [True, False])
def test_a_fork_that_was_cut_off_is_never_executed(storage, clock, effects: Effects, by_id):
    """A fork whose process died while it copied is marked, never executes, and is made again."""

    @step(name="cut.f")
    def f(n):
        return effects(n)

    @workflow(name="cut.w")
    def w():
        return [f(n) for n in range(4)]

    with Runtime(storage, clock=clock) as rt:
        assert w() == [1] * 4
        (run,) = rt.runs()
        point = run.steps()[-1].key
    new = "again" if by_id else None
    for at in range(4):
        for after in (False, True):
            before = len(effects)
            with Runtime(Mortal(storage, at, after=after), clock=clock) as rt:
                try:
                    rt.fork(run.id, before=point, id=new)
                except Crash:
                    pass
            with Runtime(storage, clock=clock) as rt:
                for one in rt.recover():
                    one.result()  # all was copied, and it had yet to begin
                left = [one for one in rt.runs() if one.id != run.id]
                assert [e for e in effects.log[before:]] in ([], [3])
                for one in left:
                    if one.status is RunStatus.FAILED:
                        assert "fork again" in str(one.exception())
                        with pytest.raises(RunConflict):
                            rt.resume(one.id)
                        if by_id:
                            assert rt.fork(run.id, before=point, id=new).result()[:3] == [1] * 3
                    else:
                        assert one.result()[:3] == [1] * 3
                    rt.delete(one.id)
