"""The grammar of programs that use every verb, and the places where their process dies.

A node is ``(kind, *more)``, where *more* are programs in it.
"""

from typing import Any

from generator import Fault, Grammar, Program

__all__ = [
    "BESIDE",
    "ENDINGS",
    "GRAMMAR",
    "HOLDERS",
    "LEAVES",
    "Fault",
    "Program",
    "Slot",
    "endings_of",
    "kinds_of",
]

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
anew, and that generation has nothing more to do. A program that does one thing at a time may also end with ``timeout``:
its time is up. (Where things happen at the same time, a virtual clock may still jump to a far time limit in a moment in
which nobody counts as able to run.)"""


def endings_of(program: Program) -> list[str]:
    """All that *program* may end with."""
    return ENDINGS if BESIDE & kinds_of(program) else [*ENDINGS, "timeout"]


GRAMMAR = Grammar(lambda choose: (choose(LEAVES),), lambda choose, inner: (choose(HOLDERS), inner()), most=5)


def kinds_of(program: Program) -> set[str]:
    """Every kind in *program*."""
    found = set()
    for kind, *inner in program:
        found.add(kind)
        for one in inner:
            found |= kinds_of(one)
    return found
