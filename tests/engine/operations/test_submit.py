"""Concurrent steps: ``submit`` and ``map``, on whatever executor."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import ONCE, Declined, Effects, Flavour

from flowdsl import Retry, Runtime, current_runtime, step, workflow
from flowdsl.runtime import current_engine


@pytest.fixture
def pool():
    """Two threads with a name."""
    with ThreadPoolExecutor(2, thread_name_prefix="mine") as made:
        yield made


def test_map_gives_results_in_input_order(runtime: Runtime, flavour: Flavour):
    """``map`` gives results in input order, and with several iterables ends with the shortest."""

    @flavour.step
    def f(x, y=0):
        return x * 10 + y

    @flavour.workflow
    def w():
        one = f.map(range(20))
        one = (yield one) if flavour.is_async else one
        two = f.map([1, 2, 3], [4, 5])
        two = (yield two) if flavour.is_async else two
        none = f.map([])
        none = (yield none) if flavour.is_async else none
        return one, two, none

    assert flavour.call(w) == ([x * 10 for x in range(20)], [14, 25], [])
    (run,) = runtime.runs()
    assert len(run.steps()) == 22


def test_map_takes_a_generator_that_calls_steps(runtime: Runtime):
    """``map`` reads a generator in the body's own flow, so its items may come from steps."""

    @step
    def make(x):
        return x + 1

    @step
    def use(x):
        return x * 2

    @workflow
    def w():
        return use.map(make(x) for x in range(3))

    assert w() == [2, 4, 6]


def test_identity_is_taken_at_submit_in_the_callers_scope(runtime: Runtime, flavour: Flavour):
    """The key of a submitted step does not depend on the workers' speed."""

    @flavour.step
    def f(items):
        return len(items)

    @flavour.step
    def outer():
        items = []
        futures = []
        for x in range(3):
            futures.append(f.submit(items))
            items = [*items, x]
        found = []
        for future in reversed(futures):
            found.append((yield future) if flavour.is_async else future.result())
        return found

    @flavour.workflow
    def w():
        return (yield outer())

    assert flavour.call(w) == [2, 1, 0]
    (run,) = runtime.runs()
    assert {s.scope for s in run.steps() if s.path == f.path} == {outer.key()}


def test_map_in_async_code_takes_identity_at_the_call(runtime: Runtime, effects: Effects):
    """In async code ``map`` identifies its steps at the call, and not when it is awaited."""

    @step
    async def f(x):
        return effects("f", x)

    @workflow
    async def w():
        pending = f.map([1])
        await f(1)
        await pending

    asyncio.run(w())
    (run,) = runtime.runs()
    assert [s.occurrence for s in run.steps()] == [1, 0]


def test_submitted_steps_are_recorded_and_replayed(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A resume executes only submitted steps that were not recorded."""
    stop = [True]

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def w():
        found = f.map([1, 2, 3])
        found = (yield found) if flavour.is_async else found
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        more = f.map([3, 4])
        more = (yield more) if flavour.is_async else more
        return found, more

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w) == ([1, 1, 1], [2, 1])
    assert len(effects) == 5


def test_sync_steps_execute_on_the_steps_executor(runtime: Runtime, pool):
    """Sync steps execute on their ``executor=``, whoever asks for the result."""

    @step(executor=pool)
    def f(x):
        return threading.current_thread().name

    @workflow
    def w():
        return f.map(range(20))

    assert {name.split("_")[0] for name in w()} == {"mine"}


def test_the_runtimes_executor_is_the_default(storage, clock, pool):
    """``Runtime(executor=…)`` is for steps without an executor of their own."""

    @step
    def f(x):
        return threading.current_thread().name

    @workflow
    def w():
        return f.map(range(4))

    with Runtime(storage, clock=clock, executor=pool):
        assert {name.split("_")[0] for name in w()} == {"mine"}


def test_sync_steps_submitted_in_async_code_execute_in_threads(runtime: Runtime):
    """``await s.submit(…)`` executes a sync step in a thread."""

    @step
    def f(x):
        return x, threading.current_thread() is threading.main_thread()

    @workflow
    async def w():
        return await f.submit(1), await f.map([2, 3])

    assert asyncio.run(w()) == ((1, False), [(2, False), (3, False)])


def test_async_steps_submitted_in_sync_code(runtime: Runtime, effects: Effects):
    """In sync code submitted async steps execute concurrently on the runtime's loop."""

    @step
    async def f(x):
        await asyncio.sleep(0)
        return effects("f", x) * x

    @workflow
    def w():
        futures = [f.submit(x) for x in range(3)]
        return [future.result() for future in futures], f.map([7, 8])

    assert w() == ([0, 1, 2], [7, 8])


def test_steps_that_wait_for_steps_do_not_exhaust_a_bounded_pool(runtime: Runtime, pool):
    """Nested submits do not exhaust a pool of two threads."""

    @step(executor=pool)
    def leaf(x):
        return x

    @step(executor=pool)
    def branch(x):
        return sum(leaf.map([x, x + 1, x + 2]))

    @workflow
    def w():
        return branch.map(range(6))

    assert w() == [3 * x + 3 for x in range(6)]


def test_nested_map_on_the_default_pool(runtime: Runtime):
    """A nested ``map`` does not exhaust the default pool."""

    @step
    def leaf(x):
        return x

    @step
    def branch(x):
        return sum(leaf.map(range(x)))

    @workflow
    def w():
        return branch.map(range(40))

    assert w() == [sum(range(x)) for x in range(40)]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_limit_bounds_how_many_execute_at_once(runtime: Runtime, flavour: Flavour, limit):
    """At most ``limit`` steps execute at once, and all of them in the end."""
    lock, now, most = threading.Lock(), [0], [0]

    def enter():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])

    if flavour.is_async:

        @step
        async def f(x):
            enter()
            for _ in range(3):
                await asyncio.sleep(0)
            now[0] -= 1
            return x
    else:

        @step
        def f(x):
            enter()
            with lock:
                now[0] -= 1
            return x

    @flavour.workflow
    def w():
        found = f.map(range(12), limit=limit)
        return (yield found) if flavour.is_async else found

    assert flavour.call(w) == list(range(12))
    assert 1 <= most[0] <= limit


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", True])
def test_a_limit_that_makes_no_sense(limit):
    """An impossible ``limit`` is refused at the call."""

    @step
    def f(x): ...

    with pytest.raises(ValueError, match="limit"):
        f.map([1], limit=limit)


