"""VirtualClock: time that passes only when nothing else can happen."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from support import Effects, Flavour
from verbsupport import until

from flowdsl import Retry, Runtime, aio, schedule, sleep, step, wait_for, workflow
from flowdsl.clock import SystemClock
from flowdsl.errors import FlowError
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import OpenRun
from flowdsl.testing import VirtualClock


def test_it_starts_where_it_is_told():
    """A virtual clock starts at an aware datetime or at seconds, and refuses a naive datetime."""
    assert VirtualClock(1000.0).now() == 1000.0
    moment = datetime(2030, 5, 1, tzinfo=UTC)
    assert VirtualClock(moment).now() == moment.timestamp()
    with pytest.raises(ValueError, match="aware"):
        VirtualClock(datetime(2030, 5, 1))
    assert VirtualClock().now() == VirtualClock().now()


def test_sleeping_outside_a_run_returns_at_once():
    """A sleep outside a run returns at once."""
    clock = VirtualClock()
    before = clock.now()
    clock.sleep(3600)
    assert clock.now() - before == 3600

    async def main():
        await clock.asleep(60)
        return clock.now()

    assert asyncio.run(main()) - before == 3660


def test_waits_of_retries_take_no_time(runtime: Runtime, flavour: Flavour, clock, effects: Effects):
    """Days of backoff pass in a moment."""

    @flavour.step(retry=Retry(attempts=5, initial="1 day", maximum="1 day", jitter=0))
    def f():
        if effects("f") < 5:
            raise OSError
        return clock.now()

    @flavour.workflow
    def w():
        return (yield f())

    before = clock.now()
    assert flavour.call(w) - before == 4 * 86_400


def test_async_branches_sleep_side_by_side(runtime: Runtime, clock):
    """Concurrent async branches sleep for the longest time, not the sum, and wake in order."""
    woken = []

    @step
    async def nap(seconds):
        await clock.asleep(seconds)
        woken.append((seconds, clock.now() - before))

    @workflow
    async def w():
        await asyncio.gather(*(nap(s) for s in (30, 10, 20)))

    before = clock.now()
    asyncio.run(w())
    assert woken == [(10, 10.0), (20, 20.0), (30, 30.0)]


def test_threads_sleep_side_by_side(runtime: Runtime, clock):
    """Concurrent submitted sync steps sleep for the longest time, not the sum."""
    woken = []

    @step
    def nap(seconds):
        clock.sleep(seconds)
        woken.append((seconds, clock.now() - before))

    @workflow
    def w():
        nap.map([30, 10, 20])

    before = clock.now()
    w()
    assert sorted(woken) == [(10, 10.0), (20, 20.0), (30, 30.0)]


def test_runs_side_by_side(runtime: Runtime, clock):
    """Started runs share the virtual time."""

    @step
    def nap(seconds):
        clock.sleep(seconds)
        return clock.now() - before

    @workflow
    def w(seconds):
        return nap(seconds)

    before = clock.now()
    runs = [w.start(s) for s in (30, 10, 20)]
    assert [run.result(60) for run in runs] == [30.0, 10.0, 20.0]


def test_queued_work_is_runnable(storage, clock):
    """Time does not jump while a step waits for a free thread."""
    from concurrent.futures import ThreadPoolExecutor

    seen = []

    @step
    async def nap():
        await clock.asleep(100)

    @workflow
    async def w(f):
        futures = [f.submit(x) for x in range(20)]
        await asyncio.gather(nap(), *futures)

    with ThreadPoolExecutor(1) as pool, Runtime(storage, clock=clock):

        @step(executor=pool)
        def f(x):
            seen.append(clock.now() - before)

        before = clock.now()
        asyncio.run(workflow(name="queued", ignore=("f",))(w.__wrapped__)(f))
    assert seen == [0.0] * 20


def test_without_autoskip_time_stands_still_until_advanced(storage):
    """Without ``autoskip`` time stands still until ``advance`` is called."""
    clock = VirtualClock(autoskip=False)
    state = []

    @step(retry=Retry(attempts=2, initial=60, maximum=60, jitter=0))
    def f():
        state.append(clock.now() - before)
        if len(state) == 1:
            raise OSError
        return "done"

    @workflow(id="still")
    def w():
        return f()

    with Runtime(storage, clock=clock) as runtime:
        before = clock.now()
        run = w.start()
        clock.advance(59)
        assert (state, run.status) == ([0.0], "running")
        assert [s.status for s in runtime.run("still").steps()] == ["pending"]
        clock.advance(timedelta(seconds=1))
        assert run.result(60) == "done"
        assert state == [0.0, 60.0]


def test_advance_fires_in_order_and_stops_where_told(storage):
    """``advance`` fires timers in order, and stops at the given time."""
    clock = VirtualClock(autoskip=False)
    seen = []

    @step
    def nap(x):
        clock.sleep(10)
        seen.append((x, clock.now() - before))

    @workflow
    def w():
        for x in range(5):
            nap(x)

    with Runtime(storage, clock=clock):
        before = clock.now()
        run = w.start()
        clock.advance("25 sec")
        assert seen == [(0, 10.0), (1, 20.0)]
        assert clock.now() - before == 25
        clock.advance(100)
        assert run.result(60) is None
        assert len(seen) == 5


def test_advance_in_a_body_names_what_waits_there(storage, flavour):
    """``advance`` in the body of a workflow or step is an error that names what waits there."""
    clock = VirtualClock()

    def advance():
        return clock.aadvance("1 hour") if flavour.is_async else clock.advance("1 hour")

    @flavour.step(retry=Retry(attempts=1))
    def inside():
        yield advance()

    @flavour.workflow
    def w():
        for call in (advance, inside):
            with pytest.raises(FlowError, match=r"advance\('1 hour'\) is called in a body.*flowdsl\.sleep"):
                yield call()
        return "at once"

    with Runtime(storage, clock=clock):
        before = clock.now()
        assert flavour.call(w) == "at once"
        assert clock.now() == before


def test_advance_on_an_event_loop_names_the_awaitable_one():
    """``advance`` on an event loop is an error that names ``aadvance``."""

    async def main():
        VirtualClock(autoskip=False).advance("3 days")

    with pytest.raises(RuntimeError, match=r"await clock\.aadvance\('3 days'\)"):
        asyncio.run(main())


def test_aadvance_on_an_event_loop(storage):
    """``aadvance`` advances time in async code, and lets tasks run in between."""
    clock = VirtualClock(autoskip=False)
    seen = []

    @step
    async def nap(x):
        await clock.asleep(10)
        seen.append((x, clock.now() - before))

    @workflow
    async def w():
        for x in range(3):
            await nap(x)

    async def main():
        run = w.start()
        await clock.aadvance(15)
        assert seen == [(0, 10.0)]
        await clock.aadvance(15)
        await run

    with Runtime(storage, clock=clock):
        before = clock.now()
        asyncio.run(main())
    assert seen == [(0, 10.0), (1, 20.0), (2, 30.0)]


def test_the_timeout_of_a_wait_that_has_ended_moves_no_clock(runtime, clock):
    """After a message ended a wait before its timeout, no time passes in a later wait without a timeout."""

    @step
    def tell():
        runtime.signal("talks", "first")

    @workflow(id="talks")
    def main():
        schedule(tell, delay="1 hour")
        wait_for("first", timeout="1 day")
        wait_for("second")

    def answer():
        until(lambda: runtime.run("talks") and "'second'" in [s.args for s in runtime.run("talks").steps()])
        runtime.signal("talks", "second")

    before = clock.now()
    thread = threading.Thread(target=answer)
    thread.start()
    main()
    thread.join()
    assert clock.now() - before == 3600


def test_it_never_goes_back(storage, clock):
    """A shorter sleep after a longer one does not turn time back."""

    @step
    def nap(x):
        clock.sleep(x)
        return clock.now()

    @workflow
    def w():
        return [*nap.map([50, 1, 20]), nap(5)]

    with Runtime(storage, clock=clock):
        *_, last = w()
    assert last == max(last, clock.now())


def test_the_system_clock():
    """The system clock tells UTC, and waits by the monotonic clock."""
    import time

    clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    begun = time.monotonic()
    clock.sleep(0.01)
    asyncio.run(clock.asleep(0.01))
    assert time.monotonic() - begun >= 0.02
    waker = clock.waker()
    threading.Timer(0.01, waker.set).start()
    assert clock.wait(waker, 30) is True
    assert clock.wait(clock.waker(), 0.01) is False


def test_a_sleep_beside_a_submitted_step_ends():
    """A body in a thread stops the clock while it executes, and no longer."""
    asleep = threading.Event()

    class Telling(VirtualClock):
        def wait(self, *args, **kwargs):
            asleep.set()
            return super().wait(*args, **kwargs)

    clock = Telling()

    @step
    def slow():
        assert asleep.wait(60)
        return clock.now()

    @workflow
    def w():
        before = clock.now()
        future = slow.submit()
        sleep("1 hour")
        return future.result() - before, clock.now() - before

    with Runtime("memory://", clock=clock):
        assert w() == (0.0, 3600.0)


def test_no_time_passes_between_a_result_and_who_waits_for_it():
    """No time passes between a step's result and the thread that waits for it."""
    asking, parked = threading.Event(), threading.Event()

    class Telling(VirtualClock):
        def leave(self):
            super().leave()
            if asking.is_set():
                parked.set()

    clock = Telling()

    @step
    def later():
        pass

    @step
    def quick():
        assert parked.wait(60)

    @workflow
    def w():
        schedule(later, delay="1 hour")
        future = quick.submit()
        before = clock.now()
        asking.set()
        future.result()
        return clock.now() - before

    with Runtime("memory://", clock=clock):
        assert w.start().result() == 0.0


