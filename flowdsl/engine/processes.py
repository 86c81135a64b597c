"""Bodies that execute in another process: any ``concurrent.futures.Executor`` that is not a thread pool.

The coordinating thread stays here and does everything but the body: identity, attempts, records, hooks. What
travels to the worker is the function, its arguments and where the call stands; what travels back is the
result or the exception, and what the body logged. An engine such as Dask executes what it was sent a second
time when a worker dies: what must not execute twice leaves a record before its body, which the second
execution finds. In the worker the body has a frame of its own over the same
storage, so store calls and nested steps work there, under the run's epoch; a storage that processes cannot
share is refused by the first such call. Heartbeats come by the storage, too: the coordinating thread looks
there for what the body says.
"""

import contextvars
import importlib
import math
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from pickle import PickleError
from types import ModuleType
from typing import Any, Never

from attrs import evolve, frozen

from flowdsl.clock import Waker
from flowdsl.codecs import Codec, PickleCodec
from flowdsl.codecs.payloads import Payloads
from flowdsl.core.journal import Journal
from flowdsl.core.records import Run, Step
from flowdsl.engine.audit import audit
from flowdsl.engine.body import Body
from flowdsl.engine.call import Call
from flowdsl.engine.definitions import Decorated, Invocation, StepDef, step_definition
from flowdsl.engine.effects import Effect, Result
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, Frame
from flowdsl.engine.heart import Heart
from flowdsl.engine.heartbeat import Beats, beat_of, heart_of
from flowdsl.engine.record import crossing
from flowdsl.engine.scope import Scope, StepView
from flowdsl.engine.sealed import sealed
from flowdsl.engine.user import Args, Function, Named, Value
from flowdsl.errors import FlowError, StepOutcomeUnknown, StepTimeout, Stopped, StorageUnavailable
from flowdsl.hooks import HookChain
from flowdsl.storage.base import Done, PutStep, Storage
from flowdsl.storage.relay import RelayStorage

__all__ = ["RemoteBody", "Sent", "coordinators", "elsewhere"]


_UNSENT = (TypeError, AttributeError, ImportError, PickleError)


def elsewhere(executor: Executor | None) -> bool:
    """Whether *executor* may execute in another process, so that work has to be pickled for it."""
    return executor is not None and not isinstance(executor, ThreadPoolExecutor)


def coordinators(engine: Engine, executor: Executor) -> ThreadPoolExecutor:
    """Threads that wait for the workers of *executor*, as many as it has."""
    with engine.lock:
        found = engine.coordinators.get(id(executor))
        if found is None:
            workers = getattr(executor, "_max_workers", None) or 32
            found = ThreadPoolExecutor(int(workers), thread_name_prefix="flowdsl-coordinator")
            engine.coordinators[id(executor)] = found
    return found


@frozen(slots=True)
class _Job:
    """What a worker has to know."""

    fn: Value
    args: Args
    kwargs: Named
    view: StepView | None
    beats: tuple[float, Step] | None
    scopes: tuple[str, ...]
    record: Run
    url: str | None
    open_storage: Callable[[str], Storage] | None
    codec: Codec
    previews: bool
    around: tuple[Callable[[], AbstractContextManager[object]], ...]
    once: str


