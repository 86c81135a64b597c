"""The runs that a process executes."""

import sys
from itertools import count

from flowdsl.engine import owned
from flowdsl.engine.owned import Owned


def test_runs_that_begin_while_all_are_listed():
    """A list of all executions takes no harm from runs that begin meanwhile, at any byte code."""
    here: Owned[int] = Owned()
    numbers = count()

    def another_begins(frame, event, _):
        frame.f_trace_opcodes = frame.f_code.co_filename == owned.__file__
        if event == "opcode":
            here.begin(f"run-{next(numbers)}", 7)
        return another_begins

    here.begin("first", 1)
    before = sys.gettrace()
    sys.settrace(another_begins)
    try:
        found = here.executions()
    finally:
        sys.settrace(before)
    assert next(numbers) > 0
    assert found[0] == 1
