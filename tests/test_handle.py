"""Run: the handle of a run."""

import asyncio
import threading
import time

import pytest
from support import Declined, Flavour

from flowdsl import Retry, Run, RunStatus, Runtime, StepStatus, step, workflow
from flowdsl.core.records import Run as RunRecord
from flowdsl.errors import CorruptPayload, FlowError, RunNotFound
from flowdsl.storage.base import OpenRun, UpdateRun


def test_what_a_handle_shows(runtime: Runtime, clock):
    """A handle shows id, workflow, args, tags, number, status, result, parent, children and times."""

    @step
    def f(x):
        return x

    @workflow(tags={"team": "a"})
    def w(x, y=2):
        """Doc."""
        return f(x) + y

    before = clock.now()
    w(1)
    (run,) = runtime.runs()
    assert isinstance(run, Run)
    assert run.workflow == w.path
    assert run.args == {"x": 1, "y": 2}
    assert run.tags == {"team": "a"}
    assert (run.number, run.status, run.result()) == (1, RunStatus.COMPLETED, 3)
    assert (run.parent, run.children()) == (None, [])
    assert run.created_at.timestamp() == run.finished_at.timestamp() == before
    assert run.interrupted is False
    assert run.logs() == []
    assert run == runtime.run(run.id)
    assert hash(run) == hash(runtime.run(run.id))
    assert run != "x"


def test_result_with_a_timeout_ends_the_wait_not_the_run(storage):
    """``result(timeout)`` raises the built-in ``TimeoutError`` in real time, and the run goes on."""
    gate = threading.Event()

    @workflow(id="slow")
    def w():
        gate.wait(60)
        return "late"

    with Runtime(storage) as runtime:
        run = w.start()
        begun = time.monotonic()
        for one in (run, runtime.run("slow")):
            with pytest.raises(TimeoutError) as caught:
                one.result(timeout=0.05)
            assert type(caught.value) is TimeoutError
            with pytest.raises(TimeoutError):
                one.exception(timeout=0.05)
        assert time.monotonic() - begun < 50
        assert run.status is RunStatus.RUNNING
        gate.set()
        assert run.result(60) == "late"


def test_a_timeout_error_of_the_run_is_the_runs(runtime: Runtime):
    """A ``TimeoutError`` of the run is not taken for the end of the wait."""

    @workflow
    def w():
        raise TimeoutError("mine")

    run = w.start()
    with pytest.raises(TimeoutError, match="mine"):
        run.result(60)
    assert str(run.exception(60)) == "mine"


def test_a_handle_of_a_run_that_another_runtime_executes(storage):
    """A handle in another runtime waits for what the storage says."""
    gate = threading.Event()

    @workflow(id="far")
    def w():
        gate.wait(60)
        return "done"

    with Runtime(storage) as other, Runtime(storage):
        run = w.start()
        theirs = other.run("far")
        found = []
        thread = threading.Thread(target=lambda: found.append(theirs.result(60)))
        thread.start()
        gate.set()
        thread.join(60)
        assert found == ["done"] == [run.result()]


def test_awaiting_a_handle_in_another_runtime(storage):
    """``await run`` works in another runtime too."""

    @workflow(id="far")
    def w():
        return "done"

    async def main(run):
        return await run

    with Runtime(storage) as other, Runtime(storage):
        w()
        assert asyncio.run(main(other.run("far"))) == "done"


def test_result_on_the_event_loop_of_an_unfinished_run_is_refused(runtime: Runtime):
    """``result()`` on the event loop that executes the run is refused, and the message says ``await``."""

    @workflow
    async def w():
        await asyncio.sleep(0)
        return 1

    async def main():
        run = w.start()
        with pytest.raises(TypeError, match="await"):
            run.result()
        assert await run == 1
        assert run.result() == 1

    asyncio.run(main())


