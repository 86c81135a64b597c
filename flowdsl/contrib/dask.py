"""Steps and whole runs on a Dask cluster. Dask places the work; flowdsl keeps the record.

>>> from distributed import Client, LocalCluster                              # doctest: +SKIP
>>> from flowdsl import Runtime
>>> from flowdsl.contrib.dask import DaskExecutor
>>> with Client("tcp://scheduler:8786") as client:                            # doctest: +SKIP
...     with Runtime("postgresql://…", executor=DaskExecutor(client)):
...         report(2027)                             # its submitted steps execute on the cluster

The rules
    A step's body executes on a worker; everything else of it (attempts, records, hooks) stays here. A whole
    run (``executor.submit(workflow, …)``) executes on a worker, over the storage that its URL opens there.
    Dask executes a task again when its worker dies. A step that was recorded is never repeated by that; a
    body that was under way may be, unless it is ``in_doubt="raise"``.
    Cancelling withdraws what no worker has begun. What has begun is waited for.

The theory
    Whether a task has begun is known by its worker alone. So each worker process keeps a small table: a task
    that begins enters itself, and one that is withdrawn is entered by whoever withdraws it. Who comes first
    wins.
"""

import asyncio
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, InvalidStateError, wait
from typing import Any

from attrs import frozen

try:
    import distributed
except ImportError:
    raise ImportError("DaskExecutor needs distributed: pip install 'flowdsl[dask]'") from None

from flowdsl.codecs import PickleCodec
from flowdsl.engine.definitions import Decorated, WorkflowDef
from flowdsl.engine.processes import Sent
from flowdsl.runtime import Runtime, current_runtime

__all__ = ["DaskExecutor"]

_REMEMBERED = 10_000  # tasks of which a worker knows whether they have begun


class DaskExecutor(Executor):
    """An executor of a Dask cluster, for ``Runtime(executor=…)`` and ``@step(executor=…)``.

    Parameters: *client*, a ``distributed.Client``, which stays the caller's to close; *runtime*, called
    without arguments on the worker of a whole run, makes the :class:`~flowdsl.Runtime` to execute it in
    (by default one over the URL of the current runtime's storage); further *options* go with each task
    (``workers``, ``resources``, ``priority``, ``retries``, ``allow_other_workers``).

    Workers need flowdsl and the user's modules. The keys of tasks begin with the path of the step or
    workflow, so that Dask's dashboard tells them apart.

    Raises ``TypeError`` for what is no client, or an asynchronous one.
    """

    def __init__(self, client: Any, *, runtime: Callable[[], Runtime] | None = None, **options: Any) -> None:
        if not isinstance(client, distributed.Client):
            raise TypeError(f"DaskExecutor(client) takes a distributed.Client; got {client!r}")
        if client.asynchronous:
            raise TypeError("DaskExecutor(client) needs a client without asynchronous=True")
        self.client = client
        self._runtime = runtime
        self._options = options
        self._live: set[Future[Any]] = set()
        self._closed = False
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        # how many steps are waited for at a time: more than there are threads, so that none is idle
        self._max_workers = max(32, 2 * sum(worker["nthreads"] for worker in workers))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Execute ``fn(*args, **kwargs)`` on a worker.

        A workflow becomes a run of its own there. Unless it has an id, the run gets the task's: when its
        worker dies, the next one continues this run, and a run that had ended gives its result.

        Raises what pickling raises; ``TypeError`` for what a worker could not do.
        """
        if self._closed:
            raise RuntimeError("this executor was shut down")
        path, sent = _named(fn), fn
        key = f"{path.replace('-', '_')}-{uuid.uuid4().hex}"
        if isinstance(fn, Sent):
            if not fn.repeatable:
                raise TypeError(
                    f"step {path} is in_doubt='raise', and Dask executes again what was on a worker that "
                    "dies: that takes a storage that workers can reach, such as postgresql://…"
                )
        elif _is_workflow(fn):
            sent = _Whole(self._runtime or _Same(_shared_url(path)), _with_id(fn, args, kwargs, key))
        data = PickleCodec().dumps((sent, args, kwargs))
        remote: Any = self.client.submit(_execute, key, data, key=key, pure=False, **self._options)
        future = _TaskFuture(self.client, key, remote)
        self._live.add(future)
        future.add_done_callback(self._live.discard)
        remote.add_done_callback(future.follow)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; with *wait*, wait for what was submitted; with *cancel_futures*, withdraw what
        no worker has begun. The cluster stays."""
        self._closed = True
        live = list(self._live)
        if cancel_futures:
            for future in live:
                future.cancel()
        if wait:
            _all_ended(live)


