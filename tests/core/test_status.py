"""The tables of statuses: what storages see obeys them, and the documentation shows them."""

import pytest
from support import Effects

from flowdsl import Retry, RunStatus, Runtime, StepStatus, step, workflow
from flowdsl.core.status import RUN_CHANGES, STEP_CHANGES
from flowdsl.errors import RunCancelled
from flowdsl.storage import MemoryStorage


class Watched(MemoryStorage):
    """Notes each change of a status."""

    def __init__(self):
        super().__init__()
        self.of_runs, self.of_steps = set(), set()
        self._before = {}

    def commit(self, operations):
        outcomes = super().commit(operations)
        for run in self.list_runs():
            self._note(self.of_runs, run.id, run.status)
            for record in self.list_steps(run.id):
                if record.kind == "step":
                    self._note(self.of_steps, (run.id, record.key), record.status)
        return outcomes

    def _note(self, changes, what, status):
        before = self._before.get(what)
        if before not in (None, status):
            changes.add((before, status))
        self._before[what] = status


def test_every_change_that_a_storage_sees_is_in_the_tables():
    """Every status change in failures, retries, undo and cancels is in the tables."""
    storage, effects = Watched(), Effects()

    @step(undo=lambda booking: effects("undo"))
    def book(what):
        return what

    @step(retry=Retry(attempts=2, initial=0.001))
    def pay():
        if effects("pay") <= 2:
            raise ConnectionError
        return "paid"

    @step(retry=Retry(attempts=2, initial=0.001))
    def post():
        if effects("post") == 1:
            raise ConnectionError
        return "posted"

    @workflow(id="{what}")
    def trip(what):
        book(what)
        if what == "cancelled":
            runtime.cancel(what)
        return post(), pay()

    with Runtime(storage) as runtime:
        with pytest.raises(ConnectionError):
            trip("rome")
        assert runtime.retry("rome").result() == ("posted", "paid")
        with pytest.raises(RunCancelled):
            trip("cancelled")
    assert all(after in RUN_CHANGES[before] for before, after in storage.of_runs)
    assert all(after in STEP_CHANGES[before] for before, after in storage.of_steps)
    assert storage.of_runs == {
        (RunStatus.RUNNING, RunStatus.COMPLETED),
        (RunStatus.RUNNING, RunStatus.FAILED),
        (RunStatus.RUNNING, RunStatus.CANCELLED),
        (RunStatus.FAILED, RunStatus.RUNNING),
    }
    assert storage.of_steps >= {
        (StepStatus.PENDING, StepStatus.COMPLETED),
        (StepStatus.PENDING, StepStatus.FAILED),
        (StepStatus.COMPLETED, StepStatus.UNDONE),
        (StepStatus.UNDONE, StepStatus.COMPLETED),
    }
