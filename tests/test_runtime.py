"""Runtime: which one is current, and what opening and closing mean."""

import asyncio
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import Effects, Recorder, is_closed, python

import flowdsl
from flowdsl import RunStatus, Runtime, configure, current_runtime, step, workflow
from flowdsl.errors import FlowError, StorageUnavailable
from flowdsl.runtime import engine_of
from flowdsl.storage import MemoryStorage, SQLiteStorage, open_storage
from flowdsl.testing import VirtualClock


@workflow
def where():
    """The storage of the runtime that executes this."""
    return id(current_runtime())


# Which one is current


def test_inside_with_it_is_the_current_one():
    """Inside ``with`` a runtime is current, and afterwards the outer one is current again."""
    with Runtime("memory://") as outer:
        assert current_runtime() is outer
        with Runtime("memory://") as inner:
            assert current_runtime() is inner
            assert where() == id(inner)
        assert current_runtime() is outer
    assert current_runtime() is not outer


def test_leaving_the_outer_one_first_keeps_the_inner_one_current():
    """If the outer runtime is left first, as by ``ExitStack``, the inner one stays current."""
    with Runtime("memory://") as around:
        one, two = Runtime("memory://"), Runtime("memory://")
        one.__enter__()
        two.__enter__()
        one.__exit__(None, None, None)
        assert current_runtime() is two
        two.__exit__(None, None, None)
        assert current_runtime() is around


def test_async_with():
    """``async with`` works like ``with``."""

    async def main():
        async with Runtime("memory://") as outer:
            assert current_runtime() is outer
            async with Runtime("memory://") as inner:
                assert current_runtime() is inner
            assert current_runtime() is outer
        assert is_closed(outer)

    asyncio.run(main())


def test_tasks_have_their_own_current_runtime():
    """Two tasks with two runtimes each have their own current runtime."""

    @workflow
    async def w(x):
        await asyncio.sleep(0)
        return id(current_runtime())

    async def main():
        async def one(x):
            async with Runtime("memory://") as runtime:
                await asyncio.sleep(0)
                first = await w(x)
                await asyncio.sleep(0)
                return first == id(runtime) == id(current_runtime())

        return await asyncio.gather(*(one(x) for x in range(4)))

    assert asyncio.run(main()) == [True] * 4


def test_pool_threads_find_the_innermost_open_one():
    """Threads without a context use the innermost open runtime."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: None).result()
        with Runtime("memory://") as outer:
            assert pool.submit(current_runtime).result() is outer
            with Runtime("memory://") as inner:
                assert pool.submit(current_runtime).result() is inner
                assert pool.submit(where).result() == id(inner)
            assert pool.submit(current_runtime).result() is outer


def test_without_any_there_is_a_default():
    """Without a runtime there is one default for the process, on ``FLOWDSL_STORAGE``."""
    default = current_runtime()
    assert current_runtime() is default
    assert isinstance(default.storage, MemoryStorage)
    assert where() == id(default)
    default.close()
    assert current_runtime() is not default


def test_configure_replaces_the_default(tmp_path):
    """``configure`` closes the previous default, and an open ``with`` still wins."""
    first = configure("memory://")
    assert current_runtime() is first
    second = configure(f"sqlite:///{tmp_path}/flow.db", name="second")
    assert is_closed(first)
    assert current_runtime() is second
    with Runtime("memory://") as inner:
        assert current_runtime() is inner
    assert current_runtime() is second


def test_the_default_storage_is_a_file_that_hides_itself(tmp_path):
    """The default storage is ``.flowdsl/flow.db`` with a ``.gitignore`` of ``*``, readable by its owner
    only."""
    code = """
        import os
        os.environ.pop("FLOWDSL_STORAGE", None)
        from flowdsl import workflow
        @workflow(id="here")
        def w():
            return 1
        print(w())
    """
    assert python(code, cwd=tmp_path).stdout == "1\n"
    folder = tmp_path / ".flowdsl"
    assert (folder / ".gitignore").read_text().strip() == "*"
    assert stat.S_IMODE((folder / "flow.db").stat().st_mode) == 0o600
    assert python(code, cwd=tmp_path).stdout == "1\n"
    with SQLiteStorage(folder / "flow.db") as storage:
        assert [run.id for run in storage.list_runs()] == ["here"]


def test_importing_makes_no_file_and_no_thread(tmp_path):
    """Importing and decorating make no file and no thread."""
    out = python(
        """
        import os, threading
        import flowdsl
        @flowdsl.step
        def f(): ...
        @flowdsl.workflow
        def w(): ...
        print(os.listdir("."), threading.active_count())
        """,
        cwd=tmp_path,
        PYTHONHASHSEED="0",  # a new interpreter, which has to import
    )
    assert out.stdout == "[] 1\n"


def test_a_run_inside_another_runtimes_run_has_its_own(effects: Effects):
    """``rt.do`` on another runtime inside a run is a run of that runtime."""

    @step
    def f(x):
        return effects("f", x)

    @workflow
    def w():
        return f(1), other.do(f, 1), other.do(f, 1)

    with Runtime("memory://") as other, Runtime("memory://") as runtime:
        assert w() == (1, 2, 2)
        assert [len(r.steps()) for r in runtime.runs()] == [1]
        assert [r.workflow for r in other.runs()] == [f.path]


# Opening and closing


def test_close_is_idempotent_and_leaves_instances_open():
    """Closing twice is harmless; a storage that was passed in stays open, and one from a URL is closed."""
    storage = MemoryStorage()
    runtime = Runtime(storage)
    runtime.close()
    runtime.close()
    assert storage.list_runs() == []
    owned = Runtime("memory://")
    owned.close()
    with pytest.raises(StorageUnavailable):
        owned.storage.list_runs()
    storage.close()


def test_leaving_closes_it_after_an_error_too():
    """A runtime is closed after any exception in its block."""
    with pytest.raises(ZeroDivisionError), Runtime("memory://") as runtime:
        raise ZeroDivisionError
    assert is_closed(runtime)


def test_a_closed_one_cannot_be_entered_or_used():
    """A closed runtime raises a typed error."""
    runtime = Runtime("memory://")
    runtime.close()
    with pytest.raises(FlowError, match="closed"), runtime:
        pass

    @step
    def f(): ...

    for call in (lambda: runtime.do(f), lambda: runtime.try_(f), lambda: runtime.resume("x")):
        with pytest.raises(FlowError):
            call()


def test_memory_urls_are_fresh_per_runtime():
    """Each runtime with ``memory://`` has a storage of its own."""
    with Runtime("memory://") as first:
        where()
        with Runtime("memory://") as second:
            assert second.runs() == []
        assert len(first.runs()) == 1


