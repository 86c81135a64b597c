"""Random programs that are stopped anywhere: by a cancel, by the cancelling of their task, by a failure.

A program is data, a tuple of nodes. Its steps give tokens, each execution another one, and their undo takes
a token back; the :class:`World`, which lies outside every storage, notes both. So the law needs no knowledge
of how undo works: of a run that ended badly, or that was called by one, every token is taken back once, and
of any other run, none.

:class:`Moments` stands in front of a storage: it stops the run at a commit, and makes commits slow.
"""

import asyncio
import contextlib
import contextvars
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import field, frozen
from hypothesis import strategies as st

from flowdsl import Retry, Runtime, aio, current_run, gather, step, workflow
from flowdsl.errors import FlowError, RunCancelled
from flowdsl.storage import Storage
from flowdsl.storage.base import Operation, Outcome
from flowdsl.storage.relay import RelayStorage

__all__ = [
    "RUN",
    "Act",
    "Beside",
    "Boom",
    "Call",
    "Moments",
    "Nest",
    "Stop",
    "World",
    "draw",
    "live",
    "meet",
    "programs",
    "standing",
]

RUN = "stopped"
"""The id of the run that a program is."""


class Failed(Exception):
    """What a failing step raises."""


# Nodes ------------------------------------------------------------------------------------------------------


@frozen
class Act:
    """A step that can be undone. It fails *fails* times first, and takes *turns* of the event loop."""

    fails: int = 0
    turns: int = 0


@frozen
class Boom:
    """A step that fails; unless it is *handled*, so does the run."""

    handled: bool = True


@frozen
class Nest:
    """A step that can be undone and calls others."""

    nodes: tuple[Any, ...]


@frozen
class Call:
    """A workflow in the workflow."""

    nodes: tuple[Any, ...]


@frozen
class Beside:
    """Branches at the same time. In async bodies *how* is ``gather`` (of asyncio), ``group`` (its TaskGroup),
    or ``left``: the body waits for some turns and cancels them; everywhere ``start``: of started children, and
    ``submit``. What a sync body cannot do, it does with ``start``."""

    how: str
    branches: tuple[tuple[Any, ...], ...]
    turns: int = 0


Program = tuple[Any, ...]

_turns = st.integers(0, 3)
_acts = st.builds(Act, st.sampled_from([0, 0, 0, 1]), _turns)
_booms = st.builds(Boom, st.sampled_from([True, True, True, False]))
HOWS = ("gather", "group", "left", "start", "submit")


def _compound(inner: Any) -> Any:
    some = st.lists(inner, min_size=1, max_size=3).map(tuple)
    branches = st.lists(some, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Nest, some),
        st.builds(Call, some),
        st.builds(Call, some),
        st.builds(Beside, st.sampled_from(HOWS), branches, _turns),
    )


_nodes = st.recursive(st.one_of(_acts, _acts, _acts, _booms), _compound, max_leaves=5)
programs = st.lists(_nodes, min_size=1, max_size=4).map(tuple)
"""All programs."""


def draw(rng: random.Random, depth: int = 2) -> Program:
    """A random program, without hypothesis."""

    def node(depth: int) -> Any:
        which = rng.randrange(9 if depth else 5)
        if which < 4:
            return Act(rng.choice([0, 0, 0, 1]), rng.randrange(4))
        if which == 4:
            return Boom(rng.random() < 0.75)
        if which == 5:
            return Nest(some(depth - 1))
        if which == 6:
            return Call(some(depth - 1))
        branches = tuple(some(depth - 1) for _ in range(rng.randint(1, 3)))
        return Beside(rng.choice(HOWS), branches, rng.randrange(4))

    def some(depth: int) -> Program:
        return tuple(node(depth) for _ in range(rng.randint(1, 3)))

    return tuple(node(depth) for _ in range(rng.randint(1, 4)))


@frozen
class Stop:
    """When and how the run is told to stop: at the n-th commit (before or *after* it) or *body*, by ``cancel``,
    or by the cancelling of the ``task`` that called it, *twice* or once."""

    at: int
    how: str = "cancel"
    after: bool = False
    body: bool = False
    twice: bool = False


# The world outside ------------------------------------------------------------------------------------------


@frozen(eq=False)
class World:
    """What really happened. ``did``: the tokens of each run; ``undid``: how often each was taken back."""

    did: list[tuple[str, Any]] = field(factory=list)
    undid: Counter[Any] = field(factory=Counter)
    tries: Counter[Any] = field(factory=Counter)
    tokens: Iterator[int] = field(factory=lambda: itertools.count(1))
    lock: Any = field(factory=threading.Lock)

    def did_it(self) -> Any:
        """A body is about to return: its token."""
        with self.lock:
            token = next(self.tokens)
            self.did.append((current_run().id, token))
            return token

    def undid_it(self, token: Any) -> None:
        """The undo of *token* is about to return."""
        with self.lock:
            self.undid[token] += 1

    def fails(self, place: Any, times: int) -> bool:
        """Whether the body at *place* is to fail once more."""
        with self.lock:
            self.tries[place] += 1
            return self.tries[place] <= times