@pytest.mark.parametrize("beside", [0, 1], ids=["branches alone", "beside a submitted step"])
def test_no_time_passes_while_branches_work(beside):
    """No time passes while gathered branches and submitted steps execute."""

    @step
    def tool(n):
        return n

    @step
    async def turns(n):
        for _ in range(n):
            await asyncio.sleep(0)
        return n

    async def branch(n):
        return [await tool.submit(n), await turns(n), await tool.submit(n + 10)]

    @workflow(timeout="1 hour")
    async def w():
        before = aio_now()
        first = await aio.gather(branch(1), branch(2), *[turns.submit(40)] * beside)
        await aio.gather(turns.submit(3), turns.submit(30))
        return len(first), aio_now() - before

    def aio_now():
        return clock.now()

    clock = VirtualClock()
    with Runtime("memory://", clock=clock):
        assert asyncio.run(w()) == (2 + beside, 0.0)


def test_a_branch_that_sleeps_beside_one_that_has_ended(clock, runtime: Runtime):
    """Time passes when the remaining branches of a gather sleep."""

    @step
    async def quick(n):
        return n

    async def slow():
        await aio.sleep("1 day")
        return "slow"

    async def fast():
        return await quick(1)

    @workflow
    async def w():
        return await aio.gather(slow(), fast(), quick.submit(2)), await aio.gather(slow(), fast())

    before = clock.now()
    assert asyncio.run(w()) == (["slow", 1, 2], ["slow", 1])
    assert clock.now() - before == 2 * 86_400


