"""Recorded histories: can today's code continue a run that yesterday's code began?

The rules
    Recorded steps answer from the history. Nothing else executes: a body without a record, a sleep, a wait
    and a child run hold the code where it calls them, and when all of it is held, or at its end, the history
    has been replayed.

The implementation
    The history goes into a storage in memory as an interrupted run, which is continued on a clock that stands
    still. The body of the workflow is held at its end too, so no undo and no callback of the workflow is ever
    called; then the run is interrupted like any other.
"""

import asyncio
import difflib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from flowdsl.core.records import Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine import run as run_module
from flowdsl.engine.context import Crossing, Frame, RunState, StepView, current
from flowdsl.engine.divergence import source_line
from flowdsl.engine.drive import Body, Pause
from flowdsl.engine.export import History, read_export
from flowdsl.engine.registry import STEPS, WORKFLOWS
from flowdsl.errors import FlowError, NondeterminismError, StepOutcomeUnknown
from flowdsl.hooks import Hooks
from flowdsl.runtime import Runtime
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import AddSignal, OpenRun, PutStep, UpdateRun
from flowdsl.testing.bodies import fake_body, substituting
from flowdsl.testing.clock import VirtualClock

__all__ = ["HistoryMismatch", "HistoryReport", "check_history"]

_WAITS = frozenset({"sleep", "wait", "schedule"})


class HistoryMismatch(AssertionError):
    """Today's code cannot continue a recorded run; the message shows the difference and what to do."""


@frozen(slots=True)
class HistoryReport:
    """What :func:`check_history` found.

    *run* and *workflow* of the history; how many records *replayed*; whether the code *ended*, or the calls
    that it *stopped_at* because no record answers them; records that were *unused*, readable.
    """

    run: str
    workflow: str
    replayed: int
    ended: bool
    stopped_at: tuple[str, ...]
    unused: tuple[str, ...]


@frozen(slots=True)
class _Stop:
    """A call that no record answers; *recorded*, if it would have been recorded."""

    key: str
    path: str
    shown: str
    line: str = ""
    recorded: bool = True


