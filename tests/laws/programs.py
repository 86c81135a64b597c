"""Replay and recovery: how the programs of ``grammar.REPLAYED`` are executed, as real workflows over real steps, and
killed anywhere.

In the :class:`World` bodies note what they executed, and callers what they saw. So the laws can be checked
without knowing how the engine works:

* a slot whose outcome was seen never executes again, and every later caller sees the same outcome;
* the outcome of the program is that of an execution without faults.
"""

import asyncio
import contextlib
import contextvars
import itertools
import random
from collections.abc import Iterator
from functools import partial, partialmethod
from typing import Any

import worlds
from attrs import define, field
from bodies import Bodies, Body, step, to_its_end, workflow
from grammar import Fault, Program, Slot, nodes_of
from processes import Process, threads_die
from worlds import meet, world

from flowdsl import Retry, Runtime
from flowdsl.storage import Storage
from flowdsl.testing import VirtualClock

__all__ = ["DIED", "PLAYERS", "World", "bodies_in", "execute"]


class Boom(Exception):
    """What a failing step raises: its number, and which execution it was."""

    def __init__(self, number: int, execution: int) -> None:
        super().__init__(number, execution)
        self.number = number
        self.execution = execution


@define(eq=False)
class World(worlds.World):
    """What really happened, over all executions of one program."""

    seed: float = 0
    life: int = 0
    executed: list[Slot] = field(factory=list)
    ids: Iterator[int] = field(factory=lambda: itertools.count(1))

    def begin(self, slot: Slot) -> Any:
        """A body begins at *slot*; the number of this execution."""
        with self.lock:
            if self.process is not None:
                self.process.body()
            if slot in self.seen:
                self.wrong.append(f"{slot} was acknowledged and executed again")
            self.executed.append(slot)
            return next(self.ids)

    def times(self, slot: Slot) -> int:
        """How often *slot* was executed."""
        with self.lock:
            return self.executed.count(slot)

    def delay(self, slot: Slot) -> int:
        """How long a body takes in this life, in turns of the event loop."""
        return random.Random(f"{self.seed}{self.life}{slot}").randrange(4)


_here: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("here")
"""The slot of the call that is executing, and what is in its node: equal calls cannot say it by their arguments."""


def _slot(number: int) -> Slot:
    slot = _here.get()[0]
    return (*slot, number) if slot[-1] == "map" else slot


_QUICK = {n: Retry(attempts=n, initial=1, jitter=0) for n in range(1, 6)}


