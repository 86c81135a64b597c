"""Branches of a run: ``gather`` and ``schedule``."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from flowdsl.core.durations import seconds
from flowdsl.core.facts import Scheduled, facts_of
from flowdsl.core.journal import Verdict
from flowdsl.core.keys import branch_scope
from flowdsl.core.kinds import SCHEDULE
from flowdsl.core.records import Step
from flowdsl.core.status import StepStatus
from flowdsl.engine.definitions import Invocation, StepDef, step_definition
from flowdsl.engine.divergence import diverged
from flowdsl.engine.effects import Flow, run_async, run_sync
from flowdsl.engine.execution import Execution, Frame, current
from flowdsl.engine.futures import StepFuture, Tally
from flowdsl.engine.marks import Plain, mark
from flowdsl.engine.registry import STEPS, step_called
from flowdsl.engine.scope import Scope
from flowdsl.engine.step import StepCall, commit_for, identify, make_record, perform, view_of
from flowdsl.engine.timers import pause_until
from flowdsl.errors import StepNotFound
from flowdsl.storage.base import PutStep

__all__ = ["arm_all", "gather_async", "gather_sync", "schedule"]


def gather_sync(items: tuple[Any, ...]) -> list[Any]:
    """Results of futures and runs, in order. After the first failure what has not begun is cancelled, the
    others are awaited."""
    for item in items:
        if not callable(getattr(item, "result", None)):
            raise TypeError(f"gather() takes futures of submit() and runs of start(); got {item!r}")
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


def _error_of(item: Any) -> BaseException | None:
    if isinstance(item, StepFuture):
        return item.settled()
    try:
        item.result()
    except Exception as error:
        return error
    return None


async def gather_async(frame: Frame | None, items: tuple[Any, ...]) -> list[Any]:
    """As :func:`gather_sync`; coroutines become branches, each with a scope of its own, so that timing
    changes no identity."""
    for item in items:
        if not (hasattr(item, "__await__") or asyncio.isfuture(item)):
            for other in filter(asyncio.iscoroutine, items):
                other.close()  # nobody will await it
            raise TypeError(
                f"gather() takes coroutines, futures of submit() and runs of start(); got {item!r}"
            )
    tasks = []
    ordinal = 0
    if frame is not None:
        with frame.run.lock:
            ordinal = frame.scope.ordinal("flowdsl.gather")
    branches: list[asyncio.Task[Any]] = []
    others: list[asyncio.Task[Any]] = []
    for index, item in enumerate(items):
        if asyncio.iscoroutine(item) and frame is not None:
            scope = Scope(_scope_of_branch(frame.scope, ordinal, index), frame.scope, True)
            tasks.append(asyncio.ensure_future(_branch(frame, scope, item)))
            branches.append(tasks[-1])
        else:
            tasks.append(asyncio.ensure_future(_awaited(item)))
            # who waits for a scheduled branch is counted for himself, as a branch is
            (branches if isinstance(item, StepFuture) and item.scheduled else others).append(tasks[-1])
    if not tasks:
        return []
    if frame is not None and frame.run.engine.virtual:
        _count(frame.run.engine.clock, branches, others)
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
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
    ]  # each is asked for, and so seen
    for task, error in zip(tasks, errors, strict=True):
        if task in done and error is not None:
            task.result()
    return [task.result() for task in tasks]


def _count(clock: Any, branches: list[Any], others: list[Any]) -> None:
    """Have a virtual clock count each branch as runnable, and the caller not.

    The caller's own count goes to what else it waits for, or to a branch, and whoever ends last leaves it to
    the caller: in no moment does nobody count.
    """
    left = {"branches": len(branches), "others": len(others)}

    def ended(kind: str) -> Callable[[Any], None]:
        def note(_: Any) -> None:
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
    """Inside a step's body, ``<the body's scope>/<branch>``: the step's own record answers for it too."""
    branch = branch_scope(scope.id, "gather", ordinal, index)
    body: Scope | None = scope
    while body is not None and not body.of_step:
        body = body.parent
    return branch if body is None else f"{body.id}/{branch}"


async def _awaited(item: Any) -> Any:
    return await item


async def _branch(frame: Frame, scope: Scope, coroutine: Coroutine[Any, Any, Any]) -> Any:
    scope.entered()
    current.set(Frame(frame.run, scope, frame.step, True))
    return await coroutine


# ----------------------------------------------------------------------------------------------------------