@pytest.mark.parametrize("in_notebook", [True, False])
def test_a_notebook_may_wait_for_what_a_thread_executes(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, in_notebook: bool
):
    """On an event loop ``result()`` of a sync run works in a notebook only, and of the loop's own run
    never."""
    if in_notebook:  # as Visual Studio Code tells it
        monkeypatch.setattr("__main__.__vsc_ipynb_file__", "cells.ipynb", raising=False)
    go_on = threading.Event()

    @workflow
    def sync():
        go_on.wait()
        return 1

    @workflow
    async def on_the_loop():
        return 2

    async def cell():
        run, other = sync.start(), on_the_loop.start()
        with pytest.raises(TypeError, match="await"):
            other.result()
        if not in_notebook:
            with pytest.raises(TypeError, match="await"):
                run.result()
        go_on.set()
        assert (run.result() if in_notebook else await run) == 1
        assert await other == 2

    asyncio.run(cell())


def test_an_interrupted_run_is_shown_as_such(runtime: Runtime):
    """A running run without a living owner is interrupted; an endless wait for it is refused with
    remedies."""

    @workflow(id="i")
    def w():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        w()
    run = runtime.run("i")
    assert (run.status, run.interrupted, run.finished_at) == (RunStatus.RUNNING, True, None)
    assert "interrupted" in run._repr_html_()
    assert repr(run) == "<Run i of " + run.workflow + ": interrupted>"
    with pytest.raises((FlowError, TimeoutError)):
        run.result(0.2)


def test_reprs_and_html_show_and_escape(runtime: Runtime):
    """The repr and the HTML of a handle are readable and escaped."""

    @step
    def f(x):
        return x

    @workflow(id="<b>")
    def w(x):
        return f(x)

    w("<script>alert(1)</script>")
    run = runtime.run("<b>")
    page = run._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "completed" in repr(run)
    assert "f(" in repr(run.steps()[0])
    runtime.delete("<b>")
    assert "RunNotFound" in repr(runtime.run("<b>") or Run(runtime, "<b>"))


def test_a_deleted_run_raises_by_type(runtime: Runtime):
    """A handle of a deleted run raises ``RunNotFound``."""

    @workflow(id="d")
    def w():
        return 1

    w()
    run = runtime.run("d")
    runtime.delete("d")
    with pytest.raises(RunNotFound):
        run.status
    with pytest.raises(RunNotFound):
        run.result()


def test_exception_of_every_kind_of_end(runtime: Runtime, flavour: Flavour):
    """``exception()`` is ``None`` for a completed run, the error of a failed one, and ``RunCancelled`` for a
    cancelled one."""
    from flowdsl.errors import RunCancelled

    @flavour.workflow(id="e-{kind}")
    def w(kind):
        if kind == "fail":
            raise Declined("no")
        if kind == "interrupt":
            raise KeyboardInterrupt
        return kind
        yield

    assert flavour.call(w, "fine") == "fine"
    with pytest.raises(Declined):
        flavour.call(w, "fail")
    with pytest.raises(KeyboardInterrupt):
        flavour.call(w, "interrupt")
    runtime.cancel("e-interrupt")
    assert runtime.run("e-fine").exception() is None
    assert isinstance(runtime.run("e-fail").exception(), Declined)
    assert isinstance(runtime.run("e-interrupt").exception(), RunCancelled)


def test_steps_of_a_run_that_executes(runtime: Runtime):
    """``steps()`` of an executing run shows what is recorded so far, from inside too."""

    @step
    def f(x):
        return x

    @workflow(id="live")
    def w():
        f(1)
        return [s.status for s in runtime.run("live").steps()]

    assert w() == [StepStatus.COMPLETED]


def test_a_waiting_attempt_is_pending(storage, clock):
    """A step that waits for its next attempt is pending in ``steps()``."""
    seen = []

    @step(retry=Retry(attempts=2, initial=5, jitter=0))
    def f():
        seen.extend((s.status, s.attempts) for s in runtime.run("p").steps())
        if len(seen) < 1:
            raise OSError
        return 1

    @workflow(id="p")
    def w():
        return f()

    with Runtime(storage, clock=clock) as runtime:
        w()
        assert seen == [(StepStatus.PENDING, 1)]
        (record,) = runtime.run("p").steps()
        assert (record.status, record.attempts) == (StepStatus.COMPLETED, 2)