def test_two_runtimes_on_one_storage_see_the_same_runs(storage):
    """Two runtimes on one storage see the same runs."""

    @workflow(id="shared")
    def w():
        return 1

    with Runtime(storage), Runtime(storage) as second:
        w()
        assert second.run("shared").result() == 1


def test_concurrent_closing_is_safe():
    """If ten threads close at once, one does it, and all return when it is done."""
    runtime = Runtime("memory://")
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda _: runtime.close(), range(10)))
    assert is_closed(runtime)


def test_close_waits_for_nothing_that_is_not_ours():
    """``close`` ends the runtime's own threads, and waits for no others."""
    before = set(threading.enumerate())

    @step(mode="send")
    def sent(): ...

    @step
    async def a(x):
        return x

    @step
    def s(x):
        return x

    @workflow
    def w():
        sent()
        return s.map(range(4)), a.map(range(4))

    with Runtime("memory://") as runtime:
        w()
        w.start().result(60)
        assert runtime.runs()
    left = [t for t in set(threading.enumerate()) - before if t.name.startswith("flowdsl") and t.is_alive()]
    assert left == []


def test_a_thousand_async_runs_at_once(storage):
    """A thousand concurrent async runs are each recorded with their own result."""

    @step
    async def f(x):
        return x + 1

    @workflow(id="many-{x}")
    async def w(x):
        return await f(await f(x))

    async def main():
        return await asyncio.gather(*(w(x) for x in range(300)))

    with Runtime(storage) as runtime:
        assert asyncio.run(main()) == [x + 2 for x in range(300)]
        assert len(runtime.runs(status="completed")) == 300


def test_many_threads_share_a_runtime(storage):
    """Eight threads that call one workflow share a runtime."""

    @step
    def f(x):
        return x * 2

    @workflow(id="t-{x}")
    def w(x):
        return f(f(x))

    with Runtime(storage) as runtime, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(w, range(100))) == [4 * x for x in range(100)]
        assert len(runtime.runs()) == 100


# Options


def test_all_options_are_taken():
    """A runtime takes all documented options."""
    from flowdsl import Retry
    from flowdsl.codecs import JsonCodec

    with ThreadPoolExecutor(1) as pool:
        runtime = Runtime(
            "memory://",
            retry=Retry(attempts=2),
            codec=JsonCodec(),
            hooks=[Recorder()],
            clock=VirtualClock(),
            executor=pool,
            on_divergence="rerun",
            lease=5,
            name="named",
        )
        with runtime:
            where()
        assert engine_of(runtime).name == "named"


@pytest.mark.parametrize("lease", [0, -1, "soon", float("nan"), None])
def test_a_lease_is_a_duration_above_zero(lease):
    """A lease that is not above zero is refused when the runtime is made."""
    with pytest.raises((TypeError, ValueError)):
        Runtime("memory://", lease=lease)


def test_a_lease_may_be_written_as_people_do():
    """A lease may be written like any duration."""
    Runtime("memory://", lease="1 min").close()


def test_a_refused_option_leaves_nothing_open(tmp_path):
    """A refused option leaves no storage open."""
    with pytest.raises(TypeError):
        Runtime(f"sqlite:///{tmp_path}/flow.db", codec="json")
    assert os.listdir(tmp_path) == []


