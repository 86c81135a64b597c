"""What the tests of group commit share: a storage at whose gate commits wait, and records to write."""

import threading

from flowdsl.core.records import Step
from flowdsl.errors import StorageFull
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import PutStep

__all__ = ["Slow", "keys", "put", "waiting"]


class Slow(MemoryStorage):
    """A storage whose commits wait at a gate, so that others queue behind them; not inline."""

    inline = False

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.batches = []
        self.poison = set()
        self.error = StorageFull("full")

    def commit(self, operations):
        self.entered.release()
        assert self.gate.wait(60)
        self.batches.append(len(operations))
        if any(isinstance(op, PutStep) and op.step.key in self.poison for op in operations):
            raise self.error
        return super().commit(operations)


def put(key):
    """One write."""
    return PutStep(Step(run_id="r", key=key, path="p"))


def keys(storage):
    """What is stored."""
    return {step.key for step in storage.list_steps("r")}


def waiting(committer, count):
    """Wait until so many requests are queued."""
    while len(committer._pending) < count:
        pass