class RemoteBody(Effect):
    """Execute the body of *call* on its executor; answers ``(error, value)``. A worker that dies is a
    failed attempt."""

    __slots__ = ("call", "called", "executor", "frame", "heart")

    def __init__(
        self,
        executor: Executor,
        call: Call,
        called: Invocation[StepDef],
        frame: Frame,
        heart: Heart | None = None,
    ) -> None:
        self.executor = executor
        self.call = call
        self.called = called
        self.frame = frame
        self.heart = heart

    def sync(self) -> Result:
        called = self.called
        if self.call.run.engine.hooks.around is None:
            return self._there()
        return Body(self._raising, called.args, called.kwargs, self.frame).sync()

    def _raising(self, *_args: Value, **_kwargs: Value) -> Value:
        error, value = self._there()
        if error is not None:
            raise error
        return value

    def _there(self) -> Result:
        defn, run = self.called.defn, self.call.run
        future = None
        try:
            live = _working(run.engine, self.executor)
            future = live.submit(Sent(self.call, self.called, self.frame, self.heart))
            why = self._given_up(future)
            if why:
                if not future.cancel():
                    with run.engine.lock:
                        run.engine.hung.setdefault(id(live), []).append(future)
                self.frame.abandon()
                message = f"step {defn.path} of run {run.id} {why}; its worker was left behind"
                return StepTimeout(message, run=run.id, step=defn.path), None
            answer = future.result()
        except Exception as error:  # whatever somebody's executor raises
            if isinstance(error, CancelledError) and run.stop.reason is not None:
                return run.stop.stopped(), None
            # Errors of the body come back as data: this one is the executor's. If it was under way, nobody
            # knows what the body did; what could not be sent, or not be loaded, never began.
            if defn.in_doubt == "raise" and future is not None and not isinstance(error, _UNSENT):
                return self._in_doubt(f" ({type(error).__name__})"), None
            return error, None
        return self._answer(answer)

    def _given_up(self, future: Future[Value]) -> str:
        """Wait until the body has ended (``""``), or say why it is given up. If the run is to stop meanwhile,
        a body that has not begun is withdrawn; one that has is waited for."""
        stop, limit = self.call.run.stop, self.called.defn.timeout
        end = math.inf if limit is None else time.monotonic() + limit
        beats = self._beats()
        before = stop.reason
        with suppress(TimeoutError, CancelledError):
            future.exception(timeout=0)  # some executors begin when somebody asks
        while not future.done():
            left = end - time.monotonic()
            if left <= 0:
                return f"took longer than its timeout of {limit:g} s"
            if beats is not None and beats.silent():
                return f"gave no heartbeat for more than {beats.limit:g} s"
            if stop.reason is not before and future.cancel():
                break
            left = min(left, math.inf if beats is None else beats.turn)
            self._wait(future, None if left == math.inf else left, before)
        if beats is not None:
            beats.listen()
        return ""

    def _beats(self) -> Beats | None:
        if self.heart is None or self.frame.step is None:
            return None
        return Beats(self.call, beat_of(self.call, self.frame.step.attempt), self.heart)

    def _wait(self, future: Future[Value], seconds: float | None, before: object) -> None:
        """Wait *seconds* at most, until the body has ended or the run is told to stop."""
        stop, waker = self.call.run.stop, Waker()
        future.add_done_callback(lambda _: waker.set())
        if stop.reason is not before:
            waker.block(seconds)
            return
        stop.waits(waker)
        if stop.reason is before:
            waker.block(seconds)
        stop.waited(waker)

    def _in_doubt(self, why: str = "") -> Stopped:
        run, call = self.call.run, self.call
        unknown = StepOutcomeUnknown(
            f"step {self.called.defn.path} ({call.shown}) of run {run.id} was executing when its worker died"
            f"{why}; nobody knows whether it took effect. Find out, then say so: "
            f"Runtime.resolve({run.id!r}, {call.key[:12]!r}, result=…), error=… or rerun=True",
            run=run.id,
            step=call.key,
        )
        run.stop.halt(unknown)
        return Stopped(unknown)

    async def aio(self) -> Never:
        raise AssertionError("async steps execute as tasks")

    def _answer(self, answer: Value) -> Result:
        what, body, logged = answer
        if what == "here":
            outcome: Result = body
            return outcome
        run = self.call.run
        if what == "doubt":
            return self._in_doubt(), None
        with run.lock:
            for step in logged:
                if run.journal.get(step.key) is None:
                    run.writer.keep(step)
        if what == "value":
            return None, PickleCodec().loads(body)
        payloads = Payloads(PickleCodec())
        error = payloads.unpack_error(body, "", "", "worker")
        if what == "stop" and isinstance(error, FlowError):
            run.stop.halt(error)
            return Stopped(error), None
        return error, None