def schedule(frame: Frame, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any], delay: Any) -> Flow:
    """Record that *step* is to be executed as a branch of the run after *delay*, and arm it. Answers its
    future."""
    if not isinstance(step, str) and step_definition(step) is None:
        raise TypeError(f"schedule() takes a function decorated with @step, or the name of one; got {step!r}")
    called = step_called(step, args, kwargs)
    defn = called.defn
    if STEPS.get(defn.path) is None:
        raise StepNotFound(f"step {defn.path} is not registered in this application", step=defn.path)
    wait = seconds(delay, "delay")
    bound = called.bind()
    call = mark(frame, f"schedule.{defn.path}", SCHEDULE, bound.canonical, bound.preview())
    return perform(call, lambda call: _schedule(call, defn, bound.arguments, wait))


def _schedule(call: StepCall, defn: StepDef, arguments: dict[str, Any], wait: float) -> Flow:
    run = call.run
    record = run.journal.get(call.key)
    if record is None:
        decision = run.journal.decide(
            call.key, call.scope.id, call.defn.path, call.ordinal, sequential=not call.concurrent
        )
        if decision.record is not None:  # the code has changed
            decision = yield from diverged(call, decision)
            if decision.verdict is Verdict.RECORDED and decision.record is not None:
                return None, _arm(run, decision.record, defn, None)
        view = view_of(call, 1)
        at = view.started_at + wait
        payload, _ = run.engine.payloads.pack(arguments, run.id, call.key, "result")
        facts = Scheduled(at, defn.path)
        record = make_record(call, view, StepStatus.COMPLETED, payload, "", 1, facts)
        yield from commit_for(run, call, PutStep(record, run.epoch, True))
        with run.lock:
            run.journal.add(record)
        return None, _arm(run, record, defn, wait)
    run.journal.use(call.key)
    return None, _arm(run, record, defn, None)


def arm_all(run: Execution) -> None:
    """Arm the branches that the journal knows of. A step that scheduled one may be replayed, and so never
    schedule it again."""
    for record in list(run.journal):
        facts = facts_of(record) if record.kind == SCHEDULE else None
        if isinstance(facts, Scheduled) and record.status is StepStatus.COMPLETED:
            path = facts.step
            defn = STEPS.get(path)
            if defn is None:
                raise StepNotFound(
                    f"run {run.id} has scheduled step {path!r}, which is not loaded here: import the "
                    "module that defines it",
                    run=run.id,
                    step=path,
                )
            _arm(run, record, defn, None)


def _arm(run: Execution, record: Step, defn: StepDef, left: float | None) -> StepFuture[Any]:
    """Start the branch of a schedule record, once."""
    with run.lock:
        found: StepFuture[Any] | None = run.branches.known(record.key)
        if found is not None:
            return found
        engine = run.engine
        wait = left or 0.0
        facts = facts_of(record)
        if left is None and isinstance(facts, Scheduled):
            wait = facts.at - engine.clock.now()
        arguments = engine.payloads.unpack(record.payload or b"", run.id, record.key, "result")
        called = defn.call_with(arguments)
        parent = run.scope
        scope = Scope(f"{record.key}/scheduled", parent, defn.is_async)
        frame = Frame(run, scope, None, defn.is_async)
        work = _work(frame, called, wait)
        found = _launch(run, defn, work)
        found.scheduled = True
        run.branches.remember(record.key, found)
        run.branches.add(found)
    return found


def _work(frame: Frame, called: Invocation[StepDef], left: float) -> Callable[[], Flow]:
    def flow() -> Flow:
        current.set(frame)
        frame.scope.entered()
        if left > 0 or frame.run.stop.ending:
            waiting = StepCall(frame, called, _EMPTY, "do")
            yield from pause_until(waiting, left, begun=False)
        call = identify(frame, called, "do")
        call.submitted = True  # what the body does next has not handled its failure
        return (yield from perform(call))

    return flow


_EMPTY: Any = Plain(b"", "")


def _launch(run: Execution, defn: StepDef, make: Callable[[], Flow]) -> StepFuture[Any]:
    engine = run.engine
    tally = Tally(engine.clock) if engine.virtual else None

    def ended() -> None:
        if tally is not None:
            tally.finish()

    if defn.is_async:
        future: Future[Any] = Future()
        found: StepFuture[Any] = StepFuture(future, None, None, tally=tally)

        async def awork() -> Any:
            try:
                return await run_async(make())
            finally:
                ended()

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return StepFuture(engine.background_async(awork), None, None, tally=tally)
        found.follow(loop.create_task(awork()))
        return found

    def work() -> Any:
        try:
            return run_sync(make())
        finally:
            ended()

    return StepFuture(engine.thread(work, f"flowdsl-{run.id}-branch"), None, None, tally=tally)
