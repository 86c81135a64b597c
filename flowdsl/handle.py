"""Run: the handle a user holds."""

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, SupportsIndex, cast, overload

from flowdsl.core.durations import wait_limit
from flowdsl.core.kinds import AUDIT, BESIDE_STEPS, LOG
from flowdsl.core.records import Run as RunRecord
from flowdsl.core.records import RunFilter, Step, Tags
from flowdsl.core.status import RunStatus
from flowdsl.core.words import clean
from flowdsl.engine.effects import drive
from flowdsl.engine.engine import Engine
from flowdsl.engine.execution import Frame, current
from flowdsl.engine.operations.ask import ask_sync, question
from flowdsl.engine.operations.signal import send
from flowdsl.engine.operations.store import state_of
from flowdsl.engine.owner import is_interrupted, shown_status
from flowdsl.engine.record import flush
from flowdsl.engine.runs.cancel import cancel_and_wait
from flowdsl.engine.runs.outcome import await_outcome, record_of, wait_for_outcome
from flowdsl.engine.runs.request import arguments_of
from flowdsl.engine.tracebacks import trim
from flowdsl.entries import AuditEntry, LogLine, Look, StepRecord, when
from flowdsl.errors import CorruptPayload, MissingClass

__all__ = [
    "AuditEntry",
    "LogLine",
    "Run",
    "Runs",
    "StepRecord",
    "ask_only",
    "is_interrupted",
    "look",
    "racer_of",
    "records",
    "shown_status",
]

if TYPE_CHECKING:  # Python knows defaults of type variables from 3.13 on
    from matplotlib.figure import Figure
    from typing_extensions import TypeVar

    from flowdsl.drawing.dataframe import Library
    from flowdsl.drawing.plot import Backend, Plot
    from flowdsl.engine.operations.race import Racer
    from flowdsl.engine.runs.stream import Stream

    R = TypeVar("R", covariant=True, default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)


