"""``race``: the result of the first that ends well. The others are withdrawn.

The record holds the winner and its result. So a replay takes the same one, whatever is quicker then. If all
fail, their errors come as a group.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol, TypeAlias

from flowdsl.clock import Waker
from flowdsl.core.facts import Won
from flowdsl.core.kinds import RACE
from flowdsl.core.records import Step
from flowdsl.engine.call import Call, Operation
from flowdsl.engine.effects import Effects, Flow
from flowdsl.engine.execution import Frame, current, frame_of
from flowdsl.engine.future import StepFuture
from flowdsl.engine.perform import durable
from flowdsl.engine.record import complete, fail
from flowdsl.engine.scope import Scope
from flowdsl.engine.strays import branch_of
from flowdsl.engine.user import Value
from flowdsl.engine.waiting import Pause, waker_for
from flowdsl.errors import Stopped

__all__ = ["Racer", "race"]


class Racer(Protocol):
    """One competitor of a race. ``name``: the key of a step, the id of a run, or the scope of a coroutine."""

    name: str

    def begin(self, tell: Callable[[], None]) -> None:
        """Call *tell* when it has ended."""

    def ended(self) -> tuple[BaseException | None, Value] | None:
        """Its error and its result. ``None`` while it goes on."""

    def withdraw(self) -> None:
        """Another one has won."""


class _Future:
    """A future of ``submit``."""

    def __init__(self, future: StepFuture[Value]) -> None:
        self._future = future
        self.name = future.key

    def begin(self, tell: Callable[[], None]) -> None:
        self._future.at_end(tell)

    def ended(self) -> tuple[BaseException | None, Value] | None:
        if not self._future.done():
            return None
        error = self._future.exception()
        return (error, None) if error is not None else (None, self._future.result())

    def withdraw(self) -> None:
        self._future.is_lost()
        self._future.cancel()


class _Branch:
    """A coroutine: a branch with a scope of its own."""

    def __init__(self, frame: Frame, coroutine: Coroutine[Value, Value, Value]) -> None:
        self._frame = frame
        self._coroutine = coroutine
        self.name = ""
        self._cleans_up = frame.run.stop.cleaning()
        self._scope: Scope | None = None
        self._task: asyncio.Task[Value] | None = None

    def stands_in(self, scope: Scope) -> None:
        """Its calls are counted in *scope*."""
        self._scope = scope
        self.name = scope.id

    def begin(self, tell: Callable[[], None]) -> None:
        clock = self._frame.run.engine.clock if self._frame.run.engine.virtual else None
        if clock is not None:
            clock.enter()
        self._task = asyncio.ensure_future(self._executed())
        if self._scope is not None:
            branch_of(self._frame.run, self._scope, self._task)
        self._task.add_done_callback(lambda _: tell())
        if clock is not None:
            self._task.add_done_callback(lambda _: clock.leave())

    async def _executed(self) -> Value:
        assert self._scope is not None
        self._scope.entered()
        current.set(frame_of(self._frame.run, self._scope, self._frame.step, True))
        stop = self._frame.run.stop
        return await (stop.handled_in(self._coroutine) if self._cleans_up else self._coroutine)

    def ended(self) -> tuple[BaseException | None, Value] | None:
        task = self._task
        if task is None or not task.done():
            return None
        if task.cancelled():
            return asyncio.CancelledError(), None
        error = task.exception()
        return (error, None) if error is not None else (None, task.result())

    def withdraw(self) -> None:
        if self._task is None:
            self._coroutine.close()
        else:
            self._task.cancel()


Item: TypeAlias = Value  # a future, a handle of a run, or in async code a coroutine


class _Bell:
    """Wakes whoever waits at the moment."""

    def __init__(self) -> None:
        self._waker: Waker | None = None

    def wakes(self, waker: Waker) -> None:
        """Wake *waker* from now on."""
        self._waker = waker

    def ring(self) -> None:
        """One of the racers has ended."""
        if self._waker is not None:
            self._waker.set()


class Race(Operation):
    """Wait for the first of *racers* that ends well."""

    __slots__ = ("_racers",)

    kind = RACE
    path = "flowdsl.race"

    def __init__(self, racers: Sequence[Racer]) -> None:
        self._racers = racers

    def preview(self, limit: int = 200) -> str:
        return f"{len(self._racers)} of them"

    def execute(self, call: Call, prior: Step | None) -> Flow:
        run = call.run
        for number, racer in enumerate(self._racers):
            if isinstance(racer, _Branch):
                racer.stands_in(Scope(f"{call.key}/{number}", call.scope, True))
        try:
            winner, outcomes = yield from self._first(call)
        except BaseException:  # nothing goes on racing, however this ends
            self._withdraw(None)
            raise
        if winner is None:
            errors = [error for error, _ in outcomes.values() if isinstance(error, Exception)]
            group = ExceptionGroup(f"all {len(self._racers)} that raced have failed", errors)
            return (yield from fail(call, group))
        ended = yield from complete(
            call, outcomes[winner][1], Won(winner, tuple(racer.name for racer in self._racers))
        )
        self._withdraw(winner)
        run.stop.check()
        return ended

    def answer(self, call: Call, record: Step) -> Flow | None:
        self._withdraw(None)
        return None

    def _first(self, call: Call) -> Effects[tuple[int | None, dict[int, tuple[BaseException | None, Value]]]]:
        """The place of the winner (``None`` if all have failed), and the outcomes so far."""
        run, bell = call.run, _Bell()
        outcomes: dict[int, tuple[BaseException | None, Value]] = {}
        chosen = run.engine.hooks.winner(run.id, call.key)
        for racer in self._racers:
            racer.begin(bell.ring)
        while True:
            waker = yield from waker_for(run)
            bell.wakes(waker)
            try:
                for number, racer in enumerate(self._racers):
                    if number in outcomes or (found := racer.ended()) is None:
                        continue
                    outcomes[number] = found
                    if isinstance(found[0], Stopped):
                        raise found[0]
                    if found[0] is None and chosen in (None, number):
                        return number, outcomes
                if len(outcomes) == len(self._racers):
                    outcomes = dict(sorted(outcomes.items()))
                    well = (number for number, (error, _) in outcomes.items() if error is None)
                    return next(well, None), outcomes
                yield Pause(run, run.stop.left(), waker)
            finally:
                run.stop.waited(waker)
            run.stop.check()

    def _withdraw(self, winner: int | None) -> None:
        for number, racer in enumerate(self._racers):
            if number != winner:
                racer.withdraw()


def race(frame: Frame, items: Sequence[Item], run_of: Callable[[Item], Racer | None]) -> Flow:
    """Race *items*. *run_of* turns a handle of a run into a racer."""
    racers: list[Racer] = []
    for item in items:
        if isinstance(item, StepFuture):
            racers.append(_Future(item))
        elif frame.is_async and asyncio.iscoroutine(item):
            racers.append(_Branch(frame, item))
        elif (found := run_of(item)) is not None:
            racers.append(found)
        else:
            for other in filter(asyncio.iscoroutine, items):
                other.close()  # nobody will await it
            what = "coroutines, futures" if frame.is_async else "futures"
            raise TypeError(f"race() takes {what} of submit() and runs of start(); got {item!r}")
    if not racers:
        raise ValueError("race() takes at least one future or run")
    return durable(frame, Race(racers))
