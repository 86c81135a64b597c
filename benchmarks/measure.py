"""Samples and figures: how a measurement becomes a line of the table.

A measurement and its reference are sampled in turns, round by round, so other work of the machine affects
both. A figure has the median of the samples, the median of the ratios of the rounds, and the best sample,
which shows what the machine can do when nothing else runs.
"""

import dataclasses
import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

__all__ = ["Budget", "Figure", "Scale", "figure", "quiet", "seconds_of"]

MICRO = 1e6


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured, and in which directory the databases are made."""

    directory: Path
    rounds: int = 120
    steps: int = 25  # of one round, which is shorter than a time slice of the scheduler
    repeats: int = 9  # of measurements that are made as a whole
    journal: int = 10_000
    fan_out: int = 1_000
    runs: int = 1_000
    processes: int = 10
    listed: int = 100_000
    browser: bool = True

    @classmethod
    def quick(cls, directory: Path) -> "Scale":
        """Fewer samples, for a result within a minute."""
        return cls(directory, rounds=20, repeats=2, processes=3, listed=10_000)

    @classmethod
    def tiny(cls, directory: Path) -> "Scale":
        """Just enough to show that a benchmark works. Its figures mean nothing."""
        return cls(
            directory,
            rounds=2,
            steps=3,
            repeats=2,
            journal=10,
            fan_out=5,
            runs=3,
            processes=1,
            listed=20,
            browser=False,
        )


@dataclasses.dataclass(frozen=True)
class Budget:
    """A limit for the measured value, or for its ratio to the reference. With ``least`` it is a lower
    limit."""

    limit: float
    of: str = "measured"
    least: bool = False

    def text(self, unit: str) -> str:
        """The budget as the table shows it."""
        sign = "≥" if self.least else "≤"
        return f"{sign} {self.limit:g}×" if self.of == "ratio" else f"{sign} {self.limit:,g} {unit}"

    def met(self, value: float) -> bool:
        """Whether *value* keeps to it."""
        return value >= self.limit if self.least else value <= self.limit


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table.

    ``best`` is the best single sample, ``ratio`` the median of measured / reference. ``met`` compares the
    median with the budget, ``met_at_best`` the best sample. On a busy machine the best sample says more about
    an absolute budget.
    """

    name: str
    unit: str
    measured: float
    best: float
    reference_name: str = ""
    reference: float | None = None
    ratio: float | None = None
    budget: str = ""
    met: bool | None = None
    met_at_best: bool | None = None
    samples: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def figure(
    name: str,
    samples: Sequence[float],
    *,
    unit: str = "µs",
    reference: Sequence[float] = (),
    reference_name: str = "",
    budget: Budget | None = None,
) -> Figure:
    """Make a figure from samples, and from those of the reference in the same rounds."""
    measured = median(samples)
    ratio = median(a / b for a, b in zip(samples, reference, strict=True)) if reference else None
    best = max(samples) if budget is not None and budget.least else min(samples)
    judged, judged_best = measured, best
    if budget is not None and budget.of == "ratio":
        assert ratio is not None
        judged, judged_best = ratio, min(samples) / min(reference)
    return Figure(
        name=name,
        unit=unit,
        measured=measured,
        best=best,
        reference_name=reference_name,
        reference=median(reference) if reference else None,
        ratio=ratio,
        budget=budget.text(unit) if budget is not None else "",
        met=None if budget is None else budget.met(judged),
        met_at_best=None if budget is None else budget.met(judged_best),
        samples=len(samples),
    )


def seconds_of(work: Callable[[], Any]) -> float:
    """How long *work* takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


@contextmanager
def quiet() -> Iterator[None]:
    """Collect the garbage of earlier measurements first."""
    gc.collect()
    yield