class Run(Generic[R]):
    """A handle on one run. It reads the storage when asked, so it is never out of date.

    ``await run`` gives the result in async code; ``run.result()`` in sync code.
    """

    __slots__ = ("_ending", "_engine", "_final", "_listed", "id")

    def __init__(self, engine: Engine, run_id: str, listed: RunRecord | None = None) -> None:
        self._engine = engine
        self.id = run_id
        self._listed = listed
        self._final: RunRecord | None = None
        self._ending: tuple[RunStatus, tuple[BaseException | None, Any]] | None = None

    def ending(self, status: RunStatus, outcome: tuple[BaseException | None, Any]) -> "Run[R]":
        """A copy for ``on_complete`` and ``on_error``, which are called just before the outcome is stored."""
        copy: Run[R] = Run(self._engine, self.id)
        copy._ending = (status, outcome)
        return copy

    @property
    def record(self) -> RunRecord:
        """The stored row. Raises :class:`~flowdsl.errors.RunNotFound` once it is deleted."""
        if self._final is not None:
            return self._final
        record = record_of(self._engine, self.id)
        if record.status in (RunStatus.COMPLETED, RunStatus.CANCELLED):
            self._final = record
        return record

    @property
    def workflow(self) -> str:
        """Dotted name of the workflow."""
        return self.record.workflow

    @property
    def args(self) -> dict[str, Any]:
        """The arguments by parameter name (without those in ``ignore=``)."""
        return arguments_of(self._engine, self.record)

    @property
    def tags(self) -> Tags:
        """Its tags."""
        return self.record.tags

    @property
    def number(self) -> int | None:
        """1, 2, … among the runs of the same workflow and arguments; ``None`` for a run whose id was
        given."""
        return self.record.number

    @property
    def status(self) -> RunStatus:
        """Its status now."""
        return self._ending[0] if self._ending is not None else self.record.status

    @property
    def interrupted(self) -> bool:
        """Whether it is ``running`` but nobody executes it: call it again, or ``resume`` it."""
        return shown_status(self._engine.storage, self.record) == "interrupted"

    @property
    def version(self) -> str:
        """The version of its workflow that it was begun under; ``""`` for none."""
        return self.record.version

    @property
    def generation(self) -> int:
        """1, and one more for each ``continue_as_new``."""
        return self.record.generation

    @property
    def started_by(self) -> str | None:
        """The id of the run that started it detached; ``None`` for any other."""
        return self.record.started_by

    @property
    def queue(self) -> str | None:
        """The queue that it was put into; ``None`` for a run that was started otherwise."""
        return self.record.queue

    @property
    def created_at(self) -> datetime:
        """When it was first started, an aware datetime in UTC."""
        return datetime.fromtimestamp(self.record.created_at, UTC)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return when(self.record.finished_at)

    def result(self, timeout: float | None = None) -> R:
        """The run's result, waiting at most *timeout* real seconds for it (``None``: as long as it takes).

        Raises the run's error; the builtin ``TimeoutError`` when the wait ends first, which does not touch
        the run.
        """
        timeout = wait_limit(timeout)
        if self._ending is not None:
            error, value = self._ending[1]
            if error is not None:
                raise error
            return cast(R, value)
        __tracebackhide__ = True
        try:
            return cast(R, wait_for_outcome(self._engine, self.id, timeout))
        except Exception as error:  # only its traceback is changed
            if current.get() is None:
                trim(error)
            raise

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The run's error, or ``None``; waits as :meth:`result`. An error that does not load is raised."""
        timeout = wait_limit(timeout)
        try:
            self.result(timeout)
        except (CorruptPayload, MissingClass):  # of the storage, whatever the run has raised
            raise
        except Exception as error:  # whatever the run has raised
            if self.status in (RunStatus.FAILED, RunStatus.CANCELLED):
                return error
            raise
        return None

    def __await__(self) -> Generator[Any, None, R]:
        return self._wait().__await__()

    async def _wait(self) -> R:
        if self._ending is not None:
            return self.result()
        __tracebackhide__ = True
        try:
            return cast(R, await await_outcome(self._engine, self.id))
        except Exception as error:  # only its traceback is changed
            if current.get() is None:
                trim(error)
            raise

    def steps(self) -> list[StepRecord]:
        """The recorded steps, in the order they were recorded."""
        return [StepRecord(self._engine, step) for step in self._journal() if step.kind not in BESIDE_STEPS]

    def _journal(self) -> list[Step]:
        return self._engine.storage.list_steps(self.id)

    @property
    def parent(self) -> "Run[Any] | None":
        """The run that called this one; ``None`` if none did, or if it was deleted."""
        parent = self.record.parent
        known = parent is not None and self._engine.storage.get_run(parent) is not None
        return Run(self._engine, parent) if known and parent is not None else None

    def children(self) -> "list[Run[Any]]":
        """The runs that this one called, oldest first."""
        where = RunFilter(parent=self.id, newest_first=False)
        return [Run(self._engine, row.id) for row in self._engine.storage.list_runs(where)]

    def signal(
        self, name: str, payload: Any = None, *, sender: str | None = None, key: str | None = None
    ) -> str:
        """Send a signal to this run; see ``Runtime.signal``."""
        return send(self._engine, self.id, name, payload, sender=sender, key=key)

    def ask(self, name: str, payload: Any = None, *, timeout: Any = None, key: str | None = None) -> Any:
        """Send a message to this run and wait for its reply; see ``Runtime.ask``."""
        return ask_sync(self._engine, self.id, name, payload, timeout=timeout, key=key)

    def tag(self, **tags: str) -> None:
        """Add *tags* to the run, or replace those of the same names; ``Runtime.runs(tags=…)`` finds it at
        once. ``TypeError`` for values that are no text."""
        from flowdsl.engine.runs.tagging import tag

        tag(self._engine, self.id, tags)

    def latest(self, channel: str, timeout: Any = None) -> Any:
        """The last item that the run has published on *channel*, or ``None``.

        With *timeout* (a duration, of real time), the first one is waited for; then
        :class:`~flowdsl.errors.WaitTimeout`.
        """
        from flowdsl.engine.runs.stream import latest

        _published(self.id)
        return latest(self._engine, self.id, channel, wait_limit(timeout))

    def stream(self, channel: str, after: int = 0, follow: bool = False) -> "Stream":
        """The items that the run has published on *channel*, without the first *after* of them.

        Iterate over it; in async code with ``async for``. With *follow* it waits for what comes, until the
        run has ended.
        """
        from flowdsl.engine.runs.stream import Stream

        _published(self.id)
        return Stream(self._engine, self.id, channel, after, follow)

    def cancel(self) -> None:
        """Ask the run to stop; see ``Runtime.cancel``."""
        cancel_and_wait(self._engine, self.record)

    def state(self) -> dict[str, Any]:
        """The run store, as a dict."""
        return {} if self.record.status is RunStatus.COMPLETED else state_of(self._engine, self.id)

    def progress(self) -> dict[str, Any]:
        """Counts of done and failed steps, and the steps that are executing."""
        from flowdsl.engine.runs.progress import progress_of

        return progress_of(self._engine, self.record)

    def logs(self) -> list[LogLine]:
        """What ``log()`` stored with the run, in order."""
        return [LogLine.of(step, self._engine.payloads) for step in self._journal() if step.kind == LOG]

    def audit(self) -> list[AuditEntry]:
        """What was changed in the run by hand (retry, resume, fork, resolve, forget, reuse), in order."""
        return [AuditEntry.of(step) for step in self._journal() if step.kind == AUDIT]

    @overload
    def plot(self, backend: Literal["svg"] = "svg") -> "Plot": ...
    @overload
    def plot(self, backend: Literal["matplotlib"]) -> "Figure": ...
    def plot(self, backend: "Backend" = "svg") -> "Plot | Figure":
        """The timeline of the run as a picture.

        *backend*: ``"svg"`` gives an object that a notebook shows and that has ``save(path)`` for ``.svg``
        (needs nothing), ``.png`` and ``.pdf`` (need matplotlib); ``"matplotlib"`` gives a
        ``matplotlib.figure.Figure``. Raises ``ValueError`` for another one, and ``ImportError``.
        """
        from flowdsl.drawing.plot import plotted

        record, state = self._shown()
        storage = self._engine.storage
        return plotted(record, state, storage.list_steps(self.id), storage.now(), backend)

    def to_dataframe(self, library: "Library | None" = None) -> Any:
        """The steps as a data frame, one row each in recorded order: ``key path kind scope depth lane status
        attempts args result error created_at completed_at duration`` (readable previews; aware times in UTC;
        seconds).

        *library*: ``"pandas"`` or ``"polars"``; by default the first of them that is installed. Raises
        ``ImportError`` where none is.
        """
        from flowdsl.drawing.dataframe import steps_frame

        record, state = self._shown()
        storage = self._engine.storage
        return steps_frame(record, state, storage.list_steps(self.id), storage.now(), library)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        try:
            record, state = self._shown()
        except Exception as error:  # a repr raises nothing
            return clean(f"<Run {self.id} ({type(error).__name__})>")
        return clean(f"<Run {self.id} of {record.workflow}: {state}>")

    def _repr_html_(self) -> str:
        from flowdsl.drawing.run import run_html, shown_or_why

        def draw() -> str:
            record, state = self._shown()
            return run_html(record, state, self._journal(), self._engine.storage.now())

        return shown_or_why(f"run {self.id}", draw)

    def _shown(self) -> tuple[RunRecord, str]:
        record, ending = self.record, self._ending  # its callbacks see how it is about to end
        return record, str(ending[0]) if ending is not None else shown_status(self._engine.storage, record)

    def _as_listed(self) -> tuple[RunRecord, str]:
        """The row that a list was made of, and its state."""
        record = self._listed or self.record
        return record, shown_status(self._engine.storage, record)


