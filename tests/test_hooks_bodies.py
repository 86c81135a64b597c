"""Hooks around bodies: each body passes them, and what they return or raise counts as the body's outcome."""

import asyncio
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from support import ONCE

import flowdsl
from flowdsl import Hooks, Retry, Runtime, current_step, on, send, step, store, workflow
from flowdsl.errors import StepTimeout
from flowdsl.hooks import BodyView, installed
from flowdsl.storage import MemoryStorage
from flowdsl.testing import VirtualClock
from flowdsl.testing.crash import RelayStorage

span: ContextVar[str] = ContextVar("span", default="")


class Around(Hooks):
    """Executes what it is given, with a note before and after, and a context variable set meanwhile."""

    def __init__(self, name="around") -> None:
        self.name = name
        self.seen: list[BodyView] = []
        self.order: list[str] = []

    def execute_body(self, body, proceed):
        self.seen.append(body)
        token = span.set(body.path)
        try:
            return proceed()
        finally:
            span.reset(token)
            self.order.append(body.path.rpartition(".")[2])

    async def execute_body_async(self, body, proceed):
        self.seen.append(body)
        token = span.set(body.path)
        try:
            return await proceed()
        finally:
            span.reset(token)
            self.order.append(body.path.rpartition(".")[2])

    def kinds(self):
        return [(one.kind, one.path.rpartition(".")[2], one.shown) for one in self.seen]


class Instead(Hooks):
    """Gives *answer* (or raises it) in place of the body of the steps of one name."""

    def __init__(self, name, answer) -> None:
        self.name = name
        self.answer = answer

    def execute_body(self, body, proceed):
        if not body.path.endswith(self.name):
            return proceed()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def execute_body_async(self, body, proceed):
        return self.execute_body(body, proceed) if body.path.endswith(self.name) else await proceed()


@pytest.fixture
def made():
    """A runtime over memory with these hooks."""
    opened = []

    def make(*hooks, **options):
        runtime = Runtime("memory://", hooks=hooks, **options)
        opened.append(runtime)
        return runtime

    yield make
    for runtime in opened:
        runtime.close()


def test_every_kind_of_body_is_seen(made):
    """Hooks see workflows, steps of each mode, submitted steps, undo functions, handlers and callbacks."""
    around = Around()
    done = threading.Event()

    def back(result): ...

    @step(undo=back)
    def charge(amount):
        return amount

    @step(mode="try")
    def look(): ...

    @step(mode="send")
    def tell():
        done.set()

    @on("paid")
    def note(payload): ...

    @step(retry=ONCE)
    def fail():
        raise ValueError

    @workflow(on_error=lambda run, error: None)
    def shop(amount):
        charge.submit(amount).result()
        look()
        tell()
        send("paid", 1)
        fail()

    with made(around), pytest.raises(ValueError):
        shop(5)
    assert sorted(around.kinds()) == sorted(
        [
            ("workflow", "shop", "amount=5"),
            ("step", "charge", "amount=5"),
            ("step", "look", ""),
            ("step", "tell", ""),
            ("handler", "note", ""),
            ("step", "fail", ""),
            ("undo", "back", "5"),
            ("callback", "shop", ""),
        ]
    )


def test_async_bodies_are_awaited_within(made):
    """An async hook awaits the body in its own context."""
    around, found = Around(), []

    @step
    async def charge():
        await asyncio.sleep(0)
        found.append(span.get())

    @workflow
    async def shop():
        await charge()
        found.append(span.get())

    async def main():
        async with made(around):
            await shop()

    asyncio.run(main())
    assert found == [charge.path, shop.path]
    assert around.order == ["charge", "shop"]


@pytest.mark.parametrize("where", ["inline", "timeout", "pool"])
def test_the_hook_stands_in_the_thread_and_context_of_the_body(made, where):
    """The hook executes in the thread and context of the body, also with a timeout and on an executor."""
    threads, spans = [], []

    class Watch(Around):
        def execute_body(self, body, proceed):
            if body.kind == "step":
                threads.append(threading.get_ident())
                store.increment("executed")
                assert current_step().path == body.path
            return super().execute_body(body, proceed)

    @step(timeout=60 if where == "timeout" else None)
    def charge():
        threads.append(threading.get_ident())
        spans.append(span.get())

    @workflow
    def shop():
        charge.submit().result() if where == "pool" else charge()
        return store.get("executed")

    with made(Watch()):
        assert shop() == 1
    assert len(set(threads)) == 1
    assert spans == [charge.path]


def test_a_body_in_another_process_is_sent_within(made):
    """For a body in another process the hook stays here, around sending and waiting."""
    around = Around()
    with ProcessPoolExecutor(1) as pool:
        far = step(name="far", executor=pool)(abs)

        @workflow
        def shop():
            return far.submit(-3).result(), far.submit(-4).result()

        with made(around, Instead("nothing", None)):
            assert shop() == (3, 4)
    assert [one.path for one in around.seen if one.kind == "step"] == ["far", "far"]


