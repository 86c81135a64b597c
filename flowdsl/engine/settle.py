"""The end of a run's branches. A run ends only when they have all ended."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import CancelledError

from flowdsl.codecs.previews import Previews
from flowdsl.engine.effects import Effect
from flowdsl.engine.execution import Execution
from flowdsl.engine.future import StepFuture
from flowdsl.engine.user import Value
from flowdsl.errors import RunCancelled, RunTimeout, Stopped

__all__ = ["Settle"]

logger = logging.getLogger("flowdsl")


class Settle(Effect):
    """Wait until all branches of a run have ended; answers the errors of scheduled ones.

    With *failed*, branches that have not begun are cancelled, and async ones if the run was told to stop;
    with *interrupted*, async ones are cancelled and nobody waits for threads: what they still write is
    refused or lands in the journal, and both are right.
    """

    __slots__ = ("_cancelled", "failed", "interrupted", "run")

    def __init__(self, run: Execution, *, failed: bool, interrupted: bool = False) -> None:
        self._cancelled: asyncio.CancelledError | None = None
        self.run = run
        self.failed = failed
        self.interrupted = interrupted

    def _take(self) -> list[StepFuture[Value]]:
        branches = self.run.branches.take()
        if self.failed or self.interrupted:
            self.run.stop.end_branches()
            told = self.interrupted or isinstance(self.run.stop.reason, RunCancelled | RunTimeout)
            for branch in branches:
                if branch.task is None or told:
                    branch.cancel()
        return [branch for branch in branches if not branch.cancelled()]

    def sync(self) -> list[BaseException]:
        errors: list[BaseException] = []
        while branches := self._take():
            if self.interrupted:
                continue
            for branch in branches:
                try:
                    error = branch.failure(self.run.engine)
                except CancelledError:
                    continue
                _collect(branch, error, errors)
        return errors

    async def aio(self) -> list[BaseException]:
        errors: list[BaseException] = []
        while branches := self._take():
            here = [(branch, task) for branch in branches if (task := branch.task_here()) is not None]
            await self._wait([(branch, task) for branch, task in here if not branch.scheduled], branches)
            for branch, task in here:
                with branch.awaited(self.run.engine):
                    await self._wait([(branch, task)], branches)
            if self.interrupted:
                continue
            for branch in branches:
                waiting = branch.as_asyncio()
                with branch.awaited(self.run.engine):
                    await self._wait([(branch, waiting)], branches)
                if not waiting.cancelled():
                    _collect(branch, waiting.exception(), errors)
        if self._cancelled is not None:
            raise self._cancelled
        return errors

    async def _wait(
        self,
        awaited: "Sequence[tuple[StepFuture[Value], asyncio.Future[Value]]]",
        branches: list[StepFuture[Value]],
    ) -> None:
        """Wait for the *awaited* ones, each with a future of this loop. If this task is cancelled meanwhile,
        it learns of that afterwards, and the *branches* are cancelled at once."""
        while True:
            pending = [future for _, future in awaited if not future.done()]
            if not pending and all(branch.done() for branch, future in awaited if branch.task is future):
                return
            try:  # a task that has just ended hands its outcome over in the next turn of the loop
                await (asyncio.wait(pending) if pending else asyncio.sleep(0))
            except asyncio.CancelledError as error:
                self._cancelled = error
                for branch in branches:
                    if branch.task is not None and not branch.task.cancelling():
                        branch.cancel()


def _collect(branch: StepFuture[Value], error: BaseException | None, errors: list[BaseException]) -> None:
    if error is None:
        return
    if branch.scheduled:
        errors.append(error)
    elif not branch.seen and not isinstance(error, Stopped):
        call = branch.call
        previews = Previews() if call is None else call.run.engine.payloads.previews
        logger.error(
            "step %s was submitted and failed, and nobody asked for its result",
            call.operation.path if call else "?",
            exc_info=previews.exc_info(error),
            extra={"run": call.run.id if call else None, "step": call.key if call else None},
        )