class Sent:
    """One body on its way. An executor that executes in this process calls it; any other has to pickle it
    first.

    * ``path``: the step's, for dashboards.
    * ``repeatable``: whether an executor may execute it again by itself when a worker dies: not if a second
      execution could not find out about the first.
    """

    def __init__(self, call: Call, called: Invocation[StepDef], frame: Frame, heart: Heart | None) -> None:
        self._call = call
        self._heart = heart
        self._called = called
        self._frame = frame
        self._context = contextvars.copy_context()
        self._around = call.run.engine.hooks.carried()
        self.path = called.defn.path
        url = call.run.engine.storage.url
        self._once = uuid.uuid4().hex if called.defn.in_doubt == "raise" and url is not None else ""
        self.repeatable = called.defn.in_doubt != "raise" or url is not None

    def __call__(self) -> tuple[str, Result, tuple[()]]:
        called = self._called
        if self._heart is not None:
            self._heart.begin()
        body = Body(called.fn, called.args, called.kwargs, self._frame)
        return "here", self._context.run(body.sync), ()

    def __reduce__(self) -> tuple[Any, ...]:  # as pickle wants it
        called, run = self._called, self._call.run
        engine: Engine = run.engine
        view, beats = self._frame.step, None
        if view is not None and self._heart is not None:
            beats = self._heart.limit, beat_of(self._call, view.attempt)
            view = evolve(view, heart=None)
        job = _Job(
            _portable(called), called.args, called.kwargs, view, beats, _chain(self._frame.scope),
            run.record, engine.storage.url, engine.open_storage, engine.payloads.codec,
            engine.payloads.previews.shown, self._around, self._once,
        )  # fmt: skip
        try:
            return _Arrived, (PickleCodec().dumps(job),)
        except Exception as error:  # whatever the user's classes raise
            raise TypeError(
                f"step {called.defn.path} cannot travel to its executor: {type(error).__name__}: {error}. "
                "Its function and arguments have to be picklable; leave the rest to the worker, or use "
                "a thread pool"
            ) from None


