"""Runs: how they end, how failed ones continue, what is shown of them."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest
from support import Breaking, Crash, Effects, Flavour, Mortal, Recorder

from flowdsl import Retry, RunStatus, Runtime, StepStatus, log, step, store, workflow
from flowdsl.errors import RunConflict, RunFinished, RunNotFound, StorageFull

ONCE = Retry(attempts=1)


class Declined(Exception):
    """A business error."""


# how runs end


def test_a_completed_run(runtime: Runtime, flavour: Flavour, hooks: Recorder):
    """It has a status, a result, times, and its hooks fired in order."""

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
    """The error is stored, raised, and handed to the hook."""

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


def test_a_failed_run_continues_when_called_again(runtime: Runtime, flavour: Flavour, effects: Effects):
    """The open failure executes again, everything else is replayed; it is the same run."""
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
    """Calling a failed run again gives the open step all its attempts."""

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
    assert again.result(30) == 5
    with pytest.raises((RunConflict, RunFinished)):
        runtime.retry(run.id)


@pytest.mark.parametrize("outcome", ["returns", "fails again"])
def test_a_kill_behind_what_a_retry_executed(storage, clock, flavour: Flavour, effects: Effects, outcome):
    """What the retry of a failed run has recorded is not executed again when its process dies, be it that the
    step returned or that it failed once more and the body, now mended, handled that."""

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
    """A missing run is named."""
    for method in (runtime.retry, runtime.resume, runtime.cancel):
        with pytest.raises(RunNotFound, match="nowhere"):
            method("nowhere")


def test_handled_failures_are_replayed_and_the_open_one_executes(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A fallback is not undone by retrying what failed after it."""
    fixed = []

    @flavour.step(retry=ONCE)
    def primary():
        effects("primary")
        raise Declined("primary")

    @flavour.step
    def backup():
        return effects("backup")

    @flavour.step(retry=ONCE)
    def ship():
        effects("ship")
        if not fixed:
            raise OSError("no lorry")
        return "shipped"

    @flavour.workflow
    def w():
        try:
            yield primary()
        except Declined:
            yield backup()
        return (yield ship())

    with pytest.raises(OSError, match="no lorry"):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "shipped"
    assert effects == ["primary", "backup", "ship", "ship"]
    assert len(runtime.runs()) == 1


