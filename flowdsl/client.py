"""What can be asked of the runs in a storage, and changed in them, without executing anything here.

:class:`Client` is the half of :class:`~flowdsl.Runtime` that only reads and writes the storage. The other
half executes runs.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flowdsl.acting import is_named
from flowdsl.core.durations import seconds
from flowdsl.core.filters import checked_limit, moment, path_of, statuses
from flowdsl.core.records import Run as RunRecord
from flowdsl.core.records import RunFilter
from flowdsl.core.status import RunStatus, is_final
from flowdsl.engine.audit import audit
from flowdsl.engine.engine import Engine
from flowdsl.engine.operations.ask import ask_sync
from flowdsl.engine.operations.signal import send as send_signal
from flowdsl.engine.option_checks import checked_tags
from flowdsl.engine.runs.outcome import outcome_of, record_of
from flowdsl.engine.runs.request import checked_id
from flowdsl.handle import Run, Runs
from flowdsl.storage import Storage
from flowdsl.storage.base import DeleteRun, PutStep

if TYPE_CHECKING:
    from flowdsl.declared import Queues, Schedules, WorkerInfo

__all__ = ["Client"]

_NOTHING: Any = object()


class Client:
    """What can be asked of the runs in a *storage*, which *engine* uses."""

    def __init__(self, engine: Engine, storage: Storage) -> None:
        self._engine = engine
        self.storage = storage

    # Reading runs ------------------------------------------------------------------------------------------

    def run(self, id: str) -> Run[Any] | None:
        """The run of this id, or ``None``."""
        found = self.storage.get_run(checked_id(id))
        return None if found is None else Run(self._engine, id)

    def runs(
        self,
        status: RunStatus | str | Sequence[RunStatus | str] | None = None,
        workflow: Any = None,
        tags: Any = None,
        created_after: datetime | float | None = None,
        created_before: datetime | float | None = None,
        limit: int | None = None,
        newest_first: bool = True,
        after: str | None = None,
    ) -> list[Run[Any]]:
        """Runs that match all that is given; *after* the run of that id, for paging.

        *status*: one or several; *workflow*: its path or the decorated function; *tags*: names, or a mapping;
        *created_after* (inclusive) and *created_before* (exclusive): aware datetimes, or seconds since the
        epoch.
        """
        where = RunFilter(
            status=statuses(status),
            workflow=path_of(workflow),
            tags=checked_tags(tags),
            created_after=moment(created_after, "created_after"),
            created_before=moment(created_before, "created_before"),
            limit=checked_limit(limit),
            after=after,
            newest_first=bool(newest_first),
        )
        return Runs(Run(self._engine, record.id, record) for record in self.storage.list_runs(where))

    def _record(self, run_id: str) -> RunRecord:
        """The stored row of a run. Raises :class:`~flowdsl.errors.RunNotFound`."""
        return record_of(self._engine, checked_id(run_id))

    def export(self, id: str) -> dict[str, Any]:
        """A run with its journal and signals, as JSON can hold it; nothing is unpickled. ``flowdsl export``
        prints it.

        Raises :class:`~flowdsl.errors.RunNotFound`.
        """
        from flowdsl.core.history import export_run

        record = self._record(id)
        return export_run(record, self.storage.list_steps(id), self.storage.list_signals(id))

    def query(self, id: str, what: str) -> Any:
        """``"status"``, ``"result"`` (``None`` while there is none), ``"progress"`` or ``"state"`` of a
        run."""
        run: Run[Any] = Run(self._engine, checked_id(id))
        if what == "status":
            return run.status
        if what == "result":
            if run.status is not RunStatus.COMPLETED:
                return None
            error, value = outcome_of(self._engine, run.record)
            if error is not None:
                raise error
            return value
        if what == "state":
            return run.state()
        if what == "progress":
            return run.progress()
        raise ValueError(f"a query is one of 'status', 'result', 'progress', 'state'; got {what!r}")

    # Messages to runs --------------------------------------------------------------------------------------

    def signal(
        self,
        id: str,
        name: str,
        payload: Any = None,
        *,
        sender: str | None = None,
        key: str | None = None,
    ) -> str:
        """Send a run a signal that one of its ``wait_for(name)`` takes, now or later. Returns the signal's
        id.

        *sender* is stored with it; a second signal of the same *key* is dropped. It waits until the signal is
        stored, not until the run takes it. On an event loop use ``await rt.aio.signal(…)``, which does not
        block it. Raises :class:`~flowdsl.errors.RunNotFound`, :class:`~flowdsl.errors.RunFinished`, and
        :class:`~flowdsl.errors.ResultNotStorable` for a payload that cannot be stored.
        """
        found = send_signal(self._engine, checked_id(id), name, payload, sender=sender, key=key)
        self._note(id, "signal", name)
        return found

    def ask(
        self, id: str, name: str, payload: Any = None, *, timeout: Any = None, key: str | None = None
    ) -> Any:
        """Send a run a message, and wait for what it replies (``message.reply``); its refusal is raised.

        *timeout*: a duration, after which :class:`~flowdsl.errors.WaitTimeout` is raised; the question
        stays. *key*: the same question is asked once, and its answer can be read again, even after the run
        has ended. Raises :class:`~flowdsl.errors.RunNotFound`, and :class:`~flowdsl.errors.RunFinished` for
        a run that has ended or ends without replying. Inside a run it is a durable call.
        """
        return ask_sync(self._engine, checked_id(id), name, payload, timeout=timeout, key=key)

    # Changing runs -----------------------------------------------------------------------------------------

    def cancel(self, id: str) -> None:
        """Ask a run to stop. The request is durable; the run sees it within a second, in whatever process it
        executes.

        An interrupted run is cancelled at once, or, where the code that undoes its steps is not loaded,
        when somebody continues it. Raises :class:`~flowdsl.errors.RunNotFound` and
        :class:`~flowdsl.errors.RunFinished`.
        """
        Run(self._engine, checked_id(id)).cancel()
        self._note(id, "cancel", "the run")

    def _note(self, id: str, action: str, what: str) -> None:
        """Write into the audit what a person with a name did. What a program does is no change by hand."""
        if is_named():
            self._engine.commit(PutStep(audit(self._engine, id, action, what)))

    def resolve(
        self,
        id: str,
        step: Any,
        *,
        result: Any = _NOTHING,
        error: BaseException | None = None,
        rerun: bool = False,
    ) -> None:
        """Say what came of an ``in_doubt="raise"`` step that was executing when its process died: its
        *result*, its *error*, or *rerun* it.

        Then call the workflow again, or ``resume`` the run.
        """
        from flowdsl.engine.runs.repair import resolve

        if (result is not _NOTHING) + (error is not None) + bool(rerun) != 1:
            raise TypeError("resolve() takes one of result=…, error=… and rerun=True")
        resolve(self._engine, self._record(id), step, result, error, rerun)

    def delete(self, id: str) -> None:
        """Delete a run with its records, as if it had never been; a missing one is no error."""
        self._engine.commit(DeleteRun(checked_id(id)))

    def prune(self, older_than: Any, status: Any = (RunStatus.COMPLETED, RunStatus.CANCELLED)) -> int:
        """Delete runs that ended longer ago than *older_than* (a duration); returns how many.

        A run whose id was given leaves a stub, so that its id still means that run.
        """
        from flowdsl.engine.runs.prune import prune

        age, wanted = seconds(older_than, "older_than"), statuses(status)
        if any(not is_final(one) for one in wanted):
            raise ValueError(f"prune deletes runs that have ended; got status {status!r}")
        return prune(self._engine, age, wanted)

    # Queues, schedules, workers ----------------------------------------------------------------------------

    @property
    def queues(self) -> "Queues":
        """The declared queues: ``list() put() pause() resume() delete()``."""
        from flowdsl.declared import Queues

        return Queues(self._engine)

    @property
    def schedules(self) -> "Schedules":
        """The schedules: ``list() put() pause() resume() delete() trigger() backfill()``."""
        from flowdsl.declared import Schedules

        return Schedules(self._engine)

    def workers(self) -> "list[WorkerInfo]":
        """The workers that are alive, and what each executes."""
        from flowdsl.declared import workers_of

        return workers_of(self._engine)
