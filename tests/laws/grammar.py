"""The one grammar of the programs of all laws, and where their process dies.

A program is data: a tuple of nodes ``(kind, *more)``, where *more* are numbers, names, and programs in the node.
Each kind has a *constructor* here. A :class:`Grammar` is a selection of constructors. All chance is in a function
*choose*, which is given options and returns one of them. So hypothesis can make a program and shrink it, and
a campaign can make one from a seed.

``bodies.py`` executes programs: it takes each node to the method of its kind, with the node's *slot*, which is its
place. What a kind does is written where the law is that needs it, because three kinds of laws know by different
things what must be true:

* ``FLAT``, ``SEQUENTIAL``, ``REPLAYED`` (``programs.py``): replay and recovery. Calls are often *equal*, the same
  step with the same number, so a call cannot tell its slot by its arguments: a context variable does.
* ``VERBS`` (``verb_*.py``): every verb and every ending. Each call tells its slot by its arguments, so the records of
  two executions can be compared.
* ``STOPPED`` (``stopped*.py``): undo and closing, stopped anywhere in real time. Each execution of a step gives a
  token of its own, so it can be counted what is taken back.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

__all__ = [
    "BESIDE",
    "ENDINGS",
    "FLAT",
    "HOLDERS",
    "LEAVES",
    "REPLAYED",
    "SEQUENTIAL",
    "STOPPED",
    "VERBS",
    "Fault",
    "Grammar",
    "Program",
    "Slot",
    "endings_of",
    "kinds_of",
    "nodes_of",
    "sequential",
]

Node = tuple[Any, ...]
Program = tuple[Node, ...]
Slot = tuple[Any, ...]
Choose = Callable[[Sequence[Any]], Any]
Inner = Callable[[], Program]
Constructor = Callable[[Choose, Inner], Node]


@frozen
class Grammar:
    """What programs are made of.

    * *leaves* make nodes that hold no programs; *holders* make those that do.
    * *depth*: how deep holders are in holders. *holds*: one of these says whether a node is a holder.
    * *most*: the nodes of a program, at most; *inner*: those of one in a holder.
    """

    leaves: Sequence[Constructor]
    holders: Sequence[Constructor] = ()
    depth: int = 2
    most: int = 4
    inner: int = 3
    holds: tuple[bool, ...] = (False, False, True)

    def program(self, choose: Choose) -> Program:
        """A program."""
        return self._program(choose, self.depth if self.holders else 0, self.most)

    def of_seed(self, seed: Any) -> Program:
        """The program of a *seed*, which is anything that ``random.Random`` takes."""
        return self.program(random.Random(seed).choice)

    @property
    def strategy(self) -> st.SearchStrategy[Program]:
        """All programs, for hypothesis."""

        @st.composite
        def programs(draw: st.DrawFn) -> Program:
            return self.program(lambda options: draw(st.sampled_from(options)))

        return programs()

    def _program(self, choose: Choose, depth: int, most: int) -> Program:
        return tuple(self._node(choose, depth) for _ in range(choose(range(1, most + 1))))

    def _node(self, choose: Choose, depth: int) -> Node:
        kinds: Sequence[Constructor] = self.holders if depth and choose(self.holds) else self.leaves
        kind = choose(kinds) if len(kinds) > 1 else kinds[0]
        return kind(choose, lambda: self._program(choose, depth - 1, self.inner))


@frozen
class Fault:
    """Where a life ends: at its *at*-th commit (from 0), before it takes effect or *after*; or, with *body*, when its
    *at*-th body begins; or, with *end*, at the commit that would complete the run."""

    at: int = 0
    after: bool = False
    body: bool = False
    end: bool = False


def nodes_of(program: tuple[Any, ...]) -> Iterator[Node]:
    """All nodes in *program*, at any depth."""
    for part in program:
        if isinstance(part, tuple):
            if part and isinstance(part[0], str):
                yield part
            yield from nodes_of(part)


def kinds_of(program: Program) -> set[str]:
    """Every kind in *program*."""
    return {kind for kind, *_ in nodes_of(program)}


def _leaf(kind: str, *choices: Sequence[Any]) -> Constructor:
    """A node that holds one of each of *choices*."""
    return lambda choose, inner: (kind, *(choose(options) for options in choices))


def _holder(kind: str) -> Constructor:
    """A node that holds one program."""
    return lambda choose, inner: (kind, inner())


# Every verb and every ending --------------------------------------------------------------------------------

LEAVES = """
step flaky handled silent memo doubt undoable plainly_undoable stubborn try_
increment push set delete get items store_in_step
sleep sleep_until early late chosen two_signals in_vain
now uuid4 rng log send schedule schedule_from_step
received asked published raced detached renewed beating tagged tolerant endless
""".split()
"""Kinds of verbs that hold no others."""

HOLDERS = [
    "nested",
    "retried",
    "child",
    "started",
    "lost_child",
    "branches",
    "submitted",
    "mapped",
    "own_tasks",
]
"""Kinds that hold a program: a sequence, or branches that execute at the same time."""

BESIDE = {"started", "branches", "submitted", "mapped", "own_tasks", "late", "schedule", "schedule_from_step"}
BESIDE |= {"asked", "raced", "detached", "tolerant"}
"""Kinds in which things happen at the same time, so that the order of completion is a matter of timing."""

ENDINGS = ["return", "raise", "retry", "cancel", "anew"]
"""How a program ends: with its result; with an exception; with one, and is then retried; it is cancelled; it begins
anew, and that generation has nothing more to do. A program that does one thing at a time may also end with ``timeout``:
its time is up. (Where things happen at the same time, a virtual clock may still jump to a far time limit in a moment in
which nobody counts as able to run.)"""

VERBS = Grammar([_leaf(kind) for kind in LEAVES], [_holder(kind) for kind in HOLDERS], most=5)


def endings_of(program: Program) -> list[str]:
    """All that *program* may end with."""
    return ENDINGS if BESIDE & kinds_of(program) else [*ENDINGS, "timeout"]


# Replay and recovery: calls of steps by a number, which are often equal -------------------------------------

CALLS = [_leaf("plain", range(3)), _leaf("roll"), _leaf("failing", range(3)), _leaf("boom", range(3))]
"""A step; one that has no argument; one that fails its number modulo 10 times at first; one that always fails, which is
handled."""


def _calls(choose: Choose, most: int) -> Program:
    return Grammar(CALLS, most=most).program(choose)


def _nested(choose: Choose, inner: Inner) -> Node:
    """A step that calls steps: its number, and how often it fails behind them."""
    number = choose(range(3))
    return "nested", inner(), number, choose(range(3))


def _in_turn(choose: Choose, _inner: Inner) -> Node:
    """A step that calls steps, or a workflow in the workflow."""
    if choose((True, False)):
        steps = Grammar(CALLS, [_nested], depth=1, most=3, inner=2)
        return _nested(choose, lambda: steps.program(choose))
    number = choose(range(3))
    return "child", _calls(choose, 4), number


def _beside(choose: Choose, _inner: Inner) -> Node:
    """Branches that execute at the same time, and what the body does meanwhile. They share no equal call: which of two
    equal ones comes first would be a matter of timing."""
    first = choose((False, True)) and _calls(choose, 3)
    branches = [first or (), *(_calls(choose, 3) for _ in range(choose((2, 3))))]
    own = [
        tuple(("plain", 10 * n) if call == ("roll",) else (call[0], call[1] + 10 * n) for call in branch)
        for n, branch in enumerate(branches)
    ]
    return "beside", tuple(own[1:]), own[0]


def _submit(choose: Choose, _inner: Inner) -> Node:
    """Calls that are submitted, and the order in which their results are asked for; or numbers, for ``map``."""
    if choose((False, True)):
        return "mapped_numbers", tuple(10 * n + choose(range(10)) for n in range(choose(range(1, 5))))
    calls = _calls(choose, 4)
    left, order = list(range(len(calls))), []
    while left:
        order.append(left.pop(choose(range(len(left)))))
    return "submit", calls, tuple(order)


FLAT = Grammar([_leaf("plain", range(4)), _leaf("roll")], most=7)
"""Programs of calls that succeed."""

SEQUENTIAL = Grammar(CALLS, [_in_turn], depth=1, most=5, holds=(False, True, True))
"""Programs that do one thing at a time."""

REPLAYED = Grammar(CALLS, [_in_turn, _in_turn, _beside, _submit], depth=1, holds=(False, True, True))
"""All of them."""


# Undo and closing -------------------------------------------------------------------------------------------

HOWS = (
    *("gather", "group", "branches", "left", "timeout"),
    *("start", "submit", "schedule", "race", "thread", "loose"),
)
"""How branches execute at the same time. In async bodies: ``gather`` (of asyncio), ``group`` (its TaskGroup),
``branches`` (our own gather), ``left`` (the body waits for some turns and cancels them) or ``timeout`` (the same by
``asyncio.timeout``); everywhere ``start``: of started children, ``submit``, ``schedule``, ``race``, ``thread``, and
``loose``: tasks or threads that nobody waits for. What a sync body cannot do, it does with ``start``."""

UNDOS = ("plain", "plain", "plain", "plain", "none", "flaky", "calls")
"""How a step is undone; ``flaky`` fails at first, and ``calls`` calls a step that could be undone itself."""

_act = _leaf("act", (0, 0, 0, 1), range(4), UNDOS)
"""A step that can be undone: how often it fails first, how many turns of the event loop it takes, and its undo."""

_fail = _leaf("fail", (True, True, True, False))
"""A step that fails; unless it is handled, so does the run."""


def _guard(choose: Choose, inner: Inner) -> Node:
    """``try`` some, ``finally`` others, which clean up."""
    return "guard", inner(), inner()


def _at_once(choose: Choose, inner: Inner) -> Node:
    """Branches at the same time, how, and for how many turns of the event loop."""
    branches = tuple(inner() for _ in range(choose(range(1, 4))))
    return "at_once", branches, choose(HOWS), choose(range(4))


_swallow = _holder("swallow")
"""``try`` some, and go on whatever they raise, be it what stops the run."""

_call = _holder("child")
STOPPED = Grammar(
    [_act, _act, _act, _fail], [_holder("nested"), _call, _call, _guard, _swallow, _at_once, _at_once]
)


def sequential(program: Program, *, in_step: bool = False) -> bool:
    """Whether it does one thing at a time, and each once: a step that is tried again executes a workflow in it
    anew, when that was undone."""
    for kind, *more in program:
        again = kind == "at_once" or (in_step and kind == "child")
        programs = [one for one in more if isinstance(one, tuple)]
        if again or not all(sequential(one, in_step=in_step or kind == "nested") for one in programs):
            return False
    return True
