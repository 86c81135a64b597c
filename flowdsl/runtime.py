"""Runtime: the wiring of storage, codec, clock and hooks, and what executes runs.

What only reads and writes the storage is in :mod:`flowdsl.client`.
"""

import asyncio
import operator
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import Token
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload

from flowdsl.aio_runtime import AioRuntime
from flowdsl.blocks import block
from flowdsl.client import Client
from flowdsl.codecs.payloads import Payloads
from flowdsl.codecs.pickle import PickleCodec
from flowdsl.core.durations import seconds
from flowdsl.core.filters import path_of
from flowdsl.core.records import RunFilter
from flowdsl.core.signatures import shows_options
from flowdsl.core.status import is_final
from flowdsl.current import Current
from flowdsl.engine.definitions import Invocation, WorkflowDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.operations.send import send_event
from flowdsl.engine.registry import step_called
from flowdsl.engine.runs.closing import Closing
from flowdsl.engine.runs.enqueue import Enqueueable, Queueing, enqueue, enqueue_within, enqueue_within_async
from flowdsl.engine.runs.keeper import Keeper
from flowdsl.engine.runs.outcome import on_a_loop
from flowdsl.engine.runs.request import checked_id
from flowdsl.engine.runs.resume import continue_run, loaded, recover
from flowdsl.engine.runs.single import execute_step
from flowdsl.engine.sealed import sealed
from flowdsl.engine.tracebacks import trim
from flowdsl.errors import FlowError, RunConflict
from flowdsl.handle import Run, is_interrupted
from flowdsl.hooks import HookChain
from flowdsl.runtime_options import CheckedOptions, RuntimeOptions
from flowdsl.storage import Storage, open_storage
from flowdsl.storage.urls import default_url
from flowdsl.threads import wait_in_thread

__all__ = ["Runtime", "configure", "current_runtime"]

if TYPE_CHECKING:
    from flowdsl.engine.runs.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")


