"""A run as a competitor of a race."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame
from flowdsl.engine.future import StepFuture
from flowdsl.engine.runs.cancel import cancel
from flowdsl.engine.runs.outcome import outcome_elsewhere, record_of
from flowdsl.engine.user import Value
from flowdsl.errors import RunFinished, RunNotFound

__all__ = ["RunRacer"]


class RunRacer:
    """A run that races: a child of the executing run, or any other. The loser is cancelled."""

    def __init__(self, engine: Engine, frame: Frame, run_id: str) -> None:
        self._engine = engine
        self._run_id = self.name = run_id
        self._child: StepFuture[Value] | None = frame.run.branches.known(run_id)
        self._future: Future[Value] | None = None
        self._given_up = threading.Event()

    def begin(self, tell: Callable[[], None]) -> None:
        """Call *tell* when it has ended."""
        if self._child is not None:
            self._child.at_end(tell)
            return
        self._future = self._engine.futures.get(self._run_id)
        if self._future is None:
            self._future = outcome_elsewhere(self._engine, self._run_id, self._given_up)
        self._future.add_done_callback(lambda _: tell())

    def ended(self) -> tuple[BaseException | None, Value] | None:
        """Its error and its result; ``None`` while it goes on."""
        future = self._child or self._future
        if future is None or not future.done():
            return None
        error = future.exception()
        return (error, None) if error is not None else (None, future.result())

    def withdraw(self) -> None:
        """Cancel it, unless it has ended."""
        self._given_up.set()
        if self._child is not None:
            self._child.is_lost()
        try:
            cancel(self._engine, record_of(self._engine, self._run_id))
        except (RunFinished, RunNotFound):
            pass
