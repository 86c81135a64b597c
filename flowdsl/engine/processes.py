"""Bodies that execute in another process: any ``concurrent.futures.Executor`` that is not a thread pool.

The coordinating thread stays here and does everything but the body: identity, attempts, records, hooks. The
function, its arguments and the place of the call travel to the worker. The result or the exception travels
back, with what the body logged.

When a worker dies, an engine such as Dask executes what it was sent a second time. A body that must not
execute twice therefore leaves a record first, and the second execution finds that record.

In the worker the body has a frame of its own over the same storage. Store calls and nested steps work there,
under the run's epoch. If processes cannot share the storage, the first such call is refused. Heartbeats also
come through the storage: the coordinating thread reads there what the body says.
"""

import contextvars
import math
import sys
import time
import uuid
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from pickle import PickleError
from typing import Any, Never

from attrs import evolve

from flowdsl.clock import Waker
from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.pickle import PickleCodec
from flowdsl.core.records import Step
from flowdsl.engine.body import Body
from flowdsl.engine.call import Call
from flowdsl.engine.definitions import Invocation, StepDef
from flowdsl.engine.effects import Effect, Result
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame
from flowdsl.engine.heart import Heart
from flowdsl.engine.heartbeat import Beats, beat_of
from flowdsl.engine.pools import working
from flowdsl.engine.scope import Scope
from flowdsl.engine.user import Function, Value
from flowdsl.engine.worker_process import Job, Reference, execute
from flowdsl.errors import FlowError, StepOutcomeUnknown, StepTimeout, Stopped

__all__ = ["RemoteBody", "Sent"]


_UNSENT = (TypeError, AttributeError, ImportError, PickleError)


class RemoteBody(Effect):
    """Execute the body of *call* on its executor. Answers ``(error, value)``. If the worker dies, the attempt
    has failed."""

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
            return self._execute_on_pool()
        return Body(self._raising, called.args, called.kwargs, self.frame).sync()

    def _raising(self, *_args: Value, **_kwargs: Value) -> Value:
        error, value = self._execute_on_pool()
        if error is not None:
            raise error
        return value

    def _execute_on_pool(self) -> Result:
        defn, run = self.called.defn, self.call.run
        future = None
        try:
            live = working(run.engine, self.executor)
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
        except Exception as error:  # any executor may raise anything
            if isinstance(error, CancelledError) and run.stop.reason is not None:
                return run.stop.stopped(), None
            # Errors of the body come back as data, so this error is the executor's. If the body was under
            # way, nobody knows what it did. If it could not be sent or loaded, it never began.
            if defn.in_doubt == "raise" and future is not None and not isinstance(error, _UNSENT):
                return self._in_doubt(f" ({type(error).__name__})"), None
            return error, None
        return self._answer(answer)

    def _given_up(self, future: Future[Value]) -> str:
        """Wait until the body has ended (``""``), or say why it is given up. If the run is to stop meanwhile,
        a body that has not begun is withdrawn. One that has begun is waited for."""
        stop, limit = self.call.run.stop, self.called.defn.timeout
        end = math.inf if limit is None else time.monotonic() + limit
        beats = self._beats()
        before = stop.reason
        with suppress(TimeoutError, CancelledError):
            future.exception(timeout=0)  # some executors begin only when somebody asks
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
        """Wait until the body has ended or the run is told to stop, *seconds* at most."""
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
    """One body on its way. An executor in this process calls it. Any other has to pickle it first.

    * ``path``: the step's path, for dashboards.
    * ``repeatable``: whether an executor may execute it again by itself when a worker dies. It may not if the
      second execution could not find out about the first.
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
        job = Job(
            _portable(called), called.args, called.kwargs, view, beats, _chain(self._frame.scope),
            run.record, engine.storage.url, engine.open_storage, engine.payloads.codec,
            engine.payloads.previews.shown, self._around, self._once,
        )  # fmt: skip
        try:
            return _Arrived, (PickleCodec().dumps(job),)
        except Exception as error:  # the user's classes may raise anything
            raise TypeError(
                f"step {called.defn.path} cannot travel to its executor: {type(error).__name__}: {error}. "
                "Its function and arguments have to be picklable; leave the rest to the worker, or use "
                "a thread pool"
            ) from None


class _Arrived:
    """A :class:`Sent` after it has arrived in the worker."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __call__(self) -> tuple[str, bytes, list[Step]]:
        return execute(self._data)


def _portable(called: Invocation[StepDef]) -> Reference | Function:
    """The step as it travels: a reference if an import finds it, otherwise its function."""
    fn = called.defn.fn
    reference = Reference(getattr(fn, "__module__", ""), getattr(fn, "__qualname__", ""))
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