_world = World()
_on_body: Callable[[], object] = lambda: None
_slot: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("slot")
_programs: dict[tuple[Any, ...], Any] = {}
_QUICK = Retry(attempts=3, initial=0.0, jitter=0.0)


def _turn(times: int) -> Any:
    async def wait() -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    return wait()


# The sync half ----------------------------------------------------------------------------------------------


def _take_back(token: Any) -> None:
    _on_body()
    _world.undid_it(token)


@step(name="stopped.act", undo=_take_back, retry=_QUICK)
def act(place: str) -> Any:
    """Do something that can be undone."""
    node = _programs[place]
    _on_body()
    if _world.fails((current_run().id, place), node.fails):
        raise Failed
    return _world.did_it()


@step(name="stopped.boom", retry=Retry(attempts=1))
def boom(place: str) -> None:
    """Fail."""
    raise Failed(place)


@step(name="stopped.nest", undo=_take_back, retry=_QUICK)
def nest(place: str) -> Any:
    """Call others."""
    _play(_programs[place].nodes, place)
    return _world.did_it()


@workflow(name="stopped.call")
def call(place: str) -> None:
    """A workflow in the workflow."""
    _play(_programs[place], place)


def _play(nodes: Program, place: str) -> None:
    for index, node in enumerate(nodes):
        here = f"{place}.{index}"
        _programs[here] = node.nodes if isinstance(node, Call) else node
        if isinstance(node, Act):
            act(here)
        elif isinstance(node, Nest):
            nest(here)
        elif isinstance(node, Call):
            call(here)
        elif isinstance(node, Boom):
            with contextlib.suppress(*([Failed] if node.handled else [])):
                boom(here)
        elif node.how == "submit":
            gather(*(act.submit(each) for each in _acts_of(node, here)))
        else:
            gather(*(call.start(each) for each in _branches(node, here)))


def _branches(node: Beside, place: str) -> list[str]:
    places = []
    for number, branch in enumerate(node.branches):
        each = f"{place}.b{number}"
        _programs[each] = branch
        places.append(each)
    return places


def _acts_of(node: Beside, place: str) -> list[str]:
    places = []
    for number in range(len(node.branches)):
        each = f"{place}.s{number}"
        _programs[each] = Act(0, node.turns)
        places.append(each)
    return places


# The async half ---------------------------------------------------------------------------------------------


async def _take_back_async(token: Any) -> None:
    _on_body()
    await asyncio.sleep(0)
    _world.undid_it(token)


@step(name="stopped.async_act", undo=_take_back_async, retry=_QUICK)
async def async_act(place: str) -> Any:
    """Do something that can be undone."""
    node = _programs[place]
    _on_body()
    await _turn(node.turns)
    if _world.fails((current_run().id, place), node.fails):
        raise Failed
    return _world.did_it()


@step(name="stopped.async_boom", retry=Retry(attempts=1))
async def async_boom(place: str) -> None:
    """Fail."""
    raise Failed(place)


@step(name="stopped.async_nest", undo=_take_back_async, retry=_QUICK)
async def async_nest(place: str) -> Any:
    """Call others."""
    await _aplay(_programs[place].nodes, place)
    return _world.did_it()


@workflow(name="stopped.async_call")
async def async_call(place: str) -> None:
    """A workflow in the workflow."""
    await _aplay(_programs[place], place)


async def _aplay(nodes: Program, place: str) -> None:
    for index, node in enumerate(nodes):
        here = f"{place}.{index}"
        _programs[here] = node.nodes if isinstance(node, Call) else node
        if isinstance(node, Act):
            await async_act(here)
        elif isinstance(node, Nest):
            await async_nest(here)
        elif isinstance(node, Call):
            await async_call(here)
        elif isinstance(node, Boom):
            with contextlib.suppress(*([Failed] if node.handled else [])):
                await async_boom(here)
        else:
            await _abeside(node, here)


