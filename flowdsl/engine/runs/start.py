"""Begin a run without waiting for its end: in a thread of its own, or as a task."""

import asyncio
import contextvars
from concurrent.futures import Future

from flowdsl.engine.definitions import WorkflowDef
from flowdsl.engine.effects import Flow, run_async, run_sync
from flowdsl.engine.engine import Engine
from flowdsl.engine.runs.acquire import Acquired, open_now
from flowdsl.engine.runs.execute import edge, execute, whole
from flowdsl.engine.runs.outcome import OnLoop
from flowdsl.engine.runs.request import Request
from flowdsl.engine.user import Value

__all__ = ["launch"]


def launch(engine: Engine, asked: Request, acquired: Acquired | None = None) -> str:
    """Begin *asked* and return the id of its run once that is recorded. Its outcome comes to
    ``engine.futures``."""
    if acquired is None:
        acquired = open_now(engine, asked.wanted, fresh=asked.fresh, ancestors=asked.ancestors)
    if acquired is None:  # somebody executes it, and we join
        run_id, flow = asked.wanted.id, edge(whole(engine, asked))
    elif not acquired.owned:
        return acquired.run.id
    else:
        run_id, flow = acquired.run.id, edge(execute(engine, asked, acquired))
        if engine.virtual:
            engine.clock.enter()
            acquired.counted = True
    future = _begin(engine, asked.defn, flow, run_id, acquired is not None and acquired.counted)
    engine.futures[run_id] = future
    future.add_done_callback(lambda _: _forget(engine, run_id, future))
    return run_id


def _begin(engine: Engine, defn: WorkflowDef, flow: Flow, run_id: str, counted: bool) -> Future[Value]:
    context = contextvars.copy_context()

    def finish() -> None:
        engine.owned.release(run_id)
        if counted:
            engine.clock.leave()

    if not defn.is_async:

        def work() -> Value:
            try:
                return context.run(run_sync, flow)
            finally:
                finish()

        return engine.thread(work, f"flowdsl-{run_id}")

    async def awork() -> Value:
        try:
            return await run_async(flow)
        finally:
            finish()

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return engine.background_async(awork)
    task = loop.create_task(awork())
    future = OnLoop()
    task.add_done_callback(lambda done: _copy(done, future))
    engine.tasks.add(task)
    task.add_done_callback(engine.tasks.discard)
    return future


def _forget(engine: Engine, run_id: str, future: Future[Value]) -> None:
    """Once it has ended, the storage answers for it; what only this process knows (an interrupt) stays a
    while."""
    if engine.futures.get(run_id) is future and not future.cancelled() and future.exception() is None:
        del engine.futures[run_id]


def _copy(task: "asyncio.Task[Value]", future: Future[Value]) -> None:
    if task.cancelled():
        future.cancel()
        future.set_running_or_notify_cancel()
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())
