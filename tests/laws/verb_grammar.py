"""The grammar of random programs, and the places where their process dies.

A program is data: a tuple of nodes ``(kind, *more)``, where *more* are programs in it. Made by hypothesis or
from a seed.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

__all__ = [
    "BESIDE",
    "ENDINGS",
    "HOLDERS",
    "LEAVES",
    "Fault",
    "Program",
    "Slot",
    "kinds_of",
    "programs",
    "random_program",
]

Program = tuple[Any, ...]
Slot = tuple[Any, ...]

LEAVES = """
step flaky handled silent memo doubt undoable plainly_undoable stubborn try_
increment push set delete get items store_in_step
sleep sleep_until early late chosen two_signals in_vain
now uuid4 rng log send schedule schedule_from_step
received asked published raced detached renewed beating tagged tolerant endless
""".split()
"""Kinds of nodes that hold no others."""

HOLDERS = ["nested", "retried", "child", "started", "lost_child", "branches", "submitted", "mapped", "plain"]
"""Kinds of nodes that hold a program: a sequence, or branches that execute at the same time."""

BESIDE = {"started", "branches", "submitted", "mapped", "plain", "late", "schedule", "schedule_from_step"}
BESIDE |= {"asked", "raced", "detached", "tolerant"}
"""Kinds in which things happen at the same time, so that the order of completion is a matter of timing."""

ENDINGS = ["return", "raise", "retry", "cancel", "anew"]
"""How a program ends: with its result; with an exception; with one, and is then retried; it is cancelled; it begins
anew, and that generation has nothing more to do. ``timeout``, its time is up, is for programs of one thread: with a
deadline, a virtual clock that skips a moment too early ends everything."""

Choose = Callable[[Sequence[Any]], Any]


def _program(choose: Choose, depth: int, most: int) -> Program:
    return tuple(_node(choose, depth) for _ in range(choose(range(1, most + 1))))


def _node(choose: Choose, depth: int) -> Any:
    if depth and choose([False, False, True]):
        return (choose(HOLDERS), _program(choose, depth - 1, 3))
    return (choose(LEAVES),)


def random_program(seed: Any) -> Program:
    """The program of a *seed* (anything that ``random.Random`` takes)."""
    return _program(random.Random(seed).choice, 2, 5)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """All programs; hypothesis can shrink them."""
    return _program(lambda options: draw(st.sampled_from(options)), 2, 5)


def kinds_of(program: Program) -> set[str]:
    """Every kind in *program*."""
    found = set()
    for kind, *inner in program:
        found.add(kind)
        for one in inner:
            found |= kinds_of(one)
    return found


@frozen
class Fault:
    """Where a life ends: at its *at*-th commit (from 0), before it takes effect or *after*; or, with *body*,
    when its *at*-th body begins."""

    at: int
    after: bool = False
    body: bool = False
