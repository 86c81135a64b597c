"""replay_test: it checks the body of a test."""

import asyncio
import datetime
import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_steps import careful, charge, refused

from flowdsl import step
from flowdsl.testing import ReplayMismatch, effects, replay_test
from flowdsl.testing.replay.causes import (
    CLOCK,
    MEMORY,
)


@step
async def reply(n: int) -> int:
    """A step that takes the longer, the smaller its number."""
    for _ in range(20 * (3 - n)):
        await asyncio.sleep(0)
    return n


@replay_test
def test_the_body_of_a_test_is_checked(tmp_path: Path) -> None:
    """The body of a test is checked as a workflow, with its fixtures, and its assertions hold in each
    execution."""
    assert tmp_path.is_dir()
    assert charge(5) == "paid 5"
    assert len(careful(1)) == 8


@replay_test
async def check_async(n: int) -> None:
    """An async body."""
    assert await reply(n) == n


def test_async_tests_are_checked_too() -> None:
    """An async test stays a coroutine function."""
    asyncio.run(check_async(1))


@settings(max_examples=5)
@given(st.integers(0, 2))
@replay_test(fakes={charge: lambda what: what})
def test_arguments_of_hypothesis_are_passed_through(n: int) -> None:
    """Arguments of ``@given`` are passed through."""
    with effects():
        assert charge(n) == n


def test_a_test_that_does_not_replay_fails() -> None:
    """A test that does not replay fails, and a test that fails anyway fails with its own error."""

    @replay_test
    def clock() -> None:
        charge(str(datetime.date.today()))

    @replay_test
    def fails() -> None:
        assert charge(1) == "nothing"

    with pytest.raises(ReplayMismatch, match="wall clock"):
        clock()
    with pytest.raises(AssertionError, match="nothing"):
        fails()


def test_what_helpers_in_other_modules_do_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks and globals of helpers in other modules count too."""
    (tmp_path / "store_for_test").mkdir()
    for name, text in {
        "__init__": "",
        "cache": "RATES = {}\n",
        "times": "from datetime import date\n\ndef today():\n    return str(date.today())\n",
        "flows": """
from flowdsl import step, workflow
from store_for_test.cache import RATES
from store_for_test.times import today

@step
def fill():
    RATES["rate"] = "high"

@step
def pay(what):
    return what

@workflow
def dated():
    return pay(today())

@workflow
def filled():
    fill()
    return pay(RATES.get("rate", "unknown"))
""",
    }.items():
        (tmp_path / "store_for_test" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    flows = importlib.import_module("store_for_test.flows")
    assert f"it depends on: {CLOCK}" in refused(flows.dated)
    assert f"it depends on: {MEMORY}" in refused(flows.filled)
    assert flows.RATES == {"rate": "high"}
