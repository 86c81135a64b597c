"""What the body must not swallow, whatever it is and however deep: it crosses steps, retries, branches and children."""

import asyncio
import sys
import threading
import time

import pytest
from support import Breaking, Effects, Flavour, Recorder

from flowdsl import Retry, RunStatus, Runtime, aio, now, step, store, workflow
from flowdsl.engine.stop import Stop
from flowdsl.errors import (
    CorruptPayload,
    FlowError,
    LeaseLost,
    NondeterminismError,
    ResultNotStorable,
    RunCancelled,
    RunTimeout,
    StorageFull,
    StorageUnavailable,
)
from flowdsl.storage.base import ClaimRun, PutMemo, PutStep

MANY = Retry(attempts=5, initial=1, jitter=0)


class World:
    """One run, and the ways to stop it from inside a step."""

    def __init__(self, storage, clock, flavour: Flavour, effects: Effects):
        self.storage = Breaking(storage)
        self.storage.when = lambda operation: isinstance(operation, PutStep)
        self.clock = clock
        self.flavour = flavour
        self.effects = effects
        self.hooks = Recorder()
        self.runtime = Runtime(self.storage, clock=clock, hooks=self.hooks)

    def stop(self, kind: str):
        """What a step returns that stops the run in this way."""
        if kind in ("full", "unavailable"):
            self.storage.error = StorageFull("full") if kind == "full" else StorageUnavailable("gone")
        elif kind == "lock":
            return threading.Lock()
        elif kind == "stolen":
            record = self.storage.inner.get_run("crossed")
            claim = ClaimRun("crossed", record.epoch, "another", 30.0, force=True)
            self.storage.inner.commit([claim])
        elif kind == "cancel":
            self.runtime.cancel("crossed")
        elif kind == "timeout":
            self.clock._now += 1_000_000
        return None


KINDS = {
    "full": StorageFull,
    "unavailable": StorageUnavailable,
    "lock": ResultNotStorable,
    "stolen": LeaseLost,
    "cancel": RunCancelled,
    "timeout": RunTimeout,
}
ENDS = {"cancel": RunStatus.CANCELLED, "timeout": RunStatus.FAILED}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["flat", "nested", "submitted", "child"])
def test_it_crosses(storage, clock, flavour: Flavour, effects: Effects, kind, shape):
    """A stop passes ``except Exception``, no retry executes, and no later call executes."""
    world = World(storage, clock, flavour, effects)

    @flavour.step(retry=MANY)
    def inner():
        effects("inner")
        return world.stop(kind)

    @flavour.step(retry=MANY)
    def after():
        effects("after")

    @flavour.step(retry=MANY)
    def outer():
        effects("outer")
        try:
            yield inner()
        except Exception:
            effects("swallowed in the step")
        yield after()

    @flavour.workflow
    def child():
        try:
            yield inner()
        except Exception:
            effects("swallowed in the child")
        yield after()

    @flavour.workflow(id="crossed", timeout=100, on_error=lambda run, error: effects("on_error"))
    def w():
        try:
            if shape == "flat":
                yield inner()
            elif shape == "nested":
                yield outer()
            elif shape == "submitted":
                future = inner.submit()
                (yield future) if flavour.is_async else future.result()
            else:
                yield child()
        except Exception:
            effects("swallowed")
        yield after()

    with world.runtime as runtime:
        with pytest.raises(KINDS[kind]):
            flavour.call(w)
        world.storage.error = None
        assert runtime.run("crossed").status is ENDS.get(kind, RunStatus.RUNNING)
    expected = {"outer", "inner", "on_error"} if kind == "timeout" else {"outer", "inner"}
    if shape == "child" and kind in ("stolen", "timeout"):  # the child is a run of its own, and still ours
        expected.add("after")
    assert set(effects.log) <= expected
    assert effects.count("inner") == 1
    assert "step_retry" not in world.hooks.names()
    assert "step_error" not in world.hooks.names()


@pytest.mark.parametrize("kind", ["full", "unavailable", "lock"])
def test_once_mended_the_run_goes_on(storage, clock, flavour: Flavour, effects: Effects, kind):
    """After the cause is removed the same call completes, and executes only what was not stored."""
    world = World(storage, clock, flavour, effects)
    mended = []

    @flavour.step
    def first():
        return effects("first")

    @flavour.step
    def second():
        effects("second")
        return "fine" if mended else world.stop(kind)

    @flavour.workflow(id="crossed")
    def w():
        yield first()
        return (yield second())

    with world.runtime:
        with pytest.raises(KINDS[kind]):
            flavour.call(w)
        mended.append(True)
        world.storage.error = None
        assert flavour.call(w) == "fine"
    assert effects == ["first", "second", "second"]


def test_the_first_reason_wins(storage, clock, effects: Effects):
    """The first reason to stop wins, and later ones are not reported."""
    world = World(storage, clock, Flavour(False), effects)

    @step
    def inner():
        world.stop("full")

    def body():
        try:
            inner()
        except BaseException:
            world.runtime.cancel("crossed")
            inner()

    from flowdsl import workflow

    w = workflow(id="crossed", name="crossing.first")(body)
    with world.runtime, pytest.raises(StorageFull):
        w()