@pytest.mark.parametrize("limit", [None, 2])
def test_map_raises_the_original_exception_of_the_first_item_that_failed(
    runtime: Runtime, flavour: Flavour, effects: Effects, limit
):
    """``map`` raises the first failure after the executing steps ended and were recorded."""
    fixed = []

    @flavour.step(retry=ONCE)
    def f(x):
        effects("f", x)
        if x in (1, 2) and not fixed:
            raise Declined(x)
        return x

    @flavour.workflow
    def w():
        found = f.map(range(4), limit=limit)
        return (yield found) if flavour.is_async else found

    with pytest.raises(Declined) as caught:
        flavour.call(w)
    assert caught.value.args in [(1,), (2,)]
    fixed.append(True)
    assert flavour.call(w) == [0, 1, 2, 3]
    assert len(runtime.runs()) == 1
    assert effects.count("f", 0) == 1


def test_after_a_failure_a_limited_map_begins_no_more(runtime: Runtime, flavour: Flavour, effects: Effects):
    """After a failure, ``map`` with a limit of one begins no other item."""

    @flavour.step(retry=ONCE)
    def f(x):
        effects("f", x)
        if x == 1:
            raise Declined
        return x

    @flavour.workflow
    def w():
        found = f.map(range(50), limit=1)
        return (yield found) if flavour.is_async else found

    with pytest.raises(Declined):
        flavour.call(w)
    assert effects == [("f", 0), ("f", 1)]


def test_time_goes_on_after_a_map_that_failed(runtime: Runtime, clock):
    """Steps that ``map`` withdrew do not stop a virtual clock."""

    @step(retry=ONCE)
    def f(x):
        if x == 0:
            raise Declined
        return x

    @step(retry=Retry(attempts=2, initial=60, maximum=60, jitter=0))
    def later():
        if clock.now() < begun + 60:
            raise OSError
        return "later"

    @workflow
    def w():
        try:
            f.map(range(100))
        except Declined:
            pass
        return later()

    begun = clock.now()
    assert w() == "later"
    assert clock.now() == begun + 60


def test_time_goes_on_while_submitted_steps_wait(runtime: Runtime, clock):
    """A virtual clock skips the wait between attempts of a submitted step."""

    @step(retry=Retry(attempts=2, initial=60, maximum=60, jitter=0))
    def f(x):
        if clock.now() < begun + 60:
            raise OSError
        return x

    @workflow
    def w():
        return f.map(range(3))

    begun = clock.now()
    assert w() == [0, 1, 2]
    assert clock.now() == begun + 60


