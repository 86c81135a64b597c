"""One execution of a workflow up to its end, watched: the first one, or one that continues from a crash.

A crash is not raised but *made*: the first n commits of an execution are put into an empty storage, which
is exactly what a killed process leaves behind, and the workflow is called again. Bodies that the first
execution completed are played back, so that each executes once however many crashes are tried."""

import asyncio
import contextvars
import copy
import linecache
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import define, field, frozen

from flowdsl.core.records import Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.engine import step as step_module
from flowdsl.engine.context import StepView, current
from flowdsl.engine.divergence import source_line
from flowdsl.hooks import Hooks
from flowdsl.runtime import Runtime
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Operation, Outcome, PutStep, TakeSignal
from flowdsl.testing.bodies import fake_body, substituting
from flowdsl.testing.clock import VirtualClock
from flowdsl.testing.crash import RelayStorage
from flowdsl.testing.executions import Execution
from flowdsl.testing.world import Memory, elsewhere, in_workflow_body, user_frame

__all__ = ["Called", "Commit", "Life", "Plan", "live"]

COMPARED = frozenset({"step", "child", "sleep", "wait", "store", "schedule", "undo"})
"""Kinds of records that two executions must have in common."""

Place = tuple[str, str]


@frozen(slots=True)
class Commit:
    """Operations that became durable together, and the time on the clock."""

    operations: tuple[Operation, ...]
    at: float


@frozen(slots=True)
class Called:
    """One call of a step: whether its body *ran* or its record answered, and the line of code."""

    ran: bool
    run: str
    key: str
    shown: str
    line: str


@define(slots=True)
class Plan:
    """What is executed, and how."""

    call: Callable[[], Any]
    fn: Any
    is_async: bool
    fakes: Mapping[str, Callable[..., Any]]
    options: Mapping[str, Any]
    signals: Sequence[tuple[str, Any]]
    memory: Memory
    outcomes: dict[tuple[str, str, int], tuple[BaseException | None, Any]] = field(factory=dict)
    inner: set[Place] = field(factory=set)


@define(slots=True)
class Life:
    """What was seen of one execution. ``puts`` are all records of it and of what it continued."""

    before: tuple[Commit, ...]
    changes: tuple[str, ...]
    error: BaseException | None = None
    value: Any = None
    commits: list[Commit] = field(factory=list)
    calls: list[Called] = field(factory=list)
    unused: list[str] = field(factory=list)
    puts: dict[Place, Step] = field(factory=dict)
    outside: list[str] = field(factory=list)
    really_ran: int = 0
    loaded: list[tuple[str, Any, Any]] = field(factory=list)

    def note(self, operations: Sequence[Operation]) -> None:
        """Keep the records among *operations*."""
        for operation in operations:
            if isinstance(operation, PutStep | TakeSignal):
                step = operation.step
                self.puts.setdefault((step.run_id, step.key), step)
                self.puts[step.run_id, step.key] = step

    def journal(self) -> dict[Place, Step]:
        """The records that must be the same in each execution."""
        return {place: step for place, step in self.puts.items() if step.kind in COMPARED}


class _Recording(RelayStorage):
    """Keeps what is committed."""

    def __init__(self, storage: MemoryStorage, life: Life, clock: VirtualClock) -> None:
        super().__init__(storage)
        self._life = life
        self._clock = clock
        self._order = threading.Lock()

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        with self._order:
            outcomes = self.storage.commit(operations)
            if operations:
                self._life.commits.append(Commit(tuple(operations), self._clock.now()))
                self._life.note(operations)
        return outcomes


class _Watch(Hooks):
    """Notes replays and what was never asked for; sends the signals that the workflow waits for."""

    def __init__(self, life: Life, plan: Plan, storage: MemoryStorage) -> None:
        self._life = life
        self._plan = plan
        self._storage = storage
        self.runtime: Any = None

    def on_run_start(self, run: Any) -> None:
        if run.record.parent is None:
            for number, (name, payload) in enumerate(self._plan.signals):
                run.signal(name, payload, sender="check_replay", key=f"check_replay-{number}")

    def on_step_replay(self, step: Any, result: Any) -> None:
        record = self._storage.get_step(step.run_id, step.key)
        shown = f"{step.path.rpartition('.')[2]}({record.args if record else '…'})"
        self._life.calls.append(Called(False, step.run_id, step.key, shown, _line()))

    def on_step_complete(self, step: Any, result: Any) -> None:
        error, value = self._plan.outcomes.get((step.run_id, step.key, step.attempt), (None, result))
        if error is None and step.mode == "do":
            self._life.loaded.append((step.path.rpartition(".")[2], value, copy_of(result)))

    def on_run_complete(self, run: Any, result: Any) -> None:
        state = self.runtime.engine.active.get(run.id)
        if state is not None and state.unused:
            named = [self._storage.get_step(run.id, key) for key in state.unused]
            self._life.unused += [f"{s.path.rpartition('.')[2]}({s.args})" for s in named if s is not None]


def copy_of(value: Any) -> Any:
    """A deep copy, where that is possible."""
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _line() -> str:
    line = source_line()
    return "" if "/concurrent/futures/" in line or "/asyncio/" in line or line == "unknown" else line


def _player(plan: Plan, life: Life, first: bool) -> Any:
    """Stands between the engine and the bodies: executes and remembers, or plays back."""

    def substitute(
        view: StepView, is_async: bool, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., Any]:
        address = (view.run_id, view.key, view.attempt)
        shown = str(Execution(view.run_id, view.path, view.key, 1, args, kwargs))
        life.calls.append(Called(True, view.run_id, view.key, shown, _line()))
        known = plan.outcomes.get(address) if view.mode != "try" else None  # of which there is no record
        if not first and known is not None and address[:2] not in plan.inner:
            return fake_body(lambda *_, **__: _replayed(known), is_async)
        life.really_ran += 1
        if view.path in plan.fakes:
            fn = fake_body(plan.fakes[view.path], is_async)
        return _remembering(plan, address, fn, is_async) if known is None else fn

    return substitute


