"""``gather`` waits for several, in order. ``map`` makes many calls of one step, a limited number at a time.

If several fail, one error is raised. For ``gather`` it is the first in time, where that can be told. For
``map`` it is that of the first item. Calls that have begun end before that. Others do not begin.
"""

import asyncio
from collections.abc import Callable

from flowdsl.core.keys import branch_scope
from flowdsl.engine.execution import Frame, current, frame_of
from flowdsl.engine.future import StepFuture
from flowdsl.engine.scope import Scope, control
from flowdsl.engine.strays import branch_of
from flowdsl.engine.user import Args, SomeClock, Value, Work

__all__ = ["gather_async", "gather_sync", "map_async", "map_sync"]


def gather_sync(items: Args, return_exceptions: bool = False) -> list[Value]:
    """Results of futures and runs, in order. After the first failure, those that have not begun are
    cancelled, and the others are awaited. With *return_exceptions*, errors stand in the places of results."""
    for item in items:
        if not callable(getattr(item, "result", None)):
            raise TypeError(f"gather() takes futures of submit() and runs of start(); got {item!r}")
    if return_exceptions:
        return [_outcome_of(item) for item in items]
    failed: BaseException | None = None
    for item in items:
        if failed is not None and isinstance(item, StepFuture) and item.cancel():
            continue
        error = _error_of(item)
        if failed is None:
            failed = error
    if failed is not None:
        raise failed
    return [item.result() for item in items]


def _outcome_of(item: Value) -> Value:
    """The result of *item*, or its error. A stop of the run is raised."""
    try:
        return item.result()
    except Exception as error:  # an error of the user's, to be returned
        return error


def _error_of(item: Value) -> BaseException | None:
    if isinstance(item, StepFuture):
        return item.settled()
    try:
        item.result()
    except Exception as error:  # an error of the user's, to be returned
        return error
    return None


async def gather_async(frame: Frame | None, items: Args, return_exceptions: bool = False) -> list[Value]:
    """As :func:`gather_sync`. Coroutines become branches. Each has a scope of its own, so timing changes no
    identity."""
    for item in items:
        if not (hasattr(item, "__await__") or asyncio.isfuture(item)):
            for other in filter(asyncio.iscoroutine, items):
                other.close()  # nobody will await it
            raise TypeError(
                f"gather() takes coroutines, futures of submit() and runs of start(); got {item!r}"
            )
    tasks = []
    ordinal, cleans_up = 0, frame is not None and frame.run.stop.cleaning()
    if frame is not None:
        ordinal = next(frame.scope.counter("flowdsl.gather"))
    branches: list[asyncio.Task[Value]] = []
    others: list[asyncio.Task[Value]] = []
    for index, item in enumerate(items):
        if asyncio.iscoroutine(item) and frame is not None:
            scope = Scope(_scope_of_branch(frame.scope, ordinal, index), frame.scope, True)
            tasks.append(asyncio.ensure_future(_branch(frame, scope, item, cleans_up)))
            branches.append(tasks[-1])
            branch_of(frame.run, scope, tasks[-1])
        else:
            tasks.append(asyncio.ensure_future(_awaited(item)))
            # a wait for a scheduled branch is counted as a branch is
            (branches if isinstance(item, StepFuture) and item.scheduled else others).append(tasks[-1])
    if not tasks:
        return []
    if frame is not None and frame.run.engine.virtual:
        _count(frame.run.engine.clock, branches, others)
    try:
        until = asyncio.ALL_COMPLETED if return_exceptions else asyncio.FIRST_EXCEPTION
        done, pending = await asyncio.wait(tasks, return_when=until)
        if pending:
            for task in pending:
                task.cancel()
            for item in items:
                if isinstance(item, StepFuture):
                    item.cancel()
            await asyncio.wait(pending)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise
    errors = [
        None if task.cancelled() else task.exception() for task in tasks
    ]  # asking for each marks it as seen
    for task, error in zip(tasks, errors, strict=True):
        if return_exceptions and isinstance(error, Exception):
            continue
        if task in done and error is not None:
            task.result()
    if return_exceptions:
        if frame is not None:
            frame.run.failures.returned(tasks, control(True))
        return [task.result() if error is None else error for task, error in zip(tasks, errors, strict=True)]
    return [task.result() for task in tasks]