class _Arrived:
    """The same in the worker."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> tuple[str, bytes, list[Step]]:
        return _execute(self._data)


@frozen(slots=True)
class _Reference:
    """A decorated function that an import finds: where."""

    module: str
    qualname: str

    def definition(self) -> StepDef | None:
        """What stands there."""
        if self.module in ("", "__main__", "__mp_main__"):
            return None
        found: Value = sys.modules.get(self.module) or importlib.import_module(self.module)
        for name in self.qualname.split("."):
            found = getattr(found, name, None)
        return step_definition(found)


def _portable(called: Invocation[StepDef]) -> _Reference | Function:
    """The step as it travels: by reference if an import finds it, else its function."""
    fn = called.defn.fn
    reference = _Reference(getattr(fn, "__module__", ""), getattr(fn, "__qualname__", ""))
    if called.receiver is None and reference.module in sys.modules:
        found = reference.definition()
        if found is not None and found.fn is fn:
            return reference
    return called.fn


def _chain(scope: Scope) -> tuple[str, ...]:
    ids = []
    inner: Scope | None = scope
    while inner is not None:
        ids.append(inner.id)
        inner = inner.parent
    return tuple(ids)


def _processes() -> ModuleType:
    """The module of process pools: importing it costs 10 ms, which only who uses one pays."""
    return importlib.import_module("concurrent.futures.process")


def _is_broken(executor: Executor) -> bool:
    """Whether a pool of the standard library or of loky has lost a worker, and takes no work any more."""
    flags = getattr(executor, "_flags", None)
    return bool(getattr(executor, "_broken", False) or getattr(flags, "broken", None))


def _is_full(engine: Engine, executor: Executor) -> bool:
    """Whether every worker of a pool of the standard library hangs in a body that was given up."""
    hung = [future for future in engine.hung.pop(id(executor), ()) if not future.done()]
    if not hung or not isinstance(executor, _processes().ProcessPoolExecutor):
        return False
    engine.hung[id(executor)] = hung
    facts: Any = executor  # pools do not tell what they are made of
    return len(hung) >= int(facts._max_workers)


def _working(engine: Engine, executor: Executor) -> Executor:
    """*executor*, or what replaces a pool of processes that takes no work any more: a worker of it was
    killed, or all of them hang."""
    with engine.lock:
        live = engine.replaced.get(id(executor), executor)
        if not _is_broken(live) and not _is_full(engine, live):
            return live
        facts: Any = executor  # pools do not tell what they are made of
        if type(executor).__module__.partition(".")[0] == "loky":
            loky = importlib.import_module("loky")
            live = loky.get_reusable_executor(max_workers=facts._max_workers)
        elif isinstance(executor, _processes().ProcessPoolExecutor):
            live = _processes().ProcessPoolExecutor(
                facts._max_workers,
                facts._mp_context,
                initializer=facts._initializer,
                initargs=facts._initargs,
            )
        engine.replaced[id(executor)] = live
        return live


# ------------------------------------------------------------------------------------------------------ in

_engines: dict[str | None, Engine] = {}


class _Last(threading.local):
    """Of a thread: the run whose body was the last to execute here, and what verbs know of it."""

    run: tuple[str | None, str] | None = None
    parts: dict[type, object] = {}  # noqa: RUF012 - replaced as a whole, never changed


_last = _Last()
_lock = threading.Lock()


class _Unreachable(RelayStorage):
    """Stands for a storage that lives in another process: there is none to hand anything on to."""

    def __init__(self) -> None:
        Storage.__init__(self)

    def __getattr__(self, name: str) -> Never:
        raise StorageUnavailable(
            "this run's storage lives in the memory of the process that started it, and a worker "
            "process cannot reach it: store calls, heartbeats and "
            "nested steps in workers need sqlite:///… or another storage that processes share",
            lasting=True,
        )

    def close(self) -> None:
        pass


class _WorkerState(Execution):
    """The run as a worker sees it; the journal is read when the body makes a durable call."""

    _journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        if self._journal is None:
            steps = [] if self.engine.storage.url is None else self.engine.storage.list_steps(self.id)
            self._journal = Journal(steps, floor=self.record.floor)
        return self._journal

    @journal.setter
    def journal(self, journal: Journal) -> None:
        pass


def _engine_for(job: _Job) -> Engine:
    with _lock:
        found = _engines.get(job.url)
        if found is None:
            secret = os.environ.get("FLOWDSL_SECRET_KEY")
            storage = (
                _Unreachable() if job.url is None or job.open_storage is None else job.open_storage(job.url)
            )
            payloads = Payloads(job.codec, secret.encode() if secret else None, previews=job.previews)
            found = Engine(
                sealed(storage, payloads),
                payloads=payloads,
                hooks=HookChain(everywhere=False),  # they stand around the body where it was sent from
            )
            _engines[job.url] = found
        return found


def _beating(state: Execution, job: _Job) -> StepView | None:
    """The view of the step, with a heart that beats by the storage."""
    if job.beats is None or job.view is None:
        return job.view
    limit, beat = job.beats
    heart = heart_of(state, beat, limit, time.monotonic, job.view.details)
    heart.begin()
    return evolve(job.view, heart=heart)


def _execute(data: bytes) -> tuple[str, bytes, list[Step]]:
    """Execute a job; its result or exception as bytes, and what it logged."""
    job: _Job = PickleCodec().loads(data)
    engine = _engine_for(job)
    state = _WorkerState(engine, job.record, Journal(), None)
    run_key = (job.url, job.record.id)
    if _last.run == run_key:
        state.inherit(_last.parts)
    scope: Scope | None = None
    for scope_id in reversed(job.scopes):
        scope = Scope(scope_id, scope, False, of_step=True)
    assert scope is not None
    payloads = Payloads(PickleCodec())
    try:
        if job.once and not _begins(state, job):
            return "doubt", b"", []
    except Stopped as stopped:
        return "stop", payloads.pack_error(stopped.error, "", "", "worker")[0], []
    fn: Value = job.fn
    if isinstance(fn, _Reference):
        defn = fn.definition()
        assert defn is not None, f"{fn.module}.{fn.qualname} is a step where it was sent from, and not here"
        fn = defn.fn
    elif isinstance(fn, Decorated):  # a method: what pickles it by name finds the step there
        fn = fn.invocation(job.args, job.kwargs).fn
    view = _beating(state, job)
    with ExitStack() as around:
        for enter in job.around:
            around.enter_context(enter())
        error, value = Body(fn, job.args, job.kwargs, Frame(state, scope, view, False)).sync()
    _last.run, _last.parts = run_key, state.parts
    logged = list(state.writer.buffer.values())
    if error is None:
        try:
            return "value", PickleCodec().dumps(value), logged
        except Exception as fault:  # whatever the user's classes raise
            error = TypeError(f"a step's result cannot travel back from its worker: {fault}")
    if isinstance(error, Stopped):
        return "stop", payloads.pack_error(error.error, "", "", "worker")[0], logged
    if not isinstance(error, Exception):
        raise error
    return "error", payloads.pack_error(error, "", "", "worker")[0], logged


def _begins(state: _WorkerState, job: _Job) -> bool:
    """Record that the body begins; ``False`` if it has begun before, where another worker died."""
    assert job.view is not None
    mine = uuid.uuid4().hex
    begun = audit(state.engine, state.id, "begun", mine, job.view.key)._replace(key=f"begun-{job.once}")
    operation = PutStep(begun, state.epoch, once=True)
    with crossing(state):
        (outcome,) = state.engine.commit(operation)
        state.writer.accept(outcome, operation)
        if not (isinstance(outcome, Done) and outcome.existed):
            return True
        found = state.engine.storage.get_step(state.id, begun.key)  # after a lost answer it may be our own
    return found is not None and found.args == mine