def test_what_it_returns_and_raises_is_the_bodys(made):
    """A returned value is recorded, and a raised exception is retried and recorded, as the body's."""

    @step
    def charge(): ...

    @step(retry=ONCE)
    def fail(): ...

    @workflow(id="shop")
    def shop():
        try:
            fail()
        except OSError as error:
            return charge(), str(error)

    with made(Instead("charge", 7), Instead("fail", OSError("broken"))) as runtime:
        assert shop() == (7, "broken")
        assert [str(s.status) for s in runtime.run("shop").steps()] == ["failed", "completed"]
        assert runtime.run("shop").steps()[1].result() == 7


def test_a_stand_in_keeps_to_the_timeout(made):
    """A hook in place of the body is subject to the step's timeout."""
    release = threading.Event()

    class Slow(Hooks):
        def execute_body(self, body, proceed):
            return proceed() if body.kind == "workflow" else release.wait(60)

    @step(timeout=0.05, retry=ONCE)
    def charge(): ...

    @workflow
    def shop():
        charge()

    with made(Slow()), pytest.raises(StepTimeout):
        shop()
    release.set()


def test_the_first_given_is_the_outermost_and_installed_ones_are_further_out(made):
    """The first given hook is the outermost, and installed hooks are further out."""
    names = []

    class Named(Hooks):
        def __init__(self, name) -> None:
            self.name = name

        def execute_body(self, body, proceed):
            if body.kind == "step":
                names.append(self.name)
            return proceed()

    @step
    def charge(): ...

    @workflow
    def shop():
        charge()

    with made(Named("first"), Named("second")):
        with installed(Named("installed")), installed(Named("last")):
            shop()
        assert names == ["last", "installed", "first", "second"]
        names.clear()
        shop()
    assert names == ["first", "second"]


def test_a_body_is_held_until_the_run_is_to_stop(made):
    """``hold`` waits until the run is cancelled or stopped, sync and async."""

    class Hold(Hooks):
        def execute_body(self, body, proceed):
            return proceed() if body.kind == "workflow" else body.hold()

        async def execute_body_async(self, body, proceed):
            return await proceed() if body.kind == "workflow" else await body.ahold()

    @step
    def charge(): ...

    @step
    async def acharge(): ...

    @workflow
    def shop():
        charge()

    @workflow
    async def ashop():
        await acharge()

    for w in (shop, ashop):
        with made(Hold(), clock=VirtualClock()) as runtime:
            run = w.start()
            runtime.cancel(run.id)
            with pytest.raises(flowdsl.errors.RunCancelled):
                run.result(60)


def test_outside_a_run_nothing_can_be_held():
    """``hold`` outside a run is refused, because nothing would end it."""
    with pytest.raises(TypeError, match="outside any run"):
        BodyView("handler", "note", "", None, print, (), {}, "", False).hold()


def test_jitter_is_asked_for_each_retry(made):
    """``jitter`` is called for each retry, and the last hook that has it counts."""
    delays = []

    class Steady(Hooks):
        def __init__(self, share) -> None:
            self.jitter = lambda: share

        def on_step_retry(self, step, error, attempt, delay):
            delays.append(delay)

    @step(retry=Retry(attempts=2, initial=10, jitter=0.5))
    def fail():
        raise OSError

    with made(Steady(0.9), Steady(0.5), clock=VirtualClock()) as runtime, pytest.raises(OSError):
        runtime.do(fail)
    assert delays == [7.5, 7.5]


def test_the_storage_of_a_runtime_can_be_wrapped():
    """A hook can wrap the storage, which sees all writes, and the runtime closes only what it opened."""
    commits = []

    class Counting(RelayStorage):
        def commit(self, operations, /):
            commits.append(len(operations))
            return super().commit(operations)

    class Wrap(Hooks):
        def wrap_storage(self, storage):
            return Counting(storage)

    storage = MemoryStorage()
    with installed(Wrap()), Runtime(storage) as runtime:
        assert runtime.do(step(name="one")(abs), -1) == 1
    assert commits
    assert storage.list_runs()


def test_the_hooks_are_checked():
    """A coroutine function in place of a plain one, or the reverse, is refused."""

    class Plain(Hooks):
        async def execute_body(self, body, proceed):
            return await proceed()

    class Awaited(Hooks):
        def execute_body_async(self, body, proceed):
            return proceed()

    with pytest.raises(TypeError, match="make execute_body"):
        Runtime("memory://", hooks=Plain())
    with pytest.raises(TypeError, match="async def execute_body_async"):
        Runtime("memory://", hooks=Awaited())
    with pytest.raises(TypeError, match=r"flowdsl\.Hooks"), installed(object()):
        pass


def test_a_thread_pool_of_ones_own_is_no_other_process(made):
    """With a thread pool of the user the body executes in its thread, within the hook."""
    around = Around()
    with ThreadPoolExecutor(1) as pool:
        near = step(name="near", executor=pool)(abs)

        @workflow
        def shop():
            return near.submit(-3).result()

        with made(around):
            assert shop() == 3
    assert [one.path for one in around.seen] == [shop.path, "near"]