class Runtime(Client):
    """Executes runs over one storage.

    Parameters: *storage*, a :class:`~flowdsl.storage.Storage` (which stays open when the runtime closes) or a
    URL: ``memory://``, ``sqlite:///path``; by default ``FLOWDSL_STORAGE`` or ``sqlite:///.flowdsl/flow.db``.
    *retry*, the policy of steps that have none; *codec*, how results become bytes; *hooks*, one or several
    :class:`~flowdsl.Hooks`; *clock*, a :class:`~flowdsl.clock.Clock`; *executor*, where submitted steps
    execute; *on_divergence*, ``"raise"``, ``"rerun"`` or ``"reuse"``; *lease*, the seconds after which a run
    may be taken over if nothing is known of its process; *name*, for logs; *previews*, whether arguments,
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

    @shows_options(CheckedOptions)
    def __init__(self, storage: Storage | str | None = None, **options: Unpack[RuntimeOptions]) -> None:
        given = CheckedOptions(**options)
        secret = os.environ.get("FLOWDSL_SECRET_KEY")
        payloads = Payloads(
            given.codec or PickleCodec(), secret.encode() if secret else None, previews=given.previews
        )
        hooks = HookChain(given.hooks, tells=payloads.previews.shown)
        self._owns_storage = not isinstance(storage, Storage)
        self._opened: Storage = open_storage(default_url() if storage is None else storage)
        stored = sealed(hooks.wrapped(self._opened), payloads)
        engine = Engine(
            stored,
            payloads=payloads,
            clock=given.clock,
            hooks=hooks,
            retry=given.retry,
            executor=given.executor,
            on_divergence=given.on_divergence,
            lease=given.lease,
            name=given.name or "",
            open_storage=open_storage,
            make_handle=lambda record: Run(engine, record.id),
        )
        super().__init__(engine, stored)
        self._keeper = Keeper(self._engine)
        self._tokens: list[Token[Any]] = []
        self._workers: set[Worker] = set()
        self._closing = Closing(self._engine, self._keeper, self._workers, self._at_last)
        for queue in given.queues:
            self.queues.declare(queue)
        for schedule in given.schedules:
            self.schedules.declare(schedule)
        self._is_open = True
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
        given back. If another thread is closing the runtime already, this call waits for that. In a body that
        the runtime executes, this call returns at once, and closing goes on when the body has ended. A
        storage that was given as an instance stays open.
        """
        self._closing.close()

    def _at_last(self) -> None:
        self._is_open = False
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

    # Events and runs ---------------------------------------------------------------------------------------

    def send(self, event: str, payload: Any = None) -> None:
        """Call every ``@on(event)`` handler with *payload*, in the background."""
        self._require_open()
        token = _runtimes.enter(self)
        try:
            send_event(self._engine, event, payload)
        finally:
            _runtimes.leave(self, token)

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
        from flowdsl.engine.runs.fork import fork

        self._require_open()
        record = self._record(run_id)
        new = fork(self._engine, record, before, None if id is None else checked_id(id))
        return Run(self._engine, new.id if loaded(new.workflow) is None else continue_run(self._engine, new))

    def recover(self) -> list[Run[Any]]:
        """Continue all interrupted runs whose workflow is imported here, oldest first, in the background.

        A run may not be able to continue: its arguments do not load, or it was recovered too often. Then that
        is logged, and its error is raised when all others go on.
        """
        self._require_open()
        return [Run(self._engine, run_id) for run_id in recover(self._engine)]

    # Workers -----------------------------------------------------------------------------------------------

    def enqueue(self, workflow: Any, /, *args: Any, connection: Any = None, **kwargs: Any) -> Run[Any]:
        """Store a pending run of *workflow* (or of ``workflow.options(…)``), for any worker to begin.

        With *connection*, a ``sqlite3.Connection`` or ``psycopg.Connection`` to the same database (with
        ``await rt.aio.enqueue(…)`` also a ``psycopg.AsyncConnection``), it happens in the caller's
        transaction: the run is there if that is committed.
        """
        called, options, queueing = self._enqueueing(workflow, args, kwargs)
        if connection is None:
            return Run(self._engine, enqueue(self._engine, called, options, queueing))
        return Run(self._engine, enqueue_within(self._engine, called, options, queueing, connection))

    async def _enqueue_within(self, workflow: Any, args: Any, kwargs: Any, connection: Any) -> Run[Any]:
        asked = self._enqueueing(workflow, args, kwargs)
        return Run(self._engine, await enqueue_within_async(self._engine, *asked, connection))

    def _enqueueing(
        self, workflow: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Invocation[WorkflowDef], dict[str, Any], Queueing]:
        self._require_open()
        if not isinstance(workflow, Enqueueable):
            raise TypeError(f"enqueue() takes a function decorated with @workflow; got {workflow!r}")
        return workflow.enqueueing(args, kwargs)

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
        from flowdsl.engine.runs.worker import ended_by_signal

        with self._working(queues, workflows, concurrency, drain) as worker, ended_by_signal(worker):
            worker.work()

    @block
    def _working(
        self, queues: Any, workflows: Any, concurrency: int | None, drain: Any
    ) -> "Iterator[Worker]":
        from flowdsl.engine.runs.worker import Worker

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

    def _repr_html_(self) -> str:
        from flowdsl.drawing.lists import runtime_html
        from flowdsl.drawing.run import shown_or_why

        def draw() -> str:
            closed = self._closing.begun
            kind = type(self.storage).__name__.removesuffix("Storage") or "a storage"
            newest = [] if closed else self.storage.list_runs(RunFilter(limit=10))
            lost = {run.id for run in newest if is_interrupted(self.storage, run)}
            rows = [(run, "interrupted" if run.id in lost else str(run.status)) for run in newest]
            now = 0.0 if closed else self.storage.now()
            return runtime_html(kind, self._engine.name, closed, rows, now)

        return shown_or_why("Runtime", draw)

    @property
    def aio(self) -> AioRuntime:
        """The same methods, awaitable."""
        return AioRuntime(self, self._engine)


def _here(found: Any) -> Any:
    """What a step by hand gives. In sync code an async step is awaited here."""
    return asyncio.run(found) if asyncio.iscoroutine(found) and not on_a_loop() else found


_runtimes: Current[Runtime] = Current(
    Runtime, lambda runtime: runtime._engine, operator.attrgetter("_is_open")
)


@shows_options(CheckedOptions)
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
    """The engine of the current runtime. (For the decorators and verbs.)"""
    return _runtimes.get()._engine


def engine_of(runtime: Runtime) -> Engine:
    """The engine of *runtime*. (For :mod:`flowdsl.testing`.)"""
    return runtime._engine


def open_engine() -> Engine | None:
    """As :func:`current_engine`, but this makes no runtime: ``None`` if there is none."""
    found = _runtimes.find()
    return None if found is None else found._engine


def engine_entered_in_body() -> Engine | None:
    """The engine of the runtime that the executing body has entered itself, if it has. Workflows that the
    body calls there are no children of its run."""
    found = _runtimes.entered_in_body()
    return None if found is None else found._engine


def set_default(runtime: Runtime | None) -> Runtime | None:
    """Replace the default runtime without closing the previous one, which is returned. (For test
    plug-ins.)"""
    return _runtimes.replace_default(runtime)
