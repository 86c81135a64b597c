"""The programs that :mod:`stopped` stops: data, a tuple of nodes; and the world that their bodies act in."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import field, frozen
from hypothesis import strategies as st

from flowdsl import current_run

__all__ = [
    "Act",
    "Beside",
    "Boom",
    "Call",
    "Failed",
    "Guard",
    "Nest",
    "Program",
    "Swallow",
    "World",
    "draw",
    "programs",
    "sequential",
]


class Failed(Exception):
    """What a failing step raises."""


# Nodes ------------------------------------------------------------------------------------------------------


@frozen
class Act:
    """A step that can be undone. It fails *fails* times first, and takes *turns* of the event loop. Its *undo* is
    ``plain``, ``none``, ``flaky`` (it fails at first), or ``calls`` a step that could be undone itself."""

    fails: int = 0
    turns: int = 0
    undo: str = "plain"


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
    ``branches`` (our own gather), ``left`` (the body waits for some turns and cancels them) or ``timeout`` (the same
    by ``asyncio.timeout``); everywhere ``start``: of started children, ``submit``, ``schedule``, ``race``, ``thread``,
    and ``loose``: tasks or threads that nobody waits for. What a sync body cannot do, it does with ``start``."""

    how: str
    branches: tuple[tuple[Any, ...], ...]
    turns: int = 0


@frozen
class Guard:
    """``try`` some, ``finally`` others, which clean up."""

    nodes: tuple[Any, ...]
    after: tuple[Any, ...]


@frozen
class Swallow:
    """``try`` some, and go on whatever they raise, be it what stops the run."""

    nodes: tuple[Any, ...]


Program = tuple[Any, ...]

_turns = st.integers(0, 3)
UNDOS = ("plain", "plain", "plain", "plain", "none", "flaky", "calls")
_acts = st.builds(Act, st.sampled_from([0, 0, 0, 1]), _turns, st.sampled_from(UNDOS))
_booms = st.builds(Boom, st.sampled_from([True, True, True, False]))
HOWS = (
    *("gather", "group", "branches", "left", "timeout"),
    *("start", "submit", "schedule", "race", "thread", "loose"),
)


def _compound(inner: Any) -> Any:
    some = st.lists(inner, min_size=1, max_size=3).map(tuple)
    branches = st.lists(some, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Nest, some),
        st.builds(Call, some),
        st.builds(Call, some),
        st.builds(Guard, some, some),
        st.builds(Swallow, some),
        st.builds(Beside, st.sampled_from(HOWS), branches, _turns),
    )


_nodes = st.recursive(st.one_of(_acts, _acts, _acts, _booms), _compound, max_leaves=5)
programs = st.lists(_nodes, min_size=1, max_size=4).map(tuple)
"""All programs."""


def draw(rng: random.Random, depth: int = 2) -> Program:
    """A random program, without hypothesis."""

    def node(depth: int) -> Any:
        which = rng.randrange(11 if depth else 5)
        if which < 4:
            return Act(rng.choice([0, 0, 0, 1]), rng.randrange(4), rng.choice(UNDOS))
        if which == 4:
            return Boom(rng.random() < 0.75)
        if which == 5:
            return Nest(some(depth - 1))
        if which == 6:
            return Call(some(depth - 1))
        if which == 7:
            return Guard(some(depth - 1), some(depth - 1))
        if which == 8:
            return Swallow(some(depth - 1))
        branches = tuple(some(depth - 1) for _ in range(rng.randint(1, 3)))
        return Beside(rng.choice(HOWS), branches, rng.randrange(4))

    def some(depth: int) -> Program:
        return tuple(node(depth) for _ in range(rng.randint(1, 3)))

    return tuple(node(depth) for _ in range(rng.randint(1, 4)))


def sequential(program: Program, *, in_step: bool = False) -> bool:
    """Whether it does one thing at a time, and each once: a step that is tried again executes a workflow in it
    anew, when that was undone."""
    for node in program:
        inner = (*getattr(node, "nodes", ()), *getattr(node, "after", ()))
        again = isinstance(node, Beside) or (in_step and isinstance(node, Call))
        if again or not sequential(inner, in_step=in_step or isinstance(node, Nest)):
            return False
    return True


# The world outside ------------------------------------------------------------------------------------------


@frozen(eq=False)
class World:
    """What really happened. ``did``: the tokens of each run; ``undid``: how often each was taken back, in that order;
    ``threads``: what bodies have left behind."""

    did: list[tuple[str, Any]] = field(factory=list)
    undid: Counter[Any] = field(factory=Counter)
    threads: list[threading.Thread] = field(factory=list)
    tries: Counter[Any] = field(factory=Counter)
    tokens: Iterator[int] = field(factory=lambda: itertools.count(1))
    lock: Any = field(factory=threading.Lock)

    def did_it(self, kept: bool = False) -> Any:
        """A body is about to return: its token; of one that nothing takes back, with *kept*."""
        with self.lock:
            token: Any = f"k{next(self.tokens)}" if kept else next(self.tokens)
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
