"""Runtime: the wiring of storage, codec, clock and hooks, and all that one can ask of runs."""

import asyncio
import atexit
import contextvars
import logging
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from datetime import datetime
from typing import Any, Literal, Self

from flowdsl.clock import Clock
from flowdsl.codecs import Codec, PickleCodec
from flowdsl.codecs.payloads import Payloads
from flowdsl.core.durations import seconds
from flowdsl.core.preview import preview
from flowdsl.core.records import Run as RunRecord
from flowdsl.core.records import RunFilter, Signal, Step
from flowdsl.core.retry import Retry
from flowdsl.core.status import RunStatus, StepStatus, is_final
from flowdsl.engine.context import current
from flowdsl.engine.definitions import DIVERGENCES, WorkflowDef, checked_tags
from flowdsl.engine.drive import run_async, run_sync
from flowdsl.engine.events import send_event
from flowdsl.engine.export import export_run
from flowdsl.engine.lease import Acquired, Keeper, claim, interrupted, open_now
from flowdsl.engine.owner import Liveness, liveness
from flowdsl.engine.progress import progress_of
from flowdsl.engine.registry import STEPS, WORKFLOWS
from flowdsl.engine.repair import audit, fork, resolve
from flowdsl.engine.run import Request, checked_id, edge, execute, outcome_of, whole
from flowdsl.engine.services import Engine, engines_on
from flowdsl.engine.signals import checked_name
from flowdsl.engine.store import state_of
from flowdsl.errors import (
    FlowError,
    RecoveryLimit,
    RunCancelled,
    RunConflict,
    RunFinished,
    RunNotFound,
    StepNotFound,
    StorageError,
)
from flowdsl.handle import LogLine, Run
from flowdsl.hooks import Hooks
from flowdsl.storage import Storage, open_storage
from flowdsl.storage.base import AddSignal, DeleteRun, Fenced, Missing, PutStep, Unstorable, UpdateRun
from flowdsl.storage.urls import default_url

__all__ = ["Runtime", "configure", "current_runtime"]

logger = logging.getLogger("flowdsl")

RECOVERY_LIMIT = 50
"""How often ``recover`` takes one run over before it says that something kills its processes."""

_NOTHING: Any = object()

_LOOK = 0.5  # seconds between two looks at a run that another process executes


