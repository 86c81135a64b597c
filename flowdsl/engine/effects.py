"""Effects, and the two thin drivers that perform them.

What happens in a step or a run is written once, as a generator that yields effects: *commit this*, *execute
that body*, *wait until then*. An effect knows how to be performed in a thread (``sync``) and in a task
(``aio``). A driver only passes results back. Generators return ``(error, value)`` instead of raising, so any
exception of user code arrives unchanged, even ``StopIteration``.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, TypeAlias, TypeVar

from flowdsl.engine.batch import Written
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.stop import StoppedTask
from flowdsl.engine.user import Value, Work
from flowdsl.errors import Stopped
from flowdsl.storage.base import Operation, Outcome, Storage
from flowdsl.threads import in_thread

__all__ = [
    "Commit",
    "Effect",
    "Effects",
    "Flow",
    "Forked",
    "Result",
    "Unbroken",
    "drive",
    "named",
    "run_async",
    "run_sync",
]

Result = tuple[BaseException | None, Value]
"""What a generator of effects returns: the error to raise (or ``None``), and the value."""


class Effect:
    """Something that must be done outside the generator."""

    __slots__ = ()

    def sync(self) -> Any:  # each effect has an answer of its own
        """Perform it in this thread."""
        raise NotImplementedError

    def aio(self) -> Coroutine[Any, Any, Any]:  # the same
        """Perform it in this task."""
        raise NotImplementedError


T = TypeVar("T")

Effects: TypeAlias = Generator[Effect, Any, T]  # answers differ with the effect
"""A piece of engine logic. It ends with a ``T``."""

Flow: TypeAlias = Effects[Result]
"""A piece of engine logic that ends with the outcome of a body or of a durable call."""


def drive(effects: Effects[T]) -> T:
    """Drive *effects* in this thread, and return what they end with."""
    try:
        effect = effects.send(None)
        while True:
            try:
                answer = effect.sync()
            except BaseException as error:  # for the generator that asked
                effect = effects.throw(error)
            else:
                effect = effects.send(answer)
    except StopIteration as stop:
        ended: T = stop.value
    return ended


class Forked(BaseException):
    """A forked child of the process that entered the body has left it. The child holds no run. Its result is
    returned or raised, and nothing is recorded."""

    def __init__(self, error: BaseException | None, value: Value) -> None:
        super().__init__(error, value)
        self.error = error
        self.value = value


def run_sync(flow: Flow) -> Value:
    """Drive *flow* in this thread; return its value or raise its error."""
    send = flow.send
    try:
        effect = send(None)
        while True:
            try:
                answer = effect.sync()
            except BaseException as error:  # for the generator that asked
                effect = flow.throw(error)
            else:
                effect = send(answer)
    except StopIteration as stop:
        failure, value = stop.value
    except Forked as forked:
        failure, value = forked.error, forked.value
    if failure is not None:
        try:
            raise failure
        finally:
            del failure
    return value


async def run_async(flow: Flow) -> Value:
    """Drive *flow* in this task; return its value or raise its error.

    If the task is cancelled during a commit, *flow* first learns the outcomes. It learns of the cancelling
    at its next effect that is no commit. A sync body may have ended in between, and that is recorded.
    """
    send = flow.send
    cancelled: BaseException | None = None
    try:
        effect = send(None)
        while True:
            try:
                if cancelled is not None and not isinstance(effect, Commit):
                    raise cancelled
                answer = await effect.aio()
            except Written as late:
                cancelled = asyncio.CancelledError()
                effect = send(late.outcomes)
            except BaseException as error:  # for the generator that asked
                cancelled = None
                effect = flow.throw(error)
            else:
                effect = send(answer)
    except StopIteration as stop:
        failure, value = stop.value
    except Forked as forked:
        failure, value = forked.error, forked.value
    except asyncio.CancelledError as error:
        failure, value = error, None
    failure = cancelled or failure
    if failure is not None:
        try:
            raise _for_a_task(failure)
        finally:
            del failure, cancelled
    return value


def _for_a_task(failure: BaseException) -> BaseException:
    """*failure* as it reaches an async body. If it says that the run must stop, it becomes a
    :class:`StoppedTask`, which is both a ``Stopped`` and a ``CancelledError``. So does a cancelling that
    tells the task of such a stop."""
    frame = current.get()
    if frame is None or isinstance(failure, StoppedTask):
        return failure
    if isinstance(failure, Stopped):
        return StoppedTask(failure.error).with_traceback(failure.__traceback__)
    if isinstance(failure, asyncio.CancelledError) and frame.run.stop.reason is not None:
        return frame.run.stop.stopped()
    return failure


def named(coroutine: Work[Value], path: str) -> Work[Value]:
    """The same coroutine, named after a step or workflow. Python's warning of a forgotten ``await`` then
    shows that name."""
    named_one: Any = coroutine  # the type of coroutines has no such name
    named_one.__qualname__ = path.rpartition(".")[2]
    return coroutine


class Unbroken(Effect):
    """Drive *flow* to its end, even if the task is cancelled meanwhile. The flow learns of that afterwards. A
    second cancelling breaks it off."""

    __slots__ = ("flow",)

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def sync(self) -> Result:
        return drive(self.flow)

    async def aio(self) -> Result:
        cancelled: asyncio.CancelledError | None = None
        task = asyncio.ensure_future(run_async(self.flow))
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                if cancelled is not None:
                    task.cancel()
                cancelled = error
        if cancelled is not None:
            if not task.cancelled():
                task.exception()  # marks its error as seen
            raise cancelled
        return None, task.result()


class Commit(Effect):
    """Make operations durable. Answers with their outcomes."""

    __slots__ = ("engine", "operations")

    def __init__(self, engine: Engine, operations: Sequence[Operation]) -> None:
        self.engine = engine
        self.operations = operations

    def sync(self) -> list[Outcome]:
        return self.engine.committer.commit(self.operations)

    def aio(self) -> Work[list[Outcome]]:
        return self.engine.committer.commit_async(self.operations)


class Read(Effect):
    """Read *storage* by calling *fn*. An async run does it in a thread, so a read does not block its event
    loop. A storage that answers at once (``inline``) is read directly."""

    __slots__ = ("fn", "storage")

    def __init__(self, storage: Storage, fn: Callable[[], Value]) -> None:
        self.storage = storage
        self.fn = fn

    def sync(self) -> Value:
        return self.fn()

    async def aio(self) -> Value:
        return self.fn() if self.storage.inline else await in_thread(self.fn)