def test_a_future_answers_as_futures_do(runtime: Runtime):
    """A future has ``result``, ``exception``, ``done``, ``add_done_callback`` and ``result(timeout)``."""
    gate, called = threading.Event(), threading.Event()

    @step(retry=ONCE)
    def f(x):
        gate.wait(60)
        if x < 0:
            raise Declined(x)
        return x

    @workflow
    def w():
        good, bad = f.submit(1), f.submit(-1)
        with pytest.raises(TimeoutError):
            good.result(timeout=0.01)
        assert not good.done()
        good.add_done_callback(lambda future: called.set())
        gate.set()
        assert called.wait(60)
        assert isinstance(bad.exception(), Declined)
        assert good.exception() is None
        with pytest.raises(Declined):
            bad.result()
        return good.result(), good.done(), good.cancel(), good.cancelled()

    assert w() == (1, True, False, False)


def test_a_run_waits_for_what_it_submitted(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A run completes only after the steps that it submitted are recorded."""

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def w():
        f.submit(1)
        return "done"
        yield

    assert flavour.call(w) == "done"
    (run,) = runtime.runs()
    assert [s.status for s in run.steps()] == ["completed"]
    assert effects == [("f", 1)]


def test_a_failure_that_nobody_asked_for_is_logged(runtime: Runtime, flavour: Flavour, caplog):
    """A failure of a submitted step that nobody asked for is logged, and does not fail the run."""

    @flavour.step(retry=ONCE)
    def f():
        raise Declined("unasked")

    @flavour.workflow
    def w():
        f.submit()
        return "done"
        yield

    assert flavour.call(w) == "done"
    assert any("nobody asked" in r.getMessage() for r in caplog.records)


def test_outside_a_run_submit_and_map_execute_without_a_record(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """Outside a run ``submit`` and ``map`` execute without a record."""

    @flavour.step
    def f(x):
        return effects("f", x) * x

    if flavour.is_async:

        async def main():
            return await f.submit(3), await f.map([4, 5])

        assert asyncio.run(main()) == (3, [4, 5])
    assert f.submit(3).result() == 3 * (1 + flavour.is_async)
    if not flavour.is_async:
        assert f.map([4, 5]) == [4, 5]
    assert runtime.runs() == []


def test_retries_hold_for_submitted_steps(runtime: Runtime, flavour: Flavour, effects: Effects):
    """Each submitted step has its own attempts."""

    @flavour.step(retry=Retry(attempts=3, jitter=0))
    def f(x):
        if effects("f", x) < 3:
            raise OSError
        return x

    @flavour.workflow
    def w():
        found = f.map(range(3))
        return (yield found) if flavour.is_async else found

    assert flavour.call(w) == [0, 1, 2]
    (run,) = runtime.runs()
    assert [s.attempts for s in run.steps()] == [3, 3, 3]


# Any executor of concurrent.futures


def test_the_current_runtime_is_found_in_pool_threads(runtime: Runtime, pool):
    """A pool thread without a context uses the innermost open runtime."""
    assert pool.submit(current_runtime).result() is runtime


def test_an_async_step_cancelled_before_it_began_never_begins(runtime: Runtime, effects: Effects):
    """An async step that is cancelled before it begins never begins, and ``cancel()`` says so."""

    @step
    async def f(x):
        return effects(x)

    @workflow
    def w():
        gate = threading.Event()
        current_engine().loop().call_soon_threadsafe(gate.wait)
        future = f.submit("cancelled")
        said = future.cancel(), future.cancelled()
        gate.set()
        f.submit("behind it").result()
        return said

    assert w() == (True, True)
    assert effects == ["behind it"]


def test_an_async_run_waits_for_a_task_of_another_loop(runtime: Runtime, effects: Effects):
    """A run waits for an async step that a sync body in a thread has submitted."""
    gate = threading.Event()

    @step
    async def slow():
        await asyncio.to_thread(gate.wait)
        effects("slow")

    @step
    def outer():
        slow.submit()

    @workflow
    async def w():
        await outer.submit()
        asyncio.get_running_loop().call_soon(gate.set)

    asyncio.run(asyncio.wait_for(w(), 60))
    assert effects == ["slow"]


@pytest.mark.parametrize("timeout", ["x", -1, True, float("nan"), []])
def test_a_timeout_that_is_none_is_refused(runtime: Runtime, timeout):
    """An invalid timeout is an error about the timeout, whether or not the future is done."""

    @step(retry=ONCE)
    def f(broken):
        if broken:
            raise Declined
        return 1

    @workflow
    def w():
        for broken in (False, True):
            future = f.submit(broken)
            for ask in (future.result, future.exception):
                with pytest.raises((TypeError, ValueError), match="in seconds, or None"):
                    ask(timeout)
            future.exception()
        return "fine"

    assert w() == "fine"
