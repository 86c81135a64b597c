"""The grammar of the programs that :mod:`stopped` stops, and the world that their bodies act in."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import field, frozen
from generator import Choose, Grammar, Inner, Program

from flowdsl import current_run

__all__ = [
    "GRAMMAR",
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


HOWS = (
    *("gather", "group", "branches", "left", "timeout"),
    *("start", "submit", "schedule", "race", "thread", "loose"),
)
UNDOS = ("plain", "plain", "plain", "plain", "none", "flaky", "calls")


def _leaf(choose: Choose) -> Any:
    if choose((True, True, True, False)):
        return Act(choose((0, 0, 0, 1)), choose(range(4)), choose(UNDOS))
    return Boom(choose((True, True, True, False)))


def _holder(choose: Choose, inner: Inner) -> Any:
    kind: Any = choose((Nest, Call, Call, Guard, Swallow, Beside, Beside))
    if kind is Guard:
        return Guard(inner(), inner())
    if kind is Beside:
        branches = tuple(inner() for _ in range(choose(range(1, 4))))
        return Beside(choose(HOWS), branches, choose(range(4)))
    return kind(inner())


GRAMMAR = Grammar(_leaf, _holder)


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
