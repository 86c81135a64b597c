"""Tracebacks of what leaves a run."""

import traceback

import pytest
from support import ONCE

from flowdsl import Runtime, step, workflow


def test_a_traceback_holds_the_frames_of_the_user(runtime: Runtime):
    """A traceback has the user's frames and at most two of flowdsl."""

    @step(retry=ONCE)
    def charge():
        raise ValueError("no")

    @workflow
    def buy():
        charge()

    with pytest.raises(ValueError) as caught:
        buy()
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-2:] == ["buy", "charge"]
    assert len(names) <= 5
