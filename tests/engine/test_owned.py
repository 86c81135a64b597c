"""The runs that a process executes."""

import sys
import threading
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from support import Effects, Relay

from flowdsl import Runtime, step, workflow
from flowdsl.engine import owned
from flowdsl.engine.owned import Owned
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Operation, Outcome, UpdateRun


def test_runs_that_begin_while_all_are_listed():
    """A list of all executions is whole even if runs begin while it is made, at any byte code."""
    here: Owned[str] = Owned()
    numbers = count()

    def another_begins(frame, event, _):
        frame.f_trace_opcodes = frame.f_code.co_filename == owned.__file__
        if event == "opcode":
            here.begin(f"run-{next(numbers)}", "executes")
        return another_begins

    here.begin("first", "executes")
    before = sys.gettrace()
    sys.settrace(another_begins)
    try:
        found = here.executions()
    finally:
        sys.settrace(before)
    assert next(numbers) > 0
    assert found[0] == "executes"


class LetGo(Relay):
    """Calls *then* when a fork of ``w`` has been let go, once."""

    then: Callable[[str], object] | None = None

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        outcomes = self.inner.commit(operations)
        for one in operations:
            if isinstance(one, UpdateRun) and one.release and one.run_id.startswith("w-fork") and self.then:
                then, self.then = self.then, None
                then(one.run_id)
        return outcomes


def test_a_run_that_another_thread_has_taken_meanwhile_is_not_released(
    monkeypatch: pytest.MonkeyPatch, effects: Effects
):
    """A run that is resumed in the moment in which it was let go here is executed once, and nobody recovers it."""
    gate, begins = threading.Event(), threading.Thread.run

    def run(thread: threading.Thread) -> None:
        if thread.name.startswith("flowdsl-w-fork"):
            assert gate.wait(60)
        begins(thread)

    @step
    def work():
        effects("work")

    @workflow(id="w")
    def w():
        work()

    monkeypatch.setattr(threading.Thread, "run", run)
    storage = LetGo(MemoryStorage())
    with Runtime(storage) as runtime:
        w()
        storage.then = runtime.resume
        fork = runtime.fork("w", before=work)
        try:
            assert runtime.recover() == []
        finally:
            gate.set()
        fork.result(60)
    assert effects == ["work", "work"]