async def _abeside(node: Beside, place: str) -> None:
    if node.how == "submit":
        await aio.gather(*(async_act.submit(each) for each in _acts_of(node, place)))
    elif node.how == "start":
        await aio.gather(*(async_call.start(each) for each in _branches(node, place)))
    elif node.how == "gather":
        await asyncio.gather(*(_aplay(_programs[each], each) for each in _branches(node, place)))
    elif node.how == "group":
        try:
            async with asyncio.TaskGroup() as group:
                for each in _branches(node, place):
                    group.create_task(_aplay(_programs[each], each))
        except* Failed as failed:
            raise Failed(place) from failed
    else:
        tasks = [asyncio.create_task(_aplay(_programs[each], each)) for each in _branches(node, place)]
        await _turn(node.turns * 3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


# Moments ----------------------------------------------------------------------------------------------------


class Moments(RelayStorage):
    """Calls *act* of the stop that is due, at a commit or a body. With *slow*, commits take up to that many
    turns of the event loop, in a thread of their own."""

    pause = 0.0  # seconds that a commit may take beside

    def __init__(
        self, inner: Storage, stops: Sequence[Stop], act: Callable[[Stop], object], slow: int, seed: Any
    ) -> None:
        super().__init__(inner)
        self.inline = inner.inline and not slow
        self.shares = self.inline and inner.shares
        self.loop: asyncio.AbstractEventLoop | None = None
        self._stops = stops
        self._act = act
        self._slow = slow
        self._rng = random.Random(f"{seed}")
        self._counts: Counter[bool] = Counter()
        self._lock = threading.Lock()
        self._acting = threading.local()

    def body(self) -> None:
        """A body begins."""
        self._moment(self._next(True), body=True)

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        if getattr(self._acting, "is", False) or threading.current_thread().name == "flowdsl-keeper":
            return self.storage.commit(operations)
        if self.pause:
            time.sleep(self._rng.random() * self.pause)
        mine = self._next(False)
        self._moment(mine, after=False)
        if self._slow:
            self._wait(self._rng.randrange(self._slow + 1))
        outcomes = self.storage.commit(operations)
        self._moment(mine, after=True)
        if self._slow:
            self._wait(self._rng.randrange(self._slow + 1))
        return outcomes

    def _next(self, body: bool) -> int:
        with self._lock:
            self._counts[body] += 1
            return self._counts[body] - 1

    def _moment(self, mine: int, *, after: bool = False, body: bool = False) -> None:
        for stop in self._stops:
            if (stop.at, stop.body) == (mine, body) and (body or stop.after == after):
                if getattr(self._acting, "is", False):
                    return
                self._acting.__dict__["is"] = True
                try:
                    self._act(stop)
                finally:
                    self._acting.__dict__["is"] = False

    def _wait(self, turns: int) -> None:
        """Wait until the event loop has made so many turns; not for long, for it may wait for this commit."""
        loop, passed = self.loop, threading.Event()
        if loop is None or not turns:
            return

        def turn(left: int) -> None:
            if left:
                loop.call_soon(turn, left - 1)
            else:
                passed.set()

        try:
            if asyncio.get_running_loop() is loop:
                return
        except RuntimeError:
            pass
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(turn, turns)
            passed.wait(0.01)


# Executions -------------------------------------------------------------------------------------------------


def meet(world: World, program: Program, on_body: Callable[[], object] = lambda: None) -> World:
    """Let the bodies of *program* act in *world*, and call *on_body* when they begin."""
    global _world, _on_body
    _world, _on_body = world, on_body
    _programs.clear()
    _programs["p"] = program
    return world


def live(
    program: Program,
    is_async: bool,
    storage: Storage,
    stops: Sequence[Stop] = (),
    *,
    slow: int = 0,
    seed: Any = 0,
    world: World | None = None,
    how: Callable[[Stop], bool] | None = None,
) -> World:
    """Execute *program* once, while it is told to stop, and then to its end; what happened. *how* may know other
    ways of stopping; it says whether this was one."""
    task: list[asyncio.Task[Any]] = []

    def tell(stop: Stop) -> None:
        if how is not None and how(stop):
            return
        if stop.how == "task" and task:
            for _ in range(1 + stop.twice):
                with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                    task[0].get_loop().call_soon_threadsafe(task[0].cancel)
        else:
            with contextlib.suppress(FlowError):  # it has ended, or has yet to begin
                beside.cancel(RUN)

    moments = Moments(storage, stops, tell, slow, seed)
    world = meet(world or World(), program, moments.body)

    async def main() -> None:
        moments.loop = asyncio.get_running_loop()
        task.append(asyncio.create_task(async_call.options(id=RUN)("p")))
        await asyncio.wait(task)
        task[0].cancelled() or task[0].exception()

    with Runtime(moments) as runtime, Runtime(moments) as beside, runtime:
        if is_async:
            asyncio.run(main())
        else:
            with contextlib.suppress(Failed, RunCancelled):
                call.options(id=RUN)("p")
        with contextlib.suppress(FlowError):  # it has ended, or it was interrupted and is ended now
            runtime.cancel(RUN)
    return world


def standing(storage: Storage, world: World, again: int = 0) -> list[str]:
    """What is wrong in the end, in words. So many undos may have begun *again*, because they were killed."""
    runs = {run.id: run for run in storage.list_runs()}
    wrong = [
        f"{run.id} of {run.parent} is {run.status}"
        for run in runs.values()
        if run.status in ("pending", "running")
    ]

    def is_bad(run_id: str | None) -> bool:
        if run_id is None:
            return False
        return runs[run_id].status in ("failed", "cancelled") or is_bad(runs[run_id].parent)

    for run_id, token in world.did:
        times, expected = world.undid[token], int(is_bad(run_id))
        if not expected <= times <= expected * (1 + again):
            wrong.append(
                f"{token} of {run_id} ({runs[run_id].status}) was undone {times} times, not {expected}"
            )
    for run_id in runs:
        for record in storage.list_steps(run_id):
            undoable = record.path.endswith(("act", "nest")) and record.kind == "step"
            if undoable and record.status == "completed" and is_bad(run_id):
                wrong.append(f"{record.path}({record.args}) of {run_id} was left standing")
    if wrong:
        wrong.append(f"the run is {runs[RUN].status}")
    return wrong
