"""Examples of a hypothesis strategy, the same for the same seed, as many as one wants."""

from collections.abc import Iterator
from itertools import count
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["draw"]

T = TypeVar("T")


def draw(strategy: SearchStrategy[T], seed: int, batch: int = 100) -> Iterator[T]:
    """Different examples of *strategy*, for ever."""
    known: set[str] = set()
    for number in count():
        found: list[Any] = []

        @hypothesis.seed(seed * 1_000_003 + number)
        @settings(
            max_examples=batch,
            database=None,
            derandomize=False,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def collect(example: Any) -> None:
            found.append(example)

        collect()
        for example in reversed(found):  # the first ones are the smallest
            if repr(example) not in known:
                known.add(repr(example))
                yield example
