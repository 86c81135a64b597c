"""The law of closing, over generated programs; see ``stopped.py``."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import pytest
import stopped
from hypothesis import given, settings
from hypothesis import strategies as st
from stopped import RUN, Moments, Stop, World, meet, programs, standing
from support import examples
from verb_laws import fresh

from flowdsl import Runtime
from flowdsl.errors import FlowError


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("flowdsl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@settings(max_examples=examples(20), deadline=None)
@given(program=programs, at=st.integers(0, 12), after=st.booleans(), body=st.booleans())
def test_a_runtime_closed_at_any_moment_leaves_every_run_resumable(is_async, program, at, after, body):
    """At any commit or body: ``close()`` ends, and the next runtime brings every run to its end."""
    closed("memory", is_async, program, at, after, body)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@settings(max_examples=examples(2), deadline=None)
@given(program=programs, at=st.integers(0, 12), after=st.booleans(), body=st.booleans())
def test_a_runtime_on_postgresql_closed_at_any_moment_leaves_every_run_resumable(
    is_async, program, at, after, body
):
    """The same on a server."""
    closed("postgres", is_async, program, at, after, body)


def closed(kind: str, is_async: bool, program, at: int, after: bool, body: bool):
    """Close a runtime on a storage of that *kind* at that moment, and go on in another one."""
    workflow = stopped.async_call if is_async else stopped.call
    closing: list[threading.Thread] = []

    def close(_: Stop) -> None:
        closing.append(threading.Thread(target=runtime.close, daemon=True))
        closing[0].start()

    with fresh(kind) as storage:
        moments = Moments(storage, [Stop(at, "close", after, body)], close, 0, 0)
        world = meet(World(), program, moments.body)
        runtime = Runtime(moments)
        with runtime, contextlib.suppress(FlowError, stopped.Failed):
            run = workflow.options(id=RUN).start("p")
            if at % 2:  # else it is left at once
                run.result(60)
        for thread in closing:
            thread.join(60)
            assert not thread.is_alive()
        meet(world, program)
        with Runtime(storage) as later:
            for left in later.runs(status="running"):
                assert left.record.owner is None, left.id
            with contextlib.suppress(FlowError, stopped.Failed):
                later.run(RUN) and later.resume(RUN).result(60)
        assert standing(storage, world) == []