def test_numbers_and_ids(runtime: Runtime):
    """The id of a numbered run is readable and unique."""

    @workflow
    def my_flow(x):
        return x

    first, second = my_flow.start(1), my_flow.start(1)
    assert first.id != second.id
    assert first.id.startswith("my_flow-")
    assert {first.number, second.number} == {1, 2}


def test_the_result_of_many_waiters(storage):
    """Ten threads that wait for one run get its result."""
    gate = threading.Event()

    @workflow(id="many")
    def w():
        gate.wait(60)
        return "once"

    with Runtime(storage) as runtime:
        run = w.start()
        found = []
        threads = [threading.Thread(target=lambda: found.append(run.result(60))) for _ in range(5)]
        threads += [
            threading.Thread(target=lambda: found.append(runtime.run("many").result(60))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        gate.set()
        for thread in threads:
            thread.join(60)
        assert found == ["once"] * 10


def test_a_wait_is_over_when_the_awaiting_task_is_cancelled(runtime: Runtime):
    """Cancelling a task that waits for a run does not cancel the run."""

    @workflow(id="w")
    async def w():
        await gate.wait()
        return "done"

    async def main():
        nonlocal gate
        gate = asyncio.Event()
        run = w.start()

        async def wait():
            return await run

        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        gate.set()
        return await run

    gate = None
    assert asyncio.run(main()) == "done"


def test_a_damaged_payload_is_named(runtime: Runtime):
    """An altered payload of a run is refused with the run's id, and not taken for the run's exception."""

    @workflow(id="damaged")
    def w(x):
        raise Declined

    with pytest.raises(Declined):
        w(1)
    run = runtime.run("damaged")
    for field, read in (("args", lambda: run.args), ("error", run.exception), ("error", run.result)):
        payload = bytearray(getattr(runtime.storage.get_run("damaged"), field))
        payload[-1] ^= 1
        runtime.storage.commit([UpdateRun("damaged", {field: bytes(payload)})])
        with pytest.raises(CorruptPayload, match="run damaged: ") as caught:
            read()
        assert caught.value.run == "damaged"
        payload[-1] ^= 1
        runtime.storage.commit([UpdateRun("damaged", {field: bytes(payload)})])


@pytest.mark.parametrize("timeout", ["x", -1, True, float("nan"), []])
def test_a_timeout_that_is_none_is_refused(runtime: Runtime, timeout):
    """An invalid timeout is an error about the timeout, whatever the state of the run."""

    @workflow(id="r-{broken}")
    def w(broken):
        if broken:
            raise Declined
        return 1

    w(False)
    with pytest.raises(Declined):
        w(True)
    for run in runtime.runs():
        for ask in (run.result, run.exception):
            with pytest.raises((TypeError, ValueError), match="in seconds, or None"):
                ask(timeout)
    assert runtime.run("r-False").result("5 min") == 1


def test_who_gives_up_waiting_for_a_run_elsewhere_leaves_no_thread(storage):
    """A task that gives up waiting for a run of another process leaves no thread, so the loop ends at
    once."""
    away = RunRecord("far", "jobs.far", "0" * 40, status=RunStatus.RUNNING, owner="moon|||1||token")
    storage.commit([OpenRun(away, 600.0, False, (), "nonce")])

    async def main():
        async with Runtime(storage) as runtime:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await runtime.run("far")

    asyncio.run(main())
    with Runtime(storage) as runtime:
        assert not runtime.run("far").interrupted


def test_a_run_that_waits_for_a_worker_is_not_interrupted(runtime: Runtime):
    """A pending run has no owner, and is shown as pending: nothing of it was interrupted."""

    @workflow
    def w():
        return 1

    run = w.enqueue()
    assert (run.status, run.interrupted) == (RunStatus.PENDING, False)
    assert repr(run) == f"<Run {run.id} of {run.workflow}: pending>"
