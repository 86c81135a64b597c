"""Steps and whole runs on a Dask cluster. Dask decides where the work executes. flowdsl keeps the records.

>>> from distributed import Client, LocalCluster                              # doctest: +SKIP
>>> from flowdsl import Runtime
>>> from flowdsl.contrib.dask import DaskExecutor
>>> with Client("tcp://scheduler:8786") as client:                            # doctest: +SKIP
...     with Runtime("postgresql://…", executor=DaskExecutor(client)):
...         report(2027)                             # its submitted steps execute on the cluster

The rules
    The body of a step executes on a worker. Its attempts, records and hooks stay here. A whole run
    (``executor.submit(workflow, …)``) executes on a worker, with the storage that its URL opens there. Dask
    executes a task again when its worker dies. That never repeats a recorded step. It may repeat a body that
    was executing, unless the step is ``in_doubt="raise"``. Cancelling withdraws tasks that no worker has
    begun. It waits for tasks that a worker has begun.

The theory
    Only the worker knows whether a task has begun. So each worker process has a small table. A task that
    begins enters itself, and a withdrawal enters the task too. The first entry wins.
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

_REMEMBERED = 10_000  # tasks in the table of a worker


class DaskExecutor(Executor):
    """An executor of a Dask cluster, for ``Runtime(executor=…)`` and ``@step(executor=…)``.

    Parameters: *client*: a ``distributed.Client``, which the caller closes. *runtime*: a function without
    arguments, called on the worker of a whole run. It makes the :class:`~flowdsl.Runtime` in which the run
    executes; by default that is one with the URL of the current runtime's storage. Other *options* are given
    to each task (``workers``, ``resources``, ``priority``, ``retries``, ``allow_other_workers``).

    Workers need flowdsl and the user's modules. The key of a task begins with the path of its step or
    workflow, so Dask's dashboard groups them.

    Raises ``TypeError`` if *client* is not a client, or is asynchronous.
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
        # how many steps wait for their result at a time: more than there are threads, so that no thread is
        # idle
        self._max_workers = max(32, 2 * sum(worker["nthreads"] for worker in workers))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Execute ``fn(*args, **kwargs)`` on a worker.

        A workflow becomes a run of its own there. If it has no id, the run gets the id of the task. So when
        its worker dies, the next one continues the same run, or returns the result if the run has ended.

        Raises the errors of pickling, and ``TypeError`` for a function that a worker cannot execute.
        """
        if self._closed:
            raise RuntimeError("this executor was shut down")
        path, sent = _named(fn), fn
        key = f"{path.replace('-', '_')}-{uuid.uuid4().hex}"
        if isinstance(fn, Sent):
            if not fn.repeatable:
                raise TypeError(
                    f"step {path} has in_doubt='raise', and Dask repeats the tasks of a worker that dies. So "
                    "it needs a storage that workers can reach, such as postgresql://…"
                )
        elif _is_workflow(fn):
            sent = _WholeRun(
                self._runtime or _SameStorage(_shared_url(path)), _with_id(fn, args, kwargs, key)
            )
        data = PickleCodec().dumps((sent, args, kwargs))
        remote: Any = self.client.submit(_execute, key, data, key=key, pure=False, **self._options)
        future = _TaskFuture(self.client, key, remote)
        self._live.add(future)
        future.add_done_callback(self._live.discard)
        remote.add_done_callback(future.follow)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks. With *wait*, wait for submitted tasks. With *cancel_futures*, withdraw those
        that no worker has begun. The cluster stays."""
        self._closed = True
        live = list(self._live)
        if cancel_futures:
            for future in live:
                future.cancel()
        if wait:
            _all_ended(live)


_all_ended = wait  # because ``shutdown`` has a parameter named ``wait``


class _TaskFuture(Future[Any]):
    """The outcome of a task."""

    def __init__(self, client: Any, key: str, remote: Any) -> None:
        super().__init__()
        self._client = client
        self._key = key
        self._remote = remote

    def cancel(self) -> bool:
        """Withdraw the task, unless a worker has begun it. Return whether that worked."""
        if self.done():
            return self.cancelled()
        try:
            begun = any(self._client.run(_withdraw, self._key, on_error="ignore").values())
        except (OSError, TimeoutError, RuntimeError, ValueError):  # the scheduler is gone, or is closing
            return False
        if begun or not super().cancel():
            return False
        self._remote.cancel()
        return True

    def follow(self, remote: Any) -> None:
        """Take the outcome of the task, which has ended."""
        try:
            try:
                value = remote.result()
            except CancelledError:  # cancelled elsewhere: by a restart of the scheduler, or by a person
                self.set_exception(RuntimeError(f"Dask dropped the task {self._key}"))
            except Exception as error:  # whatever the body raised
                self.set_exception(error)
            else:
                self.set_result(value)
        except InvalidStateError:  # it was withdrawn meanwhile
            pass


# What is sent -----------------------------------------------------------------------------------------------


@frozen(slots=True)
class _SameStorage:
    """Opens a runtime on the same storage, by its URL."""

    url: str

    def __call__(self) -> Runtime:
        return Runtime(self.url)


@frozen(slots=True)
class _WholeRun:
    """A whole run: a workflow, perhaps with options, and the function that makes its runtime."""

    runtime: Callable[[], Runtime]
    workflow: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.runtime():
            found = self.workflow(*args, **kwargs)
            return asyncio.run(_awaited(found)) if asyncio.iscoroutine(found) else found


async def _awaited(found: Any) -> Any:
    return await found


def _is_workflow(fn: Any) -> bool:
    return isinstance(fn, Decorated) and isinstance(fn.definition, WorkflowDef)


def _named(fn: Any) -> str:
    """The name that the dashboard shows."""
    if isinstance(fn, Sent):
        return fn.path
    if isinstance(fn, Decorated):
        return fn.definition.path
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
    """Enter a task as begun, unless it was entered before. Return whether it has begun."""
    with _lock:
        found = _table.setdefault(key, begins)
        while len(_table) > _REMEMBERED:
            _table.popitem(last=False)
        return found


def _withdraw(key: str) -> bool:
    """Withdraw the task *key* on this worker. Return whether it has begun."""
    return _enter(key, False)


def _execute(key: str, data: bytes) -> Any:
    if not _enter(key, True):
        return None  # nobody waits for it any more
    fn, args, kwargs = PickleCodec().loads(data)
    return fn(*args, **kwargs)
