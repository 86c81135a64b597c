"""In another process: execute one body that was sent there, and send back its outcome."""

import importlib
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Never

from attrs import evolve, frozen

from flowdsl.codecs.base import Codec
from flowdsl.codecs.exceptions.handling import add_note, traceback_of
from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.pickle import PickleCodec
from flowdsl.core.journal import Journal
from flowdsl.core.records import Run, Step
from flowdsl.engine.audit import audit
from flowdsl.engine.body import Body
from flowdsl.engine.definitions import Decorated, StepDef, step_definition
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution, frame_of
from flowdsl.engine.heartbeat import heart_of
from flowdsl.engine.record import crossing
from flowdsl.engine.scope import Scope, StepView
from flowdsl.engine.sealed import sealed
from flowdsl.engine.tracebacks import of_the_user
from flowdsl.engine.user import Args, Named, Value
from flowdsl.errors import Stopped, StorageUnavailable
from flowdsl.hooks import HookChain
from flowdsl.storage.base import Done, PutStep, Storage
from flowdsl.storage.relay import RelayStorage

__all__ = ["Job", "Reference", "execute"]


@frozen(slots=True, eq=False, repr=False)
class Job:
    """All that a worker has to know."""

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


@frozen(slots=True, eq=False, repr=False)
class Reference:
    """Where an import finds a decorated function."""

    module: str
    qualname: str

    def definition(self) -> StepDef | None:
        """The definition at that place."""
        if self.module in ("", "__main__", "__mp_main__"):
            return None
        found: Value = sys.modules.get(self.module) or importlib.import_module(self.module)
        for name in self.qualname.split("."):
            found = getattr(found, name, None)
        return step_definition(found)


_FRAMES = 20
"""So many of an exception are shown, the innermost."""

_engines: dict[str | None, Engine] = {}


class _Last(threading.local):
    """For one thread: the run whose body executed here last, and what verbs know of that run."""

    run: tuple[str | None, str] | None = None
    parts: dict[type, object] = {}  # noqa: RUF012 - replaced as a whole, never changed


_last = _Last()
_lock = threading.Lock()


class _Unreachable(RelayStorage):
    """Takes the place of a storage that lives in another process. It has nothing to pass calls on to."""

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
    """The run as a worker sees it. The journal is read when the body makes a durable call."""

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


def _engine_for(job: Job) -> Engine:
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
                hooks=HookChain(everywhere=False),  # hooks execute in the process that sent the body
            )
            _engines[job.url] = found
        return found


def _beating(state: Execution, job: Job) -> StepView | None:
    """The view of the step. Its heart beats through the storage."""
    if job.beats is None or job.view is None:
        return job.view
    limit, beat = job.beats
    heart = heart_of(state, beat, limit, time.monotonic, job.view.details)
    heart.begin()
    return evolve(job.view, heart=heart)


def execute(data: bytes) -> tuple[str, bytes, list[Step]]:
    """Execute a job. Returns its result or exception as bytes, and what it logged."""
    job: Job = PickleCodec().loads(data)
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
    if isinstance(fn, Reference):
        defn = fn.definition()
        assert defn is not None, f"{fn.module}.{fn.qualname} is a step where it was sent from, and not here"
        fn = defn.fn
    elif isinstance(fn, Decorated):  # pickle finds a method by name, and gets the step
        fn = fn.invocation(job.args, job.kwargs).fn
    view = _beating(state, job)
    with ExitStack() as around:
        for enter in job.around:
            around.enter_context(enter())
        error, value = Body(fn, job.args, job.kwargs, frame_of(state, scope, view, False)).sync()
    _last.run, _last.parts = run_key, state.parts
    logged = list(state.writer.buffer.values())
    if error is None:
        try:
            return "value", PickleCodec().dumps(value), logged
        except Exception as fault:  # the user's classes may raise anything
            error = TypeError(f"a step's result cannot travel back from its worker: {fault}")
    if isinstance(error, Stopped):
        return "stop", payloads.pack_error(error.error, "", "", "worker")[0], logged
    if not isinstance(error, Exception):
        raise error
    _tell_where(error)
    return "error", payloads.pack_error(error, "", "", "worker")[0], logged


def _tell_where(error: BaseException) -> None:
    """Add the user's frames to *error* as a note, because frames cannot be pickled."""
    frames = of_the_user(traceback_of(error))
    if frames is not None:
        lines = "".join(traceback.format_tb(frames, -_FRAMES)).rstrip()
        add_note(error, f"in its worker process:\n{lines}")


def _begins(state: _WorkerState, job: Job) -> bool:
    """Record that the body begins. ``False`` if it has begun before, and another worker died in it."""
    assert job.view is not None
    mine = uuid.uuid4().hex
    begun = audit(state.engine, state.id, "begun", mine, job.view.key)._replace(key=f"begun-{job.once}")
    operation = PutStep(begun, state.epoch, once=True)
    with crossing(state):
        (outcome,) = state.engine.commit(operation)
        state.writer.accept(outcome, operation)
        if not (isinstance(outcome, Done) and outcome.existed):
            return True
        found = state.engine.storage.get_step(state.id, begun.key)  # it may be our own, after a lost answer
    return found is not None and found.args == mine
