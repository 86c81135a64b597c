"""What many tests need: bodies for sync and async, an effect log, storages that die."""

import asyncio
import functools
import inspect
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import forked
import pytest

from flowdsl import Hooks, Retry, Runtime, step, workflow
from flowdsl.errors import FlowError, StorageUnavailable
from flowdsl.storage import SQLiteStorage
from flowdsl.storage.base import Operation, Outcome, Storage
from flowdsl.testing.crash import RelayStorage

EXAMPLES = float(os.environ.get("FLOWDSL_EXAMPLES", "1"))


def examples(count: int) -> int:
    """How many examples a property test tries: *count*, times the factor in FLOWDSL_EXAMPLES."""
    return max(1, int(count * EXAMPLES))


ONCE = Retry(attempts=1)


class Declined(Exception):
    """A business error."""


# sync and async --------------------------------------------------------------------------------------


class Flavour:
    """Makes sync or async steps and workflows out of one description.

    A body is a plain function, or a generator that yields each durable call: ``x = yield charge(1)``.
    """

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async

    def __repr__(self) -> str:
        return "async" if self.is_async else "sync"

    def body(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """*fn* as a function that can be decorated."""
        if not inspect.isgeneratorfunction(fn):
            if not self.is_async:
                return fn

            @functools.wraps(fn)
            async def plain(*args: Any, **kwargs: Any) -> Any:
                return fn(*args, **kwargs)

            return plain

        @functools.wraps(fn)
        def driven(*args: Any, **kwargs: Any) -> Any:
            body = fn(*args, **kwargs)
            try:
                value = next(body)
                while True:
                    value = body.send(value)
            except StopIteration as stop:
                return stop.value

        @functools.wraps(fn)
        async def adriven(*args: Any, **kwargs: Any) -> Any:
            body = fn(*args, **kwargs)
            try:
                awaitable = next(body)
                while True:
                    error = value = None
                    try:
                        value = await awaitable
                    except (
                        BaseException
                    ) as caught:  # thrown below: here, it would be the context of all that follows
                        error = caught
                    awaitable = body.send(value) if error is None else body.throw(error)
            except StopIteration as stop:
                return stop.value

        return adriven if self.is_async else driven

    def step(self, fn: Any = None, /, **options: Any) -> Any:
        """``@step``."""
        if fn is None:
            return lambda fn: self.step(fn, **options)
        return step(**options)(self.body(fn)) if options else step(self.body(fn))

    def workflow(self, fn: Any = None, /, **options: Any) -> Any:
        """``@workflow``."""
        if fn is None:
            return lambda fn: self.workflow(fn, **options)
        return workflow(**options)(self.body(fn)) if options else workflow(self.body(fn))

    def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a workflow (or ``rt.do`` and the like) to its end."""
        if not self.is_async:
            return fn(*args, **kwargs)

        async def main() -> Any:
            return await fn(*args, **kwargs)

        return asyncio.run(main())


FLAVOURS = (Flavour(False), Flavour(True))


# storages ----------------------------------------------------------------------------------------------

in_memory = pytest.mark.parametrize("storage", ["memory"], indirect=True)
"""For tests of many values to which the kind of storage makes no difference."""


@functools.cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        SQLiteStorage(path := Path(folder) / "flow.db").close()
        return path.read_bytes()


def sqlite_storage(path: Path, **options: Any) -> SQLiteStorage:
    """``SQLiteStorage(path, …)``. A new file is a copy of an empty database, which takes a fifth of the time."""
    if not path.exists():
        path.touch(0o600)
        path.write_bytes(_empty_database())
    return SQLiteStorage(path, **options)


# effects ---------------------------------------------------------------------------------------------


class Effects:
    """What bodies really did. It lies outside every storage, so a crash does not touch it."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self._lock = threading.Lock()

    def __call__(self, *what: Any) -> int:
        """Note that *what* happened; returns how often it has by now."""
        entry = what[0] if len(what) == 1 else what
        with self._lock:
            self.log.append(entry)
            return self.log.count(entry)

    def count(self, *what: Any) -> int:
        """How often *what* happened."""
        return self.log.count(what[0] if len(what) == 1 else what)

    def __len__(self) -> int:
        return len(self.log)

    def __eq__(self, other: object) -> bool:
        return self.log == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.log)


