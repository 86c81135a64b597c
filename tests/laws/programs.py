"""Random programs: made by hypothesis, executed as real workflows over real steps, killed anywhere.

A program is data: a tuple of nodes, each with a *slot* that names its place. The :class:`World` is outside
every storage. In it bodies note what they executed, and callers what they saw. So the laws can be checked
without knowing how the engine works:

* a slot whose outcome was seen never executes again, and every later caller sees the same outcome;
* the outcome of the program is that of an execution without faults.
"""

import asyncio
import contextlib
import contextvars
import itertools
import random
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

from attrs import field, frozen
from bodies import Bodies, Body, Threads, to_its_end
from generator import Choose, Fault, Grammar, Inner, Program
from support import Crash, Mortal

from flowdsl import Retry, Runtime
from flowdsl.storage import Storage
from flowdsl.storage.base import UpdateRun
from flowdsl.testing import VirtualClock

Slot = tuple[Any, ...]


class Boom(Exception):
    """What a failing step raises: its argument, and which execution it was."""

    def __init__(self, arg: int, execution: int) -> None:
        super().__init__(arg, execution)
        self.arg = arg
        self.execution = execution


# Nodes ------------------------------------------------------------------------------------------------------


@frozen
class Do:
    """One call. *kind*: ``plain``; ``roll``, which has no argument; ``flaky``, which fails *arg* modulo 10
    times at first; ``boom``, which always fails and is handled."""

    kind: str
    arg: int = 0


@frozen
class Nest:
    """A step that calls steps, and fails *fails* times behind them."""

    arg: int
    nodes: tuple[Any, ...]
    fails: int = 0


@frozen
class Child:
    """A workflow in the workflow."""

    arg: int
    nodes: tuple[Any, ...]


@frozen
class Beside:
    """Branches that execute at the same time, each a sequence; meanwhile the body goes on with *first*."""

    branches: tuple[tuple[Any, ...], ...]
    first: tuple[Any, ...] = ()


@frozen
class Submit:
    """Calls that are submitted; their results are asked for in the order of *ask*. With *map*, by ``map``."""

    calls: tuple[Do, ...]
    ask: tuple[int, ...] = ()
    map: bool = False


def _call(choose: Choose) -> Do:
    kind = choose(("plain", "roll", "flaky", "boom"))
    return Do(kind) if kind == "roll" else Do(kind, choose(range(3)))


def _calls(choose: Choose, most: int) -> tuple[Do, ...]:
    return tuple(_call(choose) for _ in range(choose(range(1, most + 1))))


def _nest(choose: Choose, inner: Inner) -> Nest:
    return Nest(choose(range(3)), inner(), choose(range(3)))


def _submit(choose: Choose) -> Submit:
    """Some calls submitted together."""
    if choose((False, True)):
        args = [10 * number + choose(range(10)) for number in range(choose(range(1, 5)))]
        return Submit(tuple(Do("plain", arg) for arg in args), map=True)
    calls = _calls(choose, 4)
    left, order = list(range(len(calls))), []
    while left:
        order.append(left.pop(choose(range(len(left)))))
    return Submit(calls, tuple(order))


def _beside(choose: Choose) -> Beside:
    """Branches that share no equal call: which of two equal ones comes first would be a matter of timing."""
    first = choose((False, True)) and _calls(choose, 3)
    branches = [first or (), *(_calls(choose, 3) for _ in range(choose((2, 3))))]
    own = [
        tuple(Do("plain" if call.kind == "roll" else call.kind, call.arg + 10 * number) for call in branch)
        for number, branch in enumerate(branches)
    ]
    return Beside(tuple(own[1:]), own[0])


NESTED = Grammar(_call, _nest, depth=1, most=3, inner=2)


def _in_turn(choose: Choose, _inner: Inner) -> Nest | Child:
    if choose((True, False)):
        return _nest(choose, lambda: NESTED.program(choose))
    return Child(choose(range(3)), _calls(choose, 4))


def _any(choose: Choose, inner: Inner) -> Any:
    kind = choose(("in turn", "in turn", "beside", "submit"))
    if kind == "in turn":
        return _in_turn(choose, inner)
    return _beside(choose) if kind == "beside" else _submit(choose)


FLAT = Grammar(
    lambda choose: Do("plain", choose(range(4))) if choose((True, False)) else Do("roll"), depth=0, most=7
)
"""Programs of calls that succeed."""

SEQUENTIAL = Grammar(_call, _in_turn, depth=1, most=5, holds=(False, True, True))
"""Programs that do one thing at a time."""

PROGRAMS = Grammar(_call, _any, depth=1, holds=(False, True, True))
"""All programs."""


