"""``rt.aio``: the methods of a runtime, awaitable."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from flowdsl.core.status import RunStatus
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import current
from flowdsl.engine.operations.ask import ask_async
from flowdsl.engine.registry import step_named
from flowdsl.engine.runs.request import checked_id
from flowdsl.handle import Run
from flowdsl.threads import wait_in_thread

__all__ = ["AioRuntime"]

P = ParamSpec("P")
T = TypeVar("T")

_HERE = ("send", "resume", "retry", "recover")  # the runs that these begin belong to this event loop
_STEP_AT = {"do": 0, "try_": 0, "execute_step": 1}


class AioRuntime:
    """``await rt.aio.<name>(…)`` is ``rt.<name>(…)`` without blocking the event loop.

    >>> import asyncio
    >>> from flowdsl import Runtime
    >>> async def main():
    ...     async with Runtime("memory://") as rt:
    ...         return await rt.aio.runs()
    >>> asyncio.run(main())
    []
    """

    def __init__(self, runtime: Any, engine: Engine) -> None:
        self._runtime = runtime
        self._engine = engine

    if TYPE_CHECKING:

        @overload
        async def do(
            self, step: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
        ) -> T: ...
        @overload
        async def do(self, step: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
        @overload
        async def do(self, step: str, /, *args: Any, **kwargs: Any) -> Any: ...
        async def do(self, step: Any, /, *args: Any, **kwargs: Any) -> Any: ...
        async def try_(self, step: Any, /, *args: Any, **kwargs: Any) -> Any: ...
        async def execute_step(
            self, step_id: str, step: Any, /, *args: Any, mode: str = "do", **kwargs: Any
        ) -> Any: ...
        async def send(self, event: str, payload: Any = None) -> None: ...
        async def run(self, id: str) -> Run | None: ...
        async def runs(
            self,
            status: RunStatus | str | Sequence[RunStatus | str] | None = None,
            workflow: Any = None,
            tags: Any = None,
            created_after: datetime | float | None = None,
            created_before: datetime | float | None = None,
            limit: int | None = None,
            newest_first: bool = True,
            after: str | None = None,
        ) -> list[Run]: ...
        async def signal(
            self,
            id: str,
            name: str,
            payload: Any = None,
            *,
            sender: str | None = None,
            key: str | None = None,
        ) -> str: ...
        async def ask(
            self, id: str, name: str, payload: Any = None, *, timeout: Any = None, key: str | None = None
        ) -> Any: ...
        async def query(self, id: str, what: str) -> Any: ...
        async def cancel(self, id: str) -> None: ...
        async def resume(self, id: str) -> Run: ...
        async def retry(self, id: str) -> Run: ...
        async def fork(self, run_id: str, /, before: Any, id: str | None = None) -> Run: ...
        async def resolve(
            self,
            id: str,
            step: Any,
            *,
            result: Any = ...,
            error: BaseException | None = None,
            rerun: bool = False,
        ) -> None: ...
        async def recover(self) -> list[Run]: ...
        async def delete(self, id: str) -> None: ...
        async def prune(self, older_than: Any, status: Any = ...) -> int: ...
        async def export(self, id: str) -> dict[str, Any]: ...
        async def work(
            self, queues: Any = None, workflows: Any = None, concurrency: Any = None, drain: Any = "30 sec"
        ) -> None: ...
        async def enqueue(
            self, workflow: Any, /, *args: Any, connection: Any = None, **kwargs: Any
        ) -> Run: ...
        async def workers(self) -> list[Any]: ...
        async def close(self) -> None: ...

    else:

        def __getattr__(self, name: str) -> Callable[..., Any]:
            method = getattr(self._runtime, name)
            if name.startswith("_") or not callable(method):
                raise AttributeError(name)

            async def call(*args: Any, **kwargs: Any) -> Any:
                if name == "ask":
                    return await self._asked(*args, **kwargs)
                if name == "enqueue" and kwargs.get("connection") is not None:
                    return await self._enqueued(*args, **kwargs)
                if name == "work":
                    return await self._worked(*args, **kwargs)
                if name in _HERE or self._executes_here(name, args):
                    found = method(*args, **kwargs)
                    return await found if asyncio.iscoroutine(found) else found
                return await wait_in_thread(method, *args, **kwargs)

            call.__name__ = call.__qualname__ = name
            return call

    async def _asked(
        self, id: str, name: str, payload: Any = None, *, timeout: Any = None, key: str | None = None
    ) -> Any:
        """In an async body, asking is a durable call of it."""
        return await ask_async(self._engine, checked_id(id), name, payload, timeout=timeout, key=key)

    async def _enqueued(self, workflow: Any, /, *args: Any, connection: Any, **kwargs: Any) -> Run:
        """Enqueue on the event loop, because the caller's connection belongs to it."""
        found: Run = await self._runtime._enqueue_within(workflow, args, kwargs, connection)
        return found

    async def _worked(
        self, queues: Any = None, workflows: Any = None, concurrency: Any = None, drain: Any = "30 sec"
    ) -> None:
        """Work until this task is cancelled."""
        with self._runtime._working(queues, workflows, concurrency, drain) as worker:
            working = asyncio.ensure_future(wait_in_thread(worker.work))
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                worker.stop()
                await working
                raise

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in dir(self._runtime) if not name.startswith("_"))]

    def _executes_here(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether this call executes an async step, or a step of the run that is executing here."""
        place = _STEP_AT.get(name)
        if place is None or len(args) <= place:
            return False
        return current.get() is not None or step_named(args[place]).is_async
