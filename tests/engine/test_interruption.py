"""Interrupts: they leave a run resumable, nothing durable happens meanwhile, and what only looks like one is none."""

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import pytest
from support import ONCE, Effects, Flavour

from flowdsl import Retry, RunStatus, Runtime, aio, step, workflow
from flowdsl.engine.scope import interrupting


def test_a_pool_that_the_body_has_shut_down_is_a_failure_like_others(runtime: Runtime, flavour: Flavour):
    """Its refusal sounds as at Python's end, but the run has failed and is not interrupted."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()

    @flavour.step(retry=ONCE)
    def late():
        pool.submit(int)

    @flavour.workflow
    def main():
        yield late()

    with pytest.raises(RuntimeError, match="shutdown"):
        flavour.call(main)
    assert [run.status for run in runtime.runs()] == [RunStatus.FAILED]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["body", "step"])
def test_an_interrupt_leaves_the_run_resumable_and_releases_it(
    runtime: Runtime, flavour: Flavour, effects: Effects, kind, where
):
    """An interrupt leaves the run resumable, calls no ``on_error``, and gives the lease back at once."""
    stop = [True]

    @flavour.step
    def before():
        return effects("before")

    @flavour.step
    def f():
        if where == "step" and (stop.pop() if stop else False):
            raise kind
        return effects("f")

    @flavour.workflow(id="i", on_error=lambda run, error: effects("on_error"))
    def w():
        yield before()
        if where == "body" and (stop.pop() if stop else False):
            raise kind
        return (yield f())

    with pytest.raises(kind):
        flavour.call(w)
    record = runtime.storage.get_run("i")
    assert (record.status, record.owner) == (RunStatus.RUNNING, None)
    assert flavour.call(w) == 1
    assert effects == ["before", "f"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_durable_calls_in_finally_and_except_re_raise(
    runtime: Runtime, flavour: Flavour, effects: Effects, kind
):
    """During an interrupt durable calls in ``finally`` and ``except`` raise it again, and nothing is
    recorded."""
    stop = [True]

    @flavour.step
    def release(how):
        effects("release", how)

    @flavour.workflow
    def w():
        try:
            if stop.pop() if stop else False:
                raise kind
        except BaseException:
            yield release("except")
            raise
        finally:
            yield release("finally")
        return "done"

    with pytest.raises(kind):
        flavour.call(w)
    assert effects == []
    assert flavour.call(w) == "done"
    assert effects == [("release", "finally")]


def test_an_interrupt_handled_before_the_run_does_not_count(runtime: Runtime, effects: Effects):
    """A run that starts while a ``KeyboardInterrupt`` is being handled executes its steps."""

    @step
    def f():
        return effects("f")

    @workflow
    def w():
        return f()

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert w() == 1


def test_an_interrupt_that_the_body_handled_is_over(runtime: Runtime, flavour: Flavour, effects: Effects):
    """After the body has handled an interrupt, durable calls go on."""

    @flavour.step
    def f():
        return effects("f")

    @flavour.workflow
    def w():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        return (yield f())

    assert flavour.call(w) == 1


def test_a_generator_that_is_closed_may_call_steps(runtime: Runtime, effects: Effects):
    """A generator that is closed may call steps in its ``finally``."""

    @step
    def release(x):
        effects("release", x)

    def items():
        try:
            yield 1
            yield 2
        finally:
            release("items")

    @workflow
    def w():
        for item in items():
            break
        return item

    assert w() == 1
    assert effects == [("release", "items")]


def test_cancelling_the_surrounding_task_leaves_the_run_resumable(runtime: Runtime, effects: Effects):
    """Cancelling the task around a run leaves the run resumable, and its ``finally`` does nothing durable."""
    stop = [True]

    @step
    async def f():
        return effects("f")

    @step
    async def release():
        effects("release")

    @workflow(id="c")
    async def w(entered=None):
        value = await f()
        try:
            if stop.pop() if stop else False:
                entered.set()
                await asyncio.sleep(60)
        finally:
            await release()
        return value

    w2 = workflow(id="c2", ignore=("entered",))(w.__wrapped__)

    async def main():
        entered = asyncio.Event()
        task = asyncio.create_task(w2(entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    record = runtime.storage.get_run("c2")
    assert (record.status, record.owner) == (RunStatus.RUNNING, None)
    assert effects == ["f"]
    assert asyncio.run(w2()) == 1
    assert effects == ["f", "release"]


def test_cancelling_inside_a_gather_leaves_the_run_resumable(runtime: Runtime, effects: Effects):
    """Cancelling a gather cancels its branches, and what was in flight executes again."""
    stop = [True]

    @step
    async def f(x, entered):
        effects("f", x)
        if stop:
            entered.set()
            await asyncio.sleep(60)
        return x

    f = step(ignore=("entered",), name="cancel.f")(f.__wrapped__)

    @workflow(ignore=("entered",))
    async def w(entered):
        return await asyncio.gather(f(1, entered), f(2, entered))

    async def main():
        entered = asyncio.Event()
        task = asyncio.create_task(w(entered))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stop.clear()
        return await w(entered)

    assert asyncio.run(main()) == [1, 2]
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED


def test_cancelling_a_task_of_the_bodys_own_is_no_interrupt(runtime: Runtime, effects: Effects):
    """A body may cancel and await its own task, and go on with durable calls."""

    @step
    async def f(x):
        return effects("f", x)

    @workflow
    async def w():
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            await f("inside")
        return await f("behind")

    assert asyncio.run(w()) == 1
    assert effects == [("f", "inside"), ("f", "behind")]


def test_a_real_ctrl_c_in_a_sync_body(runtime: Runtime, effects: Effects):
    """SIGINT in the main thread during a step leaves the run resumable."""
    stop = [True]

    @step
    def f(x):
        if x == 2 and (stop.pop() if stop else False):
            os.kill(os.getpid(), signal.SIGINT)
        return effects("f", x)

    @workflow
    def w():
        return [f(x) for x in range(4)]

    with pytest.raises(KeyboardInterrupt):
        w()
    assert w() == [1, 1, 1, 1]
    assert effects.count("f", 2) == 1


def test_a_real_ctrl_c_in_asyncio_run(runtime: Runtime, effects: Effects):
    """SIGINT in ``asyncio.run`` leaves the run resumable."""
    stop = [True]

    @step
    async def f(x):
        if x == 2 and (stop.pop() if stop else False):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        return effects("f", x)

    @workflow
    async def w():
        return [await f(x) for x in range(4)]

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(w())
    assert asyncio.run(w()) == [1, 1, 1, 1]
    assert [effects.count("f", x) for x in range(4)] == [1, 1, 1, 1]


def test_ctrl_c_while_submitted_steps_execute(runtime: Runtime, effects: Effects):
    """Ctrl-C does not wait for submitted steps, and their late results are kept or refused."""
    gate, entered = threading.Event(), threading.Event()
    stop = [True]

    @step
    def slow(x):
        entered.set()
        if stop:
            gate.wait(60)
        return effects("slow", x)

    @workflow
    def w():
        futures = [slow.submit(x) for x in range(3)]
        if stop:
            entered.wait(60)
            raise KeyboardInterrupt
        return [future.result() for future in futures]

    with pytest.raises(KeyboardInterrupt):
        w()
    stop.clear()
    gate.set()
    assert len(w()) == 3


def test_closing_a_runtime_interrupts_its_runs_resumably(storage, effects: Effects):
    """Closing a runtime interrupts a started run, which continues elsewhere."""
    entered, gate = threading.Event(), threading.Event()

    @step
    def f(x):
        effects("f", x)
        if x == 0:
            entered.set()
            gate.wait(60)
        return x

    @workflow(id="closed")
    def w():
        return [f(x) for x in range(3)]

    runtime = Runtime(storage)
    with runtime:
        w.start()
        entered.wait(60)
        closer = threading.Timer(0.05, gate.set)
        closer.start()
    assert storage.get_run("closed").status is RunStatus.RUNNING
    assert storage.get_run("closed").owner is None
    with Runtime(storage):
        assert w() == [0, 1, 2]
    assert effects.count("f", 0) == 1


def test_an_interrupt_in_a_hook_or_callback_is_an_interrupt(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """An interrupted ``on_complete`` is called again."""

    def complete(run):
        if effects("complete") == 1:
            raise KeyboardInterrupt

    @flavour.workflow(on_complete=complete)
    def w():
        return effects("body")
        yield

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w) == 2
    assert effects == ["body", "complete", "body", "complete"]
    (run,) = runtime.runs()
    assert run.status is RunStatus.COMPLETED


def test_only_a_coroutine_is_thrown_away():
    """Closing a generator is no interrupt, and only a coroutine outside any task is dropped."""
    seen = []

    def body(is_async):
        try:
            yield
        finally:
            seen.append(type(interrupting(None, is_async)).__name__)

    def drop(is_async):
        generator = body(is_async)
        next(generator)
        generator.close()

    async def in_a_task():
        drop(True)

    drop(False)
    asyncio.run(in_a_task())
    drop(True)
    assert seen == ["NoneType", "NoneType", "GeneratorExit"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_arrives_between_two_lines_arrives_as_itself(runtime: Runtime, flavour: Flavour, kind):
    """An exception that arrives between two lines of code arrives as itself."""

    def without_a_line():
        cell = kind()
        try:
            (lambda: cell)()
            raise cell
        except kind as error:
            assert error.__traceback__ is not None
            return TracebackType(None, error.__traceback__.tb_frame, 0, -1)

    assert without_a_line().tb_lineno is None

    @flavour.step(retry=Retry(attempts=1))
    def f():
        raise kind("between").with_traceback(without_a_line())

    @flavour.workflow(id="between")
    def w():
        yield f()

    with pytest.raises(kind, match="between"):
        flavour.call(w)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_started_run_ends_no_other_one(runtime: Runtime, effects: Effects, kind):
    """An interrupt in a started run does not end the runtime's event loop or its other runs."""

    @step
    async def quits():
        raise kind

    @workflow(id="quits")
    async def quitting():
        await quits()

    @workflow(id="waits")
    async def waiting():
        return await aio.wait_for("letter")

    other = waiting.start()
    first = quitting.start()
    with pytest.raises(kind):
        first.result(60)
    assert first.status is RunStatus.RUNNING
    other.signal("letter", "read")
    assert other.result(60) == "read"


def test_a_run_that_is_thrown_away_is_resumable(runtime: Runtime, effects: Effects):
    """A run whose event loop was abandoned in the middle is resumable."""

    @step(undo=lambda token: effects("undo"))
    async def act():
        effects("act")

    @workflow(id="thrown")
    async def thrown():
        await act()
        begun.set()
        if effects.count("act") == 1:
            await asyncio.sleep(3600)

    loop, begun = asyncio.new_event_loop(), asyncio.Event()
    coroutine = thrown()
    task = loop.create_task(coroutine)
    loop.run_until_complete(begun.wait())
    coroutine.close()
    run = runtime.run("thrown")
    assert (run.status, run.record.owner) == (RunStatus.RUNNING, None)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    task.cancelled() or task.exception()
    loop.close()
    effects("act")
    asyncio.run(thrown())
    assert effects == ["act", "act"]