_all_ended = wait  # a parameter of ``shutdown`` has the name


class _TaskFuture(Future[Any]):
    """The outcome of a task."""

    def __init__(self, client: Any, key: str, remote: Any) -> None:
        super().__init__()
        self._client = client
        self._key = key
        self._remote = remote

    def cancel(self) -> bool:
        """Withdraw the task unless a worker has begun it; whether that worked."""
        if self.done():
            return self.cancelled()
        try:
            begun = any(self._client.run(_withdraw, self._key, on_error="ignore").values())
        except (OSError, TimeoutError, RuntimeError, ValueError):  # the scheduler is not there, or is leaving
            return False
        if begun or not super().cancel():
            return False
        self._remote.cancel()
        return True

    def follow(self, remote: Any) -> None:
        """The task has ended: so has this."""
        try:
            try:
                value = remote.result()
            except CancelledError:  # by somebody else: a scheduler that restarts, a person
                self.set_exception(RuntimeError(f"Dask dropped the task {self._key}"))
            except Exception as error:  # whatever the body raised
                self.set_exception(error)
            else:
                self.set_result(value)
        except InvalidStateError:  # it was withdrawn meanwhile
            pass


# What is sent -----------------------------------------------------------------------------------------------


@frozen(slots=True)
class _Same:
    """Opens a runtime over the same storage."""

    url: str

    def __call__(self) -> Runtime:
        return Runtime(self.url)


@frozen(slots=True)
class _Whole:
    """A whole run: a workflow, or one with options, and what makes the runtime to execute it in."""

    runtime: Callable[[], Runtime]
    workflow: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.runtime():
            found = self.workflow(*args, **kwargs)
            return asyncio.run(_awaited(found)) if asyncio.iscoroutine(found) else found


async def _awaited(found: Any) -> Any:
    return await found


def _is_workflow(fn: Any) -> bool:
    return hasattr(fn, "enqueueing") or (isinstance(fn, Decorated) and isinstance(fn.definition, WorkflowDef))


def _named(fn: Any) -> str:
    """What a dashboard shows."""
    if isinstance(fn, Sent):
        return fn.path
    if isinstance(fn, Decorated):
        return fn.definition.path
    source = getattr(fn, "_source", None)
    if isinstance(source, Decorated):  # a workflow with options
        return source.definition.path
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def _with_id(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run_id: str) -> Any:
    """The workflow with *run_id*, unless it has an id of its own."""
    called, options, _ = fn.enqueueing(args, kwargs)
    return fn if called.defn.id is not None or "run_id" in options else fn.options(id=run_id)


def _shared_url(path: str) -> str:
    url = current_runtime().storage.url
    if url is None:
        raise TypeError(
            f"a whole run of {path} on a Dask worker needs a storage that workers can reach: "
            "Runtime('postgresql://…'), or 'sqlite:///…' on one machine"
        )
    return url


# On the worker ----------------------------------------------------------------------------------------------

_table: OrderedDict[str, bool] = OrderedDict()
"""Tasks that began here (true) or were withdrawn (false), the latest ones."""
_lock = threading.Lock()


def _enter(key: str, begins: bool) -> bool:
    """Enter a task unless it is entered; whether it has begun."""
    with _lock:
        found = _table.setdefault(key, begins)
        while len(_table) > _REMEMBERED:
            _table.popitem(last=False)
        return found


def _withdraw(key: str) -> bool:
    """Let the task *key* not begin here; whether it has."""
    return _enter(key, False)


def _execute(key: str, data: bytes) -> Any:
    if not _enter(key, True):
        return None  # nobody waits for it any more
    fn, args, kwargs = PickleCodec().loads(data)
    return fn(*args, **kwargs)
