"""Runtime: the wiring of storage, codec, clock and hooks, and all that one can ask of runs."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextvars import Token
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Self, TypedDict, TypeVar, Unpack, overload

from attrs import field, frozen
from attrs.validators import optional

from flowdsl.acting import is_named
from flowdsl.aio_runtime import AioRuntime
from flowdsl.blocks import block
from flowdsl.clock import Clock
from flowdsl.codecs import Codec, PickleCodec
from flowdsl.codecs.payloads import Payloads
from flowdsl.core.durations import seconds
from flowdsl.core.filters import checked_limit, moment, path_of, statuses
from flowdsl.core.history import export_run
from flowdsl.core.queues import Queue
from flowdsl.core.records import Run as RunRecord
from flowdsl.core.records import RunFilter
from flowdsl.core.retry import Retry
from flowdsl.core.schedules import Schedule
from flowdsl.core.signatures import shows_options
from flowdsl.core.status import RunStatus, is_final
from flowdsl.current import Current
from flowdsl.declared import Queues, Schedules, WorkerInfo, workers_of
from flowdsl.engine.audit import audit
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.operations.send import send_event
from flowdsl.engine.operations.signal import send as send_signal
from flowdsl.engine.option_checks import DIVERGENCES, Divergence, checked_tags
from flowdsl.engine.registry import step_called
from flowdsl.engine.runs.closing import Closing
from flowdsl.engine.runs.enqueue import enqueue, enqueue_within, enqueue_within_async
from flowdsl.engine.runs.fork import fork
from flowdsl.engine.runs.keeper import Keeper
from flowdsl.engine.runs.outcome import on_a_loop, outcome_of, record_of
from flowdsl.engine.runs.repair import resolve
from flowdsl.engine.runs.request import checked_id
from flowdsl.engine.runs.resume import continue_run, loaded, recover
from flowdsl.engine.runs.single import execute_step
from flowdsl.engine.runs.worker import Worker, ended_by_signal
from flowdsl.engine.sealed import sealed
from flowdsl.engine.tracebacks import trim
from flowdsl.errors import FlowError, RunConflict
from flowdsl.handle import Run, Runs, asked, is_interrupted
from flowdsl.hooks import HookChain, Hooks
from flowdsl.storage import Storage, open_storage
from flowdsl.storage.base import DeleteRun, PutStep
from flowdsl.storage.urls import default_url
from flowdsl.threads import wait_in_thread

__all__ = ["Runtime", "configure", "current_runtime"]

P = ParamSpec("P")
T = TypeVar("T")

_NOTHING: Any = object()
_PRUNED_AT_ONCE = 200  # runs that are looked at, and deleted in one commit


class RuntimeOptions(TypedDict, total=False):
    """The keyword arguments of :class:`Runtime` and :func:`configure`; what they mean is told there."""

    retry: Retry | None
    codec: Codec | None
    hooks: Hooks | Sequence[Any]
    clock: Clock | None
    executor: Executor | None
    on_divergence: Divergence
    lease: float | timedelta | str
    name: str | None
    queues: Sequence[Queue]
    schedules: Sequence[Schedule]
    previews: bool


def _lease(value: Any) -> float:
    found = seconds(value, "lease")
    if found <= 0:
        raise ValueError(f"lease is a duration above 0; got {value!r}")
    return found


def _clock(_: Any, __: Any, value: Any) -> None:
    if not all(callable(getattr(value, name, None)) for name in ("now", "sleep", "asleep")):
        raise TypeError(f"clock= has now(), sleep(seconds) and async asleep(seconds); got {value!r}")


def _executor(_: Any, __: Any, value: Any) -> None:
    if not callable(getattr(value, "submit", None)):
        raise TypeError(f"executor= is a concurrent.futures.Executor; got {value!r}")


def _a(kind: type, what: str) -> Callable[[Any, Any, Any], None]:
    def check(_: Any, attribute: Any, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name}= is {what}; got {value!r}")

    return check


def _divergence(_: Any, __: Any, value: Divergence) -> None:
    if value not in DIVERGENCES:
        names = ", ".join(map(repr, DIVERGENCES))
        raise ValueError(f"on_divergence is one of {names}; got {value!r}")


@frozen(slots=True, kw_only=True)
class _Options:
    """The same, checked, with their defaults."""

    retry: Retry | None = field(default=None, validator=optional(_a(Retry, "a Retry(…)")))
    codec: Codec | None = field(default=None, validator=optional(_a(Codec, "a Codec such as PickleCodec()")))
    hooks: Hooks | Sequence[Any] = ()
    clock: Clock | None = field(default=None, validator=optional(_clock))
    executor: Executor | None = field(default=None, validator=optional(_executor))
    on_divergence: Divergence = field(default="raise", validator=_divergence)
    lease: float = field(default=30.0, converter=_lease)
    name: str | None = field(default=None, validator=optional(_a(str, "a string")))
    queues: Sequence[Queue] = ()
    schedules: Sequence[Schedule] = ()
    previews: bool = field(default=True, validator=_a(bool, "True or False"))


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

    @shows_options(_Options)
    def __init__(self, storage: Storage | str | None = None, **options: Unpack[RuntimeOptions]) -> None:
        given = _Options(**options)
        secret = os.environ.get("FLOWDSL_SECRET_KEY")
        payloads = Payloads(
            given.codec or PickleCodec(), secret.encode() if secret else None, previews=given.previews
        )
        hooks = HookChain(given.hooks, tells=payloads.previews.shown)
        self._owns_storage = not isinstance(storage, Storage)
        self._opened: Storage = open_storage(default_url() if storage is None else storage)
        self.storage: Storage = sealed(hooks.wrapped(self._opened), payloads)
        self._engine = Engine(
            self.storage,
            payloads=payloads,
            clock=given.clock,
            hooks=hooks,
            retry=given.retry,
            executor=given.executor,
            on_divergence=given.on_divergence,
            lease=given.lease,
            name=given.name or "",
            open_storage=open_storage,
            make_handle=lambda record: Run(self._engine, record.id),
        )
        self._keeper = Keeper(self._engine)
        self._tokens: list[Token[Any]] = []
        self._workers: set[Worker] = set()
        self._closing = Closing(self._engine, self._keeper, self._workers, self._at_last)
        for queue in given.queues:
            self.queues.declare(queue)
        for schedule in given.schedules:
            self.schedules.declare(schedule)
        _runtimes.opened(self)

    # The current one ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._require_open()
        self._tokens.append(_runtimes.enter(self))
        return self

    def __exit__(self, *exc: object) -> None:
        _runtimes.leave(self, self._tokens.pop())
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *exc: object) -> None:
        _runtimes.leave(self, self._tokens.pop())
        await wait_in_thread(self.close)

    def _require_open(self) -> None:
        if self._closing.begun:
            raise FlowError("this Runtime is closed; make a new one")

    def close(self) -> None:
        """Drain ``send`` work, interrupt started runs resumably, end threads; closing twice is no error.

        It takes half a minute at most: a body that needs longer is left behind and reported, and its run is
        given back. Whoever closes what another thread is closing waits for that. In a body of its own it
        returns at once, and closing goes on when the body has ended. A storage that was given as an instance
        stays open.
        """
        self._closing.close()

    def _at_last(self) -> None:
        _runtimes.closed(self)
        if self._owns_storage:
            self._opened.close()

    # Executing steps by hand -------------------------------------------------------------------------------

    @overload
    def do(self, step: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def do(self, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def do(self, step: str, /, *args: Any, **kwargs: Any) -> Any: ...
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
        __tracebackhide__ = True
        try:
            return _here(execute_step(self._engine, step_called(step, args, kwargs), mode, step_id))
        except Exception as error:  # only its traceback is changed
            if current.get() is None:
                trim(error)
            raise

    # Runs --------------------------------------------------------------------------------------------------

    def run(self, id: str) -> Run[Any] | None:
        """The run of this id, or ``None``."""
        found = self.storage.get_run(checked_id(id))
        return None if found is None else Run(self._engine, id)

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
    ) -> list[Run[Any]]:
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
        return Runs(Run(self._engine, record.id, record) for record in self.storage.list_runs(where))

    def _record(self, run_id: str) -> RunRecord:
        """The stored row of a run. Raises :class:`~flowdsl.errors.RunNotFound`."""
        return record_of(self._engine, checked_id(run_id))

    def export(self, id: str) -> dict[str, Any]:
        """A run with its journal and signals, as JSON can hold it; nothing is unpickled. ``flowdsl export``
        prints it.

        Raises :class:`~flowdsl.errors.RunNotFound`.
        """
        record = self._record(id)
        return export_run(record, self.storage.list_steps(id), self.storage.list_signals(id))

    def query(self, id: str, what: str) -> Any:
        """``"status"``, ``"result"`` (``None`` while there is none), ``"progress"`` or ``"state"`` of a
        run."""
        run: Run[Any] = Run(self._engine, checked_id(id))
        if what == "status":
            return run.status
        if what == "result":
            if run.status is not RunStatus.COMPLETED:
                return None
            error, value = outcome_of(self._engine, run.record)
            if error is not None:
                raise error
            return value
        if what == "state":
            return run.state()
        if what == "progress":
            return run.progress()
        raise ValueError(f"a query is one of 'status', 'result', 'progress', 'state'; got {what!r}")

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

        *sender* is stored with it; a second signal of the same *key* is dropped. It waits until the signal is
        stored, not until the run takes it. On an event loop use ``await rt.aio.signal(…)``, which does not
        block it. Raises :class:`~flowdsl.errors.RunNotFound`, :class:`~flowdsl.errors.RunFinished`, and
        :class:`~flowdsl.errors.ResultNotStorable` for a payload that cannot be stored.
        """
        found = send_signal(self._engine, checked_id(id), name, payload, sender=sender, key=key)
        self._note(id, "signal", name)
        return found

    def ask(
        self, id: str, name: str, payload: Any = None, *, timeout: Any = None, key: str | None = None
    ) -> Any:
        """Send a run a message, and wait for what it replies (``message.reply``); its refusal is raised.

        *timeout*: a duration, after which :class:`~flowdsl.errors.WaitTimeout` is raised; the question
        stays. *key*: the same question is asked once, and its answer can be read again, even after the run
        has ended. Raises :class:`~flowdsl.errors.RunNotFound`, and :class:`~flowdsl.errors.RunFinished` for
        a run that has ended or ends without replying. Inside a run it is a durable call.
        """
        return asked(self._engine, checked_id(id), name, payload, timeout=timeout, key=key)

    def send(self, event: str, payload: Any = None) -> None:
        """Call every ``@on(event)`` handler with *payload*, in the background."""
        self._require_open()
        token = _runtimes.enter(self)
        try:
            send_event(self._engine, event, payload)
        finally:
            _runtimes.leave(self, token)

    # Changing runs -----------------------------------------------------------------------------------------

    def cancel(self, id: str) -> None:
        """Ask a run to stop. The request is durable; the run sees it within a second, in whatever process it
        executes.

        An interrupted run is cancelled at once, or, where the code that undoes its steps is not loaded,
        when somebody continues it. Raises :class:`~flowdsl.errors.RunNotFound` and
        :class:`~flowdsl.errors.RunFinished`.
        """
        Run(self._engine, checked_id(id)).cancel()
        self._note(id, "cancel", "the run")

    def _note(self, id: str, action: str, what: str) -> None:
        """Say in the audit what somebody with a name did; what a program does is no change by hand."""
        if is_named():
            self._engine.commit(PutStep(audit(self._engine, id, action, what)))

    def resume(self, id: str) -> Run[Any]:
        """Continue an interrupted (or failed) run from its stored arguments, in the background.

        Its workflow's module must be imported. Raises :class:`~flowdsl.errors.RunNotFound`,
        :class:`~flowdsl.errors.StepNotFound`, and :class:`~flowdsl.errors.RunFinished` for one that has
        completed or was cancelled.
        """
        self._require_open()
        return Run(self._engine, continue_run(self._engine, self._record(id), "resume"))

    def retry(self, id: str) -> Run[Any]:
        """Continue a failed run: its open failures execute again, everything else is replayed. Otherwise
        as :meth:`resume`."""
        self._require_open()
        record = self._record(id)
        if not is_final(record.status):
            raise RunConflict(
                f"run {id} is {record.status}, not failed; resume() continues an interrupted one",
                run=id,
            )
        return Run(self._engine, continue_run(self._engine, record, "retry"))

    def fork(self, run_id: str, /, before: Any, id: str | None = None) -> Run[Any]:
        """Start a new run with what *run_id* had recorded before step *before* (a path, a key or the
        decorated function).

        It begins at once if its workflow is imported here, else ``resume`` begins it. *id* is the new run's.
        """
        self._require_open()
        record = self._record(run_id)
        new = fork(self._engine, record, before, None if id is None else checked_id(id))
        return Run(self._engine, new.id if loaded(new.workflow) is None else continue_run(self._engine, new))

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
        resolve(self._engine, self._record(id), step, result, error, rerun)

    def recover(self) -> list[Run[Any]]:
        """Continue all interrupted runs whose workflow is imported here, oldest first, in the background.

        One that cannot be continued (its arguments do not load, it was recovered too often) is logged, and
        its error is raised when all others go on.
        """
        self._require_open()
        return [Run(self._engine, run_id) for run_id in recover(self._engine)]

    # Workers, queues, schedules ----------------------------------------------------------------------------

    def enqueue(self, workflow: Any, /, *args: Any, connection: Any = None, **kwargs: Any) -> Run[Any]:
        """Store a pending run of *workflow* (or of ``workflow.options(…)``), for any worker to begin.

        With *connection*, a ``sqlite3.Connection`` or ``psycopg.Connection`` to the same database (with
        ``await rt.aio.enqueue(…)`` also a ``psycopg.AsyncConnection``), it happens in the caller's
        transaction: the run is there if that is committed.
        """
        called, options, place = self._enqueueing(workflow, args, kwargs)
        if connection is None:
            return Run(self._engine, enqueue(self._engine, called, options, place))
        return Run(self._engine, enqueue_within(self._engine, called, options, place, connection))

    async def _enqueue_within(self, workflow: Any, args: Any, kwargs: Any, connection: Any) -> Run[Any]:
        asked = self._enqueueing(workflow, args, kwargs)
        return Run(self._engine, await enqueue_within_async(self._engine, *asked, connection))

    def _enqueueing(self, workflow: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
        self._require_open()
        if not hasattr(workflow, "enqueueing"):
            raise TypeError(f"enqueue() takes a function decorated with @workflow; got {workflow!r}")
        called, options, place = workflow.enqueueing(args, kwargs)
        return called, options, place

    def work(
        self,
        queues: Iterable[str] | None = None,
        workflows: Iterable[Any] | None = None,
        concurrency: int | None = None,
        drain: Any = "30 sec",
    ) -> None:
        """Claim runs and execute them, until the process is told to end (SIGTERM, Ctrl-C), or this runtime is
        closed from another thread. ``await rt.aio.work(…)`` ends when its task is cancelled.

        *queues*: names, by default all; *workflows*: paths or decorated functions, by default all that are
        imported; *concurrency*: runs at a time, by default 16; *drain*: how long what is under way may take
        to end. What has not ended by then is given back: another worker continues it at once.
        """
        with self._working(queues, workflows, concurrency, drain) as worker, ended_by_signal(worker):
            worker.work()

    @block
    def _working(self, queues: Any, workflows: Any, concurrency: int | None, drain: Any) -> Iterator[Worker]:
        self._require_open()
        if concurrency is not None and (isinstance(concurrency, bool) or concurrency < 1):
            raise ValueError(f"concurrency= is at least 1; got {concurrency!r}")
        paths = None if workflows is None else tuple(str(path_of(one)) for one in workflows)
        worker = Worker(
            self._engine,
            queues=None if queues is None else tuple(queues),
            workflows=paths,
            concurrency=concurrency or 16,
            drain=seconds(drain, "drain"),
        )
        self._workers.add(worker)
        try:
            yield worker
        finally:
            worker.ended.set()
            self._workers.discard(worker)

    @property
    def queues(self) -> Queues:
        """The declared queues: ``list() put() pause() resume() delete()``."""
        return Queues(self._engine)

    @property
    def schedules(self) -> Schedules:
        """The schedules: ``list() put() pause() resume() delete() trigger() backfill()``."""
        return Schedules(self._engine)

    def workers(self) -> list[WorkerInfo]:
        """The workers that live, with what they execute."""
        return workers_of(self._engine)

    def delete(self, id: str) -> None:
        """Delete a run with its records, as if it had never been; a missing one is no error."""
        self._engine.commit(DeleteRun(checked_id(id)))

    def prune(self, older_than: Any, status: Any = (RunStatus.COMPLETED, RunStatus.CANCELLED)) -> int:
        """Delete runs that ended longer ago than *older_than* (a duration); returns how many.

        A run whose id was given leaves a stub, so that its id still means that run.
        """
        limit = self._engine.clock.now() - seconds(older_than, "older_than")
        wanted = statuses(status)
        if any(not is_final(one) for one in wanted):
            raise ValueError(f"prune deletes runs that have ended; got status {status!r}")
        pruned, after = 0, None
        while True:
            some = RunFilter(status=wanted, newest_first=False, after=after, limit=_PRUNED_AT_ONCE)
            found = self.storage.list_runs(some)
            gone = [run for run in found if run.finished_at is not None and run.finished_at <= limit]
            if gone:
                self._engine.commit(*(DeleteRun(run.id, tombstone=True) for run in gone))
                pruned += len(gone)
            if len(found) < _PRUNED_AT_ONCE:
                return pruned
            kept = [run.id for run in found if run not in gone]
            after = kept[-1] if kept else after

    def _repr_html_(self) -> str:
        from flowdsl.drawing.lists import runtime_html
        from flowdsl.drawing.run import shown_or_why

        def draw() -> str:
            closed = self._closing.begun
            kind = type(self.storage).__name__.removesuffix("Storage") or "a storage"
            newest = [] if closed else self.storage.list_runs(RunFilter(limit=10))
            lost = {run.id for run in newest if is_interrupted(self.storage, run)}
            rows = [(run, "interrupted" if run.id in lost else str(run.status)) for run in newest]
            return runtime_html(
                kind,
                self._engine.name,
                self._closing.begun,
                rows,
                0.0 if self._closing.begun else self.storage.now(),
            )

        return shown_or_why("Runtime", draw)

    @property
    def aio(self) -> AioRuntime:
        """The same methods, awaitable."""
        return AioRuntime(self, self._engine)


def _here(found: Any) -> Any:
    """In sync code, an async step gives its result."""
    return asyncio.run(found) if asyncio.iscoroutine(found) and not on_a_loop() else found


_runtimes: Current[Runtime] = Current(Runtime, lambda runtime: runtime._engine)


@shows_options(_Options)
def configure(storage: Storage | str | None = None, **options: Unpack[RuntimeOptions]) -> Runtime:
    """Make the process-wide default runtime, with the same parameters as :class:`Runtime`; the previous
    default is closed.

    Returns the new default.
    """
    fresh = Runtime(storage, **options)
    previous = _runtimes.replace_default(fresh)
    if previous is not None:
        previous.close()
    return fresh


def current_runtime() -> Runtime:
    """The runtime that decorated functions use here: that of the innermost ``with Runtime(…)``, of the
    executing run, or the default."""
    return _runtimes.get()


def current_engine() -> Engine:
    """What executes runs of the current runtime. (For the decorators and verbs.)"""
    return _runtimes.get()._engine


def engine_of(runtime: Runtime) -> Engine:
    """What executes runs of *runtime*. (For :mod:`flowdsl.testing`.)"""
    return runtime._engine


def open_engine() -> Engine | None:
    """As :func:`current_engine`, but no runtime is made: ``None`` where there is none."""
    found = _runtimes.find()
    return None if found is None else found._engine


def engine_entered_in_body() -> Engine | None:
    """That of the runtime that the executing body has itself entered: workflows it calls are no children."""
    found = _runtimes.entered_in_body()
    return None if found is None else found._engine


def set_default(runtime: Runtime | None) -> Runtime | None:
    """Replace the default runtime without closing the previous one, which is returned. (For test
    plug-ins.)"""
    return _runtimes.replace_default(runtime)