def test_a_body_with_a_limit_counts_before_its_thread_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time does not jump to a step's timeout before its thread has begun."""
    real = threading.Thread.run

    def late(thread: threading.Thread) -> None:
        if thread.name == "flowdsl-timeout":
            threading.Event().wait(0.2)  # time for a skip
        real(thread)

    @step(timeout=60, name="clock.limited")
    def limited() -> str:
        return "in time"

    @workflow(name="clock.late")
    def flow() -> str:
        return limited()

    monkeypatch.setattr(threading.Thread, "run", late)
    with Runtime("memory://", clock=VirtualClock()):
        assert flow() == "in time"


class OpensLate(MemoryStorage):
    """While the run ``late`` is being opened, another run goes to sleep."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock

    def commit(self, operations):
        if any(isinstance(op, OpenRun) and op.run.id == "late" for op in operations):
            self.clock.enter()
            self.clock.leave()
        return super().commit(operations)


@pytest.mark.parametrize("is_async", [False, True])
def test_no_time_passes_before_a_called_run_begins(is_async):
    """No time passes before the body of a called run begins."""
    clock = VirtualClock(0.0, grace=60.0)

    @workflow(id="sleeper")
    def sleeper():
        sleep("30 days")

    @workflow(id="late")
    def late():
        return clock.now()

    @workflow(id="late")
    async def late_async():
        return clock.now()

    with Runtime(OpensLate(clock), clock=clock) as runtime:
        sleeper.start()
        clock.advance(0)  # until it sleeps
        assert (asyncio.run(late_async()) if is_async else late()) == 0.0
        runtime.cancel("sleeper")


def test_no_time_passes_when_a_child_ends_whose_branches_have_ended(runtime, clock):
    """Its parent goes on at once, and is not stopped by a time limit that is far away."""

    @workflow
    async def leaf():
        pass

    @workflow
    async def child():
        await leaf.start()

    @workflow(timeout="10 days")
    async def parent():
        await child()
        return clock.now()

    before = clock.now()
    assert asyncio.run(parent()) == before
