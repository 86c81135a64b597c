"""fresh_runtime() and with_storage()."""

import asyncio
import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl import current_runtime, sleep, step, workflow
from flowdsl.clock import SystemClock
from flowdsl.errors import FlowError
from flowdsl.runtime import current_engine, engine_of
from flowdsl.storage import MemoryStorage, SQLiteStorage
from flowdsl.testing import VirtualClock, fresh_runtime, with_storage


@step
def double(n: int) -> int:
    """A step."""
    return 2 * n


@workflow
def patient(n: int) -> int:
    """Sleeps for a week."""
    sleep("7 days")
    return double(n)


@given(n=st.integers())
@with_storage()
def test_every_example_has_a_store_of_its_own(n: int) -> None:
    """Each example has an empty storage, and no health check of hypothesis fails."""
    assert patient(n) == 2 * n
    assert len(current_runtime().runs()) == 1


@given(n=st.integers())
def test_a_fresh_runtime_serves_inside_an_example(n: int) -> None:
    """``fresh_runtime`` works inside an example."""
    with fresh_runtime() as runtime:
        assert current_runtime() is runtime
        assert patient(n) == 2 * n
        assert len(runtime.runs()) == 1
    with pytest.raises(FlowError, match="closed"):
        runtime.recover()


def test_async_functions_have_their_store_too() -> None:
    """The decorated async function stays a coroutine function."""

    @with_storage()
    async def example(n: int) -> int:
        async with fresh_runtime() as inner:
            assert current_runtime() is inner
        return len(current_runtime().runs())

    assert inspect.iscoroutinefunction(example)
    assert asyncio.run(example(1)) == 0


def test_a_factory_makes_the_storage(tmp_path: Path) -> None:
    """A factory may make any storage, which is closed after the call."""
    made: list[SQLiteStorage] = []

    def factory() -> SQLiteStorage:
        made.append(SQLiteStorage(tmp_path / f"{len(made)}.db"))
        return made[-1]

    @with_storage(factory, clock=VirtualClock(0.0))
    def example() -> None:
        assert current_runtime().storage is made[-1]
        assert current_engine().clock.now() == 0.0

    example()
    example()
    assert len(made) == 2


def test_options_are_those_of_a_runtime() -> None:
    """A given clock replaces the virtual one, and a given storage is refused."""
    clock = SystemClock()
    with fresh_runtime(clock=clock, name="mine") as runtime:
        assert engine_of(runtime).name == "mine"
        assert engine_of(runtime).clock is clock
        assert isinstance(runtime.storage, MemoryStorage)
    with pytest.raises(TypeError, match="storage"):
        fresh_runtime(storage="memory://")


def test_missing_parentheses_are_named() -> None:
    """``@with_storage`` without parentheses is refused, and the message says what to write."""

    def test_something() -> None:
        """It is never called."""

    with pytest.raises(TypeError, match="parentheses"):
        with_storage(test_something)  # type: ignore[arg-type]
