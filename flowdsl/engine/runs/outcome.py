"""The outcome of a run: how it is stored and waited for, whether the run was started here or executes
elsewhere."""

import asyncio
import threading
import time
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext

from flowdsl.codecs.exceptions.handling import add_note
from flowdsl.core.naming import in_notebook
from flowdsl.core.records import Run
from flowdsl.core.status import RunStatus, is_final
from flowdsl.engine.effects import Result
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.owner import is_interrupted
from flowdsl.engine.spawn import value_of
from flowdsl.engine.user import Value
from flowdsl.engine.waiting import check_waiting
from flowdsl.errors import FlowError, RunCancelled, RunNotFound, StorageError
from flowdsl.storage.topics import run_topic
from flowdsl.threads import wait_in_thread

__all__ = [
    "OnLoop",
    "await_outcome",
    "on_a_loop",
    "outcome_elsewhere",
    "outcome_of",
    "record_of",
    "wait_for_outcome",
    "watching",
]

_LOOK = 0.5  # seconds between two looks at a run that another process executes


class OnLoop(Future[Value]):
    """The outcome of a run that executes on a *loop* of the user's in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()


def outcome_of(engine: Engine, run: Run) -> Result:
    """The stored outcome of a run that has ended."""
    try:
        if run.status is RunStatus.COMPLETED:
            return None, engine.payloads.unpack(run.result or b"", run.id, "", "run")
        if run.status is RunStatus.CANCELLED:
            return RunCancelled(f"run {run.id} was cancelled", run=run.id), None
        if run.error is None:  # nothing was raised
            why = run.error_preview.partition(": ")[2]
            return FlowError(f"run {run.id} has failed: {why}", run=run.id), None
        error = engine.payloads.unpack_error(run.error, run.id, "", "run")
    except FlowError as fault:
        fault.run = run.id
        return fault, None
    if not run.retryable:
        add_note(
            error,
            f"run {run.id} has failed, and what it had done was taken back; calling it again does not "
            f"execute it. To do so all the same: Runtime.retry({run.id!r}), or "
            f"Runtime.fork({run.id!r}, before=<step>)",
        )
    return error, None


def record_of(engine: Engine, run_id: str) -> Run:
    """The stored row of a run. Raises :class:`~flowdsl.errors.RunNotFound`."""
    found = engine.storage.get_run(run_id)
    if found is None:
        raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
    return found


def watching(engine: Engine) -> AbstractContextManager[object]:
    """Somebody waits for a run, so a virtual clock may skip ahead."""
    if not engine.virtual:
        return nullcontext()
    watched: AbstractContextManager[object] = engine.clock.watching(inside=current.get() is not None)
    return watched


def wait_for_outcome(engine: Engine, run_id: str, timeout: float | None) -> Value:
    """The run's result. Waits at most *timeout* real seconds for it. Raises the run's error, or
    ``TimeoutError``."""
    started = _started_here(run_id)
    if started is not None:  # a virtual clock knows of it
        return started.result(timeout)
    with watching(engine):
        future = _future(engine, run_id)
        if future is not None:
            return _await_future(future, run_id, timeout)
        error, value = _poll(engine, run_id, timeout)
    if error is not None:
        raise error
    return value


async def await_outcome(engine: Engine, run_id: str) -> Value:
    """The run's result, in async code."""
    started = _started_here(run_id)
    if started is not None:
        return await started
    with watching(engine):
        return await _awaited(engine, run_id)


async def _awaited(engine: Engine, run_id: str) -> Value:
    future = _future(engine, run_id)
    if future is None:
        given_up = threading.Event()  # a thread that went on would keep the loop from closing
        try:
            error, value = await wait_in_thread(_poll, engine, run_id, None, given_up)
        finally:
            given_up.set()
    else:
        error, value = await asyncio.shield(asyncio.wrap_future(_outcome(future)))
    if error is not None:  # raised here, because asyncio does not carry a StopIteration
        raise error
    return value


def _outcome(future: "Future[Value]") -> "Future[Result]":
    """The outcome of *future* as a result, failures included."""
    found: Future[Result] = Future()

    def tell(done: "Future[Value]") -> None:
        if done.cancelled():
            found.cancel()
            found.set_running_or_notify_cancel()
        else:
            error = done.exception()
            found.set_result((None, done.result()) if error is None else (error, None))

    future.add_done_callback(tell)
    return found


def on_a_loop() -> bool:
    """Whether this thread executes an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _started_here(run_id: str) -> Value:
    """The future of a child that the executing run has started. Its failure is handed to whoever asks."""
    frame = current.get()
    return None if frame is None else frame.run.branches.known(run_id)


def _future(engine: Engine, run_id: str) -> "Future[Value] | None":
    """The future with the outcome of a run that was started here. ``None`` if the run failed and has gone on
    since: then the storage knows the outcome."""
    future = engine.futures.get(run_id)
    if future is None or not future.done() or future.cancelled() or future.exception() is None:
        return future
    try:
        record = engine.storage.get_run(run_id)
    except StorageError:
        return future
    return future if record is None or is_interrupted(engine.storage, record) else None


def _await_future(future: "Future[Value]", run_id: str, timeout: float | None) -> Value:
    # A cell of a notebook executes on an event loop, but it may wait for what a thread executes.
    if not future.done() and on_a_loop() and (isinstance(future, OnLoop) or not in_notebook()):
        raise TypeError(
            f"result() of the unfinished run {run_id} would block this event loop; `await` the run instead"
        )
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _LOOK if end is None else end - time.monotonic()
        try:
            return value_of(future, max(min(left, _LOOK), 0.0))
        except TimeoutError:
            if future.done():
                raise
        if left <= _LOOK and end is not None:
            raise TimeoutError(f"run {run_id} has not ended within {timeout} s; it goes on")
        check_waiting()


def outcome_elsewhere(engine: Engine, run_id: str, given_up: threading.Event) -> "Future[Value]":
    """The outcome of a run that executes elsewhere, as a future. It is polled until *given_up* is set."""
    future: Future[Value] = Future()

    def wait() -> None:
        try:
            error, value = _poll(engine, run_id, None, given_up)
        except Exception as fault:  # for whoever asks the future
            error, value = fault, None
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    threading.Thread(target=wait, name=f"flowdsl-{run_id}-watch", daemon=True).start()
    return future


def _poll(
    engine: Engine, run_id: str, timeout: float | None, given_up: threading.Event | None = None
) -> Result:
    """Wait until a run that executes elsewhere has ended, or nobody asks any more. Returns how it ended."""
    end = None if timeout is None else time.monotonic() + timeout
    seen = idle = 0
    while True:
        if given_up is not None and given_up.is_set():
            return None, None
        record = engine.storage.get_run(run_id)
        if record is None:
            raise RunNotFound(f"no run {run_id!r} in this storage", run=run_id)
        if is_final(record.status):
            return outcome_of(engine, record)
        idle = idle + 1 if is_interrupted(engine.storage, record) else 0
        if idle > 2 and timeout is None:
            raise FlowError(
                f"run {run_id} is interrupted: nobody executes it, so it has no result to wait for. Call "
                f"its workflow again, or Runtime.resume({run_id!r})",
                run=run_id,
            )
        left = _LOOK if end is None else end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"run {run_id} has not ended within {timeout} s; it goes on")
        engine.require_open(run_id)
        seen = engine.storage.wait_for_change(seen, min(left, _LOOK), [run_topic(run_id)])
        if given_up is None:
            check_waiting()
