"""A worker: claims runs, executes them, and gives back what it cannot finish.

The rules
    A worker takes what the storage gives it (:class:`~flowdsl.storage.operations.ClaimNext`): interrupted
    runs and pending ones of the workflows that it knows. It fires the schedules of those workflows. Told to
    stop, it takes nothing new, lets what is under way end for the time of *drain*, and lets the rest go:
    another worker continues it at once. A run whose processes have died five times is parked as failed.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from itertools import count

from flowdsl.core.queues import DEFAULT
from flowdsl.core.records import Run, WorkerRow
from flowdsl.core.status import RunStatus
from flowdsl.engine.definitions import WorkflowDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.registry import STEPS, WORKFLOWS
from flowdsl.engine.runs.acquire import Acquired
from flowdsl.engine.runs.ending import release
from flowdsl.engine.runs.execute import interrupted
from flowdsl.engine.runs.resume import request_of
from flowdsl.engine.runs.schedules import fire_due
from flowdsl.engine.runs.start import launch
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, RecoveryLimit, StorageError
from flowdsl.storage.base import DropWorker, PutWorker, UpdateRun
from flowdsl.storage.operations import SCHEDULES_TOPIC, Claimed, ClaimNext, queue_topic

__all__ = ["TAKEN_OVER_AT_MOST", "Worker", "ended_by_signal"]

logger = logging.getLogger("flowdsl")

TAKEN_OVER_AT_MOST = 5
"""How often a run is taken over from processes that died, before it is parked."""

_IDLE = 2.0  # seconds between two looks, at most, when nothing tells of a change
_AT_ONCE = 50  # runs that are claimed in one commit, at most


@contextmanager
def ended_by_signal(worker: "Worker") -> Iterator[None]:
    """Let SIGTERM end *worker*, where this is the main thread; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: Value) -> None:
        if worker.stopping:
            raise SystemExit(128 + number)
        worker.stop()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Worker:
    """Claims and executes until it is told to stop.

    *queues*: names, ``None`` for all; *workflows*: paths, ``None`` for all that are imported; *concurrency*:
    runs at a time; *drain*: seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        queues: tuple[str, ...] | None,
        workflows: tuple[str, ...] | None,
        concurrency: int,
        drain: float,
    ) -> None:
        self._engine = engine
        self._queues = queues
        self._workflows = workflows
        self._concurrency = concurrency
        self._drain = drain
        self._stop = threading.Event()
        self.ended = threading.Event()
        self._running: dict[str, Future[Value]] = {}
        self._claims = count()
        self._left_alone: set[str] = set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Take nothing new, and end."""
        self._stop.set()
        self._engine.storage.notify()

    def work(self) -> None:
        """Claim and execute, until :meth:`stop` is called or the runtime is closed."""
        engine, seen = self._engine, 0
        started_at = engine.storage.now()
        try:
            while not self._stop.is_set() and not engine.closing:
                try:
                    self._say(started_at)
                    due = fire_due(engine, engine.storage.list_schedules(), dict(self._known()))
                    busy = self._claim()
                except StorageError as error:
                    logger.warning("the worker could not claim: %s", str(error))
                    due, busy = None, False
                if busy:
                    continue
                left = _IDLE if due is None else min(max(due - engine.storage.now(), 0.0), _IDLE)
                seen = engine.storage.wait_for_change(seen, left, self._topics())
        finally:
            self._end()

    def _known(self) -> tuple[tuple[str, str], ...]:
        """Paths and versions of what this worker can execute."""
        found: dict[str, str] = {}
        for registry in (STEPS, WORKFLOWS):
            for path in registry:
                defn = registry.get(path)
                if defn is not None and (self._workflows is None or path in self._workflows):
                    found[path] = defn.version if isinstance(defn, WorkflowDef) else ""
        return tuple(sorted(found.items()))

    def _topics(self) -> list[str]:
        names = self._queues
        if names is None:
            names = (DEFAULT, *(row.name for row in self._engine.storage.list_queues()))
        return [SCHEDULES_TOPIC, *map(queue_topic, names)]

    def _say(self, started_at: float) -> None:
        """Tell that this worker lives."""
        spec = {"queues": self._queues, "concurrency": self._concurrency}
        row = WorkerRow(self._engine.owned.owner, json.dumps(spec), started_at, self._engine.storage.now())
        self._engine.commit(PutWorker(row))

    def _claim(self) -> bool:
        """Take what there is room for; whether there may be more."""
        engine = self._engine
        self._running = {run_id: future for run_id, future in self._running.items() if not future.done()}
        room = min(self._concurrency - len(self._running), _AT_ONCE)
        if room <= 0:
            return False
        operation = ClaimNext(
            engine.owned.owner, engine.lease, self._known(), self._queues, room, None, engine.nonce()
        )
        with engine.owned.taking_any():
            (outcome,) = engine.commit(operation)
            assert isinstance(outcome, Claimed)
            for run in outcome.runs:
                engine.owned.reserve(run.id)
        for run in outcome.runs:
            self._begin(run)
        return len(outcome.runs) == room

    def _begin(self, run: Run) -> None:
        engine = self._engine
        if run.recoveries > TAKEN_OVER_AT_MOST:
            self._park(run)
            return
        begun_before = run.queue is None or run.epoch > 2
        try:
            launch(engine, request_of(engine, run), Acquired(run, True, begun_before, action="recover"))
        except FlowError as error:
            if run.id not in self._left_alone:
                logger.error(
                    "run %s cannot be executed: %s", run.id, str(error), extra={"run": run.id, "step": None}
                )
            self._left_alone.add(run.id)
            release(engine, run)
            return
        future = engine.futures.get(run.id)
        if future is not None:
            self._running[run.id] = future
            future.add_done_callback(lambda _: engine.storage.notify())

    def _park(self, run: Run) -> None:
        """Fail a run that kills its workers; ``rt.retry`` takes it up again."""
        error = RecoveryLimit(
            f"run {run.id} was taken over {run.recoveries} times, and its process died each time; look at "
            f"what its next step does, then Runtime.retry({run.id!r})",
            run=run.id,
        )
        logger.error("%s", str(error), extra={"run": run.id, "step": None})
        payload, _ = self._engine.payloads.pack_error(error, run.id, "", "run")
        changes = {
            "status": RunStatus.FAILED, "error": payload, "retryable": False, "recoveries": 0,
            "error_preview": self._engine.payloads.previews.error(error),
            "finished_at": self._engine.storage.now(),
        }  # fmt: skip
        self._engine.commit(UpdateRun(run.id, changes, epoch=run.epoch, release=True))
        self._engine.owned.release(run.id)

    def _end(self) -> None:
        """Let end what ends in time, and let the rest go."""
        engine = self._engine
        if not engine.closing:
            wait(list(self._running.values()), timeout=self._drain)
        for run_id, future in self._running.items():
            state = engine.owned.get(run_id)
            if state is not None and not future.done():
                state.stop.halt(interrupted(run_id), outside=True)
        begun = time.monotonic()
        _, behind = wait(list(self._running.values()), timeout=0.5)
        if behind:
            logger.warning(
                "%d runs did not stop within %.1f s; their bodies are left behind",
                len(behind),
                time.monotonic() - begun,
            )
        try:
            engine.commit(DropWorker(engine.owned.owner))
        except StorageError as error:
            logger.warning("the worker could not say that it ends: %s", str(error))