# The world outside ------------------------------------------------------------------------------------------


@frozen(eq=False)
class World:
    """What really happened, over all executions of one program."""

    seed: int = 0
    executed: list[Slot] = field(factory=list)
    seen: dict[Slot, Any] = field(factory=dict)
    wrong: list[str] = field(factory=list)
    nodes: dict[Slot, Any] = field(factory=dict)
    lock: Any = field(factory=threading.Lock)
    ids: Iterator[int] = field(factory=lambda: itertools.count(1))
    state: dict[str, Any] = field(
        factory=lambda: {"dead": False, "execution": 0, "die_at": None, "bodies": 0}
    )

    def begin(self, slot: Slot) -> int:
        """A body begins at *slot*; the number of this execution."""
        with self.lock:
            if self.state["dead"]:
                raise Crash
            mine = self.state["bodies"]
            self.state["bodies"] += 1
            if mine == self.state["die_at"]:
                self.state["dead"] = True
                raise Crash
            if slot in self.seen:
                self.wrong.append(f"{slot} was acknowledged and executed again")
            self.executed.append(slot)
            return next(self.ids)

    def times(self, slot: Slot) -> int:
        """How often *slot* was executed."""
        with self.lock:
            return self.executed.count(slot)

    def saw(self, slot: Slot, outcome: Any) -> None:
        """The caller at *slot* sees *outcome*."""
        with self.lock:
            if self.state["dead"]:
                return
            if self.seen.setdefault(slot, outcome) != outcome:
                self.wrong.append(f"{slot} was seen as {self.seen[slot]} and then as {outcome}")

    def delay(self, slot: Slot) -> int:
        """How long a body takes in this execution, in turns of the event loop."""
        return random.Random(f"{self.seed}{self.state['execution']}{slot}").randrange(4)


_world = World()


def meet(world: World, program: Program) -> World:
    """Let the bodies of *program* note in *world*."""
    global _world
    _world = world
    world.nodes[()] = program
    return world


_slot: contextvars.ContextVar[Slot] = contextvars.ContextVar("slot")


def _place(arg: int) -> Slot:
    slot = _slot.get()
    return (*slot, arg) if slot[-1] == "map" else slot


def _act(kind: str, arg: int) -> Any:
    slot = _place(arg)
    execution = _world.begin(slot)
    if kind == "boom":
        raise Boom(arg, execution)
    if kind == "flaky" and _world.times(slot) <= arg % 10:
        raise OSError(arg)
    return [kind, arg, execution]


# Steps, and what each kind of node does with them ----------------------------------------------------------------

_QUICK = {n: Retry(attempts=n, initial=1, jitter=0) for n in range(1, 6)}


