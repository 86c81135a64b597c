"""Runtime: the wiring of storage, codec, clock and hooks, and all that one can ask of runs."""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Executor, wait
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from datetime import datetime
from typing import Any, Literal, Self

from flowdsl.clock import Clock
from flowdsl.codecs import Codec, PickleCodec
from flowdsl.codecs.payloads import Payloads
from flowdsl.core.durations import seconds
from flowdsl.core.filters import checked_limit, moment, path_of, statuses
from flowdsl.core.history import export_run
from flowdsl.core.kinds import AUDIT, BESIDE_STEPS, LOG
from flowdsl.core.records import Run as RunRecord
from flowdsl.core.records import RunFilter, Step
from flowdsl.core.retry import Retry
from flowdsl.core.status import RunStatus, StepStatus, is_final
from flowdsl.engine.definitions import DIVERGENCES, checked_tags
from flowdsl.engine.engine import Engine
from flowdsl.engine.events import send_event
from flowdsl.engine.execution import current
from flowdsl.engine.owner import is_interrupted
from flowdsl.engine.registry import step_called
from flowdsl.engine.runs.acquire import Acquired
from flowdsl.engine.runs.cancel import cancel
from flowdsl.engine.runs.fork import fork
from flowdsl.engine.runs.keeper import Keeper, interrupted
from flowdsl.engine.runs.outcome import on_a_loop, outcome_awaited, outcome_of, outcome_within, started_here
from flowdsl.engine.runs.progress import progress_of
from flowdsl.engine.runs.repair import resolve
from flowdsl.engine.runs.request import Request, checked_id
from flowdsl.engine.runs.resume import arguments_of, continue_run, loaded, recover
from flowdsl.engine.runs.single import execute_step
from flowdsl.engine.runs.start import launch
from flowdsl.engine.signals import deliver
from flowdsl.engine.store import state_of
from flowdsl.errors import (
    FlowError,
    RunConflict,
    RunNotFound,
)
from flowdsl.handle import AuditEntry, LogLine, Run, Runs
from flowdsl.hooks import HookChain, Hooks
from flowdsl.storage import Storage, open_storage
from flowdsl.storage.base import DeleteRun
from flowdsl.storage.urls import default_url
from flowdsl.twins import Twins

__all__ = ["Runtime", "configure", "current_runtime"]

_NOTHING: Any = object()


