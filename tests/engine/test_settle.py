"""Waiting for the branches of a run, at its end."""

import asyncio
import sys
from types import FrameType

from flowdsl import step, workflow


@step(name="settle.one")
async def one(number: int) -> int:
    return number


@workflow(name="settle.many")
async def many(count: int) -> int:
    futures = [one.submit(number) for number in range(count)]
    return sum([await future for future in futures])


def calls_of(count: int) -> int:
    """How many Python functions a run of *count* submitted steps calls."""
    calls = 0

    def note(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        assert asyncio.run(many(count)) == sum(range(count))
    finally:
        sys.setprofile(None)
    return calls


def test_the_end_of_a_run_takes_as_long_as_it_has_branches(runtime):
    """Four times as many submitted steps take about four times as many calls, the end of the run included."""
    calls_of(10)  # what the first run imports and remembers
    assert calls_of(400) < 6 * calls_of(100)
