"""The measured workflows. Their steps do almost nothing, so the time is that of flowdsl."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from flowdsl import step, workflow

__all__ = ["again", "again_async", "fan_out", "fan_out_async", "in_turns", "in_turns_async", "three_steps"]

RESULT: dict[str, Any] = {"order": 1_000, "state": "reserved", "total": 12.5}


@step
def reserve(number: int) -> dict[str, Any]:
    """A step that does nothing but return a small result."""
    return {"order": number, "state": "reserved", "total": 12.5}


@step
async def areserve(number: int) -> dict[str, Any]:
    """The same, async."""
    return {"order": number, "state": "reserved", "total": 12.5}


@workflow(ignore=("between",))
def in_turns(rounds: int, count: int, between: Callable[[], Any]) -> list[float]:
    """The seconds of *count* steps, for each round. The reference is measured between the rounds."""
    times = []
    for turn in range(rounds):
        start = perf_counter()
        for number in range(turn * count, turn * count + count):
            reserve(number)
        times.append(perf_counter() - start)
        between()
    return times


@workflow(ignore=("between",))
async def in_turns_async(rounds: int, count: int, between: Callable[[], Any]) -> list[float]:
    """The same, async."""
    times = []
    for turn in range(rounds):
        start = perf_counter()
        for number in range(turn * count, turn * count + count):
            await areserve(number)
        times.append(perf_counter() - start)
        between()
    return times


class Stopped(Exception):
    """Ends a run so that the next call continues it and replays all its steps."""


@workflow(id="again-{count}")
def again(count: int) -> None:
    """*count* steps, and then a stop, so the run never ends."""
    for number in range(count):
        reserve(number)
    raise Stopped


@workflow(id="again-async-{count}")
async def again_async(count: int) -> None:
    """The same, async."""
    for number in range(count):
        await areserve(number)
    raise Stopped


@workflow
def fan_out(count: int) -> float:
    """The seconds of *count* concurrent steps."""
    start = perf_counter()
    reserve.map(range(count))
    return perf_counter() - start


@workflow
async def fan_out_async(count: int) -> float:
    """The same, async."""
    start = perf_counter()
    await areserve.map(range(count))
    return perf_counter() - start


@workflow(id="three-{batch}-{number}")
async def three_steps(batch: int, number: int) -> int:  # noqa: ARG001 - it is part of the id
    """A run of three steps."""
    total = 0
    for part in range(3):
        total += (await areserve(number * 3 + part))["order"]
    return total


async def side_by_side(batch: int, runs: int) -> float:
    """The seconds of *runs* concurrent runs."""
    start = perf_counter()
    await asyncio.gather(*(three_steps(batch, number) for number in range(runs)))
    return perf_counter() - start