class Player(Bodies):
    """The steps and workflows, sync or async, and what each kind of node does with them."""

    def __init__(self, is_async: bool) -> None:
        super().__init__("programs", is_async)

        def leaf(kind: str, attempts: int) -> Any:
            return self.step(kind, retry=_QUICK[attempts])(partial(self._leaf, kind))

        self.steps: dict[str, Any] = {
            "plain": leaf("plain", 1),
            "roll": leaf("roll", 1),
            "flaky": leaf("flaky", 5),
            "boom": leaf("boom", 2),
            "nest": self.step("nest", retry=_QUICK[5])(self._nest),
            "child": self.workflow("child")(self._child),
            "whole": self.workflow("whole")(self._whole),
        }
        self.play = self.made(self._play)

    def _leaf(self, kind: str, arg: int = 0) -> Body:
        yield from self._turns(arg)
        value = _act(kind, arg)
        yield from self._turns(arg)
        return value

    def _turns(self, arg: int) -> Body:
        """Async bodies take some turns of the event loop."""
        if self.is_async:
            for _ in range(_world.delay(_place(arg))):
                yield from self.wait(asyncio.sleep(0))

    def _nest(self, arg: int) -> Body:
        slot = _slot.get()
        node = _world.nodes[slot]
        execution = _world.begin(slot)
        found = yield from self._play(node.nodes, slot)
        if _world.times(slot) <= node.fails:
            raise OSError("nest")
        return ["nest", arg, found, execution]

    def _child(self, arg: int) -> Body:
        slot = _slot.get()
        return (yield from self._play(_world.nodes[slot].nodes, slot))

    def _whole(self, program: Program = ()) -> Body:
        """The program of this world, or *program* in a process whose world is empty."""
        _world.nodes.setdefault((), program)
        return (yield from self._play(_world.nodes[()], ()))

    def _play(self, nodes: Program, slot: Slot) -> Body:
        """Execute *nodes*; the pure part of what they gave."""
        found = []
        for index, node in enumerate(nodes):
            found.append((yield from self._one(node, (*slot, index))))
        return found

    def _one(self, node: Any, slot: Slot) -> Body:
        _world.nodes[slot] = node
        if isinstance(node, Do):
            return (yield from _pure(slot, self._call(slot, self.steps[node.kind], *_args(node))))
        if isinstance(node, Nest):
            return (yield from _pure(slot, self._call(slot, self.steps["nest"], node.arg)))
        if isinstance(node, Child):
            return (yield from self._call(slot, self.steps["child"], node.arg))
        if isinstance(node, Beside):
            return (yield from self._beside(node, slot))
        return (yield from self._submitted(node, slot))

    def _call(self, slot: Slot, fn: Any, *args: Any) -> Body:
        """Call *fn*, whose body finds its *slot*."""
        token = _slot.set(slot)
        try:
            return (yield from self.wait(fn(*args)))
        finally:
            _slot.reset(token)

    def _beside(self, node: Beside, slot: Slot) -> Body:
        branches = [(branch, (*slot, "b", n)) for n, branch in enumerate(node.branches)]
        first = node.first, (*slot, "f")
        if self.is_async:
            return (yield from self.wait(self._in_tasks(branches, first)))
        threads = Threads([partial(self.play, *branch) for branch in branches])
        try:
            mine = self.play(*first)
        finally:
            threads.join()
        return [threads.results(), mine]

    async def _in_tasks(self, branches: list[tuple[Program, Slot]], first: tuple[Program, Slot]) -> list[Any]:
        tasks = [asyncio.create_task(self.play(*branch)) for branch in branches]
        try:
            mine = await self.play(*first)
            return [await asyncio.gather(*tasks), mine]
        except BaseException:
            for task in tasks:  # nobody will ask them, and that is not worth a line in the log
                task.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise

    def _submitted(self, node: Submit, slot: Slot) -> Body:
        if node.map:
            calls = [call.arg for call in node.calls]
            values = yield from self._call((*slot, "map"), self.steps["plain"].map, calls)
            for call, value in zip(node.calls, values, strict=True):
                _world.saw((*slot, "map", call.arg), value[-1])
            return [value[:-1] for value in values]
        futures = []
        for index, call in enumerate(node.calls):
            token = _slot.set((*slot, index))
            futures.append(self.steps[call.kind].submit(*_args(call)))
            _slot.reset(token)
        found = {}
        for index in node.ask:
            future = futures[index]
            result = self.wait(future) if self.is_async else self._result(future)
            found[index] = yield from _pure((*slot, index), result)
        return [found[index] for index in range(len(futures))]

    def _result(self, future: Any) -> Body:
        return future.result()
        yield


def _args(node: Do) -> tuple[int, ...]:
    return () if node.kind == "roll" else (node.arg,)


def _pure(slot: Slot, call: Body) -> Body:
    """What *call* gives, without the number of the execution, which the world sees."""
    try:
        value = yield from call
    except Boom as error:
        _world.saw(slot, ("boom", error.execution))
        return ("boom", error.arg)
    _world.saw(slot, value[-1])
    return value[:-1]


STEPS = {is_async: Player(is_async).steps for is_async in (False, True)}


# Executions -------------------------------------------------------------------------------------------------

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
) -> tuple[Any, int]:
    """Execute *program* once, as one process would; its result or ``DIED``, and how many commits it made.

    What has been recorded by earlier executions on *storage* is continued. *options* are the runtime's.
    """
    meet(world, program)
    die_at = fault.at if fault and fault.body else None
    world.state.update(dead=False, execution=world.state["execution"] + 1, die_at=die_at, bodies=0)
    at = None if fault is None or fault.body else _completes if fault.end else fault.at
    mortal = Mortal(storage, at, after=fault is not None and fault.after, error=lambda: _die(world))
    clock = VirtualClock(1_000_000.0 * world.state["execution"])
    with Runtime(mortal, clock=clock, **options):
        try:
            whole = STEPS[is_async]["whole"]
            result = to_its_end(whole if run_id is None else whole.options(id=run_id), is_async)
        except BaseException as error:
            if not world.state["dead"] and not mortal.dead:
                raise
            mortal.dead = True
            with contextlib.suppress(AttributeError):
                error.__traceback__ = None
            result = DIED
    return result, mortal.commits


def _completes(operations: Any) -> bool:
    """Whether a commit stores the outcome of the outermost run (the id of a child holds that of its parent)."""
    return any(
        isinstance(op, UpdateRun) and "/" not in op.run_id and op.changes.get("status") == "completed"
        for op in operations
    )


def _die(world: World) -> BaseException:
    world.state["dead"] = True
    return Crash()
