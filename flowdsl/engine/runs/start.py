"""Begin a run without waiting for its end: in a thread of its own, or as a task."""

from collections.abc import Callable
from concurrent.futures import Future

from flowdsl.engine.definitions import WorkflowDef
from flowdsl.engine.effects import Flow, run_async, run_sync
from flowdsl.engine.engine import Engine
from flowdsl.engine.runs.acquire import Acquired, open_now
from flowdsl.engine.runs.ending import release
from flowdsl.engine.runs.execute import acquire_and_execute, execute, stop_as_error
from flowdsl.engine.runs.outcome import OnLoop, on_a_loop
from flowdsl.engine.runs.request import Request
from flowdsl.engine.spawn import start_sync, start_task
from flowdsl.engine.user import Value

__all__ = ["launch"]


def launch(engine: Engine, asked: Request, acquired: Acquired | None = None) -> str:
    """Begin *asked*, and return the id of its run once that is recorded. Its outcome goes to
    ``engine.futures``."""
    counted = False
    if acquired is None:
        acquired = open_now(engine, asked.wanted, fresh=asked.fresh, ancestors=asked.ancestors)
    if acquired is None:  # somebody executes it, and we join
        run_id, flow = asked.wanted.id, stop_as_error(acquire_and_execute(engine, asked))
    elif not acquired.owned:
        return acquired.run.id
    elif engine.closing:  # closing began while it was being opened, so the next runtime begins it
        release(engine, acquired.run)
        return acquired.run.id
    else:
        counted = engine.virtual
        if counted:
            engine.clock.enter()
        run_id, flow = acquired.run.id, stop_as_error(execute(engine, asked, acquired, counted=counted))

    def ended() -> None:
        if acquired is not None:  # its task may have been cancelled before it began
            engine.owned.release(run_id, acquired.run.epoch)
        if counted:
            engine.clock.leave()

    try:
        future = _begin(engine, asked.defn, flow, run_id, ended)
    except RuntimeError:  # Python starts no more threads
        if acquired is not None:
            release(engine, acquired.run)
        raise
    engine.futures[run_id] = future
    future.add_done_callback(lambda _: _forget(engine, run_id, future))
    return run_id


def _begin(
    engine: Engine, defn: WorkflowDef, flow: Flow, run_id: str, ended: Callable[[], None]
) -> Future[Value]:
    if not defn.is_async:
        return start_sync(engine, lambda: run_sync(flow), name=f"flowdsl-{run_id}", ended=ended).future
    future: Future[Value] = OnLoop() if on_a_loop() else Future()
    return start_task(engine, lambda: run_async(flow), ended=ended, future=future).future


def _forget(engine: Engine, run_id: str, future: Future[Value]) -> None:
    """After the run has ended, the storage answers for it. An interrupt is known to this process only, so its
    future stays a while."""
    if engine.futures.get(run_id) is future and not future.cancelled() and future.exception() is None:
        del engine.futures[run_id]
