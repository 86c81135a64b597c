"""How failed and interrupted runs continue: by a call, by hand, and which failures are open."""

import pytest
from support import ONCE, Crash, Declined, Effects, Flavour, Mortal

from flowdsl import Retry, RunStatus, Runtime, step, workflow
from flowdsl.errors import RunConflict, RunFinished, RunNotFound


def test_a_failed_run_continues_when_called_again(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A failed run that is called again executes its open failure and replays everything else."""
    fixed = []

    @flavour.step
    def reserve():
        return effects("reserve")

    @flavour.step(retry=ONCE)
    def charge():
        effects("charge")
        if not fixed:
            raise Declined("no")
        return "paid"

    @flavour.workflow
    def checkout():
        yield reserve()
        return (yield charge())

    with pytest.raises(Declined):
        flavour.call(checkout)
    fixed.append(True)
    assert flavour.call(checkout) == "paid"
    assert effects == ["reserve", "charge", "charge"]
    (run,) = runtime.runs()
    assert (run.number, run.status) == (1, RunStatus.COMPLETED)


def test_a_retried_failure_counts_its_attempts_anew(runtime: Runtime, effects: Effects):
    """A call of a failed run gives the open step all its attempts."""

    @step(retry=Retry(attempts=3))
    def f():
        effects("f")
        raise Declined

    @workflow
    def w():
        f()

    for _ in range(2):
        with pytest.raises(Declined):
            w()
    assert effects.count("f") == 6
    (run,) = runtime.runs()
    assert [s.attempts for s in run.steps()] == [3]


def test_retry_by_hand(runtime: Runtime, flavour: Flavour, effects: Effects):
    """``rt.retry`` continues a failed run from its stored arguments."""

    @flavour.step(retry=ONCE)
    def f(x):
        if effects("f", x) == 1:
            raise Declined
        return x

    @flavour.workflow
    def w(x):
        return (yield f(x))

    with pytest.raises(Declined):
        flavour.call(w, 5)
    (run,) = runtime.runs()
    again = runtime.retry(run.id)
    assert again.id == run.id
    assert again.result(60) == 5
    with pytest.raises((RunConflict, RunFinished)):
        runtime.retry(run.id)


@pytest.mark.parametrize("outcome", ["returns", "fails again"])
def test_a_kill_behind_what_a_retry_executed(storage, clock, flavour: Flavour, effects: Effects, outcome):
    """A step that a retry recorded, as a result or as a handled failure, does not execute again after a
    kill."""

    @flavour.step(name="retried.f", retry=ONCE)
    def f():
        if effects("f") == 1 or outcome != "returns":
            raise Declined

    @flavour.step(name="retried.g")
    def g():
        effects("g")

    @flavour.workflow(name="retried.w", id="w")
    def w():
        try:
            yield f()
        except Declined:
            if effects.count("f") == 1:
                raise
        yield g()

    for at in range(6):
        effects.log.clear()
        with Runtime(storage, clock=clock):
            with pytest.raises(Declined):
                flavour.call(w)
        with pytest.raises(Crash):
            with Runtime(Mortal(storage, at), clock=clock):
                flavour.call(w)
                raise Crash
        recorded = [str(s.status) for s in storage.list_steps("w") if s.kind != "audit"]
        executed = effects.count("f")
        with Runtime(storage, clock=clock) as rt:
            flavour.call(w)
            again = effects.count("f") - executed
            assert again == (0 if len(recorded) > 1 or recorded == ["completed"] else again)
            assert effects.count("f") <= 3
            assert rt.run("w").status is RunStatus.COMPLETED
            rt.delete("w")


def test_retry_of_an_unknown_run(runtime: Runtime):
    """The retry of an unknown run is an error that names it."""
    for method in (runtime.retry, runtime.resume, runtime.cancel):
        with pytest.raises(RunNotFound, match="nowhere"):
            method("nowhere")


def test_numbers_count_the_runs_of_one_key(runtime: Runtime, flavour: Flavour):
    """A call of a numbered workflow that completed starts the next number."""

    @flavour.workflow
    def w(x):
        return x
        yield

    for _ in range(3):
        flavour.call(w, 1)
    flavour.call(w, 2)
    assert sorted((r.args["x"], r.number) for r in runtime.runs()) == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert len({r.id for r in runtime.runs()}) == 4


def test_fresh_always_starts_a_new_number(runtime: Runtime, flavour: Flavour, effects: Effects):
    """``fresh=True`` starts a new number, even if an interrupted run could continue."""
    stop = [True]

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow
    def w():
        value = yield f()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w.options(fresh=True)) == 2
    assert sorted((r.number, str(r.status)) for r in runtime.runs()) == [(1, "running"), (2, "completed")]
    assert flavour.call(w) == 1


def test_fresh_with_an_id_is_an_error():
    """``fresh=True`` is refused for a workflow with an id."""

    @workflow
    def w(): ...

    @workflow(id="x")
    def v(): ...

    with pytest.raises(ValueError, match="fresh"):
        w.options(id="x", fresh=True)
    with pytest.raises(ValueError, match="fresh"):
        v.options(fresh=True)()


def test_the_oldest_interrupted_run_continues_first(runtime: Runtime):
    """Of two interrupted runs of one key, the one with the lower number continues first."""
    stops = [True, True]

    @workflow
    def w():
        if stops.pop() if stops else False:
            raise KeyboardInterrupt

    for call in (w, w.options(fresh=True)):
        with pytest.raises(KeyboardInterrupt):
            call()
    w()
    assert sorted((r.number, str(r.status)) for r in runtime.runs()) == [(1, "completed"), (2, "running")]


def test_continuing_says_so_in_one_info_line(runtime: Runtime, caplog):
    """Continuing logs one INFO line with the number of replayed steps."""
    stop = [True]

    @step
    def f(x):
        return x

    @workflow
    def w():
        f(1)
        f(2)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt

    with caplog.at_level("INFO", "flowdsl"):
        with pytest.raises(KeyboardInterrupt):
            w()
        assert [r for r in caplog.records if "continu" in r.getMessage()] == []
        w()
    (line,) = [r for r in caplog.records if "continu" in r.getMessage()]
    assert line.levelname == "INFO"
    assert "2 recorded steps" in line.getMessage()