def test_a_failing_fallback_is_open_and_the_handled_failure_is_not(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A fallback that fails inside ``except`` is what failed; what it stood in for was handled."""
    fixed = []

    @flavour.step(retry=ONCE)
    def primary():
        effects("primary")
        raise Declined("primary")

    @flavour.step(retry=ONCE)
    def backup():
        effects("backup")
        if not fixed:
            raise OSError("backup")
        return "saved"

    @flavour.workflow
    def w():
        try:
            return (yield primary())
        except Declined:
            return (yield backup())

    with pytest.raises(OSError, match="backup"):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "saved"
    assert effects == ["primary", "backup", "backup"]


def test_a_numbered_run_that_compensated_by_hand_starts_a_new_number(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """Continuing would build on what was taken back."""

    @flavour.step
    def reserve():
        return effects("reserve")

    @flavour.step(retry=ONCE)
    def charge():
        if effects("charge") == 1:
            raise Declined
        return "paid"

    @flavour.step
    def release():
        effects("release")

    @flavour.workflow
    def checkout():
        yield reserve()
        try:
            return (yield charge())
        except Declined:
            yield release()
            raise

    with pytest.raises(Declined):
        flavour.call(checkout)
    assert flavour.call(checkout) == "paid"
    assert effects == ["reserve", "charge", "release", "reserve", "charge"]
    assert sorted(r.number for r in runtime.runs()) == [1, 2]


@pytest.mark.parametrize("inside", [False, True])
def test_a_try_step_behind_a_failure_is_no_compensation(
    runtime: Runtime, flavour: Flavour, effects: Effects, inside: bool
):
    """It leaves no record, so the failure stays open; but what is durable in its body counts."""

    @flavour.step(retry=ONCE)
    def charge():
        if effects("charge") == 1:
            raise Declined
        return "paid"

    @flavour.step
    def release():
        effects("release")

    @flavour.step(mode="try")
    def notify():
        effects("notify")
        if inside:
            yield release()

    @flavour.workflow
    def checkout():
        try:
            return (yield charge())
        except Declined:
            yield notify()
            raise

    with pytest.raises(Declined):
        flavour.call(checkout)
    assert flavour.call(checkout) == "paid"
    assert sorted(r.number for r in runtime.runs()) == ([1, 2] if inside else [1])


@pytest.mark.parametrize(
    ("handle", "numbers"),
    [
        (store.items, [1]),
        (lambda: log("declined"), [1]),
        (lambda: store.set("declined", True), [1, 2]),
    ],
)
def test_a_look_behind_a_failure_is_no_compensation(runtime: Runtime, effects: Effects, handle, numbers):
    """What only reads the run store, or logs, takes nothing back; what writes may."""

    @step(retry=ONCE)
    def charge():
        if effects("charge") == 1:
            raise Declined
        return "paid"

    @workflow
    def checkout():
        try:
            return charge()
        except Declined:
            handle()
            raise

    with pytest.raises(Declined):
        checkout()
    assert checkout() == "paid"
    assert sorted(r.number for r in runtime.runs()) == numbers


@pytest.mark.parametrize("how", ["raise", "from", "other"])
def test_a_run_with_an_id_that_compensated_by_hand_names_retry_and_fork(
    runtime: Runtime, effects: Effects, how
):
    """The stored error comes back, and a note says what to do; wrapping it changes nothing."""

    class Wrapped(Exception): ...

    @step(retry=ONCE)
    def charge():
        effects("charge")
        raise Declined

    @step
    def release():
        effects("release")

    @workflow(id="order-7")
    def checkout():
        try:
            charge()
        except Declined as error:
            release()
            if how == "raise":
                raise
            if how == "from":
                raise Wrapped from error
            raise Wrapped

    expected = Declined if how == "raise" else Wrapped
    with pytest.raises(expected):
        checkout()
    with pytest.raises(expected) as caught:
        checkout()
    assert any("fork" in note and "retry" in note for note in caught.value.__notes__)
    with pytest.raises(RunConflict, match="fork"):
        runtime.resume("order-7")
    assert effects == ["charge", "release"]
    with pytest.raises(expected):  # said explicitly, it executes what had failed
        runtime.retry("order-7").result()
    assert effects == ["charge", "release", "charge"]


def test_a_body_that_raised_by_itself_can_be_fixed_and_continued(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """No step failed; the recorded ones are replayed and the mended code goes on."""
    fixed = []

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow
    def w():
        value = yield f()
        if not fixed:
            raise ZeroDivisionError
        return value

    with pytest.raises(ZeroDivisionError):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == 1
    assert effects == ["f"]


def test_all_concurrent_failures_are_open(runtime: Runtime, effects: Effects):
    """Of branches that failed side by side each executes again, and the completed ones do not."""
    fixed = []

    @step(retry=ONCE)
    async def f(x):
        effects("f", x)
        if not fixed and x % 2:
            raise Declined(x)
        return x

    @workflow
    async def w():
        found = await asyncio.gather(*(f(x) for x in range(4)), return_exceptions=True)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return found

    with pytest.raises(Declined):
        asyncio.run(w())
    fixed.append(True)
    assert asyncio.run(w()) == [0, 1, 2, 3]
    assert [effects.count("f", x) for x in range(4)] == [1, 2, 1, 2]


def test_failures_of_a_map_stay_open_whatever_the_workers_did_next(runtime: Runtime, effects: Effects):
    """A worker that goes on with the next item has not handled the failure of the one before."""
    fixed = []
    pool = ThreadPoolExecutor(1)

    @step(retry=ONCE, executor=pool)
    def f(x):
        effects("f", x)
        if not fixed and x == 0:
            raise Declined
        return x

    @workflow
    def w():
        futures = [f.submit(x) for x in range(3)]
        for future in futures[1:]:
            future.result()
        return futures[0].result()

    with pytest.raises(Declined):
        w()
    fixed.append(True)
    assert w() == 0
    assert [effects.count("f", x) for x in range(3)] == [2, 1, 1]
    assert len(runtime.runs()) == 1
    pool.shutdown()


def test_a_background_task_that_failed_before_the_next_step_is_open(runtime: Runtime, effects: Effects):
    """A failure that the body has not seen yet was not handled by what the body did meanwhile."""
    fixed = []

    @step(retry=ONCE)
    async def bad():
        effects("bad")
        if not fixed:
            raise Declined
        return "fine"

    @step
    async def good(x):
        return effects("good", x)

    @workflow
    async def w():
        task = asyncio.create_task(bad())
        for x in range(3):
            await good(x)
            await asyncio.sleep(0)
        return await task

    with pytest.raises(Declined):
        asyncio.run(w())
    fixed.append(True)
    assert asyncio.run(w()) == "fine"
    assert effects.count("bad") == 2
    assert all(effects.count("good", x) == 1 for x in range(3))


def test_a_submitted_failure_that_was_handled_is_replayed(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """Once the body has seen it and gone on, it is not open, whoever executed it."""
    fixed = []

    @flavour.step(retry=ONCE)
    def bad():
        effects("bad")
        raise Declined

    @flavour.step(retry=ONCE)
    def last():
        effects("last")
        if not fixed:
            raise OSError
        return "fine"

    @flavour.workflow
    def w():
        future = bad.submit()
        try:
            (yield future) if flavour.is_async else future.result()
        except Declined:
            pass
        future = last.submit()
        return (yield future) if flavour.is_async else future.result()

    with pytest.raises(OSError):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "fine"
    assert effects == ["bad", "last", "last"]


def test_a_failure_inside_a_failed_step_stays_open_with_it(runtime: Runtime, effects: Effects):
    """While nobody has seen the outer failure, the inner one is not handled either."""
    fixed = []

    @step(retry=ONCE)
    async def inner():
        effects("inner")
        if not fixed:
            raise Declined
        return "fine"

    @step(retry=ONCE)
    async def outer():
        return await inner()

    @step
    async def good(x):
        return x

    @workflow
    async def w():
        task = asyncio.create_task(outer())
        for x in range(5):
            await good(x)
            await asyncio.sleep(0)
        return await task

    with pytest.raises(Declined):
        asyncio.run(w())
    fixed.append(True)
    assert asyncio.run(w()) == "fine"
    assert effects == ["inner", "inner"]


def test_numbers_count_the_runs_of_one_key(runtime: Runtime, flavour: Flavour):
    """A call of a workflow that completed runs anew, with the next number."""

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
    """Even where an interrupted run could be continued."""
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
    """An id is one run, so there is no fresh one."""

    @workflow
    def w(): ...

    @workflow(id="x")
    def v(): ...

    with pytest.raises(ValueError, match="fresh"):
        w.options(id="x", fresh=True)
    with pytest.raises(ValueError, match="fresh"):
        v.options(fresh=True)()


def test_the_oldest_interrupted_run_continues_first(runtime: Runtime):
    """Two interrupted runs of one key continue in the order of their numbers."""
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
    """How many recorded steps are replayed is said, once, at INFO."""
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


def test_start_returns_once_the_run_is_recorded(runtime: Runtime, flavour: Flavour):
    """The handle of ``start`` can be found in the storage at once."""

    @flavour.workflow
    def w(x):
        return x + 1
        yield

    def go():
        run = w.start(1)
        assert runtime.run(run.id) == run
        return run

    assert go().result(30) == 2


def test_a_started_run_can_be_awaited(runtime: Runtime):
    """``await run`` gives the result in async code."""

    @step
    async def f(x):
        return x + 1

    @workflow
    async def w(x):
        return await f(x)

    @workflow
    def v(x):
        return x * 10

    async def main():
        return await w.start(1), await v.start(1), await asyncio.gather(*(w.start(i) for i in range(20)))

    assert asyncio.run(main()) == (2, 10, list(range(1, 21)))


def test_many_sync_runs_get_a_thread_each(runtime: Runtime):
    """Fifty runs that wait for each other do not deadlock on a bounded pool."""
    import threading

    barrier = threading.Barrier(50)

    @workflow
    def w(x):
        barrier.wait(30)
        return x

    runs = [w.start(x) for x in range(50)]
    assert [r.result(30) for r in runs] == list(range(50))


def test_a_started_run_that_failed_and_was_continued_shows_its_new_outcome(
    runtime: Runtime, flavour: Flavour
):
    """What a handle says comes from the storage, not from what happened here first."""
    fixed = []

    @flavour.workflow
    def w():
        if not fixed:
            raise Declined
        return "fine"
        yield

    run = w.start()
    with pytest.raises(Declined):
        run.result(30)
    fixed.append(True)
    assert flavour.call(w) == "fine"
    assert run.result(30) == "fine"
    assert run.exception() is None
    assert asyncio.run(_wait(run)) == "fine"


async def _wait(run):
    return await run


def test_on_complete_and_on_error(runtime: Runtime, flavour: Flavour, effects: Effects):
    """They are called before ``result()`` returns, with the run as it will be."""

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
    """It is logged; the run ends as it did."""

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
    """The request was taken, so the run ends cancelled although its body went through."""
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
    """The error crosses ``except Exception``; the run stays resumable and continues."""
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
    """A bare ``except:`` hides nothing: the run ends as it must."""
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
    """Persisting is not the body: no retry, and not the step's failure."""
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


def test_a_child_is_a_run_of_its_own(runtime: Runtime, flavour: Flavour, effects: Effects):
    """Its id derives from the parent's step key; handle, parent and children know each other."""

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
    """The same call finds the same child."""
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
    """The child's open step executes again, its others are replayed."""
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
    """What stops the child crosses the parent's body too."""
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


def test_a_parent_starts_children_side_by_side(runtime: Runtime):
    """``w.start`` in a run gives handles of children; the parent ends after them."""

    @workflow
    async def child(x):
        return x * 10

    @workflow
    async def parent():
        runs = [child.start(x) for x in range(3)]
        return [await run for run in runs]

    @workflow
    def schild(x):
        return x * 10

    @workflow
    def sparent():
        runs = [schild.start(x) for x in range(3)]
        return [run.result() for run in runs]

    assert asyncio.run(parent()) == [0, 10, 20]
    assert sparent() == [0, 10, 20]
    assert len(runtime.runs()) == 8


# what one can ask


def test_runs_filters_and_pages(runtime: Runtime, clock):
    """By status, workflow, tags and time; newest first unless told; with a limit."""

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
    """Its id is free again."""

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
    """One run per id, ever: a pruned id never means another run, and the error says so."""

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


def test_prune_does_not_touch_what_may_continue(runtime: Runtime, clock):
    """Interrupted and failed runs stay, unless failed ones are asked for."""
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


def test_what_is_left_of_a_failed_gather_starts_no_further_steps(runtime: Runtime, effects: Effects):
    """After a run has ended, a task that it left behind makes no durable calls in its name."""

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


def test_children_that_wait_for_one_another_get_a_thread_each(runtime: Runtime):
    """Sync runs started in a run do not share a bounded pool: forty can meet."""
    import threading

    barrier = threading.Barrier(40)

    @workflow
    def child(x):
        barrier.wait(30)
        return x

    @workflow
    def parent():
        return [run.result() for run in [child.start(x) for x in range(40)]]

    assert parent() == list(range(40))
