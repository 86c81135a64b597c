"""Faults of other libraries, one test each, named after what went wrong there."""

import asyncio
import threading

import pytest
from support import Breaking, Effects, Flavour, Mortal, Recorder, python, unreachable

from flowdsl import Hooks, Retry, RunStatus, Runtime, step, workflow
from flowdsl.errors import LeaseLost, NondeterminismError, RunConflict, StepNotFound
from flowdsl.storage import MemoryStorage, SQLiteStorage
from flowdsl.storage.base import ClaimRun, UpdateRun


def stopping():
    """Interrupts the first execution."""
    state = [True]

    def stop():
        if state:
            state.clear()
            raise KeyboardInterrupt

    return stop


def test_a_set_gave_twenty_hashes_in_twenty_processes():
    """The key of a set does not depend on PYTHONHASHSEED."""
    code = """
        from flowdsl import step
        @step(name="hash.it")
        def f(x): ...
        print(f.key({"a", "b", "c", "d", "e", frozenset({"x", "y"})}), f.key({"k": {1, 2}, "j": 3}))
    """
    assert len({python(code, PYTHONHASHSEED=str(seed)).stdout for seed in range(4)}) == 1


def test_an_object_changed_its_hash_after_one_store_and_load(runtime: Runtime):
    """A value that a step returned has the same key as an argument, now and on replay."""
    from dataclasses import dataclass

    @dataclass
    class Order:
        lines: list

    globals()["Order"] = Order
    Order.__qualname__ = "Order"
    stop = stopping()
    calls = []

    @step
    def make():
        line = "x"
        return Order([line, line])

    @step
    def use(order):
        calls.append(use.key(order))
        return 1

    @workflow
    def w():
        order = make()
        use(order)
        stop()
        use(order)

    with pytest.raises(KeyboardInterrupt):
        w()
    w()
    assert len(set(calls)) == 1
    del globals()["Order"]


def test_a_tuple_and_a_list_were_one_and_so_were_the_keys_one_and_quote_one():
    """A tuple and a list, and 1 and "1", have different keys."""

    @step
    def f(x): ...

    assert f.key((1, 2)) != f.key([1, 2])
    assert f.key({"1": 0}) != f.key({1: 0})


def test_completed_steps_ran_again_after_sigkill(storage, clock, effects: Effects):
    """A step whose result the workflow saw is in the storage at that moment."""
    seen = []

    @step
    def f(x):
        return x

    @workflow(id="acked")
    def w():
        for x in range(5):
            f(x)
            seen.append(len(storage.list_steps("acked")))

    with Runtime(storage, clock=clock):
        w()
    assert seen == [1, 2, 3, 4, 5]


def test_the_cost_of_a_step_grew_with_their_number(clock):
    """A step takes one commit and no read, however long the run is."""
    counted = []

    class Counting(MemoryStorage):
        reads = 0

        def commit(self, operations):
            counted.append(len(operations))
            return super().commit(operations)

        def list_steps(self, *args, **more):
            Counting.reads += 1
            return super().list_steps(*args, **more)

        def get_step(self, *args):
            Counting.reads += 1
            return super().get_step(*args)

    @step
    def f(x):
        return x

    @workflow
    def w(n):
        for x in range(n):
            f(x)

    costs = []
    for n in (10, 1000):
        counted.clear()
        with Runtime(Counting(), clock=clock):
            w(n)
        costs.append(sum(counted) - n)
    assert costs[0] == costs[1] == 2
    assert Counting.reads == 0


def test_a_replay_with_changed_arguments_gave_the_stale_result(runtime: Runtime, flavour: Flavour):
    """A replay with changed arguments raises before the body."""
    amount = [1]
    stop = stopping()

    @flavour.step
    def pay(x):
        return x

    @flavour.workflow
    def w():
        yield pay(amount[0])
        stop()

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    amount[0] = 2
    with pytest.raises(NondeterminismError):
        flavour.call(w)


def test_the_same_run_id_with_other_arguments_gave_the_old_result(runtime: Runtime):
    """The same run id with other arguments is a conflict."""

    @workflow(id="same")
    def w(x):
        return x

    w(1)
    with pytest.raises(RunConflict):
        w(2)


class Coded(Exception):
    """Breaks naive pickling."""

    def __init__(self, code, msg):
        super().__init__(msg)
        self.code = code