class Recorder(Hooks):
    """Hooks that note every event as ``(name, …)``."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def names(self) -> list[str]:
        """Names of the events, in order."""
        return [event[0] for event in self.events]

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of the events of this name."""
        return [event[1:] for event in self.events if event[0] == name]


def _record(name: str) -> Callable[..., None]:
    def hook(self: Recorder, *args: Any) -> None:
        self.events.append((name, *args))

    return hook


_EVENTS = "run_start run_complete run_fail run_cancel signal"
_EVENTS += " step_start step_complete step_replay step_error step_retry"
for _name in _EVENTS.split():
    setattr(Recorder, f"on_{_name}", _record(_name))


# crashes ---------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""


class Relay(RelayStorage):
    """A storage that hands everything on to another one, so that tests can stand between."""

    @property
    def inner(self) -> Storage:
        return self.storage


class Mortal(Relay):
    """A storage whose process dies at a commit: before it takes effect, or just after.

    *at* is the number of that commit, from 0, or says of its operations whether it is the one; everything after
    the death fails too, the way nothing comes out of a dead process, and nobody waits for its return. *error* makes
    the exception. What the keeper of leases writes does not count.
    """

    def __init__(
        self,
        inner: Storage,
        at: int | Callable[[Sequence[Operation]], bool] | None = None,
        *,
        after: bool = False,
        error: Callable[[], BaseException] = Crash,
    ) -> None:
        super().__init__(inner)
        self.patience = 0.0
        self.at = at
        self.after = after
        self.error = error
        self.commits = 0
        self.dead = False
        self._lock = threading.Lock()

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        with self._lock:
            if threading.current_thread().name == "flowdsl-keeper":  # when it writes is a matter of real time
                if self.dead:
                    raise unreachable()
                return self.inner.commit(operations)
            if self.dead:
                raise self.error()
            mine, self.commits = self.commits, self.commits + 1
            if not (self.at(operations) if callable(self.at) else mine == self.at):
                return self.inner.commit(operations)
            self.dead = True
            if self.after:
                self.inner.commit(operations)
            raise self.error()


def unreachable() -> StorageUnavailable:
    """The error of a storage that cannot be reached."""
    return StorageUnavailable("the test took it away")


class Breaking(Relay):
    """A storage whose commits fail for as long as ``error`` is set."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.patience = 0.0
        self.error: BaseException | None = None
        self.when: Callable[[Operation], bool] = lambda operation: True

    def commit(self, operations: Sequence[Operation], /) -> list[Outcome]:
        if self.error is not None and any(self.when(operation) for operation in operations):
            raise self.error
        return self.inner.commit(operations)


# processes -------------------------------------------------------------------------------------------


def python(
    code: str, *args: str, cwd: Path | None = None, check: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run *code* in a process of its own; its output. With *check*, it has to end well.

    It is forked, unless *env* gives it a seed for hashes.
    """
    start = subprocess.run if "PYTHONHASHSEED" in env else forked.run
    done = start(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if check and done.returncode:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def script(path: Path, code: str) -> Path:
    """Write *code* as a script."""
    path.write_text(textwrap.dedent(code))
    return path


def spawn(path: Path, *args: str, **env: str) -> forked.Popen:
    """Start a script; talk with it by its pipes."""
    return forked.Popen(
        [sys.executable, str(path), *args],
        cwd=path.parent,
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def statuses(runtime: Runtime, run_id: str) -> list[str]:
    """Statuses of the steps of a run, in recorded order."""
    run = runtime.run(run_id)
    assert run is not None
    return [str(one.status) for one in run.steps()]


def is_closed(runtime: Runtime) -> bool:
    """Whether a runtime was closed: it takes nothing more."""
    try:
        runtime.recover()
    except FlowError as error:
        return "closed" in str(error)
    return False