class Runtime:
    """Executes runs over one storage.

    Parameters: *storage*, a :class:`~flowdsl.storage.Storage` (which stays open when the runtime closes) or a
    URL: ``memory://``, ``sqlite:///path``; by default ``FLOWDSL_STORAGE`` or ``sqlite:///.flowdsl/flow.db``.
    *retry*, the policy of steps that have none; *codec*, how results become bytes; *hooks*, one or several
    :class:`~flowdsl.Hooks`; *clock*, a :class:`~flowdsl.clock.Clock`; *executor*, where submitted steps
    execute; *on_divergence*, ``"raise"``, ``"rerun"`` or ``"reuse"``; *lease*, seconds until a run of a
    process of which nothing is known may be taken over; *name*, for logs.

    Inside ``with Runtime(…):`` (or ``async with``) it is the current one; leaving closes it.

    >>> from flowdsl import step
    >>> @step
    ... def double(x):
    ...     return 2 * x
    >>> with Runtime("memory://") as rt:
    ...     rt.do(double, 21)
    42
    """

    def __init__(
        self,
        storage: Storage | str | None = None,
        *,
        retry: Retry | None = None,
        codec: Codec | None = None,
        hooks: Hooks | Sequence[Any] = (),
        clock: Clock | None = None,
        executor: Executor | None = None,
        on_divergence: Literal["raise", "rerun", "reuse"] = "raise",
        lease: float = 30.0,
        name: str | None = None,
    ) -> None:
        _check(retry, codec, clock, executor, on_divergence, name)
        lease = seconds(lease)
        if lease <= 0:
            raise ValueError(f"lease is a duration above 0; got {lease!r}")
        self._owns_storage = not isinstance(storage, Storage)
        self.storage: Storage = open_storage(default_url() if storage is None else storage)
        secret = os.environ.get("FLOWDSL_SECRET_KEY")
        self._payloads = Payloads(codec or PickleCodec(), secret.encode() if secret else None)
        listeners = [hooks] if isinstance(hooks, Hooks) else list(hooks)
        self.engine = Engine(
            self.storage,
            payloads=self._payloads,
            clock=clock,
            hooks=listeners,
            retry=retry,
            executor=executor,
            on_divergence=on_divergence,
            lease=lease,
            name=name or "",
        )
        self.engine.keeper = Keeper(self.engine)
        self.engine.open_storage = open_storage
        self.engine.make_handle = lambda record: Run(self, record.id)
        self.name = name or ""
        self._closed = False
        self._closing = threading.Lock()
        self._tokens: list[Token[Runtime | None]] = []
        _open_runtimes.add(self)

    # The current one ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._require_open()
        self._tokens.append(_current.set(self))
        _stack.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._leave()
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        self._leave()
        await asyncio.to_thread(self.close)

    def _leave(self) -> None:
        if self in _stack:
            del _stack[len(_stack) - 1 - _stack[::-1].index(self)]
        token = self._tokens.pop()
        try:
            _current.reset(token)
        except ValueError:  # entered in another context, as some async fixtures do
            _current.set(None)

    def _require_open(self) -> None:
        if self._closed:
            raise FlowError("this Runtime is closed; make a new one")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Drain ``send`` work, interrupt started runs resumably, end threads; closing twice is no error.

        A storage that was given as an instance stays open.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
        for state in list(self.engine.active.values()):
            if state is not None:
                state.halt(interrupted(state.id), outside=True)
        if not _on_a_loop():
            for future in list(self.engine.futures.values()):
                wait([future])
        self.engine.close()
        self.engine.keeper.close()
        self.engine.closing = True
        _open_runtimes.discard(self)
        if self._owns_storage:
            self.storage.close()

    # Executing steps by hand -------------------------------------------------------------------------------

    def do(self, step: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Execute *step* (or the one of that name) durably, and return its result.

        Outside a run this is a run of its own, one for each step and arguments: completed → the stored
        result, failed → executed again. Inside a run it is a step of that run. An async step gives an
        awaitable. Raises :class:`~flowdsl.errors.StepNotFound`.
        """
        return self._step(step).perform_on(self, "do", args, kwargs)

    def try_(self, step: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Execute *step* once, without a record; its own exception is raised."""
        return self._step(step).perform_on(self, "try", args, kwargs)

    def execute_step(self, step_id: str, step: Any, /, *args: Any, mode: str = "do", **kwargs: Any) -> Any:
        """Execute *step* under an id of your own: the id, not the arguments, says which execution is meant.

        Outside a run, *step_id* is the id of its run; the same id with other arguments is a
        :class:`~flowdsl.errors.RunConflict`.
        """
        if mode not in ("do", "try", "send"):
            raise ValueError(f"mode is one of 'do', 'try', 'send'; got {mode!r}")
        return self._step(step).perform_on(self, mode, args, kwargs, step_id=checked_id(step_id, "step_id"))

    def _step(self, step: Any) -> Any:
        self._require_open()
        if isinstance(step, str):
            return STEPS.find(step)
        if not hasattr(step, "perform_on"):
            raise TypeError(f"a step is a function decorated with @step, or the name of one; got {step!r}")
        return step

    # Runs --------------------------------------------------------------------------------------------------

    def run(self, run_id: str, /) -> Run | None:
        """The run of this id, or ``None``."""
        found = self.storage.get_run(checked_id(run_id))
        return None if found is None else Run(self, run_id)

    def runs(
        self,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: Any = None,
        tags: Any = None,
        created_after: datetime | float | None = None,
        created_before: datetime | float | None = None,
        limit: int | None = None,
        newest_first: bool = True,
        after: str | None = None,
    ) -> list[Run]:
        """Runs that match all that is given; *after* the run of that id, for paging.

        *status*: one or several; *workflow*: its path or the decorated function; *tags*: names, or a mapping;
        *created_after* (inclusive) and *created_before* (exclusive): aware datetimes, or seconds since the
        epoch.
        """
        where = RunFilter(
            status=_statuses(status),
            workflow=_path(workflow),
            tags=checked_tags(tags),
            created_after=_seconds(created_after, "created_after"),
            created_before=_seconds(created_before, "created_before"),
            limit=_limit(limit),
            after=after,
            newest_first=bool(newest_first),
        )
        return [Run(self, record.id) for record in self.storage.list_runs(where)]

    def record(self, run_id: str, /) -> RunRecord:
        """The stored row of a run. Raises :class:`~flowdsl.errors.RunNotFound`."""
        found = self.storage.get_run(checked_id(run_id))
        if found is None:
            raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
        return found

    def interrupted(self, record: RunRecord) -> bool:
        """Whether nobody executes this run although it has not ended."""
        if is_final(record.status):
            return False
        if record.owner is None:
            return True
        alive = liveness(record.owner, record.id)
        return alive is Liveness.DEAD or (
            alive is Liveness.UNKNOWN and record.lease_until <= self.storage.now()
        )

    def wait(self, run_id: str, timeout: float | None = None) -> Any:
        """The run's result, waiting at most *timeout* real seconds; see :meth:`Run.result`."""
        started = _started(run_id)
        if started is not None:
            return started.result(timeout)
        future = self._future(run_id)
        with self._watching():
            if future is not None:
                return _await_future(future, run_id, timeout)
            return _poll(self, run_id, timeout)

    async def await_(self, run_id: str) -> Any:
        """The run's result, in async code."""
        started = _started(run_id)
        if started is not None:
            return await started
        future = self._future(run_id)
        with self._watching():
            if future is not None:
                return await asyncio.shield(asyncio.wrap_future(future))
            return await asyncio.to_thread(_poll, self, run_id, None)

    def _future(self, run_id: str) -> "Future[Any] | None":
        """What knows the outcome of a run that was started here, unless that failed and the run has gone
        on since: then the storage does."""
        future = self.engine.futures.get(run_id)
        if future is None or not future.done() or future.cancelled() or future.exception() is None:
            return future
        try:
            record = self.record(run_id)
        except StorageError:
            return future
        return future if self.interrupted(record) else None

    def _watching(self) -> AbstractContextManager[Any]:
        """Somebody waits for a run: a virtual clock may skip ahead."""
        engine = self.engine
        if not engine.virtual:
            return nullcontext()
        watching: AbstractContextManager[Any] = engine.clock.watching(inside=current.get() is not None)
        return watching

    def arguments(self, record: RunRecord) -> dict[str, Any]:
        """The stored arguments of a run by parameter name."""
        if not record.args:
            raise FlowError(
                f"the arguments of run {record.id} could not be stored; call the workflow again with them",
                run=record.id,
            )
        found: dict[str, Any] = self._payloads.unpack(record.args, record.key, "", "args")
        return found

    def step_records(self, run_id: str) -> list[Step]:
        """The journal of a run, without its store operations and logs."""
        return [s for s in self.storage.list_steps(run_id) if s.kind not in ("store", "log", "audit")]

    def load_result(self, step: Step) -> Any:
        """The value of a completed step record."""
        return (
            None
            if step.payload is None
            else self._payloads.unpack(step.payload, step.run_id, step.key, "result")
        )

    def load_error(self, step: Step) -> BaseException | None:
        """The exception of a failed step record."""
        if step.status is not StepStatus.FAILED or step.payload is None:
            return None
        return self._payloads.unpack_error(step.payload, step.run_id, step.key, "error")

    def children_of(self, run_id: str) -> list[Run]:
        """The runs that a run called, oldest first."""
        return [Run(self, r.id) for r in self.storage.list_runs(RunFilter(parent=run_id, newest_first=False))]

    def logs(self, run_id: str) -> list[LogLine]:
        """What ``log()`` stored with a run, in order."""
        return [LogLine.of(step) for step in self.storage.list_steps(run_id) if step.kind == "log"]

    def export(self, run_id: str, /) -> dict[str, Any]:
        """A run with its journal and signals, as JSON can hold it; nothing is unpickled. ``flowdsl export``
        prints it.

        Raises :class:`~flowdsl.errors.RunNotFound`.
        """
        record = self.record(run_id)
        return export_run(record, self.storage.list_steps(run_id), self.storage.list_signals(run_id))

    def query(self, run_id: str, what: str) -> Any:
        """``"status"``, ``"result"`` (``None`` while there is none), ``"progress"`` or ``"state"`` of a
        run."""
        record = self.record(run_id)
        if what == "status":
            return record.status
        if what == "result":
            return self.load_run_result(record)
        if what == "state":
            return {} if record.status is RunStatus.COMPLETED else state_of(self.engine, run_id)
        if what == "progress":
            return progress_of(self.engine, run_id)
        raise ValueError(f"a query is one of 'status', 'result', 'progress', 'state'; got {what!r}")

    def load_run_result(self, record: RunRecord) -> Any:
        """The result of a completed run, ``None`` for any other."""
        if record.status is not RunStatus.COMPLETED:
            return None
        error, value = outcome_of(self.engine, record)
        if error is not None:
            raise error
        return value

    # Signals and events ------------------------------------------------------------------------------------

    def signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        sender: str | None = None,
        key: str | None = None,
    ) -> str:
        """Send a run a signal that one of its ``wait_for(name)`` takes, now or later. Returns the signal's
        id.

        *sender* is stored with it; a second signal of the same *key* is dropped. Never blocks. Raises
        :class:`~flowdsl.errors.RunNotFound`, :class:`~flowdsl.errors.RunFinished`, and
        :class:`~flowdsl.errors.ResultNotStorable` for a payload that cannot be stored.
        """
        checked_id(run_id)
        signal_id = uuid.uuid4().hex
        sealed, loaded = self._payloads.pack(payload, run_id, signal_id, "signal")
        signal = Signal(
            signal_id,
            run_id,
            checked_name(name),
            sealed,
            preview(loaded),
            sender,
            key,
            self.engine.clock.now(),
        )
        (outcome,) = self.engine.commit(AddSignal(signal))
        if isinstance(outcome, Missing):
            raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
        if isinstance(outcome, Fenced):
            raise RunFinished(f"run {run_id} has ended: it is {outcome.run.status}", run=run_id)
        if isinstance(outcome, Unstorable):
            raise outcome.error
        for engine in engines_on(self.storage):
            state = engine.active.get(run_id)
            if state is not None:
                state.signalled()
        return signal_id

    def send(self, event: str, payload: Any = None) -> None:
        """Call every ``@on(event)`` handler with *payload*, in the background."""
        self._require_open()
        token = _current.set(self)
        try:
            send_event(self.engine, event, payload)
        finally:
            _current.reset(token)

    # Changing runs -----------------------------------------------------------------------------------------

    def start(self, asked: Request, acquired: Acquired | None = None) -> Run:
        """Begin *asked* without waiting for its end; returns once it is recorded. (What ``workflow.start``
        calls.)"""
        self._require_open()
        engine = self.engine
        if acquired is None:
            acquired = open_now(engine, asked.wanted, fresh=asked.fresh, ancestors=asked.ancestors)
        run_id = asked.wanted.id if acquired is None else acquired.run.id
        if acquired is not None and not acquired.owned:
            return Run(self, run_id)
        flow = edge(whole(engine, asked) if acquired is None else execute(engine, asked, acquired))
        if acquired is not None:
            if engine.virtual:
                engine.clock.enter()
                acquired.counted = True
            engine.active[run_id] = None  # it is ours from now on, although its thread has yet to begin
        future = self._launch(asked.defn, flow, run_id, acquired is not None and acquired.counted)
        engine.futures[run_id] = future
        future.add_done_callback(lambda _: _forget_future(engine, run_id, future))
        return Run(self, run_id)

    def _launch(self, defn: WorkflowDef, flow: Any, run_id: str, counted: bool) -> "Future[Any]":
        engine = self.engine
        context = contextvars.copy_context()

        def finish() -> None:
            if engine.active.get(run_id, 0) is None:
                del engine.active[run_id]
            if counted:
                engine.clock.leave()

        if not defn.is_async:

            def work() -> Any:
                try:
                    return context.run(run_sync, flow)
                finally:
                    finish()

            return engine.thread(work, f"flowdsl-{run_id}")

        async def awork() -> Any:
            try:
                return await run_async(flow)
            finally:
                finish()

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return engine.background_async(awork)
        task = loop.create_task(awork())
        future: Future[Any] = Future()
        task.add_done_callback(lambda done: _copy(done, future))
        engine.tasks.add(task)
        task.add_done_callback(engine.tasks.discard)
        return future

    def cancel(self, run_id: str, /) -> None:
        """Ask a run to stop. The request is durable; the run sees it within a second, in whatever process it
        executes.

        An interrupted run is cancelled at once. Raises :class:`~flowdsl.errors.RunNotFound` and
        :class:`~flowdsl.errors.RunFinished`.
        """
        record = self.record(run_id)
        if not is_final(record.status):
            now = self.engine.clock.now()
            changes = {"cancel_requested": now}
            (outcome,) = self.engine.commit(
                UpdateRun(run_id, changes, if_status=(RunStatus.PENDING, RunStatus.RUNNING))
            )
            if not isinstance(outcome, Fenced | Missing):
                self._tell(run_id)
                if self.interrupted(record):
                    self._cancel_interrupted(record)
                return
            record = self.record(run_id)
        raise RunFinished(f"run {run_id} has ended: it is {record.status}", run=run_id)

    def _tell(self, run_id: str) -> None:
        for engine in engines_on(self.storage):
            state = engine.active.get(run_id)
            if state is not None and not state.undoing:
                state.halt(RunCancelled(f"run {run_id} was cancelled", run=run_id), outside=True)

    def _cancel_interrupted(self, record: RunRecord) -> None:
        """Take the run over to undo what it has completed, and cancel it."""
        known = WORKFLOWS.get(record.workflow) or STEPS.get(record.workflow)
        claimed = run_sync(_as_flow(claim(self.engine, record, force=True)))
        if claimed is None:
            return
        if known is not None and claimed.args:
            self.start(self._request_of(claimed), Acquired(claimed, True, True))
            future = self.engine.futures.get(record.id)
            if future is not None and not (known._defn.is_async and _on_a_loop()):
                with self._watching():
                    wait([future])
            return
        if any(step.status is StepStatus.COMPLETED for step in self.step_records(record.id)):
            logger.warning(
                "run %s is cancelled without undoing its steps: its workflow %s is not loaded here",
                record.id,
                record.workflow,
                extra={"run": record.id, "step": None},
            )
        changes = {"status": RunStatus.CANCELLED, "finished_at": self.engine.clock.now()}
        self.engine.commit(UpdateRun(record.id, changes, epoch=claimed.epoch, release=True))

    def resume(self, run_id: str, /) -> Run:
        """Continue an interrupted (or failed) run from its stored arguments, in the background.

        Its workflow's module must be imported. Raises :class:`~flowdsl.errors.RunNotFound`,
        :class:`~flowdsl.errors.StepNotFound`, and :class:`~flowdsl.errors.RunFinished` for one that has
        completed or was cancelled.
        """
        self._require_open()
        return self._continue(self.record(run_id), "resume")

    def retry(self, run_id: str, /) -> Run:
        """Continue a failed run: its open failures execute again, everything else is replayed. Otherwise
        as :meth:`resume`."""
        self._require_open()
        record = self.record(run_id)
        if record.status is not RunStatus.FAILED:
            raise RunConflict(
                f"run {run_id} is {record.status}, not failed; resume() continues an interrupted one",
                run=run_id,
            )
        return self._continue(record, "retry")

    def _continue(self, record: RunRecord, action: str = "") -> Run:
        if record.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
            raise RunFinished(f"run {record.id} has ended: it is {record.status}", run=record.id)
        if record.status is RunStatus.FAILED and not record.retryable:
            raise RunConflict(
                f"run {record.id} has failed, and durable calls followed the failure; it cannot be "
                "continued. To execute part of it "
                f"again: Runtime.fork({record.id!r}, before=<step>)",
                run=record.id,
            )
        asked = self._request_of(record)
        if record.status is RunStatus.FAILED or self.interrupted(record):
            force = record.owner is not None and liveness(record.owner, record.id) is Liveness.DEAD
            claimed = run_sync(_as_flow(claim(self.engine, record, force=force, limit=asked.defn.timeout)))
            if claimed is not None:
                if action:
                    note = audit(self.engine, record.id, action, f"{record.workflow}: it was {record.status}")
                    self.engine.commit(PutStep(note, claimed.epoch))
                return self.start(asked, Acquired(claimed, True, True))
        return Run(self, record.id)

    def _request_of(self, record: RunRecord) -> Request:
        source = WORKFLOWS.get(record.workflow) or STEPS.get(record.workflow)
        if source is None:
            raise StepNotFound(
                f"workflow {record.workflow!r} of run {record.id} is not loaded here: import the module "
                "that defines it first",
                run=record.id,
                step=record.workflow,
            )
        asked: Request = source.request_from(self, record, self.arguments(record))
        return asked

    def fork(self, run_id: str, /, before: Any, id: str | None = None) -> Run:
        """Start a new run with what *run_id* had recorded before step *before* (a path, a key or the
        decorated function).

        It begins at once if its workflow is imported here, else ``resume`` begins it. *id* is the new run's.
        """
        self._require_open()
        record = self.record(run_id)
        new = fork(self.engine, record, before, None if id is None else checked_id(id))
        if WORKFLOWS.get(new.workflow) is None and STEPS.get(new.workflow) is None:
            return Run(self, new.id)
        return self._continue(new)

    def resolve(
        self,
        run_id: str,
        step: Any,
        /,
        *,
        result: Any = _NOTHING,
        error: BaseException | None = None,
        rerun: bool = False,
    ) -> None:
        """Say what came of an ``in_doubt="raise"`` step that was executing when its process died: its
        *result*, its *error*, or *rerun* it.

        Then call the workflow again, or ``resume`` the run.
        """
        if (result is not _NOTHING) + (error is not None) + bool(rerun) != 1:
            raise TypeError("resolve() takes one of result=…, error=… and rerun=True")
        resolve(self.engine, self.record(run_id), step, result, error, rerun)

    def recover(self) -> list[Run]:
        """Continue all interrupted runs whose workflow is imported here, oldest first, in the background."""
        found = []
        where = RunFilter(status=(RunStatus.PENDING, RunStatus.RUNNING), newest_first=False)
        for record in self.storage.list_runs(where):
            known = WORKFLOWS.get(record.workflow) or STEPS.get(record.workflow)
            if known is None or record.parent is not None or not self.interrupted(record):
                continue
            if record.recoveries >= RECOVERY_LIMIT:
                raise RecoveryLimit(
                    f"run {record.id} was recovered {record.recoveries} times and its process died each "
                    "time; look at what its next step "
                    f"does, then call it or Runtime.resume({record.id!r})",
                    run=record.id,
                )
            found.append(self._continue(record))
        return found

    def delete(self, run_id: str, /) -> None:
        """Delete a run with its records, as if it had never been; a missing one is no error."""
        self.engine.commit(DeleteRun(checked_id(run_id)))

    def prune(self, older_than: Any, status: Any = (RunStatus.COMPLETED, RunStatus.CANCELLED)) -> int:
        """Delete runs that ended longer ago than *older_than* (a duration); returns how many.

        A run whose id was given leaves a stub, so that its id still means that run.
        """
        limit = self.engine.clock.now() - seconds(older_than)
        wanted = _statuses(status)
        if any(not is_final(one) for one in wanted):
            raise ValueError(f"prune deletes runs that have ended; got status {status!r}")
        gone = [
            record
            for record in self.storage.list_runs(RunFilter(status=wanted))
            if record.finished_at is not None and record.finished_at <= limit
        ]
        for start in range(0, len(gone), 200):
            self.engine.commit(*(DeleteRun(r.id, tombstone=True) for r in gone[start : start + 200]))
        return len(gone)

    @property
    def aio(self) -> "_Awaitable":
        """The same methods, awaitable."""
        return _Awaitable(self)