def test_an_exception_came_back_as_type_error(runtime: Runtime, flavour: Flavour):
    """An exception with ``__init__(code, msg)`` is caught as itself, first and on replay."""
    stop = stopping()
    seen = []

    @flavour.step(retry=Retry(attempts=1))
    def f():
        raise Coded(7, "no")

    @flavour.workflow
    def w():
        try:
            yield f()
        except Coded as error:
            seen.append((error.code, str(error)))
        stop()

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    flavour.call(w)
    assert seen == [(7, "no")] * 2


def test_a_tuple_came_back_as_a_list_after_resume(runtime: Runtime, flavour: Flavour):
    """A tuple stays a tuple after a resume, so the replay takes the same path."""
    stop = stopping()
    seen = []

    @flavour.step
    def f():
        return (1, 2)

    @flavour.workflow
    def w():
        value = yield f()
        seen.append("tuple" if isinstance(value, tuple) else "list")
        stop()

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    flavour.call(w)
    assert seen == ["tuple", "tuple"]


def test_two_concurrent_branches_with_other_timing_could_not_be_resumed(runtime: Runtime):
    """Two branches of two steps are resumed although the other branch is quicker now."""
    quick = ["a"]
    stop = stopping()

    @step
    async def f(branch, n):
        for _ in range(1 if branch == quick[0] else 9):
            await asyncio.sleep(0)
        return branch, n

    @workflow
    async def w():
        async def branch(name):
            first = await f(name, 1)
            if name == quick[0]:
                stop()
            return first, await f(name, 2)

        return await asyncio.gather(branch("a"), branch("b"))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(w())
    quick[0] = "b"
    assert asyncio.run(w()) == [(("a", 1), ("a", 2)), (("b", 1), ("b", 2))]


def test_a_hook_that_raised_made_a_step_run_three_times(storage, clock, flavour: Flavour, effects: Effects):
    """A hook that raises does not make a step execute again."""

    class Broken(Hooks):
        def on_step_complete(self, step, result):
            raise OSError("hook")

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow
    def w():
        return (yield f())

    with Runtime(storage, clock=clock, hooks=Broken()) as runtime:
        assert flavour.call(w) == 1
        (run,) = runtime.runs()
        assert run.status is RunStatus.COMPLETED
    assert effects == ["f"]


def test_a_save_that_failed_made_a_step_run_again(storage, clock, flavour: Flavour, effects: Effects):
    """If saving fails, the body does not execute again, and the error is the storage's."""
    hooks = Recorder()

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow
    def w():
        return (yield f())

    with Runtime(Mortal(storage, 1, error=unreachable), clock=clock, hooks=hooks):
        with pytest.raises(Exception, match="took it away"):
            flavour.call(w)
    assert effects == ["f"]
    assert hooks.of("step_error") == []


def test_a_second_runtime_executed_a_live_run_of_the_first(storage, effects: Effects):
    """A second runtime on the file does not execute a live run of the first."""
    gate, entered = threading.Event(), threading.Event()

    @workflow(id="live")
    def w():
        effects("body")
        entered.set()
        gate.wait(60)
        return "owner's"

    with Runtime(storage) as first, Runtime(storage) as second:
        run = w.start()
        entered.wait(60)
        assert first.recover() == second.recover() == []
        assert not first.run("live").interrupted
        gate.set()
        assert run.result(60) == "owner's"
    assert effects == ["body"]


def test_the_jitter_was_added_after_the_cap():
    """With jitter no delay exceeds the maximum."""
    retry = Retry(attempts=50, initial=10, maximum=20, jitter=1.0)
    assert max(retry.delay(n, u / 100) for n in range(1, 50) for u in range(100)) <= 20


def test_zero_attempts_never_ran_the_step():
    """Zero attempts are refused where they are written."""
    with pytest.raises(ValueError, match="at least 1"):
        Retry(attempts=0)


def test_handler_not_found_was_retried_with_backoff(runtime: Runtime, clock):
    """An unknown name is an error at once, and stores nothing."""
    before = clock.now()
    with pytest.raises(StepNotFound):
        runtime.do("no.such.step")
    assert clock.now() == before
    assert runtime.runs() == []