def _replayed(known: tuple[BaseException | None, Any]) -> Any:
    error, value = known
    if error is not None:
        raise error.with_traceback(None)
    return copy_of(value)


def _remembering(plan: Plan, address: tuple[str, str, int], fn: Callable[..., Any], is_async: bool) -> Any:
    def body(*args: Any, **kwargs: Any) -> Any:
        try:
            value = fn(*args, **kwargs)
        except Exception as error:
            plan.outcomes[address] = (error, None)
            raise
        plan.outcomes[address] = (None, copy_of(value))
        return value

    async def abody(*args: Any, **kwargs: Any) -> Any:
        try:
            value = await fn(*args, **kwargs)
        except Exception as error:
            plan.outcomes[address] = (error, None)
            raise
        plan.outcomes[address] = (None, copy_of(value))
        return value

    return abody if is_async else body


class _Steady:
    """Jitter that is the same each time."""

    def random(self) -> float:
        return 0.0


@contextmanager
def _steady_jitter() -> Any:
    module: Any = step_module
    before, module._jitter = module._jitter, _Steady()
    try:
        yield
    finally:
        module._jitter = before


# ------------------------------------------------------------- effects outside of every step

_EVENTS = frozenset(
    [
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.system",
        "os.truncate",
        "shutil.rmtree",
        "shutil.move",
        "shutil.copyfile",
        "socket.connect",
        "socket.sendto",
        "subprocess.Popen",
        "smtplib.connect",
        "http.client.connect",
        "sqlite3.connect",
    ]
)
_listeners: list[Life] = []
_hooked = False


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _listeners or (event != "open" and event not in _EVENTS) or not in_workflow_body():
        return
    if event == "open":
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
        if not (isinstance(args[2], int) and args[2] & writes) or "__pycache__" in str(args[0]):
            return
    frame = user_frame(2)
    if frame is not None:
        name, line = frame.f_code.co_filename, frame.f_lineno
        what = f"{event} {args[0]!s}" if event != "socket.connect" else f"{event} {args[1]!s}"
        text = linecache.getline(name, line).strip()
        _listeners[-1].outside.append(f"{what}\n      at {name}:{line}: {text}")


@contextmanager
def _listening(life: Life) -> Any:
    global _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    _listeners.append(life)
    try:
        yield
    finally:
        _listeners.remove(life)


# ------------------------------------------------------------ an execution


def unfinished(before: Sequence[Commit]) -> MemoryStorage | None:
    """What a process leaves behind that dies after these commits; ``None`` if no run of it is left to be
    continued.
    """
    storage = MemoryStorage()
    for commit in before:
        storage.commit(commit.operations)
    roots = [run for run in storage.list_runs() if run.parent is None]
    if roots and all(run.status in (RunStatus.RUNNING, RunStatus.PENDING) for run in roots):
        return storage
    storage.close()
    return None


def live(plan: Plan, storage: MemoryStorage, before: tuple[Commit, ...], changes: tuple[str, ...]) -> Life:
    """Execute the workflow to its end on *storage*, which holds the commits *before*, where *changes* have
    happened.
    """
    life = Life(before, changes)
    for commit in before:
        life.note(commit.operations)
    clock = VirtualClock(before[-1].at) if before else VirtualClock()
    watch = _Watch(life, plan, storage)
    runtime = Runtime(
        _Recording(storage, life, clock),
        **{"clock": clock, "hooks": [watch], "lease": 3600.0, **plan.options},
    )
    watch.runtime = runtime
    outside = current.set(None)
    try:
        with (
            _steady_jitter(),
            substituting(_player(plan, life, not before)),
            elsewhere(plan.fn, plan.memory, changes),
            _listening(life),
            runtime,
        ):
            try:
                life.value = _call(plan)
            except Exception as error:
                life.error = error
            life.loaded += _errors(plan, life, runtime)
    finally:
        current.reset(outside)
        storage.close()
    if not before:
        steps = life.journal().items()
        plan.inner = {(run_id, _body_of(step.scope)) for (run_id, _), step in steps if step.scope}
    return life


def _body_of(scope: str) -> str:
    """The key of the body in which *scope* lies."""
    body, _, rest = scope.partition("/")
    return f"{body}/undo" if rest.startswith("undo/") else body.partition("~")[0]


def _errors(plan: Plan, life: Life, runtime: Runtime) -> list[tuple[str, Any, Any]]:
    """The exceptions of steps that failed for good: as they were raised, and as their records give them."""
    found = []
    for (run_id, key), step in life.puts.items():
        raised, _ = plan.outcomes.get((run_id, key, step.attempts), (None, None))
        if step.kind == "step" and step.status is StepStatus.FAILED and raised is not None:
            found.append((step.path.rpartition(".")[2], raised, runtime.load_error(step)))
    return found


def _call(plan: Plan) -> Any:
    if not plan.is_async:
        return plan.call()

    async def main() -> Any:
        return await plan.call()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    box: list[Any] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.append((None, context.run(asyncio.run, main())))
        except BaseException as error:
            box.append((error, None))

    thread = threading.Thread(target=work, name="flowdsl-check-replay")
    thread.start()
    thread.join()
    error, value = box[0]
    if error is not None:
        raise error
    return value
