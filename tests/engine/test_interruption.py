"""What interrupts a run, and what only looks like it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from support import ONCE, Flavour

from flowdsl import RunStatus, Runtime


def test_a_pool_that_the_body_has_shut_down_is_a_failure_like_others(runtime: Runtime, flavour: Flavour):
    """Its refusal sounds as at Python's end, but the run has failed and is not interrupted."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()

    @flavour.step(retry=ONCE)
    def late():
        pool.submit(int)

    @flavour.workflow
    def main():
        yield late()

    with pytest.raises(RuntimeError, match="shutdown"):
        flavour.call(main)
    assert [run.status for run in runtime.runs()] == [RunStatus.FAILED]