class Runtime:
    """Executes runs over one storage.

    Parameters: *storage*, a :class:`~flowdsl.storage.Storage` (which stays open when the runtime closes) or a
    URL: ``memory://``, ``sqlite:///path``; by default ``FLOWDSL_STORAGE`` or ``sqlite:///.flowdsl/flow.db``.
    *retry*, the policy of steps that have none; *codec*, how results become bytes; *hooks*, one or several
    :class:`~flowdsl.Hooks`; *clock*, a :class:`~flowdsl.clock.Clock`; *executor*, where submitted steps
    execute; *on_divergence*, ``"raise"``, ``"rerun"`` or ``"reuse"``; *lease*, seconds until a run of a
    process of which nothing is known may be taken over; *name*, for logs; *previews*, whether arguments,
    results and texts of errors may be stored readable and written to the log.

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
        previews: bool = True,
    ) -> None:
        _check(retry, codec, clock, executor, on_divergence, name)
        lease = seconds(lease, "lease")
        if lease <= 0:
            raise ValueError(f"lease is a duration above 0; got {lease!r}")
        chain = HookChain(hooks)
        self._owns_storage = not isinstance(storage, Storage)
        self._opened: Storage = open_storage(default_url() if storage is None else storage)
        self.storage: Storage = chain.wrapped(self._opened)
        secret = os.environ.get("FLOWDSL_SECRET_KEY")
        self._payloads = Payloads(
            codec or PickleCodec(), secret.encode() if secret else None, previews=previews
        )
        self.engine = Engine(
            self.storage,
            payloads=self._payloads,
            clock=clock,
            hooks=chain,
            retry=retry,
            executor=executor,
            on_divergence=on_divergence,
            lease=lease,
            name=name or "",
            open_storage=open_storage,
            make_handle=lambda record: Run(self, record.id),
        )
        self._keeper = Keeper(self.engine)
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
        if _current.get() not in (self, None):
            return  # one that was entered later is still open
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
        for state in self.engine.owned.executions():
            state.stop.halt(interrupted(state.id), outside=True)
        if not on_a_loop():
            for future in list(self.engine.futures.values()):
                wait([future])
        self.engine.close()
        self._keeper.close()
        self.engine.closing = True
        _open_runtimes.discard(self)
        if self._owns_storage:
            self._opened.close()

    # Executing steps by hand -------------------------------------------------------------------------------

    def do(self, step: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Execute *step* (or the one of that name) durably, and return its result.

        Outside a run this is a run of its own, one for each step and arguments: completed → the stored
        result, failed → executed again. Inside a run it is a step of that run. On an event loop, an async
        step gives an awaitable. Raises :class:`~flowdsl.errors.StepNotFound`.
        """
        return self._execute(step, args, kwargs, "do")

    def try_(self, step: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Execute *step* once, without a record; its own exception is raised."""
        return self._execute(step, args, kwargs, "try")

    def execute_step(self, step_id: str, step: Any, /, *args: Any, mode: str = "do", **kwargs: Any) -> Any:
        """Execute *step* under an id of your own: the id, not the arguments, says which execution is meant.

        Outside a run, *step_id* is the id of its run; the same id with other arguments is a
        :class:`~flowdsl.errors.RunConflict`.
        """
        if mode not in ("do", "try", "send"):
            raise ValueError(f"mode is one of 'do', 'try', 'send'; got {mode!r}")
        step_id = checked_id(step_id, "step_id")
        return self._execute(step, args, kwargs, mode, step_id)

    def _execute(
        self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any], mode: str, step_id: str | None = None
    ) -> Any:
        self._require_open()
        return _here(execute_step(self.engine, step_called(step, args, kwargs), mode, step_id))

    # Runs --------------------------------------------------------------------------------------------------

    def run(self, id: str) -> Run | None:
        """The run of this id, or ``None``."""
        found = self.storage.get_run(checked_id(id))
        return None if found is None else Run(self, id)

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
            status=statuses(status),
            workflow=path_of(workflow),
            tags=checked_tags(tags),
            created_after=moment(created_after, "created_after"),
            created_before=moment(created_before, "created_before"),
            limit=checked_limit(limit),
            after=after,
            newest_first=bool(newest_first),
        )
        return Runs(Run(self, record.id, record) for record in self.storage.list_runs(where))

    def record(self, run_id: str, /) -> RunRecord:
        """The stored row of a run. Raises :class:`~flowdsl.errors.RunNotFound`."""
        found = self.storage.get_run(checked_id(run_id))
        if found is None:
            raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
        return found

    def interrupted(self, record: RunRecord) -> bool:
        """Whether nobody executes this run although it has not ended."""
        return is_interrupted(self.storage, record)

    def wait(self, run_id: str, timeout: float | None = None) -> Any:
        """The run's result, waiting at most *timeout* real seconds; see :meth:`Run.result`."""
        started = started_here(run_id)
        if started is not None:  # a virtual clock knows of it
            return started.result(timeout)
        with self._watching():
            return outcome_within(self.engine, run_id, timeout)

    async def await_(self, run_id: str) -> Any:
        """The run's result, in async code."""
        started = started_here(run_id)
        if started is not None:
            return await started
        with self._watching():
            return await outcome_awaited(self.engine, run_id)

    def _watching(self) -> AbstractContextManager[Any]:
        """Somebody waits for a run: a virtual clock may skip ahead."""
        engine = self.engine
        if not engine.virtual:
            return nullcontext()
        watching: AbstractContextManager[Any] = engine.clock.watching(inside=current.get() is not None)
        return watching

    def arguments(self, record: RunRecord) -> dict[str, Any]:
        """The stored arguments of a run by parameter name."""
        return arguments_of(self.engine, record)

    def step_records(self, run_id: str) -> list[Step]:
        """The journal of a run, without its store operations and logs."""
        return [s for s in self.storage.list_steps(run_id) if s.kind not in BESIDE_STEPS]

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
        return [LogLine.of(step) for step in self.storage.list_steps(run_id) if step.kind == LOG]

    def audit(self, run_id: str) -> list[AuditEntry]:
        """Who changed what in a run by hand, and when, in order."""
        return [AuditEntry.of(step) for step in self.storage.list_steps(run_id) if step.kind == AUDIT]

    def export(self, id: str) -> dict[str, Any]:
        """A run with its journal and signals, as JSON can hold it; nothing is unpickled. ``flowdsl export``
        prints it.

        Raises :class:`~flowdsl.errors.RunNotFound`.
        """
        record = self.record(id)
        return export_run(record, self.storage.list_steps(id), self.storage.list_signals(id))

    def query(self, id: str, what: str) -> Any:
        """``"status"``, ``"result"`` (``None`` while there is none), ``"progress"`` or ``"state"`` of a
        run."""
        record = self.record(id)
        if what == "status":
            return record.status
        if what == "result":
            return self.load_run_result(record)
        if what == "state":
            return {} if record.status is RunStatus.COMPLETED else state_of(self.engine, id)
        if what == "progress":
            return progress_of(self.engine, record)
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
        id: str,
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
        return deliver(self.engine, checked_id(id), name, payload, sender=sender, key=key)

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
        return Run(self, launch(self.engine, asked, acquired))

    def cancel(self, id: str) -> None:
        """Ask a run to stop. The request is durable; the run sees it within a second, in whatever process it
        executes.

        An interrupted run is cancelled at once, or, where the code that undoes its steps is not loaded,
        when somebody continues it. Raises :class:`~flowdsl.errors.RunNotFound` and
        :class:`~flowdsl.errors.RunFinished`.
        """
        begun = cancel(self.engine, self.record(id))
        if begun is not None:
            with self._watching():
                wait([begun])

    def resume(self, id: str) -> Run:
        """Continue an interrupted (or failed) run from its stored arguments, in the background.

        Its workflow's module must be imported. Raises :class:`~flowdsl.errors.RunNotFound`,
        :class:`~flowdsl.errors.StepNotFound`, and :class:`~flowdsl.errors.RunFinished` for one that has
        completed or was cancelled.
        """
        self._require_open()
        return Run(self, continue_run(self.engine, self.record(id), "resume"))

    def retry(self, id: str) -> Run:
        """Continue a failed run: its open failures execute again, everything else is replayed. Otherwise
        as :meth:`resume`."""
        self._require_open()
        record = self.record(id)
        if not is_final(record.status):
            raise RunConflict(
                f"run {id} is {record.status}, not failed; resume() continues an interrupted one",
                run=id,
            )
        return Run(self, continue_run(self.engine, record, "retry"))

    def fork(self, run_id: str, /, before: Any, id: str | None = None) -> Run:
        """Start a new run with what *run_id* had recorded before step *before* (a path, a key or the
        decorated function).

        It begins at once if its workflow is imported here, else ``resume`` begins it. *id* is the new run's.
        """
        self._require_open()
        record = self.record(run_id)
        new = fork(self.engine, record, before, None if id is None else checked_id(id))
        return Run(self, new.id if loaded(new.workflow) is None else continue_run(self.engine, new))

    def resolve(
        self,
        id: str,
        step: Any,
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
        resolve(self.engine, self.record(id), step, result, error, rerun)

    def recover(self) -> list[Run]:
        """Continue all interrupted runs whose workflow is imported here, oldest first, in the background.

        One that cannot be continued (its arguments do not load, it was recovered too often) is logged, and
        its error is raised when all others go on.
        """
        self._require_open()
        return [Run(self, run_id) for run_id in recover(self.engine)]

    def delete(self, id: str) -> None:
        """Delete a run with its records, as if it had never been; a missing one is no error."""
        self.engine.commit(DeleteRun(checked_id(id)))

    def prune(self, older_than: Any, status: Any = (RunStatus.COMPLETED, RunStatus.CANCELLED)) -> int:
        """Delete runs that ended longer ago than *older_than* (a duration); returns how many.

        A run whose id was given leaves a stub, so that its id still means that run.
        """
        limit = self.engine.clock.now() - seconds(older_than, "older_than")
        wanted = statuses(status)
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

    def _repr_html_(self) -> str:
        from flowdsl.drawing.lists import runtime_html
        from flowdsl.drawing.run import shown_or_why

        def draw() -> str:
            kind = type(self.storage).__name__.removesuffix("Storage") or "a storage"
            newest = [] if self._closed else self.storage.list_runs(RunFilter(limit=10))
            rows = [(run, "interrupted" if self.interrupted(run) else str(run.status)) for run in newest]
            return runtime_html(
                kind, self.name, self._closed, rows, 0.0 if self._closed else self.storage.now()
            )

        return shown_or_why("Runtime", draw)

    @property
    def aio(self) -> Twins:
        """The same methods, awaitable."""
        return Twins(self)


# ----------------------------------------------------------------------------------------------------------


def _here(found: Any) -> Any:
    """What an async step gives in sync code is its result."""
    return asyncio.run(found) if asyncio.iscoroutine(found) and not on_a_loop() else found


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


# --------------------------------------------------------------------------------------------------------

_current: ContextVar[Runtime | None] = ContextVar("flowdsl_runtime", default=None)
_stack: list[Runtime] = []
_open_runtimes: "weakref.WeakSet[Runtime]" = weakref.WeakSet()
_default: Runtime | None = None
_default_options: dict[str, Any] = {}
_default_lock = threading.Lock()


def configure(
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
    previews: bool = True,
) -> Runtime:
    """Make the process-wide default runtime, with the same parameters as :class:`Runtime`; the previous
    default is closed.

    Returns the new default.
    """
    global _default
    fresh = Runtime(
        storage,
        retry=retry,
        codec=codec,
        hooks=hooks,
        clock=clock,
        executor=executor,
        on_divergence=on_divergence,
        lease=lease,
        name=name,
        previews=previews,
    )
    with _default_lock:
        previous, _default = _default, fresh
    if previous is not None:
        previous.close()
    return fresh


def current_runtime() -> Runtime:
    """The runtime that decorated functions use here: that of the executing run, of the innermost ``with
    Runtime(…)``, or the default."""
    found = open_runtime()
    if found is not None:
        return found
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Runtime()
        return _default


def open_runtime() -> Runtime | None:
    """As :func:`current_runtime`, but none is made: ``None`` where there is none."""
    found = _current.get()
    if found is not None and not found.closed:
        return found
    for runtime in reversed(_stack):
        if not runtime.closed:
            return runtime
    return None if _default is None or _default.closed else _default


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