class _Awaitable:
    """``rt.aio.<name>(…)`` is ``rt.<name>(…)`` without blocking the event loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._runtime, name)
        if name.startswith("_") or not callable(method):
            raise AttributeError(name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name in ("do", "try_", "execute_step", "send", "resume", "retry", "recover"):
                found = method(*args, **kwargs)
                return await found if asyncio.iscoroutine(found) else found
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


# ----------------------------------------------------------------------------------------------------------


def _check(retry: Any, codec: Any, clock: Any, executor: Any, on_divergence: Any, name: Any) -> None:
    if retry is not None and not isinstance(retry, Retry):
        raise TypeError(f"retry= is a Retry(…); got {retry!r}")
    if codec is not None and not isinstance(codec, Codec):
        raise TypeError(f"codec= is a Codec such as PickleCodec(); got {codec!r}")
    if clock is not None and not all(
        callable(getattr(clock, name, None)) for name in ("now", "sleep", "asleep")
    ):
        raise TypeError(f"clock= has now(), sleep(seconds) and async asleep(seconds); got {clock!r}")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor= is a concurrent.futures.Executor; got {executor!r}")
    if on_divergence not in DIVERGENCES:
        raise ValueError(
            f"on_divergence is one of {', '.join(map(repr, DIVERGENCES))}; got {on_divergence!r}"
        )
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name= is a string; got {name!r}")


def _statuses(status: Any) -> tuple[RunStatus, ...]:
    if status is None:
        return ()
    many = (status,) if isinstance(status, str) else tuple(status)
    try:
        return tuple(RunStatus(one) for one in many)
    except ValueError:
        names = ", ".join(repr(str(one)) for one in RunStatus)
        raise ValueError(f"a run's status is one of {names}; got {status!r}") from None


def _path(workflow: Any) -> str | None:
    if workflow is None or isinstance(workflow, str):
        return workflow
    path = getattr(workflow, "path", None)
    if not isinstance(path, str):
        raise TypeError(f"workflow= is a decorated function or its path; got {workflow!r}")
    return path


def _seconds(moment: Any, what: str) -> float | None:
    if moment is None:
        return None
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(
                f"{what} is an aware datetime; got the naive {moment!r}. datetime.now(UTC) is aware"
            )
        return moment.timestamp()
    if isinstance(moment, int | float) and not isinstance(moment, bool):
        return float(moment)
    raise TypeError(f"{what} is an aware datetime or seconds since the epoch; got {moment!r}")


def _limit(limit: Any) -> int | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ValueError(f"limit is a whole number, 0 or more; got {limit!r}")
    return limit


def _started(run_id: str) -> Any:
    """The future of a child that the executing run has started: its failure is handed to whoever asks."""
    frame = current.get()
    return None if frame is None else frame.run.started.get(run_id)


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _as_flow(flow: Any) -> Any:
    return None, (yield from flow)


def _forget_future(engine: Engine, run_id: str, future: "Future[Any]") -> None:
    """Once it has ended, the storage answers for it; what only this process knows (an interrupt) stays a
    while."""
    if engine.futures.get(run_id) is future and not future.cancelled() and future.exception() is None:
        del engine.futures[run_id]


def _copy(task: "asyncio.Task[Any]", future: "Future[Any]") -> None:
    if task.cancelled():
        future.cancel()
        future.set_running_or_notify_cancel()
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def _await_future(future: "Future[Any]", run_id: str, timeout: float | None) -> Any:
    if not future.done() and _on_a_loop():
        raise TypeError(
            f"result() of the unfinished run {run_id} would block this event loop; `await` the run instead"
        )
    try:
        return future.result(timeout)
    except TimeoutError:
        if future.done():
            raise
        raise TimeoutError(f"run {run_id} has not ended within {timeout} s; it goes on") from None


def _poll(runtime: Runtime, run_id: str, timeout: float | None) -> Any:
    """Wait for a run that executes elsewhere."""
    import time

    end = None if timeout is None else time.monotonic() + timeout
    seen = idle = 0
    while True:
        record = runtime.record(run_id)
        if is_final(record.status):
            error, value = outcome_of(runtime.engine, record)
            if error is not None:
                raise error
            return value
        idle = idle + 1 if runtime.interrupted(record) else 0
        if idle > 2 and timeout is None:
            raise FlowError(
                f"run {run_id} is interrupted: nobody executes it, so it has no result to wait for. Call "
                f"its workflow again, or Runtime.resume({run_id!r})",
                run=run_id,
            )
        left = _LOOK if end is None else end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"run {run_id} has not ended within {timeout} s; it goes on")
        seen = runtime.storage.wait_for_change(seen, min(left, _LOOK))


# ---------------------------------------------------------------------------------------------------- the c

_current: ContextVar[Runtime | None] = ContextVar("flowdsl_runtime", default=None)
_stack: list[Runtime] = []
_open_runtimes: "weakref.WeakSet[Runtime]" = weakref.WeakSet()
_default: Runtime | None = None
_default_options: dict[str, Any] = {}
_default_lock = threading.Lock()


def configure(storage: Storage | str | None = None, **options: Any) -> Runtime:
    """Make the process-wide default runtime, with the same parameters as :class:`Runtime`; the previous
    default is closed.

    Returns the new default.
    """
    global _default
    fresh = Runtime(storage, **options)
    with _default_lock:
        previous, _default = _default, fresh
    if previous is not None:
        previous.close()
    return fresh


def current_runtime() -> Runtime:
    """The runtime that decorated functions use here: that of the executing run, of the innermost ``with
    Runtime(…)``, or the default."""
    found = _current.get()
    if found is not None and not found.closed:
        return found
    for runtime in reversed(_stack):
        if not runtime.closed:
            return runtime
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Runtime()
        return _default


def set_default(runtime: Runtime | None) -> Runtime | None:
    """Replace the default runtime without closing the previous one, which is returned. (For test
    plug-ins.)"""
    global _default
    with _default_lock:
        previous, _default = _default, runtime
    return previous


def _at_exit() -> None:
    for runtime in list(_open_runtimes):
        runtime.close()


atexit.register(_at_exit)
