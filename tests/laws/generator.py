"""The generator of the programs of all laws, and where their process dies.

A program is data: a tuple of nodes. A :class:`Grammar` says which nodes there are. All chance is in a function
*choose*, which is given options and returns one of them. So hypothesis can make a program and shrink it, and
a campaign can make one from a seed.

There are three grammars, because three kinds of laws ask for different programs and know by different things what must
be true. All share this generator, what interprets bodies (``bodies.py``) and the storage whose process dies
(``support.Mortal``).

* ``programs.py``, replay and recovery. Calls are often *equal*: the same step with the same arguments, so that
  occurrences and ordinals matter. Hence a call does not tell its place by its arguments. The place lies outside, in a
  context variable, and the world knows what was seen there. Calls can be removed, reordered and changed.
* ``verb_*.py``, every verb and every ending. Each call tells its place by its arguments, so records can be read: the
  journal, the run store and the messages of two executions are compared, with and without deaths. Time is virtual.
* ``stopped*.py``, undo and closing. Programs are stopped in the middle of whatever they do, by real threads and event
  loops in real time. Whatever came of it, tokens are counted: what is taken back, how often, in which order. Here
  bodies also swallow and clean up.

One world for all would have to be the union of the three, with most of it switched off in each law.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

__all__ = ["Choose", "Fault", "Grammar", "Inner", "Program"]

Program = tuple[Any, ...]
Choose = Callable[[Sequence[Any]], Any]
Inner = Callable[[], Program]


def _no_holder(_choose: Choose, _inner: Inner) -> Any:
    raise AssertionError("a grammar of depth 0 has no holders")


@frozen
class Grammar:
    """What programs are made of.

    * *leaf* makes a node that holds no others. *holder* makes one that holds programs, and is given what makes
      such a program.
    * *depth*: how deep holders are in holders. *holds*: one of these says whether a node is a holder.
    * *most*: the nodes of a program, at most; *inner*: those of one in a holder.
    """

    leaf: Callable[[Choose], Any]
    holder: Callable[[Choose, Inner], Any] = _no_holder
    depth: int = 2
    most: int = 4
    inner: int = 3
    holds: tuple[bool, ...] = (False, False, True)

    def program(self, choose: Choose) -> Program:
        """A program."""
        return self._program(choose, self.depth, self.most)

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

    def _node(self, choose: Choose, depth: int) -> Any:
        if depth and choose(self.holds):
            return self.holder(choose, lambda: self._program(choose, depth - 1, self.inner))
        return self.leaf(choose)


@frozen
class Fault:
    """Where a life ends: at its *at*-th commit (from 0), before it takes effect or *after*; or, with *body*, when its
    *at*-th body begins; or, with *end*, at the commit that would complete the run."""

    at: int = 0
    after: bool = False
    body: bool = False
    end: bool = False
