"""A worker: claims runs, executes them, and gives back what it cannot finish.

The rules
    A worker takes what the storage gives it (:class:`~flowdsl.storage.operations.ClaimNext`): interrupted and
    pending runs of the workflows that it knows. It fires the schedules of those workflows.

    A worker that is told to stop takes nothing new. Its runs have the time of *drain* to end. It lets the
    rest go, and another worker continues them at once. Told a second time, it lets them go without the drain.

    A run whose processes have died five times is parked as failed. If a run cannot begin here, because its
    arguments cannot be loaded, it is reported once and left to other workers.

The theory
    An idle worker costs the storage next to nothing. It asks when the next run may be due (one read, no
    lock), and sleeps until then. It is woken when somebody enqueues a run or gives one back. It claims only
    when something is due. Runs that wait but may not begin (a limit, a pause) are looked at every two
    seconds.
"""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import count

from flowdsl.blocks import block
from flowdsl.core.ownership import may_claim, may_come_from
from flowdsl.core.records import Run, RunFilter, ScheduleRow, WorkerRow
from flowdsl.core.status import RunStatus
from flowdsl.core.versions import is_known
from flowdsl.engine.definitions import WorkflowDef
from flowdsl.engine.engine import Engine
from flowdsl.engine.interruption import closed
from flowdsl.engine.registry import STEPS, WORKFLOWS
from flowdsl.engine.runs.acquire import Acquired
from flowdsl.engine.runs.resume import request_of
from flowdsl.engine.runs.schedules import fire_due
from flowdsl.engine.runs.start import launch
from flowdsl.engine.user import Value
from flowdsl.errors import FlowError, RecoveryLimit, StorageError, StorageUnavailable
from flowdsl.storage.base import DropWorker, PutWorker, UpdateRun, raise_unstorable
from flowdsl.storage.left_out import leave_out
from flowdsl.storage.operations import ClaimNext
from flowdsl.storage.outcomes import Claimed
from flowdsl.storage.topics import GIVEN_BACK_TOPIC, QUEUES_TOPIC, SCHEDULES_TOPIC, queue_topic

__all__ = ["ALIVE", "TAKEN_OVER_AT_MOST", "Worker", "ended_by_signal"]

logger = logging.getLogger("flowdsl")

TAKEN_OVER_AT_MOST = 5
"""How often a run is taken over from processes that died. After that it is parked."""

ALIVE = 30.0
"""Seconds for which a worker counts as living after its last sign of life."""

_SIGN = ALIVE / 3  # seconds between two signs of life
_AGAIN = 2.0  # seconds between two looks at runs that wait but may not begin
_LOOK = 60.0  # seconds between two looks for runs that nobody here can execute
_LOOKED_AT = 100  # how many of the oldest runs are looked at for that
_FORGOTTEN = 86_400.0  # seconds after which the row of a worker that was killed is deleted
_AT_ONCE = 50  # most runs that are claimed in one commit
_LET_GO = 0.5  # seconds that a body has to notice that it must stop


