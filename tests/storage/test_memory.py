"""What is particular about the storage in memory; the rest is in the contract."""

import copy
import pickle

import pytest

from flowdsl.errors import StorageUnavailable
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Opened, OpenRun, PutStep
from flowdsl.testing.storage.samples import a_run, a_step, open_run


def test_it_stays_in_its_process() -> None:
    """A memory storage cannot be pickled or copied, and the ``TypeError`` says what to use."""
    with MemoryStorage() as storage:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="sqlite:///"):
                attempt(storage)


def test_a_closed_one_says_so() -> None:
    """The error of a closed memory storage names it."""
    storage = MemoryStorage()
    storage.close()
    with pytest.raises(StorageUnavailable, match="MemoryStorage was closed"):
        storage.get_run("r")


def test_repr() -> None:
    """The repr of a memory storage says how much it holds."""
    with MemoryStorage() as storage:
        open_run(storage)
        assert repr(storage) == "MemoryStorage(1 runs)"


def test_nothing_is_kept_of_what_is_deleted() -> None:
    """Deleting all runs leaves no index entries."""
    with MemoryStorage() as storage:
        empty = {name: value for name, value in vars(storage).items() if isinstance(value, dict)}
        assert all(not value for value in empty.values())
        for i in range(20):
            run = a_run("n", number=0, owner=f"owner-{i % 3}") if i % 2 else a_run(f"r{i}")
            (opened,) = storage.commit([OpenRun(run, 60.0, fresh=True, nonce=f"nonce-{i}")])
            assert isinstance(opened, Opened)
            storage.commit([PutStep(a_step(opened.run.id))])
        for stored in storage.list_runs():
            storage.delete_run(stored.id)
        left = {name: value for name, value in vars(storage).items() if isinstance(value, dict) and value}
        assert left == {}
