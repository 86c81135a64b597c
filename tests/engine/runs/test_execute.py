"""Runs: how they end, how failed ones continue, what is shown of them."""

import asyncio
from datetime import UTC

import pytest
from support import ONCE, Breaking, Declined, Effects, Flavour, Recorder

from flowdsl import Retry, RunStatus, Runtime, step, workflow
from flowdsl.errors import RunFinished, StorageFull

# how runs end


def test_a_completed_run(runtime: Runtime, flavour: Flavour, hooks: Recorder):
    """A completed run has a status, a result, times, and its hooks were called in order."""

    @flavour.workflow
    def w(x):
        return {"x": x}
        yield

    assert flavour.call(w, 4) == {"x": 4}
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED
    assert run.status == "completed"
    assert run.result() == {"x": 4}
    assert run.exception() is None
    assert run.args == {"x": 4}
    assert run.created_at <= run.finished_at
    assert run.created_at.tzinfo is UTC
    assert hooks.names() == ["run_start", "run_complete"]


def test_a_run_whose_code_raised_is_failed(runtime: Runtime, flavour: Flavour, hooks: Recorder):
    """The error of a failed run is stored, raised, and given to the hook."""

    @flavour.workflow
    def w():
        raise Declined("no card")
        yield

    with pytest.raises(Declined, match="no card"):
        flavour.call(w)
    (run,) = runtime.runs()
    assert run.status is RunStatus.FAILED
    with pytest.raises(Declined, match="no card"):
        run.result()
    assert isinstance(run.exception(), Declined)
    assert hooks.names() == ["run_start", "run_fail"]


def test_on_complete_and_on_error(runtime: Runtime, flavour: Flavour, effects: Effects):
    """``on_complete`` and ``on_error`` are called before ``result()`` returns, with the run in its final
    state."""

    def complete(run):
        effects("complete", run.status, run.result())

    def error(run, error):
        effects("error", run.status, str(error))

    @flavour.workflow(on_complete=complete, on_error=error)
    def w(x):
        if x < 0:
            raise Declined("no")
        return x
        yield

    assert flavour.call(w, 1) == 1
    with pytest.raises(Declined):
        flavour.call(w, -1)
    assert effects == [("complete", "completed", 1), ("error", "failed", "no")]


def test_a_callback_that_raises_changes_nothing(runtime: Runtime, flavour: Flavour, caplog):
    """An exception in a callback is logged, and does not change the end of the run."""

    def broken(*args):
        raise RuntimeError("callback")

    @flavour.workflow(on_complete=broken, on_error=broken)
    def w(x):
        if x < 0:
            raise Declined("no")
        return x
        yield

    assert flavour.call(w, 1) == 1
    with pytest.raises(Declined):
        flavour.call(w, -1)
    assert {str(r.status) for r in runtime.runs()} == {"completed", "failed"}
    assert sum("raised" in r.getMessage() for r in caplog.records) == 2


def test_cancel_while_the_last_step_executes(runtime: Runtime, hooks: Recorder):
    """A run that is cancelled during its last step ends cancelled."""
    from flowdsl.errors import RunCancelled

    @step
    def f():
        runtime.cancel("c-1")
        return 1

    @workflow(id="c-1")
    def w():
        return f()

    with pytest.raises(RunCancelled):
        w()
    run = runtime.run("c-1")
    assert run.status is RunStatus.CANCELLED
    assert "run_cancel" in hooks.names()
    with pytest.raises(RunCancelled):
        w()
    with pytest.raises(RunFinished):
        runtime.cancel("c-1")


def test_a_full_disk_is_no_failure_of_the_run(storage, clock, flavour: Flavour, effects: Effects):
    """A full disk passes ``except Exception``, leaves the run resumable, and the run continues."""
    breaking = Breaking(storage)

    @flavour.step
    def f(x):
        effects("f", x)
        return x

    @flavour.workflow
    def w():
        yield f(1)
        breaking.error = StorageFull("full") if not effects.count("retry") else None
        try:
            yield f(2)
        except Exception:
            effects("refund")
        return "done"

    with Runtime(breaking, clock=clock) as runtime:
        with pytest.raises(StorageFull):
            flavour.call(w)
        breaking.error = None
        effects("retry")
        (run,) = runtime.runs()
        assert run.status is RunStatus.RUNNING
        assert run.interrupted
        assert flavour.call(w) == "done"
    assert effects == [("f", 1), ("f", 2), "retry", ("f", 2)]


def test_a_swallowed_stop_does_not_complete_the_run(storage, clock, flavour: Flavour, effects: Effects):
    """A stop that a bare ``except:`` swallows still stops the run."""
    breaking = Breaking(storage)

    @flavour.step
    def f(x):
        return x

    @flavour.workflow
    def w():
        breaking.error = StorageFull("full")
        try:
            yield f(1)
        except BaseException:
            effects("swallowed")
        breaking.error = None
        try:
            yield f(2)
        except BaseException:
            effects("later calls re-raise")
        return "done"

    with Runtime(breaking, clock=clock) as runtime:
        with pytest.raises(StorageFull):
            flavour.call(w)
        (run,) = runtime.runs()
        assert run.status is RunStatus.RUNNING
        assert run.steps() == []
    assert effects == ["swallowed", "later calls re-raise"]


def test_a_save_that_fails_does_not_execute_the_body_again(
    storage, clock, flavour: Flavour, effects: Effects
):
    """A save that fails neither executes the body again nor counts as the step's failure."""
    breaking = Breaking(storage)

    @flavour.step(retry=Retry(attempts=5))
    def f():
        breaking.error = StorageFull("full")
        return effects("f")

    @flavour.workflow
    def w():
        return (yield f())

    hooks = Recorder()
    with Runtime(breaking, clock=clock, hooks=hooks):
        with pytest.raises(StorageFull):
            flavour.call(w)
        breaking.error = None
    assert effects == ["f"]
    assert hooks.names() == ["run_start", "step_start"]


# runs in runs


# what one can ask


def test_what_is_left_of_a_failed_gather_starts_no_further_steps(runtime: Runtime, effects: Effects):
    """A task that a failed gather left behind starts no step after the end of the run."""

    @step(retry=ONCE)
    async def bad():
        raise Declined

    @step
    async def good(x):
        effects("good", x)

    @workflow(ignore=("gate", "late"))
    async def w(gate, late):
        async def chain():
            late.append(asyncio.current_task())
            await gate.wait()
            await good(1)

        await asyncio.gather(chain(), bad())

    async def main():
        gate, late = asyncio.Event(), []
        with pytest.raises(Declined):
            await w(gate, late)
        gate.set()
        await asyncio.wait(late)

    asyncio.run(main())
    assert effects == []
