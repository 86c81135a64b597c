"""Whatever a body raises arrives as itself, on every way that an exception can take."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd import raised
from support import ONCE

from flowdsl import Runtime, aio, gather, race, schedule, step, workflow
from flowdsl.blocks import block
from flowdsl.testing import VirtualClock, check_replay, effects

thrown: list[BaseException] = []
WAYS: dict[str, Any] = {}


def way(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A body through which the exception goes."""
    WAYS[fn.__name__] = workflow(fn)
    return fn


def throw(*_: Any) -> None:
    raise thrown[-1]


async def athrow(*_: Any) -> None:
    raise thrown[-1]


plain, aplain = step(throw, name="odd.plain", retry=ONCE), step(athrow, name="odd.aplain", retry=ONCE)
timed = step(throw, name="odd.timed", retry=ONCE, timeout=60)
atimed = step(athrow, name="odd.atimed", retry=ONCE, timeout=60)
beating = step(throw, name="odd.beating", retry=ONCE, heartbeat=60)
abeating = step(athrow, name="odd.abeating", retry=ONCE, heartbeat=60)
trying = step(throw, name="odd.trying", mode="try")
child, achild = workflow(throw, name="odd.child"), workflow(athrow, name="odd.achild")


@way
def in_the_body() -> None:
    throw()


@way
def called() -> None:
    plain()


@way
def tried() -> None:
    trying()


@way
def limited() -> None:
    timed()


@way
def with_a_heartbeat() -> None:
    beating()


@way
def submitted() -> None:
    plain.submit().result()


@way
def asked_for() -> None:
    error = plain.submit().exception()
    assert error is not None
    raise error


@way
def mapped() -> None:
    plain.map([1, 2])


@way
def gathered() -> None:
    gather(plain.submit(), plain.submit())


@way
def collected() -> None:
    (error,) = gather(plain.submit(), return_exceptions=True)
    raise error


@way
def raced() -> None:
    try:
        race(plain.submit(), plain.submit())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


@way
def scheduled() -> None:
    schedule(plain).result()


@way
def left_scheduled() -> None:
    schedule(plain)


@way
def of_a_child() -> None:
    child()


@way
def of_a_started_child() -> None:
    child.start().result()


@way
async def awaited() -> None:
    await aplain()


@way
async def limited_and_awaited() -> None:
    await atimed()


@way
async def awaited_with_a_heartbeat() -> None:
    await abeating()


@way
async def submitted_and_awaited() -> None:
    await plain.submit()


@way
async def mapped_and_awaited() -> None:
    await plain.map([1, 2])


@way
async def gathered_and_awaited() -> None:
    await aio.gather(plain.submit(), aplain.submit())


@way
async def in_a_group() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(aplain())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


@way
async def of_an_awaited_child() -> None:
    await achild.start()


def execute(name: str, clock: Any, rt: Runtime) -> None:
    flow = WAYS[name]
    if asyncio.iscoroutinefunction(flow.__wrapped__):

        async def main() -> None:
            await flow.options(id=name)()

        asyncio.run(main())
    else:
        flow.options(id=name)()


def arrives(name: str, clock: Any, error: BaseException) -> None:
    """*error* takes the way called *name*, twice: it is raised, and then loaded."""
    thrown[:] = [error]
    with Runtime("memory://", clock=clock) as rt:
        for _ in range(2):
            try:
                execute(name, clock, rt)
            except BaseException as caught:
                kind = type(error)
                if issubclass(kind, StopIteration) and asyncio.iscoroutinefunction(WAYS[name].__wrapped__):
                    kind = RuntimeError  # what Python makes of it where it leaves a coroutine
                assert issubclass(type(caught), kind), repr(type(caught))
            else:
                pytest.fail("nothing was raised")
        assert str(rt.run(name).status) == "failed"  # type: ignore[union-attr]


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Nothing of it can be set, its traceback included."""

    code: int = 1


class Empty(Exception):
    """It counts as false."""

    def __len__(self) -> int:
        return 0


class End(StopIteration):
    """asyncio takes it for the end of a generator."""


@pytest.mark.parametrize("error", [Frozen(), Empty(), End(), StopIteration()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("name", WAYS)
def test_an_odd_exception_arrives_on_every_way(name: str, error: BaseException) -> None:
    """An odd exception arrives as itself when it is called, submitted, gathered, awaited or limited, on both
    clocks."""
    arrives(name, None, error)
    arrives(name, VirtualClock(), error)


@settings(max_examples=40)
@given(
    raised().filter(lambda error: isinstance(error, Exception)), st.sampled_from(sorted(WAYS)), st.booleans()
)
def test_any_exception_arrives_on_any_way(error: Exception, name: str, virtual: bool) -> None:
    """Any generated exception arrives as itself, or as a subclass of its class."""
    arrives(name, VirtualClock() if virtual else None, error)


@pytest.mark.parametrize("error", [Frozen(), Empty()], ids=lambda e: type(e).__name__)
def test_an_odd_exception_passes_what_tests_stand_around_it(error: Exception) -> None:
    """An odd exception passes the test kits unchanged."""
    thrown[:] = [error]
    with pytest.raises(type(error)), Runtime("memory://"), effects():
        WAYS["called"]()
    assert check_replay(WAYS["called"], raises=type(error)).crashes


def test_a_failure_that_nobody_asked_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that Python cannot show is still logged."""

    class Hidden(Exception):
        __notes__ = property(lambda self: 1 // 0)

    @workflow(name="odd.left")
    def left() -> None:
        plain.submit()

    thrown[:] = [Hidden()]
    with Runtime("memory://"):
        left()
    assert "step odd.plain was submitted and failed" in caplog.text


def test_awaiting_a_run_that_raised_a_stop_iteration_ends() -> None:
    """Awaiting a run that raised ``StopIteration`` gives the ``RuntimeError`` of a coroutine."""
    thrown[:] = [StopIteration()]

    async def main() -> None:
        with Runtime("memory://"):
            run = child.options(id="a").start()
            with pytest.raises(RuntimeError, match="StopIteration"):
                await run

    asyncio.run(main())


# Blocks -----------------------------------------------------------------------------------------------------

seen: list[str] = []


@block
def around(swallowed: type[BaseException] | None = None) -> Any:
    seen.append("begin")
    try:
        yield 7
    except swallowed or ():
        seen.append("swallowed")
    finally:
        seen.append("end")


@pytest.mark.parametrize("error", [Frozen(), Empty(), StopIteration(), End(), KeyError(), GeneratorExit()])
def test_a_block_lets_an_exception_pass(error: BaseException) -> None:
    """An exception passes a block as the same object, and the code after the yield executes."""
    seen.clear()
    with pytest.raises(type(error)) as caught:
        with around():
            raise error
    assert caught.value is error
    assert seen == ["begin", "end"]


def test_a_block_may_end_an_exception() -> None:
    """A block's generator may handle the exception or replace it, as with ``contextlib``."""
    seen.clear()
    with around(KeyError) as given:
        raise KeyError(given)
    assert seen == ["begin", "swallowed", "end"]

    @block
    def other() -> Any:
        try:
            yield
        except KeyError:
            raise ValueError from None

    with pytest.raises(ValueError):
        with other():
            raise KeyError
