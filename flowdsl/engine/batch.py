"""Callers that share a transaction: what each of them wants to write, and how each gets its own outcome.

A batch is committed as one transaction. If that fails for any reason but an unavailable storage, nobody knows
whose operations are at fault. Each caller's operations are then committed by themselves, so one caller's
writes cannot fail another's.
"""

import asyncio
import copy
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence

from flowdsl.errors import StorageUnavailable
from flowdsl.storage.base import Operation, Outcome

__all__ = ["Request", "Written", "commit_together", "commit_together_async", "deliver", "fail", "resolve"]


class Written(asyncio.CancelledError):
    """The task was cancelled during its commit. *outcomes* are what that commit gave."""

    def __init__(self, outcomes: object) -> None:
        super().__init__()
        self.outcomes = outcomes


class Request:
    """What one caller wants to write. A task of *loop* waits for a future; a thread waits at a gate."""

    __slots__ = ("_future", "_gate", "done", "error", "loop", "operations", "outcomes")

    def __init__(
        self, operations: Sequence[Operation], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.operations = operations
        self.outcomes: list[Outcome] = []
        self.error: BaseException | None = None
        self.done = False
        self.loop = loop
        self._gate: threading.Lock | None = None
        self._future: asyncio.Future[None] | None = None
        if loop is not None:
            self._future = loop.create_future()
        else:
            self._gate = threading.Lock()
            self._gate.acquire()

    def answered(self) -> list[Outcome]:
        """Wait in this thread until it is done; its outcomes. Raises its error."""
        assert self._gate is not None
        self._gate.acquire()
        if self.error is not None:
            raise self.error
        return self.outcomes

    async def answered_async(self) -> list[Outcome]:
        """The same in a task. One that is cancelled meanwhile waits all the same, and then raises
        :class:`Written`."""
        assert self.loop is not None
        cancelled: asyncio.CancelledError | None = None
        while not self.done:
            try:
                assert self._future is not None
                await self._future
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                self._future = self.loop.create_future()
        if cancelled is not None:
            raise cancelled if self.error is not None else Written(self.outcomes)
        if self.error is not None:
            raise self.error
        return self.outcomes

    def succeed(self, outcomes: list[Outcome]) -> None:
        """It is done, and gave *outcomes*."""
        self.outcomes = outcomes
        self.done = True

    def fail(self, error: BaseException) -> None:
        """It is done, and failed with *error*."""
        self.error = error
        self.done = True

    def open_gate(self) -> None:
        """Let the thread that waits go on, if one does."""
        if self._gate is not None:
            self._gate.release()

    def resolve(self) -> None:
        """Let the task that waits go on. Called on its loop."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def commit_together(
    batch: list[Request],
    catch: type[BaseException],
    commit: Callable[[Sequence[Operation]], list[Outcome]],
) -> StorageUnavailable | None:
    """*commit* for *batch*. Errors of type *catch* become the error of a request. Returns the error if the
    storage is unavailable; then the rest is not done."""
    work = _together(batch, catch)
    try:
        operations = next(work)
        while True:
            try:
                outcomes = commit(operations)
            except BaseException as error:  # the generator decides about any error
                operations = work.throw(error)
            else:
                operations = work.send(outcomes)
    except StopIteration as end:
        outage: StorageUnavailable | None = end.value
        return outage


async def commit_together_async(
    batch: list[Request], commit: Callable[[Sequence[Operation]], Awaitable[list[Outcome]]]
) -> StorageUnavailable | None:
    """As :func:`commit_together`, on the event loop."""
    work = _together(batch, Exception)
    try:
        operations = next(work)
        while True:
            try:
                outcomes = await commit(operations)
            except asyncio.CancelledError:
                continue  # the loop is ending and callers wait; sending it again does no harm
            except Exception as error:  # the generator decides about any error
                operations = work.throw(error)
            else:
                operations = work.send(outcomes)
    except StopIteration as end:
        outage: StorageUnavailable | None = end.value
        return outage


def _together(
    batch: list[Request], catch: type[BaseException]
) -> Generator[Sequence[Operation], list[Outcome], StorageUnavailable | None]:
    """Yields what is to be committed for *batch*, and is sent the outcomes. Ends with the error, if the
    storage is unavailable."""
    if len(batch) > 1:
        try:
            outcomes = yield [op for request in batch for op in request.operations]
        except StorageUnavailable as error:
            return error
        except catch:
            pass  # one caller's operations are at fault: find out below whose
        else:
            start = 0
            for request in batch:
                end = start + len(request.operations)
                request.succeed(outcomes[start:end])
                start = end
            return None
    for request in batch:
        try:
            outcomes = yield request.operations
        except StorageUnavailable as error:
            return error
        except catch as error:
            request.fail(error)
        else:
            request.succeed(outcomes)
    return None


def fail(batch: list[Request], error: StorageUnavailable) -> None:
    """Whatever is not done in *batch* fails: the storage has been unavailable for too long."""
    for request in batch:
        if not request.done:
            request.fail(copy.copy(error))  # each caller adds its own notes and traceback


def deliver(batch: list[Request]) -> None:
    """Hand over what is done, once to each caller."""
    loops: dict[asyncio.AbstractEventLoop, list[Request]] = {}
    for request in batch:
        if not request.done:
            continue
        if request.loop is None:
            request.open_gate()
        else:
            loops.setdefault(request.loop, []).append(request)
    for loop, requests in loops.items():
        try:
            loop.call_soon_threadsafe(resolve, requests)
        except RuntimeError:  # that loop is closed and its callers are gone; what they wrote is kept
            pass


def resolve(requests: list[Request]) -> None:
    """Let the tasks go on that wait for *requests*. Called on their loop."""
    for request in requests:
        request.resolve()
