"""Whether today's code can continue a run that yesterday's code began.

It can if the code asks for all that is recorded before it asks for anything else. No body of a step executes
meanwhile (see :mod:`flowdsl.testing.history.paused`).
"""

import difflib
import json
import traceback
from collections.abc import Mapping
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from attrs import frozen

from flowdsl.core.history import History, read_export
from flowdsl.core.kinds import AUDIT, SILENT, UNDO, VALUE, WAITS
from flowdsl.core.records import Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine.registry import STEPS, WORKFLOWS
from flowdsl.errors import FlowError, NondeterminismError, StepOutcomeUnknown
from flowdsl.testing.history.paused import Held, Stop
from flowdsl.testing.seam import Fakes, fakes_by_path

__all__ = ["HistoryMismatch", "HistoryReport", "check_history"]


class HistoryMismatch(AssertionError):
    """Today's code cannot continue a recorded run. The message shows the difference, and what to do."""


@frozen(slots=True)
class HistoryReport:
    """What :func:`check_history` found.

    *run* and *workflow* are those of the history. *replayed*: how many records answered. *ended*: whether the
    code came to its end. *stopped_at*: the calls at which it was held, because no record answers them.
    *unused*: the records that it did not ask for, readable.
    """

    run: str
    workflow: str
    replayed: int
    ended: bool
    stopped_at: tuple[str, ...]
    unused: tuple[str, ...]


def check_history(
    history: str | PathLike[str] | Mapping[str, Any],
    *,
    fakes: Fakes | None = None,
    options: Mapping[str, Any] | None = None,
    timeout: float = 60.0,
) -> HistoryReport:
    """Replay a *history* (what ``flowdsl export RUN`` printed, or the path of a file with that) against
    today's code.

    Recorded steps answer from the history. No body of a step executes. The code is held where it waits, or
    calls a step without a record. That is success, and so is its end. Time stands still.

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
    held = Held(recorded, fakes_by_path(fakes), options or {}, timeout)
    return _Verdict(name, recorded, held, set(accepts)).find()


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
    """Register the workflow of this path. This imports its module if necessary."""
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


class _Verdict:
    """What the check finds in one history."""

    def __init__(self, name: str, history: History, held: Held, accepts: set[str]) -> None:
        self._name = name
        self._history = history
        self._held = held
        self._accepts = accepts
        self._keys = {step.key for step in history.steps}

    def find(self) -> HistoryReport:
        """Continue the run, and look."""
        try:
            with self._held.continued() as error:
                return self._judged(error)
        except (FlowError, TypeError, ValueError, TimeoutError) as error:
            raise self._mismatch(f"{type(error).__name__}: {error}") from error

    def _judged(self, error: BaseException | None) -> HistoryReport:
        if isinstance(error, NondeterminismError):
            raise self._mismatch(str(error))
        if error is not None and not isinstance(error, StepOutcomeUnknown):
            raise self._mismatch(f"{type(error).__name__}: {error}") from error
        body = self._held.body
        assert body is not None
        raised, _ = self._held.outcome or (None, None)
        if raised is not None and not self._is_recorded(raised):
            raise self._mismatch(f"on what is recorded, it raises\n{_traceback(raised)}") from raised
        unused = body.unused()
        keys = {step.key for step in unused}
        waits = [
            Stop(s.key, s.path, _shown(s))
            for s in self._held.storage.list_steps(self._held.id)
            if s.kind in WAITS and s.status is StepStatus.PENDING and s.key not in keys
        ]
        stops = [*self._held.stops, *waits]
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
            if s.status is not StepStatus.PENDING and s.kind != AUDIT and s.key not in keys
        ]
        return HistoryReport(
            self._held.id,
            self._history.run.workflow,
            len(closed),
            self._held.outcome is not None,
            tuple(stop.shown for stop in stops),
            tuple(_shown(step) for step in gone),
        )

    def _may_come(self, step: Step) -> bool:
        """Whether code that is held may still come to what the run was waiting for."""
        return self._held.outcome is None and step.kind in WAITS and step.status is StepStatus.PENDING

    def _is_recorded(self, raised: BaseException) -> bool:
        """Whether the history ends with such an exception, or one of its steps failed with it."""
        with self._held.as_recorded() as run:
            errors = [step.error for step in run.steps() if step.kind != UNDO]
            if any(type(e) is type(raised) and str(e) == str(raised) for e in errors if e is not None):
                return True
            failed = run.status is RunStatus.FAILED and self._history.run.error
            return bool(failed) and type(run.exception()) is type(raised)

    def _other_calls(self, unused: list[Step], new: list[Stop]) -> str:
        unasked = {step.key: "-" if n < len(new) else "·" for n, step in enumerate(unused)}
        asked = []
        for stop in new:
            asked.append(f"    + {stop.shown}")
            if stop.line:
                asked.append(f"        at {stop.line}")
        later = ", not reached (·)" if len(unused) > len(new) else ""
        lines = [f"  recorded (-) and asked for (+){later}:"]
        for step in self._history.steps:
            if step.kind in SILENT or step.kind == VALUE or step.scope:
                continue
            if unasked.get(step.key) != "-" and lines[-1].startswith("    -"):
                lines += asked
                asked = []
            lines.append(f"    {unasked.get(step.key, ' ')} {_shown(step)}")
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


def _shown(step: Step) -> str:
    text = f"{step.path.rpartition('.')[2]}({step.args})"
    return f"{text} → {step.preview}" if step.preview else text


def _traceback(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    package = str(Path(__file__).parents[2])
    theirs = [frame for frame in frames if not frame.filename.startswith(package)]
    lines = [f"    at {frame.filename}:{frame.lineno}: {frame.line}" for frame in theirs[-3:]]
    return "\n".join([f"    {type(error).__name__}: {error}", *lines])
