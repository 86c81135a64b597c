"""Steps in one run: one after the other, replayed, and concurrent."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import workflows as w
from benchmarks.measure import MICRO, Budget, Figure, Scale, figure, quiet, seconds_of
from benchmarks.raw import Raw, Row, rows_of
from flowdsl import Runtime

__all__ = ["fan_out", "replayed", "sequential"]

_numbers = count()
_STORAGES = ("memory", "normal", "full")


def url(storage: str, directory: Path) -> str:
    """The URL of a new storage: ``memory``, or SQLite at this ``synchronous`` level."""
    if storage == "memory":
        return "memory://"
    return f"sqlite:///{directory}/flow-{next(_numbers)}.db?synchronous={storage}"


def named(storage: str) -> str:
    """The name of the storage in the table."""
    return "memory" if storage == "memory" else f"SQLite {storage.upper()}"


def sample_row(directory: Path) -> Row:
    """One row as flowdsl writes it."""
    path = directory / f"sample-{next(_numbers)}.db"
    with Runtime(f"sqlite:///{path}"):
        w.in_turns(1, 1, lambda: None)
    return rows_of(path)[0]


def sequential(scale: Scale) -> Iterator[Figure]:
    """First execution of steps, one after the other, in turns with raw inserts."""
    row = sample_row(scale.directory)
    for is_async in (False, True):
        for storage in _STORAGES:
            yield _sequential(scale, storage, row, is_async)


_SEQUENTIAL = {"memory": Budget(20), "normal": Budget(3, "ratio"), "full": Budget(1.3, "ratio")}


def _sequential(scale: Scale, storage: str, row: Row, is_async: bool) -> Figure:
    raw = Raw(scale.directory, storage, row)
    beside: list[float] = []

    def between() -> None:
        beside.append(raw.write(scale.steps) / scale.steps * MICRO)

    with quiet(), Runtime(url(storage, scale.directory)):
        if is_async:
            times = asyncio.run(w.in_turns_async(scale.rounds, scale.steps, between))
        else:
            times = w.in_turns(scale.rounds, scale.steps, between)
    raw.close()
    return figure(
        f"do step, {'async' if is_async else 'sync'}, {named(storage)}",
        [time / scale.steps * MICRO for time in times],
        reference=beside,
        reference_name="raw insert",
        budget=_SEQUENTIAL[storage],
    )


def replayed(scale: Scale) -> Iterator[Figure]:
    """Replay of a long journal, loading included, in turns with a raw SELECT and ``pickle.loads``."""
    row = sample_row(scale.directory)
    for is_async in (False, True):
        for storage in _STORAGES:
            yield _replayed(scale, storage, row, is_async)


def _replayed(scale: Scale, storage: str, row: Row, is_async: bool) -> Figure:
    raw = Raw(scale.directory, "normal", row)
    raw.write_together([scale.journal])

    def once() -> None:
        try:
            asyncio.run(w.again_async(scale.journal)) if is_async else w.again(scale.journal)
        except w.Stopped:
            pass

    times, beside = [], []
    with quiet(), Runtime(url(storage, scale.directory)):
        once()
        for _ in range(scale.repeats):
            times.append(seconds_of(once) / scale.journal * MICRO)
            beside.append(raw.read(w.RESULT) / scale.journal * MICRO)
    raw.close()
    return figure(
        f"replayed step of {scale.journal:,}, {'async' if is_async else 'sync'}, {named(storage)}",
        times,
        reference=beside,
        reference_name="raw select + pickle.loads",
        budget=Budget(12),
    )


def fan_out(scale: Scale) -> Iterator[Figure]:
    """Many concurrent steps in one run, in turns with as many raw inserts."""
    row = sample_row(scale.directory)
    for is_async in (False, True):
        for storage in _STORAGES:
            yield _fan_out(scale, storage, row, is_async)


def _fan_out(scale: Scale, storage: str, row: Row, is_async: bool) -> Figure:
    raw = Raw(scale.directory, storage, row)
    work: Callable[[], Any] = (
        (lambda: asyncio.run(w.fan_out_async(scale.fan_out)))
        if is_async
        else (lambda: w.fan_out(scale.fan_out))
    )
    times, beside = [], []
    with quiet(), Runtime(url(storage, scale.directory)):
        for _ in range(scale.repeats):
            times.append(work() / scale.fan_out * MICRO)
            beside.append(raw.write(scale.fan_out) / scale.fan_out * MICRO)
    raw.close()
    limit = {"full": 180.0, "memory": 60.0}.get(storage)
    budget = Budget(60) if is_async else None if limit is None else Budget(limit)
    return figure(
        f"fan-out of {scale.fan_out:,}, {'async' if is_async else 'sync threads'}, {named(storage)}",
        times,
        reference=beside,
        reference_name="raw insert",
        budget=budget,
    )