def _count(clock: SomeClock, branches: list[asyncio.Task[Value]], others: list[asyncio.Task[Value]]) -> None:
    """Let a virtual clock count each branch as runnable, and the caller not.

    The caller's own count passes to something else that it waits for, or to a branch. The last one to end
    gives it back to the caller. So there is no moment in which nobody counts.
    """
    left = {"branches": len(branches), "others": len(others)}

    def ended(kind: str) -> Callable[[object], None]:
        def note(_: object) -> None:
            left[kind] -= 1
            if (kind == "branches" or not left[kind]) and any(left.values()):
                clock.leave()

        return note

    for kind, tasks in (("branches", branches), ("others", others)):
        for number, task in enumerate(tasks):
            if kind == "branches" and (others or number):
                clock.enter()
            task.add_done_callback(ended(kind))


def _scope_of_branch(scope: Scope, ordinal: int, index: int) -> str:
    """Inside a step's body: ``<the body's scope>/<branch>``. The step's own record answers for it too."""
    branch = branch_scope(scope.id, "gather", ordinal, index)
    body: Scope | None = scope
    while body is not None and not body.of_step:
        body = body.parent
    return branch if body is None else f"{body.id}/{branch}"


async def _awaited(item: Value) -> Value:
    return await item


async def _branch(frame: Frame, scope: Scope, coroutine: Work[Value], cleans_up: bool) -> Value:
    scope.entered()
    current.set(frame_of(frame.run, scope, frame.step, True))
    return await (frame.run.stop.handled_in(coroutine) if cleans_up else coroutine)


# map --------------------------------------------------------------------------------------------------------


def map_sync(
    begins: list[Callable[[], StepFuture[Value]]], limit: int | None, return_exceptions: bool = False
) -> list[Value]:
    futures: list[StepFuture[Value]] = []
    for begin in begins:
        if (
            limit is not None
            and len(futures) >= limit
            and futures[len(futures) - limit].settled() is not None
            and not return_exceptions
        ):
            break
        futures.append(begin())
    if return_exceptions:
        return [_outcome_of(future) for future in futures]
    failed = None
    for future in futures:
        if failed is None:
            failed = future if future.settled() is not None else None
        elif not future.withdraw():
            future.settled()
    if failed is not None:
        failed.result()
    return [future.result() for future in futures]


def _has_failed(done: "asyncio.Future[Value]") -> bool:
    return done.cancelled() or done.exception() is not None


async def map_async(
    begins: list[Callable[[], StepFuture[Value]]], limit: int | None, return_exceptions: bool = False
) -> list[Value]:
    futures: list[StepFuture[Value]] = []
    pending: set[asyncio.Future[Value]] = set()
    failed = False
    for begin in begins:
        if limit is not None and len(pending) >= limit:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            failed = not return_exceptions and any(map(_has_failed, done))
            if failed:
                break
        futures.append(begin())
        pending.add(futures[-1].as_asyncio())
    while pending:
        if failed:
            for future in futures:
                future.withdraw()
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
        failures = [one for one in done if _has_failed(one)]  # asking for each marks it as seen
        failed = failed or (bool(failures) and not return_exceptions)
    found = []
    cancelled: StepFuture[Value] | None = None
    for future in futures:
        future.is_seen()
        if future.cancelled():
            cancelled = cancelled or future
        else:
            try:
                found.append(await future)
            except Exception as error:  # an error of the user's, to be returned
                if not return_exceptions:
                    raise
                found.append(error)
    if cancelled is not None:  # no other one has failed, so it was the run that stopped
        await cancelled
    return found