def check_history(
    history: str | PathLike[str] | Mapping[str, Any],
    *,
    fakes: Mapping[Any, Callable[..., Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
) -> HistoryReport:
    """Replay a *history* (what ``flowdsl export RUN`` printed, or the path of a file with that) against
    today's code.

    Recorded steps answer from the history. No body of a step executes: where the code calls one that is not
    recorded, or waits, it is held, and that, or its end, is success. Time stands still.

    Parameters: *fakes*, decorated steps (or their paths) → functions to call instead of stopping there, for
    steps of mode ``try``, which have no records; *options* of the :class:`~flowdsl.Runtime`, such as the
    ``codec``; *timeout*, real seconds that the code of the workflow may take.

    Returns a :class:`HistoryReport`. Raises :class:`HistoryMismatch`, an ``AssertionError``, where the run
    could not be continued: its workflow is gone, its arguments do not fit, a step is called with other
    arguments or under another name than recorded, or the code raises something on what is recorded. Paths of
    steps that are new or gone on purpose may stand in the file, as ``"accepts": ["shop.notify"]``.

    >>> from flowdsl import step, workflow
    >>> from flowdsl.testing import fresh_runtime
    >>> @step
    ... def charge(amount):
    ...     return f"paid {amount}"
    >>> @workflow
    ... def checkout(amount):
    ...     return charge(amount)
    >>> with fresh_runtime() as runtime:
    ...     run = checkout.start(5)
    ...     _ = run.result()
    ...     document = runtime.export(run.id)
    >>> check_history(document).ended
    True
    """
    name, document = _read(history)
    accepts = document.get("accepts", ())
    if not isinstance(accepts, list | tuple) or not all(isinstance(path, str) for path in accepts):
        raise ValueError(f'{name}: "accepts" is a list of paths of steps; got {accepts!r}')
    recorded = read_export(document)
    _require(recorded.run.workflow, f"{name}: run {recorded.run.id}")
    by_path = {getattr(step, "path", step): fake for step, fake in (fakes or {}).items()}
    return _Replay(name, recorded, by_path, dict(options or {}), set(accepts), timeout).run()


def _read(history: str | PathLike[str] | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(history, Mapping):
        return "the history", history
    name = fspath(history)
    try:
        document = json.loads(Path(name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{name} is no history: `flowdsl export RUN` makes them")
    return name, document


def _known(path: str) -> bool:
    return WORKFLOWS.get(path) is not None or STEPS.get(path) is not None


def _require(path: str, what: str) -> None:
    """Have the workflow of this path registered, by importing its module if need be."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if _known(path):
            return
        module = ".".join(parts[:length])
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (module + ".").startswith(error.name + "."):
                raise
    if not _known(path):
        near = difflib.get_close_matches(path, [*WORKFLOWS, *STEPS], n=3)
        hint = f" There is {' and '.join(near)}." if near else ""
        raise HistoryMismatch(
            f"{what} cannot be continued: there is no workflow {path!r} any more.{hint}\n"
            f"  A workflow that was renamed or moved keeps its runs with @workflow(name={path!r})."
        )


class _Watch(Hooks):
    """Notes what is replayed, and the run's state in memory."""

    def __init__(self, replay: "_Replay") -> None:
        self._replay = replay

    def on_run_start(self, run: Any) -> None:
        if run.id == self._replay.id:
            self._replay.state = self._replay.runtime.engine.active[run.id]


class _Replay:
    """One history, replayed once."""

    def __init__(
        self,
        name: str,
        history: History,
        fakes: Mapping[str, Callable[..., Any]],
        options: dict[str, Any],
        accepts: set[str],
        timeout: float,
    ) -> None:
        self.id = history.run.id
        self.state: RunState | None = None
        self._name = name
        self._history = history
        self._fakes = fakes
        self._accepts = accepts
        self._timeout = timeout
        self._keys = {step.key for step in history.steps}
        self._stops: list[_Stop] = []
        self._outcome: tuple[BaseException | None, Any] | None = None
        self._storage = _stored(history)
        self._clock = VirtualClock(_last_moment(history), autoskip=False)
        options = {"lease": 3600.0, **options, "hooks": [_Watch(self)]}
        self.runtime = Runtime(self._storage, clock=self._clock, **options)

    def run(self) -> HistoryReport:
        with substituting(self._instead_of), self._holding():
            with self.runtime:
                try:
                    run = self.runtime.resume(self.id)
                except (FlowError, TypeError, ValueError) as error:
                    raise self._mismatch(f"{type(error).__name__}: {error}") from error
                future = self.runtime.engine.futures.get(run.id)
                self._come_to_rest(future)
                report = self._judged(future.exception() if future is not None and future.done() else None)
        self._storage.close()
        return report

    # What executes ----------------------------------------------------------------------------------------

    def _instead_of(
        self, view: StepView, is_async: bool, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., Any]:
        """What executes in place of a body."""
        if view.mode == "send":
            return fake_body(lambda *_, **__: None, is_async)
        if view.path in self._fakes:
            return fake_body(self._fakes[view.path], is_async)
        frame = current.get()
        state = frame.run if frame is not None else None
        running = None if state is None else state.running.get(view.key)
        shown = running[1].shown if running is not None else ""
        if view.run_id == self.id:
            name = view.path.rpartition(".")[2]
            self._stops.append(
                _Stop(view.key, view.path, f"{name}({shown})", source_line(), view.mode == "do")
            )
        return _aheld if is_async else _held

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """Hold the body of the workflow at its end, and that of each child at its beginning."""
        replay = self

        class Holding(Body):
            __slots__ = ()

            def __init__(self, fn: Any, args: Any, kwargs: Any, frame: Frame) -> None:
                run = frame.run
                if run.id == replay.id and run.engine is replay.runtime.engine:
                    fn = replay._held_at_its_end(fn, frame.is_async)
                elif run.record.parent == replay.id:
                    record = run.record
                    shown = f"{record.workflow.rpartition('.')[2]}({record.args_preview})"
                    key = record.parent_key or ""
                    replay._stops.append(_Stop(key, record.workflow, shown, source_line()))
                    fn = _aheld if frame.is_async else _held
                super().__init__(fn, args, kwargs, frame)

        module: Any = run_module
        module.Body = Holding
        try:
            yield
        finally:
            module.Body = Body

    def _held_at_its_end(self, fn: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
        def body(*args: Any, **kwargs: Any) -> Any:
            try:
                self._outcome = None, fn(*args, **kwargs)
            except Exception as error:
                self._outcome = error, None
            return _held()

        async def abody(*args: Any, **kwargs: Any) -> Any:
            try:
                self._outcome = None, await fn(*args, **kwargs)
            except Exception as error:
                self._outcome = error, None
            return await _aheld()

        return abody if is_async else body

    def _come_to_rest(self, future: Any) -> None:
        """Return once all code of the run is held, or the run was stopped."""
        clock = self._clock
        end = time.monotonic() + self._timeout
        while future is not None and not future.done():
            before = clock._moves
            with clock._lock:
                rests = clock._settled.wait_for(
                    lambda: clock._busy <= 0 or future.done(), timeout=max(end - time.monotonic(), 0.01)
                )
            loop = self.runtime.engine._loop
            if loop is not None:
                asyncio.run_coroutine_threadsafe(_drained(loop), loop).result()
            if not rests:
                raise self._mismatch(f"its code did not come to an end within {self._timeout:g} seconds")
            if self.state is not None and clock._busy <= 0 and clock._moves == before:
                return

    # What is found ----------------------------------------------------------------------------------------

    def _judged(self, error: BaseException | None) -> HistoryReport:
        if isinstance(error, NondeterminismError):
            raise self._mismatch(str(error))
        if error is not None and not isinstance(error, StepOutcomeUnknown):
            raise self._mismatch(f"{type(error).__name__}: {error}") from error
        assert self.state is not None
        raised, _ = self._outcome or (None, None)
        if raised is not None and not self._is_recorded(raised):
            raise self._mismatch(f"on what is recorded, it raises\n{_traceback(raised)}") from raised
        unused = self.state.journal.unused()
        keys = {step.key for step in unused}
        waits = [
            _Stop(s.key, s.path, _shown(s))
            for s in self._storage.list_steps(self.id)
            if s.kind in _WAITS and s.status is StepStatus.PENDING and s.key not in keys
        ]
        stops = [*self._stops, *waits]
        held = {stop.key for stop in stops}
        new = [
            stop
            for stop in stops
            if stop.recorded and stop.key not in self._keys and stop.path not in self._accepts
        ]
        gone = [
            step
            for step in unused
            if step.path not in self._accepts
            and step.scope.partition("/")[0].partition("~")[0] not in held  # its step is held
            and not self._may_come(step)
        ]
        if new and gone:
            raise self._mismatch(self._other_calls(gone, new))
        closed = [
            s
            for s in self._history.steps
            if s.status is not StepStatus.PENDING and s.kind != "audit" and s.key not in keys
        ]
        return HistoryReport(
            self.id,
            self._history.run.workflow,
            len(closed),
            self._outcome is not None,
            tuple(stop.shown for stop in stops),
            tuple(_shown(step) for step in gone),
        )

    def _may_come(self, step: Step) -> bool:
        """Whether code that is held may yet come to what the run was waiting for."""
        return self._outcome is None and step.kind in _WAITS and step.status is StepStatus.PENDING

    def _is_recorded(self, raised: BaseException) -> bool:
        """Whether the history ends with such an exception, or one of its steps has failed with it."""
        runtime, run = self.runtime, self._history.run
        errors = [runtime.load_error(step) for step in self._history.steps if step.kind != "undo"]
        if any(type(e) is type(raised) and str(e) == str(raised) for e in errors if e is not None):
            return True
        if run.status is not RunStatus.FAILED or not run.error:
            return False
        ended: BaseException = runtime.engine.payloads.unpack_error(run.error, run.id, "", "run")
        return type(ended) is type(raised)

    def _other_calls(self, unused: list[Step], new: list[_Stop]) -> str:
        unasked = {step.key for step in unused}
        asked = []
        for stop in new:
            asked.append(f"    + {stop.shown}")
            if stop.line and stop.line != "unknown":
                asked.append(f"        at {stop.line}")
        lines = ["  recorded (-) and asked for (+):"]
        for step in self._history.steps:
            if step.kind in ("log", "audit", "undo", "value") or step.scope:
                continue
            if step.key not in unasked and lines[-1].startswith("    -"):
                lines += asked
                asked = []
            lines.append(f"    {'-' if step.key in unasked else ' '} {_shown(step)}")
        lines += asked
        paths = json.dumps(list(dict.fromkeys(stop.path for stop in new)))
        lines += [
            "  Continued like this, it would execute the new call and leave recorded ones unused.",
            f"  A step that has another name now keeps its records with @step(name={unused[0].path!r}).",
            "  If calls were added or taken away on purpose, and runs that have begun may go on like this,",
            f'  the file says so with "accepts": {paths}',
        ]
        return "\n".join(lines)

    def _mismatch(self, what: str) -> HistoryMismatch:
        run = self._history.run
        return HistoryMismatch(
            f"{self._name}: today's code cannot continue run {run.id} of {run.workflow}:\n{what}"
        )


def _held(*_: Any, **__: Any) -> Any:
    run = _here()
    while run.stop is None and not run.ending:
        Pause(run, None).sync()
    raise Crossing(run.stop or FlowError("the history ends here", run=run.id))


async def _aheld(*_: Any, **__: Any) -> Any:
    run = _here()
    while run.stop is None and not run.ending:
        await Pause(run, None).aio()
    raise Crossing(run.stop or FlowError("the history ends here", run=run.id))


def _here() -> RunState:
    frame = current.get()
    assert frame is not None
    return frame.run


async def _drained(loop: Any) -> None:
    """Return once no callback is ready."""
    for _ in range(1000):
        await asyncio.sleep(0)
        if not getattr(loop, "_ready", True):
            return


def _stored(history: History) -> MemoryStorage:
    """A storage that holds the run as if its process had died."""
    storage = MemoryStorage()
    run = evolve(
        history.run,
        number=None,
        status=RunStatus.RUNNING,
        owner="history",
        finished_at=None,
        deadline=None,
        result=None,
        error=None,
        undoing="",
        retryable=True,
        cancel_requested=None,
        floor=0,
    )
    storage.commit([OpenRun(run, 3600.0)])
    storage.commit([PutStep(evolve(step, seq=0)) for step in history.steps])
    storage.commit([AddSignal(signal) for signal in history.signals if signal.taken_by is None])
    changes: dict[str, Any] = {}
    if history.run.floor:
        seqs = [step.seq for step in storage.list_steps(run.id)]
        changes["floor"] = seqs[min(history.run.floor - 1, len(seqs)) - 1] + 1 if seqs else 0
    storage.commit([UpdateRun(run.id, changes, release=True)])
    return storage


def _last_moment(history: History) -> float:
    times = [history.run.created_at, *(s.completed_at or s.created_at for s in history.steps)]
    return max(times)


def _shown(step: Step) -> str:
    text = f"{step.path.rpartition('.')[2]}({step.args})"
    return f"{text} → {step.preview}" if step.preview else text


def _traceback(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parent.parent)
    theirs = [frame for frame in frames if not frame.filename.startswith(package)]
    lines = [f"    at {frame.filename}:{frame.lineno}: {frame.line}" for frame in theirs[-3:]]
    return "\n".join([f"    {type(error).__name__}: {error}", *lines])
