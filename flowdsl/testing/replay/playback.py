"""Surrounds the bodies of an execution. It executes them and remembers, or plays back what they did.

The rules
    The first execution executes every body. A continued one does not execute a body that the first has
    completed: it gives that body's result or error. A body that had not ended (it was cancelled, or timed
    out) does not end again. A step that the first execution did not call does not execute at all. Either it
    is a difference, or it belongs to a loser of a race that came further this time.

    Two kinds execute again nevertheless: steps that make durable calls of their own (these are to be replayed
    too), and steps of mode ``try``, which have no record. In another process neither kind executes: the check
    varies there what a workflow looks at, and bodies must not see that.
"""

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

from flowdsl.errors import StepTimeout
from flowdsl.hooks import BodyView, Hooks
from flowdsl.testing.executions import Execution
from flowdsl.testing.replay.causes import ORDER, SAME_ORDER
from flowdsl.testing.replay.observed import Address, Called, Life, Outcome, Plan
from flowdsl.testing.replay.values import copy_of, same
from flowdsl.testing.seam import fake_body
from flowdsl.testing.user_code import executing, in_step_body, line_of_code

__all__ = ["Player", "Strange"]

_TURNS = 16  # they order bodies that ended one after the other
_TURN = 0.003  # seconds that a thread waits for one turn
_LONGEST = 100
_SOON = 5.0  # real seconds
_CONNECTION = "connection"  # what the body of a transactional step gets
_PLAIN = (int, float, str, bytes, bool, type(None))


class Strange(BaseException):
    """A step was called that the first execution did not call. It is no ``Exception``, so nobody handles
    it."""


