"""Keep the runs that are ours: renew their leases, and look whether they were cancelled, taken over or
signalled from outside."""

import logging
import os
import threading
import time
import weakref

from flowdsl.engine.effects import drive
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Execution
from flowdsl.engine.operations.step import announced
from flowdsl.engine.record import flush
from flowdsl.errors import CorruptPayload, FlowError, RunCancelled, Stopped, StorageError
from flowdsl.storage.base import Done, Fenced, Missing, PutStep, Unstorable, UpdateRun
from flowdsl.storage.topics import run_topic

__all__ = ["Keeper"]

logger = logging.getLogger("flowdsl")

_TURN = 0.02  # seconds that a run has to commit what others wait for; then the keeper commits it
_LOOK = 0.5  # longest time between two looks at the runs that execute here, in seconds


_keepers: "weakref.WeakSet[Keeper]" = weakref.WeakSet()


def _after_fork() -> None:
    for keeper in list(_keepers):
        keeper.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)


class Keeper:
    """Renews the leases of an engine's active runs and tells them what changed outside."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._hurry = False
        engine.owned.on_begin(self.watch)
        engine.owned.on_hurry(self.hurry)
        _keepers.add(self)

    def watch(self) -> None:
        """Begin to look after the engine's active runs, unless that has begun."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    thread = threading.Thread(target=self._keep, name="flowdsl-keeper", daemon=True)
                    thread.start()  # raises when Python is ending
                    self._thread = thread

    def hurry(self) -> None:
        """Make what runs have buffered durable within a tenth of a second."""
        if not self._hurry:
            self._hurry = True
            self._wake.set()

    def close(self, patience: float) -> None:
        """End the thread. If the storage hangs, leave it behind after *patience* seconds."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake.set()
        self._engine.storage.notify()  # the thread may be waiting for a change
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)

    def reset_after_fork(self) -> None:
        """In a forked child there is no thread."""
        self._wake, self._lock, self._thread = threading.Event(), threading.Lock(), None

    def _keep(self) -> None:
        renew_at = time.monotonic() + self._engine.lease / 3
        seen, look_at = 0, 0.0
        while not self._closed:
            waiting = [
                run_topic(state.id) for state in self._engine.owned.executions() if state.stop.listeners
            ]
            before = seen
            try:
                if waiting:  # a short time, because others may begin to wait meanwhile
                    seen = self._engine.storage.wait_for_change(seen, 0.1, waiting)
                else:
                    self._wake.wait(min(_LOOK, self._engine.lease / 3))
                if self._closed:
                    return
                if self._hurry:
                    self._wake.clear()
                    self._wake.wait(_TURN)  # mostly the run commits by itself in that time
                    self.flush()
                if time.monotonic() >= renew_at:
                    self.renew()
                    renew_at = time.monotonic() + self._engine.lease / 3
                if seen != before or time.monotonic() >= look_at:
                    look_at = time.monotonic() + _LOOK
                    self.look()
                self.announce()
            except Exception as error:  # no fault of a storage may end this thread
                if self._closed:
                    return
                known = isinstance(error, StorageError)
                logger.warning(
                    "leases could not be renewed: %s", str(error), exc_info=None if known else error
                )
                self._wake.wait(_LOOK)

    def flush(self) -> None:
        """Make durable what runs have buffered. A refused write stops its run, resumably."""
        self._hurry = False
        for state in self._engine.owned.executions():
            try:
                drive(flush(state))
            except Stopped:
                pass

    def renew(self) -> None:
        """Renew all leases in one commit. Runs that are no longer ours are stopped."""
        states: list[Execution] = self._engine.owned.executions()
        if not states:
            return
        operations = [
            UpdateRun(state.id, {}, epoch=state.epoch, lease=self._engine.lease) for state in states
        ]
        held_until = time.monotonic() + self._engine.lease
        for state, outcome in zip(states, self._engine.committer.commit(operations), strict=True):
            if isinstance(outcome, Fenced | Missing):
                state.stop.halt(state.writer.lost(outcome), outside=True)
            elif isinstance(outcome, Unstorable):  # its row was altered
                state.stop.halt(outcome.error, outside=True)
            else:
                assert isinstance(outcome, Done)
                state.writer.holds(held_until)

    def announce(self) -> None:
        """Store a pending record for each step that has been executing for a while. Quick steps cost no extra
        write.

        It never replaces a record, because the step may complete at the same moment.
        """
        now = self._engine.clock.now()
        operations: list[PutStep] = []
        for state in self._engine.owned.executions():
            if state.stop.reason is not None:
                continue
            for attempt in state.bodies.to_announce(now - _LOOK / 2):
                operations.append(PutStep(announced(attempt), state.epoch, True))
        if operations:
            self._engine.committer.commit(operations)

    def look(self) -> None:
        """See whether active runs were cancelled, taken over, deleted or signalled."""
        active: dict[str, Execution] = {state.id: state for state in self._engine.owned.executions()}
        if not active:
            return
        found = {item.run_id: item for item in self._engine.storage.attention(active)}
        for run_id, state in active.items():
            if state.stop.reason is not None or run_id not in self._engine.owned:
                continue
            item = found.get(run_id)
            if item is None:
                state.stop.halt(state.writer.lost(Missing()), outside=True)
            elif item.epoch != state.epoch:
                state.stop.halt(self._taken_over(state), outside=True)
            elif item.cancel_requested is not None and not state.stop.undoing:
                state.stop.halt(RunCancelled(f"run {run_id} was cancelled", run=run_id), outside=True)
            elif item.unread and state.stop.listeners:
                state.stop.signalled()

    def _taken_over(self, state: Execution) -> FlowError:
        """The reason to stop a run whose epoch has changed."""
        try:
            run = self._engine.storage.get_run(state.id)
        except CorruptPayload as error:
            return error
        return state.writer.lost(Missing() if run is None else Fenced(run))