@block
def ended_by_signal(worker: "Worker") -> Iterator[None]:
    """Let SIGTERM end *worker*, if this is the main thread. A second one ends it without the drain, and
    ``SystemExit`` follows.

    A handler may interrupt any line of the main thread, even one that holds a lock. So it takes no lock: it
    writes into a pipe, and another thread stops the worker.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told, (reader, writer) = count(), os.pipe()

    def listen() -> None:
        while os.read(reader, 1) == b"t":
            next(told)
            worker.stop()

    thread = threading.Thread(target=listen, name="flowdsl-signals", daemon=True)
    thread.start()
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: os.write(writer, b"t"))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        os.write(writer, b".")
        thread.join()
        os.close(reader)
        os.close(writer)
    if next(told) > 1:
        raise SystemExit(128 + signal.SIGTERM)


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
        self._hurry = threading.Event()
        self._changed = threading.Event()
        self.ended = threading.Event()
        self._running: dict[str, Future[Value]] = {}
        self._left_alone: set[str] = set()
        self._passed_over: set[str] = set()  # what was said of damaged rows
        self._unknown: set[tuple[str, str]] = set()
        self._damaged: set[ScheduleRow] = set()
        self._sign_at = self._look_at = 0.0
        self._topic = f"worker:{engine.owned.owner}"

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Take nothing new, and end. The second time, do not wait for what is under way."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._engine.storage.notify([self._topic])

    def work(self) -> None:
        """Claim and execute, until :meth:`stop` is called or the runtime is closed."""
        engine, seen = self._engine, 0
        started_at = engine.storage.now()
        try:
            self._forget_the_dead(started_at)
            while not self._stop.is_set() and not engine.closing:
                try:
                    begun, had = time.monotonic(), set(self._running)
                    left = self._turn(started_at)
                    if had == set(self._running):  # looking in vain takes at most a tenth of its time
                        self._stop.wait(min(9 * (time.monotonic() - begun), 0.5))
                    if left:
                        seen = engine.storage.wait_for_change(seen, left, self._topics())
                except StorageError as error:
                    if engine.closing:
                        break
                    if getattr(error, "lasting", False):
                        raise
                    logger.warning("the worker could not claim: %s", str(error))
                    self._stop.wait(_AGAIN)
        finally:
            self._end()

    def _turn(self, started_at: float) -> float:
        """Fire and take what is due. Returns for how many seconds nothing is due."""
        storage = self._engine.storage
        known = self._known()
        self._report(started_at)
        tick = fire_due(self._engine, storage.list_schedules(), known, self._damaged)
        again = self._sign_at
        self._running = {run_id: future for run_id, future in self._running.items() if not future.done()}
        room = min(self._concurrency - len(self._running), _AT_ONCE)
        if room > 0:
            due = storage.next_due(known, self._queues)
            if due is not None and due <= storage.now():
                if self._claim(room, known) == room:
                    return 0.0
                due = storage.now() + _AGAIN
            again = again if due is None else min(due, again)
            self._report_unknown(known)
        left = min(again, tick) if tick is not None else again
        return max(left - storage.now(), 1e-3)

    def _known(self) -> dict[str, str]:
        """Paths and versions of all that this worker can execute."""
        found: dict[str, str] = {}
        for registry in (STEPS, WORKFLOWS):
            for path in registry:
                defn = registry.get(path)
                if defn is not None and (self._workflows is None or path in self._workflows):
                    found[path] = defn.version if isinstance(defn, WorkflowDef) else ""
        return found

    def _topics(self) -> list[str]:
        taken = [QUEUES_TOPIC] if self._queues is None else map(queue_topic, self._queues)
        return [self._topic, SCHEDULES_TOPIC, GIVEN_BACK_TOPIC, *taken]

    def _report(self, started_at: float) -> None:
        """Report that this worker lives."""
        now = self._engine.storage.now()
        if now < self._sign_at:
            return
        self._sign_at = now + _SIGN
        spec = {"queues": self._queues, "concurrency": self._concurrency}
        row = WorkerRow(self._engine.owned.owner, json.dumps(spec), started_at, now)
        self._engine.commit(PutWorker(row))

    def _forget_the_dead(self, now: float) -> None:
        """Delete the rows of workers that were killed long ago."""
        gone = [row.id for row in self._engine.storage.list_workers() if row.seen_at < now - _FORGOTTEN]
        if gone:
            self._engine.commit(*map(DropWorker, gone))

    def _report_unknown(self, known: dict[str, str]) -> None:
        """Report once for each workflow, and for each version, that its runs wait for another worker."""
        storage = self._engine.storage
        now = storage.now()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK
        waiting = RunFilter(
            status=(RunStatus.PENDING, RunStatus.RUNNING), newest_first=False, limit=_LOOKED_AT
        )
        for run in storage.list_runs(waiting):
            free = may_claim(run, now) and may_come_from(run, self._queues)
            mine = self._workflows is None or run.workflow in self._workflows
            what = (run.workflow, run.version)
            if not free or not mine or what in self._unknown:
                continue
            if run.workflow in known and is_known(run.version, known[run.workflow]):
                continue
            self._unknown.add(what)
            logger.warning(
                "run %s waits for a worker that knows workflow %s%s; this one leaves it as it is",
                run.id,
                run.workflow,
                f" in version {run.version}" if run.workflow in known else "",
                extra={"run": run.id, "step": None},
            )

    def _claim(self, room: int, known: dict[str, str]) -> int:
        """Take as many runs as there is room for. Returns how many begin."""
        engine = self._engine
        workflows = tuple(sorted(known.items()))
        operation = ClaimNext(
            engine.owned.owner,
            engine.lease,
            workflows,
            self._queues,
            room,
            nonce=engine.nonce(),
            skip=tuple(self._left_alone),
        )
        mark = engine.owned.taking_any()
        try:
            (outcome,) = engine.commit(operation)
            raise_unstorable(outcome)
            assert isinstance(outcome, Claimed)
            for error in outcome.damaged:
                leave_out(error, known=str(error) in self._passed_over)
            self._passed_over.update(map(str, outcome.damaged))
            for run in outcome.runs:
                engine.owned.reserve(run.id, run.epoch)
        finally:
            engine.owned.took(mark)
        return sum(self._begin(run) for run in outcome.runs)

    def _begin(self, run: Run) -> bool:
        """Execute a run that is ours. ``False`` if it is left alone."""
        engine = self._engine
        if run.recoveries > TAKEN_OVER_AT_MOST:
            self._park(run)
            return True
        try:
            launch(engine, request_of(engine, run), Acquired(run, True, _begun_before(run), action="recover"))
        except StorageUnavailable:
            self._let_go(run)
            raise
        except FlowError as error:
            logger.error(
                "run %s cannot be executed: %s", run.id, str(error), extra={"run": run.id, "step": None}
            )
            self._left_alone.add(run.id)
            self._let_go(run)
            return False
        future = engine.futures.get(run.id)
        if future is not None:
            self._running[run.id] = future
            future.add_done_callback(lambda _: self._wake())
        return True

    def _let_go(self, run: Run) -> None:
        """Give back a run that did not begin here, unchanged. That wakes no worker."""
        self._engine.owned.release(run.id, run.epoch)
        status = RunStatus.RUNNING if _begun_before(run) else RunStatus.PENDING
        self._engine.commit(UpdateRun(run.id, {"status": status}, epoch=run.epoch, release=True))

    def _park(self, run: Run) -> None:
        """Fail a run that kills its workers. ``rt.retry`` takes it up again."""
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
        self._engine.owned.release(run.id, run.epoch)

    def _end(self) -> None:
        """Let work end that ends in time, and let the rest go."""
        engine = self._engine
        if not engine.closing:
            self._wait(self._drain)
        for run_id, future in self._running.items():
            state = engine.owned.get(run_id)
            if state is not None and not future.done():
                state.stop.halt(closed(run_id), outside=True)
        self._wait(_LET_GO, hurried=True)
        behind = [run_id for run_id, future in self._running.items() if not future.done()]
        if behind:
            logger.warning(
                "%d runs did not stop within %.1f s; their bodies are left behind", len(behind), _LET_GO
            )
        try:
            engine.commit(*self._given_back(behind), DropWorker(engine.owned.owner))
        except StorageError as error:
            logger.warning("the worker could not say that it ends: %s", str(error))

    def _wait(self, seconds: float, hurried: bool = False) -> None:
        """Wait until nothing is under way, or for *seconds*, or until there is a hurry."""
        end = time.monotonic() + seconds
        while not all(future.done() for future in self._running.values()):
            left = end - time.monotonic()
            if left <= 0 or (self._hurry.is_set() and not hurried):
                return
            self._changed.wait(left)
            self._changed.clear()

    def _given_back(self, run_ids: list[str]) -> list[UpdateRun]:
        """Updates that let go of runs whose bodies do not stop. Once another worker has such a run, writes
        from here are refused."""
        states = [self._engine.owned.get(run_id) for run_id in run_ids]
        return [
            UpdateRun(state.id, {}, epoch=state.epoch, release=True) for state in states if state is not None
        ]


def _begun_before(run: Run) -> bool:
    """Whether a run that was claimed just now may have begun before, somewhere else."""
    return run.queue is None or run.epoch > 2
