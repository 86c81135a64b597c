"""The generator of the programs of all laws.

A program is data: a tuple of nodes. A :class:`Grammar` says which nodes there are. All chance is in a function
*choose*, which is given options and returns one of them. So hypothesis can make a program and shrink it, and
a campaign can make one from a seed.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

__all__ = ["Choose", "Grammar", "Inner", "Program"]

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
