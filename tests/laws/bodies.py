"""What executes random programs. Bodies are written once, as generators, for sync and async.

A body says ``yield from self.wait(call)`` for each durable call. An async body is a coroutine that delegates to its
generator. So ``sys.exception()`` is what it is in code of a user, and the engine knows by it who cleans up. (The form
``x = yield call`` of :class:`support.Flavour` reads more easily, but awaits outside of the generator.)
"""

import asyncio
import contextvars
import functools
import inspect
import threading
import types
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from attrs import frozen
from grammar import Program, Slot

import flowdsl.aio

__all__ = ["Bodies", "Body", "Threads", "step", "to_its_end", "workflow"]

Body = Generator[Any, Any, Any]


class Bodies:
    """Base of whatever holds the steps and workflows of programs, sync or async, whose names begin with *name*."""

    def __init__(self, name: str, is_async: bool) -> None:
        self.name = f"{name}.{'async' if is_async else 'sync'}"
        self.is_async = is_async
        self.verbs: Any = flowdsl.aio if is_async else flowdsl
        for method, value in inspect.getmembers_static(type(self)):
            if isinstance(value, _Durable):
                setattr(self, method, value.of(self))
        self.branch = self.made(self.play)

    def made(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """A function or a coroutine function whose body is this: a generator, or a function that waits for nothing."""

        @functools.wraps(body)
        def now(*args: Any, **kwargs: Any) -> Any:
            value = body(*args, **kwargs)
            if not isinstance(value, types.GeneratorType):
                return value
            try:
                next(value)
            except StopIteration as end:
                return end.value
            raise AssertionError("a sync body waits for nothing")

        @functools.wraps(body)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            value = body(*args, **kwargs)
            return await _Awaited(value) if isinstance(value, types.GeneratorType) else value

        made: Any = awaited if self.is_async else now
        made.__signature__ = inspect.signature(body)
        del made.__wrapped__  # a method's object would be an argument, and recorded
        return made

    def step(self, name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """``@step``, for an undo that is made when these are."""
        return lambda body: flowdsl.step(name=f"{self.name}.{name}", **options)(self.made(body))

    def wait(self, call: Any) -> Body:
        """What *call* gives; in async bodies it is awaited."""
        return (yield from call.__await__()) if self.is_async else call

    def play(self, slot: Slot, program: Program) -> Body:
        """Execute *program*, which stands at *slot*; what its nodes gave. The method ``on_…`` of a kind is given the
        slot of the node and what is in it."""
        found = []
        for n, (kind, *more) in enumerate(program):
            found.append((yield from getattr(self, f"on_{kind}")((*slot, n), *more)))
        return found

    def beside(self, branches: Sequence[Callable[[], Any]], first: Callable[[], Any] | None = None) -> Body:
        """The results of *branches*, each in a task or a thread of its own, and of what the body does meanwhile."""
        if self.is_async:
            return (yield from _in_tasks(branches, first).__await__())
        threads = Threads(branches)
        try:
            mine = first and first()
        finally:
            threads.join()
        return threads.results(), mine


async def _in_tasks(branches: Sequence[Callable[[], Any]], first: Callable[[], Any] | None) -> Any:
    tasks = [asyncio.create_task(branch()) for branch in branches]
    try:
        mine = first and await first()
        return await asyncio.gather(*tasks), mine
    except BaseException:
        for task in tasks:  # nobody will ask them, and that is not worth a line in the log
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        raise


@frozen
class _Awaited:
    body: Body

    def __await__(self) -> Body:
        return self.body


@frozen
class _Durable:
    """A method that is a step or a workflow of each object."""

    define: Callable[..., Any]
    body: Callable[..., Any]
    options: dict[str, Any]

    def of(self, bodies: Bodies) -> Any:
        made = bodies.made(types.MethodType(self.body, bodies))
        return self.define(name=f"{bodies.name}.{self.body.__name__}", **self.options)(made)


def step(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``@step``, for a method of :class:`Bodies`."""
    return lambda body: _Durable(flowdsl.step, body, options)


def workflow(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``@workflow``, for a method of :class:`Bodies`."""
    return lambda body: _Durable(flowdsl.workflow, body, options)


def to_its_end(call: Callable[..., Any], is_async: bool) -> Any:
    """What *call* gives to a caller that is in no run; an async one has an event loop of its own."""

    async def main() -> Any:
        return await call()

    return asyncio.run(main()) if is_async else call()


class Threads:
    """Each of *calls* in a thread that has a copy of this context, as ``asyncio.to_thread`` has it. They begin at once.
    You can iterate over the threads."""

    def __init__(self, calls: Sequence[Callable[[], Any]]) -> None:
        self._found: list[Any] = [None] * len(calls)
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._work, n, call), daemon=True)
            for n, call in enumerate(calls)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, n: int, call: Callable[[], Any]) -> None:
        try:
            self._found[n] = call()
        except BaseException as error:
            self._errors.append(error)

    def join(self) -> None:
        """Wait for all."""
        for thread in self._threads:
            thread.join()

    def results(self) -> list[Any]:
        """Wait for all, and give their results, or raise the first error."""
        self.join()
        if self._errors:
            raise self._errors[0]
        return self._found

    def __iter__(self) -> Iterator[threading.Thread]:
        return iter(self._threads)