class Player(Bodies):
    """The steps and workflows, sync or async, and what each kind of node does with them."""

    def __init__(self, is_async: bool) -> None:
        super().__init__("programs", is_async)
        self.steps: dict[str, Any] = {
            kind: self.step(kind, retry=_QUICK[attempts])(partial(self._step, kind))
            for kind, attempts in {"plain": 1, "roll": 1, "failing": 5, "boom": 2}.items()
        }

    def _step(self, kind: str, number: int = 0) -> Body:
        slot = _slot(number)
        yield from self._turns(slot)
        execution = world().begin(slot)
        if kind == "boom":
            raise Boom(number, execution)
        if kind == "failing" and world().times(slot) <= number % 10:
            raise OSError(number)
        yield from self._turns(slot)
        return [kind, number, execution]

    def _turns(self, slot: Slot) -> Body:
        """Async bodies take some turns of the event loop."""
        if self.is_async:
            for _ in range(world().delay(slot)):
                yield from self.wait(asyncio.sleep(0))

    @step(retry=_QUICK[5])
    def nested(self, number: int) -> Body:
        slot, program, fails = _here.get()
        execution = world().begin(slot)
        found = yield from self.play(slot, program)
        if world().times(slot) <= fails:
            raise OSError("nested")
        return ["nested", number, found, execution]

    @workflow()
    def child(self, number: int) -> Body:
        slot, program = _here.get()
        return (yield from self.play(slot, program))

    @workflow()
    def whole(self, program: Program = ()) -> Body:
        """The program of this world, or *program* in a process whose world is empty."""
        return (yield from self.play((), world().program or program))

    def _called(self, fn: Any, arguments: tuple[Any, ...], *here: Any) -> Body:
        """Call *fn*, whose body finds what is *here*."""
        token = _here.set(here)
        try:
            return (yield from self.wait(fn(*arguments)))
        finally:
            _here.reset(token)

    def _call(self, kind: str, slot: Slot, *number: int) -> Body:
        return (yield from _pure(slot, self._called(self.steps[kind], number, slot)))

    on_plain = partialmethod(_call, "plain")
    on_roll = partialmethod(_call, "roll")
    on_failing = partialmethod(_call, "failing")
    on_boom = partialmethod(_call, "boom")

    def on_nested(self, slot: Slot, program: Program, number: int, fails: int) -> Body:
        return (yield from _pure(slot, self._called(self.nested, (number,), slot, program, fails)))

    def on_child(self, slot: Slot, program: Program, number: int) -> Body:
        return (yield from self._called(self.child, (number,), slot, program))

    def on_beside(self, slot: Slot, branches: tuple[Program, ...], first: Program) -> Body:
        calls = [partial(self.branch, (*slot, "b", n), branch) for n, branch in enumerate(branches)]
        return (yield from self.beside(calls, partial(self.branch, (*slot, "f"), first)))

    def on_mapped_numbers(self, slot: Slot, numbers: tuple[int, ...]) -> Body:
        values = yield from self._called(self.steps["plain"].map, (numbers,), (*slot, "map"))
        for number, value in zip(numbers, values, strict=True):
            world().saw((*slot, "map", number), value[-1])
        return [value[:-1] for value in values]

    def on_submit(self, slot: Slot, calls: Program, order: tuple[int, ...]) -> Body:
        futures = []
        for n, (kind, *number) in enumerate(calls):
            token = _here.set(((*slot, n),))
            futures.append(self.steps[kind].submit(*number))
            _here.reset(token)
        found = {}
        for n in order:
            found[n] = yield from _pure((*slot, n), self._result(futures[n]))
        return [found[n] for n in range(len(futures))]

    def _result(self, future: Any) -> Body:
        return (yield from self.wait(future if self.is_async else future.result()))


def _pure(slot: Slot, call: Body) -> Body:
    """What *call* gives, without the number of the execution, which the world sees."""
    try:
        value = yield from call
    except Boom as error:
        world().saw(slot, ("boom", error.execution))
        return ["boom", error.number]
    world().saw(slot, value[-1])
    return value[:-1]


PLAYERS = {is_async: Player(is_async) for is_async in (False, True)}


# Executions -------------------------------------------------------------------------------------------------


def bodies_in(program: Program) -> int:
    """How many bodies of steps *program* executes if nothing stops it. This is known from its text alone."""
    count = 0
    for kind, *more in nodes_of(program):
        match kind:
            case "plain" | "roll":
                count += 1
            case "failing":
                count += more[0] % 10 + 1
            case "boom":
                count += 2
            case "nested":
                count += more[2] + 1
            case "mapped_numbers":
                count += len(more[0])
    return count


DIED = object()


def execute(
    program: Program,
    world: World,
    storage: Storage,
    is_async: bool,
    fault: Fault | None = None,
    *,
    run_id: str | None = None,
    **options: Any,
) -> tuple[Any, Process]:
    """Execute *program* once, as one process would; its result or ``DIED``, and the process.

    What has been recorded by earlier executions on *storage* is continued. *options* are the runtime's.
    """
    world.program = program
    world.life += 1
    clock = VirtualClock(1_000_000.0 * world.life)
    world.process = process = Process(storage, fault, clock)
    meet(world)
    whole = PLAYERS[is_async].whole
    with threads_die(), Runtime(process, clock=clock, **options) as process.runtime:
        try:
            result = to_its_end(whole if run_id is None else whole.options(id=run_id), is_async)
        except BaseException as error:
            if not process.dead:
                raise
            with contextlib.suppress(AttributeError):
                error.__traceback__ = None
            result = DIED
    return result, process
