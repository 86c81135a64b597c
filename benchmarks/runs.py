"""Many runs at the same time on one storage."""

import asyncio
from collections.abc import Iterator

from benchmarks import workflows as w
from benchmarks.measure import Budget, Figure, Scale, figure, quiet
from benchmarks.raw import Raw
from benchmarks.steps import named, sample_row, url
from flowdsl import Runtime

__all__ = ["concurrent"]

_COMMITS = 5  # of one run: it is opened, has three steps, and ends


def concurrent(scale: Scale) -> Iterator[Figure]:
    """Concurrent async runs of three steps, in turns with the same number of raw rows in five commits."""
    row = sample_row(scale.directory)
    for storage in ("memory", "normal", "full"):
        raw = Raw(scale.directory, storage, row)
        rates, beside = [], []
        with quiet(), Runtime(url(storage, scale.directory)):
            for batch in range(scale.repeats):
                rates.append(scale.runs / asyncio.run(w.side_by_side(batch, scale.runs)))
                beside.append(scale.runs / raw.write_together([scale.runs] * _COMMITS))
        raw.close()
        yield figure(
            f"{scale.runs:,} concurrent runs × 3 steps, async, {named(storage)}",
            rates,
            unit="runs/s",
            reference=beside,
            reference_name=f"raw rows in {_COMMITS} commits",
            budget=Budget(3_000, least=True),
        )
