"""What a runtime says about its runs, and how it deletes them."""

import pytest
from support import Declined, Effects

from flowdsl import Retry, RunStatus, Runtime, StepStatus, step, workflow
from flowdsl.engine.runs.prune import prune
from flowdsl.errors import RunConflict, RunFinished
from flowdsl.runtime import engine_of
from flowdsl.storage.base import UpdateRun


def test_runs_filters_and_pages(runtime: Runtime, clock):
    """``runs`` filters by status, workflow, tags and time, and gives the newest first, with a limit."""

    @workflow(tags={"team": "a"})
    def w(x):
        if x == 3:
            raise Declined

    @workflow
    def v(): ...

    moments = []
    for x in range(5):
        moments.append(clock.now())
        if x == 3:
            with pytest.raises(Declined):
                w(x)
        else:
            w.options(tags=("odd",) if x % 2 else None)(x)
        clock.advance(10.0000003)  # so that what a handle shows, in microseconds, is not what is stored
    v()
    xs = lambda runs: [r.args.get("x") for r in runs]
    assert xs(runtime.runs(workflow=w)) == [4, 3, 2, 1, 0]
    assert xs(runtime.runs(workflow=w, newest_first=False)) == [0, 1, 2, 3, 4]
    assert xs(runtime.runs(workflow=w.path, limit=2)) == [4, 3]
    assert xs(runtime.runs(status="failed")) == [3]
    assert xs(runtime.runs(status=RunStatus.FAILED)) == [3]
    assert xs(runtime.runs(status=["failed", "completed"], workflow=w)) == [4, 3, 2, 1, 0]
    assert xs(runtime.runs(tags={"team": "a"})) == [4, 3, 2, 0]
    assert xs(runtime.runs(tags="odd")) == [1]
    assert xs(runtime.runs(tags=["odd"])) == [1]
    assert xs(runtime.runs(workflow=w, created_after=moments[3])) == [4, 3]
    assert xs(runtime.runs(workflow=w, created_before=moments[3])) == [2, 1, 0]
    at = runtime.runs(status="failed")[0].created_at
    assert xs(runtime.runs(workflow=w, created_after=at)) == [4, 3]
    assert xs(runtime.runs(workflow=w, created_before=at)) == [2, 1, 0]
    assert xs(runtime.runs(workflow=w, created_after=at, created_before=at)) == []
    assert len(runtime.runs()) == 6
    assert runtime.runs(limit=0) == []


def test_delete_removes_a_run_as_if_it_had_never_been(runtime: Runtime, effects: Effects):
    """After ``delete`` the id of a run is free again."""

    @step
    def f():
        return effects("f")

    @workflow(id="d")
    def w():
        return f()

    w()
    runtime.delete("d")
    assert runtime.run("d") is None
    runtime.delete("d")
    assert w() == 2


def test_prune_leaves_a_tombstone(runtime: Runtime, clock):
    """The id of a pruned run is never used for another run, and the error says so."""

    @workflow(id="pruned-{x}")
    def w(x):
        return x

    w(1)
    clock.advance("2 days")
    w(2)
    assert runtime.prune("1 day") == 1
    assert runtime.run("pruned-1") is None
    assert runtime.run("pruned-2") is not None
    with pytest.raises(RunFinished, match="pruned"):
        w(1)
    with pytest.raises(RunConflict):
        w.options(id="pruned-1")(5)


def test_prune_goes_in_batches(runtime: Runtime, clock):
    """``prune`` deletes all old runs, some in each commit."""

    @workflow(id="{x}")
    def w(x):
        return x

    for x in range(12):
        w(x)
    clock.advance("3 days")
    kept = ("2", "3", "4", "8", "11")
    runtime.storage.commit([UpdateRun(run_id, {"finished_at": clock.now()}) for run_id in kept])
    assert prune(engine_of(runtime), 2 * 86_400, (RunStatus.COMPLETED,), at_once=3) == 7
    assert sorted(run.id for run in runtime.runs()) == sorted(kept)


def test_prune_does_not_touch_what_may_continue(runtime: Runtime, clock):
    """``prune`` keeps interrupted runs, and failed ones unless asked."""
    stop = [True]

    @workflow
    def interrupted():
        raise KeyboardInterrupt

    @workflow
    def failed():
        raise Declined

    for w, error in ((interrupted, KeyboardInterrupt), (failed, Declined)):
        with pytest.raises(error):
            w()
    clock.advance("9 days")
    assert runtime.prune("1 day") == 0
    assert runtime.prune("1 day", status="failed") == 1
    with pytest.raises(ValueError, match="running"):
        runtime.prune("1 day", status="running")
    assert stop


def test_step_records_tell_what_happened(runtime: Runtime, clock):
    """``run.steps()`` gives key, path, scope, kind, status, attempts, args, result, error and times."""

    @step(retry=Retry(attempts=2, initial=5, jitter=0))
    def f(x):
        if x == 1:
            raise Declined("one")
        return x * 2

    @workflow
    def w():
        f(4)
        try:
            f(1)
        except Declined:
            pass

    w()
    (run,) = runtime.runs()
    good, bad = run.steps()
    assert (good.path, good.scope, good.kind, good.status, good.attempts) == (
        f.path,
        "",
        "step",
        "completed",
        1,
    )
    assert (good.args, good.result(), good.error) == ("x=4", 8, None)
    assert (bad.status, bad.attempts, str(bad.error)) == (StepStatus.FAILED, 2, "one")
    with pytest.raises(Declined):
        bad.result()
    assert good.created_at <= good.completed_at <= bad.created_at
    assert (bad.completed_at - good.completed_at).total_seconds() == 5