def test_the_result_was_published_before_it_was_stored(storage, clock):
    """Nobody sees a run as completed before its outcome is in the storage."""
    breaking = Breaking(storage)
    seen = []

    class Watch(Hooks):
        def on_run_complete(self, run, result):
            seen.append(storage.get_run(run.id).status)

    breaking.when = lambda operation: (
        isinstance(operation, UpdateRun) and operation.changes.get("status") == "completed"
    )
    breaking.error = unreachable()

    @workflow(id="published")
    def w():
        return "result"

    with Runtime(breaking, clock=clock, hooks=Watch()):
        with pytest.raises(Exception, match="took it away"):
            w()
        assert seen == []
        assert storage.get_run("published").status is RunStatus.RUNNING
        breaking.error = None
        assert w() == "result"
    assert seen == [RunStatus.COMPLETED]


def test_the_final_save_wiped_history_and_creation_time(runtime: Runtime, clock):
    """A retry, a resume and the end of a run keep its history and creation time."""
    stop = stopping()
    fail = [True]

    @step(retry=Retry(attempts=1))
    def f(x):
        if x == 2 and fail:
            fail.clear()
            raise LookupError
        return x

    @workflow(tags=("kept",))
    def w():
        f(1)
        stop()
        return f(2)

    with pytest.raises(KeyboardInterrupt):
        w()
    (run,) = runtime.runs()
    created, first = run.created_at, run.steps()[0]
    clock.advance(100)
    with pytest.raises(LookupError):
        w()
    clock.advance(100)
    assert w() == 2
    (run,) = runtime.runs()
    assert (run.created_at, run.tags, run.number) == (created, ("kept",), 1)
    assert (run.steps()[0].key, run.steps()[0].created_at) == (first.key, first.created_at)
    assert run.finished_at > created


def test_cancelled_was_overwritten_by_failed(runtime: Runtime):
    """A body that raises while it is cancelled does not change the status."""

    @step
    def f():
        runtime.cancel("c")

    @workflow(id="c")
    def w():
        try:
            f()
            f()
        except BaseException:
            raise ValueError("cleaning up failed") from None

    with pytest.raises(Exception, match="cancelled"):
        w()
    assert runtime.run("c").status is RunStatus.CANCELLED


def test_a_drivers_locked_error_made_a_run_failed(tmp_path, effects: Effects):
    """A busy database is waited for, and fails no run."""
    import sqlite3

    path = tmp_path / "flow.db"
    SQLiteStorage(path).close()

    @step
    def f(x):
        if x == 1:
            blocker.execute("begin immediate")
            timer.start()
        return effects("f", x)

    @workflow
    def w():
        return [f(x) for x in range(3)]

    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    timer = threading.Timer(0.3, lambda: blocker.execute("rollback"))
    with Runtime(f"sqlite:///{path}") as runtime:
        assert w() == [1, 1, 1]
        (run,) = runtime.runs()
        assert run.status is RunStatus.COMPLETED
    blocker.close()


def test_polling_made_every_wait_a_second_long(storage, monkeypatch):
    """A joining call is told of the end at once, and does not depend on polling."""
    monkeypatch.setattr("flowdsl.engine.runs.outcome._LOOK", 3600.0)
    monkeypatch.setattr("flowdsl.engine.runs.acquire._LOOK", 3600.0)
    gate, entered = threading.Event(), threading.Event()

    @workflow(id="joined")
    def w():
        entered.set()
        gate.wait(60)
        return "told"

    with Runtime(storage) as other, Runtime(storage):
        w.start()
        entered.wait(60)
        heard = []
        handle = other.run("joined")
        joiner = threading.Thread(target=lambda: heard.append(handle.result(60)), daemon=True)
        joiner.start()
        gate.set()
        joiner.join(60)
        assert heard == ["told"]


def test_pickle_shipped_the_function_without_its_decorator():
    """cloudpickle sends a step with its decorator."""
    import pickle

    import cloudpickle

    @step
    def f(x):
        return x

    loaded = pickle.loads(cloudpickle.dumps(f))
    assert type(loaded) is type(f)
    assert loaded.path == f.path


def test_a_stale_owners_write_was_taken(storage, clock):
    """The storage refuses the write of a former owner."""

    @step
    def f(x):
        if x == 1:
            run = storage.get_run("fenced")
            storage.commit([ClaimRun("fenced", run.epoch, "another", 30.0, force=True)])
        return x

    @workflow(id="fenced")
    def w():
        return [f(x) for x in range(3)]

    with Runtime(storage, clock=clock), pytest.raises(LeaseLost):
        w()
    assert len(storage.list_steps("fenced")) == 1