def test_it_crosses_a_gather_with_return_exceptions(runtime: Runtime, effects: Effects):
    """``gather`` with ``return_exceptions=True`` returns the stop as a value, and the run stops
    nevertheless."""
    from flowdsl import workflow

    @step
    async def bad():
        return threading.Lock()

    @step
    async def good(x):
        return effects("good", x)

    @workflow
    async def w():
        found = await asyncio.gather(good(1), bad(), return_exceptions=True)
        effects("gathered", len(found))
        await good(2)
        return "done"

    with pytest.raises(ResultNotStorable):
        asyncio.run(w())
    assert ("good", 2) not in effects.log
    (run,) = runtime.runs()
    assert run.status is RunStatus.RUNNING


def test_what_was_queued_when_it_stopped_does_not_begin(storage, clock, effects: Effects):
    """After a full disk none of a thousand queued calls begins."""
    from concurrent.futures import ThreadPoolExecutor

    from flowdsl import workflow

    world = World(storage, clock, Flavour(False), effects)
    with ThreadPoolExecutor(1) as pool:

        @step(executor=pool)
        def f(x):
            effects("f", x)
            if x == 3:
                world.stop("full")

        @workflow
        def w():
            f.map(range(200))

        with world.runtime, pytest.raises(StorageFull):
            w()
    assert effects == [("f", 0), ("f", 1), ("f", 2), ("f", 3)]


def test_a_divergence_in_a_branch_stops_the_others(runtime: Runtime, effects: Effects):
    """A divergence in one branch stops later branches from beginning."""
    from flowdsl import workflow

    amount = [1]

    @step
    def f(x):
        return effects("f", x)

    @workflow
    def w():
        f(amount[0])
        if amount[0] == 1:
            raise KeyboardInterrupt
        return f.map(range(5))

    with pytest.raises(KeyboardInterrupt):
        w()
    amount[0] = 2
    with pytest.raises(NondeterminismError):
        w()
    assert effects == [("f", 1)]


class Unreadable(Breaking):
    """A storage from which memos and journals cannot be read while ``error`` is set."""

    def get_memo(self, key, /):
        if self.error is not None:
            raise self.error
        return super().get_memo(key)

    def list_steps(self, run_id, /, **more):
        if self.error is not None:
            raise self.error
        return super().list_steps(run_id, **more)


@pytest.mark.parametrize("what", ["memo", "damaged memo", "store"])
def test_what_cannot_be_read_crosses_too(storage, clock, flavour: Flavour, effects: Effects, what):
    """A memo or store that cannot be read stops the run, and no body handles it."""
    broken = Unreadable(storage)
    broken.when = lambda operation: False
    verbs = aio.store if flavour.is_async else store

    @flavour.step(name="unreadable.known", memo=True)
    def known():
        effects("known")
        return 1

    @flavour.step(name="unreadable.refund")
    def refund():
        effects("refund")

    @flavour.workflow(name="unreadable.w", id="w")
    def w():
        if what == "damaged memo":
            yield known()
            (memo,) = (storage.get_memo(key) for key in [known.key()])
            storage.commit([PutMemo(type(memo)(memo.key, memo.path, memo.payload[:-1] + b"?", "", 0.0))])
        broken.error = error
        try:
            if what == "store":
                yield verbs.increment("n")
            else:
                yield known()
        except Exception:
            yield refund()

    error = None if what == "damaged memo" else StorageUnavailable("gone")
    with Runtime(broken, clock=clock) as runtime:
        with pytest.raises(CorruptPayload if what == "damaged memo" else StorageUnavailable) as caught:
            flavour.call(w)
        broken.error = error = None
        assert caught.value.run == "w"
        assert caught.value.step
        assert runtime.run("w").status is RunStatus.RUNNING
        assert "refund" not in effects.log


@pytest.mark.parametrize("what", ["now", "start", "forget"])
def test_what_touches_the_storage_outside_of_a_call_crosses_too(storage, clock, effects: Effects, what):
    """A damaged value, and a child or forget that cannot be recorded, stop the run, and no body handles
    it."""
    broken = Breaking(storage)

    @step
    def f():
        return effects("f")

    @workflow
    def child(): ...

    @workflow(id="w")
    def w():
        f()
        try:
            now()
            f()
            if effects("attempt") == 1:
                raise KeyboardInterrupt
            broken.error = None if what == "now" else StorageUnavailable("gone")
            {"now": now, "start": child.start, "forget": f.forget}[what]()
        except Exception:
            effects("refund")

    with Runtime(broken, clock=clock) as runtime:
        with pytest.raises(KeyboardInterrupt):
            w()
        (value,) = (record for record in storage.list_steps("w") if record.kind == "value")
        if what == "now":
            storage.set_step(value._replace(payload=(value.payload or b"")[:-1] + b"?"))
        with pytest.raises(CorruptPayload if what == "now" else StorageUnavailable) as caught:
            w()
        broken.error = None
        assert caught.value.run == "w"
        assert runtime.run("w").status is RunStatus.RUNNING
        storage.set_step(value)
        what = "now"
        w()
    assert "refund" not in effects.log


def test_a_stop_that_is_lifted_while_others_look():
    """Another thread may look for the reason at any byte code of a lift. No reason comes of that."""
    stop = Stop("run", None, time.monotonic, False)

    def look(frame, event, _):
        frame.f_trace_opcodes = frame.f_code in (Stop.lift.__code__, Stop.halted_for.__wrapped__.__code__)
        if event == "opcode":
            assert stop.reason in (None, error)
        return look

    error = FlowError("late")
    before = sys.gettrace()
    sys.settrace(look)
    try:
        with stop.halted_for(error):
            pass
        left = [stop.reason]
        stop.halt(error)
        stop.lift()
    finally:
        sys.settrace(before)
    assert [*left, stop.reason] == [None, None]