def ask_only(run: Run[Any], name: str, payload: Any, key: str) -> None:
    """Send *run* a question, and leave its answer where it is stored: nothing of it is loaded."""
    question(run._engine, run.id, name, payload, key)


def _published(run_id: str) -> None:
    """Let a run that reads its own channel find what it has published just now."""
    frame = current.get()
    if frame is not None and frame.run.id == run_id:
        drive(flush(frame.run))


def racer_of(frame: Frame) -> "Callable[[Any], Racer | None]":
    """The function that turns a handle of a run into a racer, for ``race``."""

    from flowdsl.engine.runs.racing import RunRacer

    def make(item: Any) -> RunRacer | None:
        return RunRacer(item._engine, frame, item.id) if isinstance(item, Run) else None

    return make


class Runs(list[Run[Any]]):
    """What ``rt.runs()`` gives: a list. A notebook shows it as a table of the runs as they were when it was
    made."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Run[Any]: ...
    @overload
    def __getitem__(self, index: slice, /) -> "Runs": ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> "Run[Any] | Runs":
        found = super().__getitem__(index)
        return Runs(found) if isinstance(found, list) else found

    def _repr_html_(self) -> str:
        from flowdsl.drawing.lists import MOST, runs_html
        from flowdsl.drawing.run import shown_or_why

        def draw() -> str:
            rows = [run._as_listed() for run in self[:MOST]]
            now = self[0]._engine.storage.now() if self else 0.0
            return runs_html(rows, len(self), now)

        return shown_or_why("runs", draw)


def look(run: Run[Any], *, after: int = 0, limit: int | None = None) -> Look:
    """Read a run once, with :func:`records` of it. Raises :class:`~flowdsl.errors.RunNotFound`."""
    record, state = run._shown()
    return Look(record, state, records(run, after=after, limit=limit), run._engine.storage.now())


def records(run: Run[Any], *, after: int = 0, limit: int | None = None) -> list[Step]:
    """At most *limit* of the records of a run that have a ``seq`` above *after*, in order."""
    return run._engine.storage.list_steps(run.id, after=after, limit=limit)