def test_open_storage_passes_instances_through():
    """``open_storage`` returns an instance as it is."""
    storage = MemoryStorage()
    assert open_storage(storage) is storage


def test_a_third_party_clock_has_three_methods(storage, effects: Effects):
    """A clock needs only ``now``, ``sleep`` and ``asleep``."""
    from flowdsl import Retry

    class Jumping:
        def __init__(self):
            self.time = 1000.0

        def now(self):
            return self.time

        def sleep(self, seconds):
            self.time += seconds

        async def asleep(self, seconds):
            self.time += seconds

    clock = Jumping()

    @step(retry=Retry(attempts=2, initial=7, jitter=0))
    def f():
        if effects("f") == 1:
            raise OSError
        return clock.time

    @step(retry=Retry(attempts=2, initial=7, jitter=0))
    async def g():
        if effects("g") == 1:
            raise OSError
        return clock.time

    @workflow
    def w():
        return f()

    @workflow
    async def v():
        return await g()

    with Runtime(storage, clock=clock):
        assert w() == 1007.0
        assert asyncio.run(v()) == 1014.0


def test_what_a_third_party_clock_raises_reaches_who_sleeps(storage, flavour):
    """An interrupt in the ``sleep`` of a user's clock leaves the run resumable at the recorded time."""

    class Interrupted:
        time, once = 1000.0, True

        def now(self):
            return self.time

        def sleep(self, seconds):
            if self.once:
                self.once = False
                self.time += seconds / 2
                raise KeyboardInterrupt
            self.time += seconds

        async def asleep(self, seconds):
            self.sleep(seconds)

    clock = Interrupted()
    sleep = flowdsl.aio.sleep if flavour.is_async else flowdsl.sleep

    @flavour.workflow(id="sleeper")
    def w():
        yield sleep(100)

    with Runtime(storage, clock=clock) as runtime:
        with pytest.raises(KeyboardInterrupt):
            flavour.call(w)
        assert runtime.run("sleeper").status == "running"
        flavour.call(w)
    assert clock.time == 1100.0


def test_aio_twins_exist_for_every_method(storage):
    """``rt.aio`` has an awaitable form of each method that reads or writes."""

    @step
    def f(x):
        return x

    @workflow(id="aio-{x}")
    def w(x):
        if x == 2:
            raise KeyboardInterrupt
        if x == 3:
            raise LookupError
        return f(x)

    async def main(runtime):
        aio = runtime.aio
        assert (await aio.run("aio-1")).status is RunStatus.COMPLETED
        assert len(await aio.runs(workflow=w)) == 3
        assert await aio.query("aio-1", "result") == 1
        await aio.cancel("aio-2")
        assert (await aio.run("aio-2")).status is RunStatus.CANCELLED
        run = await aio.retry("aio-3")
        with pytest.raises(LookupError):
            await run
        assert await aio.recover() == []
        await aio.delete("aio-3")
        assert await aio.prune(0) == 2
        with pytest.raises(AttributeError):
            aio.nonsense

    with Runtime(storage, clock=VirtualClock()) as runtime:
        w(1)
        with pytest.raises(KeyboardInterrupt):
            w(2)
        with pytest.raises(LookupError):
            w(3)
        asyncio.run(main(runtime))


def test_cancelling_an_interrupted_run_is_immediate(storage):
    """Cancelling an interrupted run takes effect at once."""
    from flowdsl.errors import RunCancelled, RunFinished

    @workflow(id="i")
    def w():
        raise KeyboardInterrupt

    with Runtime(storage) as runtime:
        with pytest.raises(KeyboardInterrupt):
            w()
        runtime.cancel("i")
        assert runtime.run("i").status is RunStatus.CANCELLED
        with pytest.raises(RunFinished):
            runtime.cancel("i")
        with pytest.raises(RunFinished):
            runtime.resume("i")
        with pytest.raises(RunCancelled):
            w()


def test_cancel_reaches_a_run_of_another_runtime(storage, effects: Effects):
    """A cancel reaches an async run of another runtime where it waits."""
    from flowdsl.errors import RunCancelled

    @step
    async def forever():
        effects("begun")
        await asyncio.sleep(600)

    @workflow(id="c")
    async def w():
        try:
            await forever()
        except Exception:
            effects("swallowed")

    async def main():
        task = asyncio.create_task(w())
        while not effects:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(other.cancel, "c")
        with pytest.raises(RunCancelled):
            await asyncio.wait_for(task, 60)

    with Runtime(storage) as other, Runtime(storage):
        asyncio.run(main())
        assert other.run("c").status is RunStatus.CANCELLED
    assert effects == ["begun"]


def test_query(storage):
    """``query`` gives status and result of a run, and refuses unknown queries."""

    @workflow(id="q")
    def w():
        return {"a": 1}

    with Runtime(storage) as runtime:
        w()
        assert runtime.query("q", "status") == "completed"
        assert runtime.query("q", "result") == {"a": 1}
        with pytest.raises(ValueError, match="'status', 'result', 'progress', 'state'"):
            runtime.query("q", "everything")