class Player(Hooks):
    """Executes and remembers (*first*), or plays back. ``bodies`` are the bodies of workflows, by run."""

    def __init__(self, plan: Plan, life: Life, first: bool) -> None:
        self._plan = plan
        self._life = life
        self._first = first
        self.bodies: dict[str, BodyView] = {}
        self._threads: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[Any] | None] = {}

    # What the engine calls --------------------------------------------------------------------------------

    def jitter(self) -> float:
        """The same jitter each time."""
        return 0.0

    def winner(self, run_id: str, key: str) -> int | None:
        """The same winner each time."""
        return self._plan.losers.winners.get(self._life.place(run_id, key))

    def on_step_start(self, step: Any) -> None:
        # Here, because the body may execute in another thread.
        self._life.lines[self._life.place(step.run_id, step.key), step.attempt] = line_of_code()

    def on_step_error(self, step: Any, error: BaseException, attempt: int) -> None:
        address = (self._life.place(step.run_id, step.key), attempt)
        if self._first and isinstance(error, StepTimeout):
            if self._plan.begun.get(address):
                self._plan.outcomes.pop(address, None)  # it is cancelled at the same moment each time
            else:
                self._plan.outcomes[address] = error, None

    def execute_body(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        if body.step is None:
            self._workflow(body)
            with executing(body.kind), self._life.executing(body.run_id):
                return proceed()
        fn = self._instead(body, proceed)
        with executing("step"):
            return fn(*body.args, **body.kwargs)

    async def execute_body_async(self, body: BodyView, proceed: Callable[[], Any]) -> Any:
        if body.step is None:
            self._workflow(body)
            with executing(body.kind), self._life.executing(body.run_id):
                return await proceed()
        fn = self._instead(body, proceed)
        with executing("step"):
            try:
                return await fn(*body.args, **body.kwargs)
            except asyncio.CancelledError:
                place = self._life.place(body.step.run_id, body.step.key)
                if not (self._first or self._plan.losers.holds(place, body.scope)):
                    self._life.is_cut_off()
                raise

    # What executes ----------------------------------------------------------------------------------------

    def _workflow(self, body: BodyView) -> None:
        if body.kind == "workflow":
            self.bodies[body.run_id] = body
            self._threads[body.run_id] = threading.get_ident()
            self._tasks[body.run_id] = asyncio.current_task() if body.is_async else None

    def _instead(self, body: BodyView, proceed: Callable[[], Any]) -> Callable[..., Any]:
        """The function that executes in place of a body."""
        plan, view = self._plan, body.step
        place = self._life.place(view.run_id, view.key)
        address = (place, view.attempt)
        lost = plan.losers.holds(place, body.scope)
        if lost:
            plan.losers.add(place)  # for what it calls, whether or not it leaves a record
        shown = str(Execution(view.run_id, view.path, view.key, 1, body.args, body.kwargs))
        line = self._life.lines.get(address) or line_of_code()
        self._life.calls.append(Called(True, place, shown, line))
        if view.mode == "try":
            plan.unrecorded[f"{shown} is of mode 'try'"] = None
        if self._first:
            plan.begun[address] = body.is_async
            return self._really(body, proceed, address)
        again = view.mode == "try" or place in plan.inner or (in_step_body() and address not in plan.outcomes)
        if again and not (plan.elsewhere and address in plan.outcomes):
            return self._really(body, proceed, None)
        return self._played(body, address, shown, lost)

    def _really(
        self, body: BodyView, proceed: Callable[[], Any], address: Address | None
    ) -> Callable[..., Any]:
        """Execute the body or its fake. With an *address*, remember its outcome."""
        self._life.executes_really()
        fn: Callable[..., Any] = lambda *_, **__: proceed()  # noqa: E731
        if body.path in self._plan.fakes:
            fn = fake_body(_without_connection(self._plan.fakes[body.path], body), body.is_async)
        return fn if address is None else _Remembering(self._plan, address, body, fn).body()

    def _played(self, body: BodyView, address: Address, shown: str, lost: bool) -> Callable[..., Any]:
        plan = self._plan
        if address in plan.outcomes:
            outcome = plan.outcomes[address]
            ended, changes = plan.ended.get(address, 0) % _TURNS, self._life.changes
            turns = _TURNS - ended if ORDER in changes else 1 + ended if SAME_ORDER in changes else 0
            if body.is_async:
                return _outcome_async(outcome, turns)
            return _outcome(outcome, turns if self._is_beside(body) else 0)
        if lost and not body.is_async and not plan.losers.holds_run(body.run_id):
            return lambda *_, **__: None  # nobody takes it, and nothing would stop it: its run goes on
        if address in plan.begun or lost:
            return lambda *_, **__: body.ahold() if body.is_async else body.hold()
        if body.step.mode == "send":
            return fake_body(lambda *_, **__: None, body.is_async)
        if plan.cut_off and self._is_beside(body):
            return self._cut_off(body, shown) if body.is_async else lambda *_, **__: None

        def strange(*_: Any, **__: Any) -> Any:
            self._life.strange.append(shown)
            raise Strange(shown)

        return fake_body(strange, body.is_async)

    def _is_beside(self, body: BodyView) -> bool:
        """Whether a body executes beside the body of its workflow, in another task or thread."""
        if threading.get_ident() != self._threads.get(body.run_id):
            return True
        return body.is_async and asyncio.current_task() is not self._tasks.get(body.run_id)

    def _cut_off(self, body: BodyView, shown: str) -> Callable[..., Any]:
        """A call that the first execution cut off before it was made: it will be cancelled soon."""

        async def wait(*_: Any, **__: Any) -> Any:
            try:
                await asyncio.wait_for(body.ahold(), _SOON)
            except TimeoutError:
                self._life.strange.append(shown)
                raise Strange(shown) from None

        return wait


def _without_connection(fake: Callable[..., Any], body: BodyView) -> Callable[..., Any]:
    """*fake*, which need not take the connection that the body of a transactional step gets."""
    if _CONNECTION not in body.kwargs:
        return fake
    try:
        inspect.signature(fake).bind(*body.args, **body.kwargs)
    except (TypeError, ValueError):  # it has no such parameter, or no signature
        kept = {name: value for name, value in body.kwargs.items() if name != _CONNECTION}
        return lambda *args, **_: fake(*args, **kept)
    return fake


def _given(outcome: Outcome) -> Any:
    error, value = outcome
    if error is not None:
        raise error.with_traceback(None)
    return copy_of(value)


def _outcome(outcome: Outcome, turns: int) -> Callable[..., Any]:
    """Give *outcome*. The earlier the body had ended among others, the later this gives it."""

    def body(*_: Any, **__: Any) -> Any:
        time.sleep(turns * _TURN)
        return _given(outcome)

    return body


def _outcome_async(outcome: Outcome, turns: int) -> Callable[..., Any]:
    async def body(*_: Any, **__: Any) -> Any:
        for _turn in range(16 * turns):
            await asyncio.sleep(0)
        return _given(outcome)

    return body


class _Remembering:
    """Executes a body and keeps its outcome, and what it did to its arguments."""

    def __init__(self, plan: Plan, address: Address, body: BodyView, fn: Callable[..., Any]) -> None:
        self._plan = plan
        self._address = address
        self._view = body
        self._fn = fn
        self._before: dict[str, Any] = {}
        self._args: dict[str, Any] = {}

    def body(self) -> Callable[..., Any]:
        """The function that executes in place of the body."""
        return self._aexecute if self._view.is_async else self._execute

    def _execute(self, *args: Any, **kwargs: Any) -> Any:
        self._begin(args, kwargs)
        try:
            value = self._fn(*args, **kwargs)
        except Exception as error:  # a user's body may raise anything
            self._ended(error, None)
            raise
        self._ended(None, value)
        return value

    async def _aexecute(self, *args: Any, **kwargs: Any) -> Any:
        self._begin(args, kwargs)
        try:
            value = await self._fn(*args, **kwargs)
        except Exception as error:  # a user's body may raise anything
            self._ended(error, None)
            raise
        self._ended(None, value)
        return value

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy the arguments that can be changed, by name."""
        try:
            named = dict(inspect.signature(self._view.fn).bind(*args, **kwargs).arguments)
        except (TypeError, ValueError):
            named = {f"argument {n}": value for n, value in enumerate(args, 1)} | kwargs
        self._args = {name: value for name, value in named.items() if not isinstance(value, _PLAIN)}
        self._before = {name: copy_of(value) for name, value in self._args.items() if name != _CONNECTION}

    def _ended(self, error: BaseException | None, value: Any) -> None:
        plan = self._plan
        if self._address not in plan.outcomes:  # otherwise its timeout was quicker
            plan.outcomes[self._address] = error, copy_of(value)
        plan.ended[self._address] = len(plan.ended)
        name = self._view.path.rpartition(".")[2]
        for argument, old in self._before.items():
            now = self._args[argument]
            if not same(old, now):
                plan.changed.append(f"{name}() turned {argument} from {_short(old)} to {_short(now)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
