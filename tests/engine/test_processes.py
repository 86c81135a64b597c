"""Steps on any executor: threads, and worker processes started either way."""

import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import worker_steps as steps

from flowdsl import RunStatus, Runtime
from flowdsl.errors import StepOutcomeUnknown, StorageError

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module", params=["fork", "spawn"])
def pool(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    """Two worker processes."""
    with ProcessPoolExecutor(2, multiprocessing.get_context(request.param)) as executor:
        yield executor


class Inline(Executor):
    """The least that implements the interface."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def url_of(tmp_path: Path) -> str:
    """A database that processes can share."""
    return f"sqlite:///{tmp_path}/flow.db?synchronous=normal"


@pytest.mark.parametrize("shared", [True, False])
def test_bodies_execute_in_workers(pool: ProcessPoolExecutor, tmp_path: Path, shared: bool) -> None:
    """Submitted bodies execute in worker processes, and results come back in input order, on each storage."""
    with Runtime(url_of(tmp_path) if shared else "memory://", executor=pool):
        found = steps.squares(6)
    assert [square for square, _, _ in found] == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {pid for _, pid, _ in found}


def test_store_steps_and_logs_work_in_workers(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """Store calls, nested steps and log lines in workers take effect once."""
    with Runtime(url_of(tmp_path), executor=pool) as runtime:
        found, total = steps.counts(8)
        (run,) = runtime.runs(workflow=steps.counts)
        assert sorted(count for count, _ in found) == list(range(1, 9))
        assert [inner for _, inner in found] == [100 + x for x in range(8)]
        assert total == 8
        assert sorted(line.fields["x"] for line in run.logs()) == list(range(8))
        assert sum(step.path == steps.nested.path for step in run.steps()) == 8


def test_memory_storage_is_refused_in_workers(pool: ProcessPoolExecutor) -> None:
    """A store call in a worker with ``memory://`` raises a typed error."""
    with (
        Runtime("memory://", executor=pool),
        pytest.raises(StorageError, match="worker process cannot reach it"),
    ):
        steps.counts(1)


def test_killed_worker_is_a_failed_attempt(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """A killed worker is a failed attempt, and the next attempt executes in a new pool."""
    with Runtime(url_of(tmp_path), executor=pool) as runtime:
        context = pool._mp_context  # the shared pool is not to be broken for the others
        with ProcessPoolExecutor(1, context) as fragile, Runtime(runtime.storage, executor=fragile):
            assert steps.survives(str(tmp_path / "flag")) == "survived"
        (run,) = runtime.runs(workflow=steps.survives)
        assert [step.attempts for step in run.steps()] == [2]


def test_a_worker_that_hangs_is_given_up(tmp_path: Path) -> None:
    """A silent body is left behind, and the next attempt goes on, in a new pool if no worker is left."""
    flag = tmp_path / "flag"
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, context) as lonely, Runtime(url_of(tmp_path), executor=lonely) as rt:
        try:
            assert steps.given_up(str(flag)) == "half"
        finally:
            flag.touch()
        (run,) = rt.runs(workflow=steps.given_up)
        assert [step.attempts > 1 for step in run.steps()] == [True]


def test_heartbeats_from_workers_need_a_shared_storage(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """Heartbeats from workers with ``memory://`` raise a typed error that says what is missing."""
    with Runtime("memory://", executor=pool), pytest.raises(StorageError, match="heartbeats"):
        steps.given_up(str(tmp_path / "flag"))


def test_exceptions_come_back_as_themselves(pool: ProcessPoolExecutor) -> None:
    """A worker's exception has its type and attributes, and shows the user's lines."""
    with Runtime("memory://", executor=pool), pytest.raises(steps.Declined) as caught:
        steps.declined()
    assert caught.value.code == 7
    (where,) = [note for note in caught.value.__notes__ if "worker process" in note]
    assert "worker_steps.py" in where
    assert "raise Declined" in where
    assert "flowdsl/engine" not in where


@pytest.mark.parametrize("make", [Inline, lambda: ThreadPoolExecutor(2)])
def test_whatever_implements_the_interface(make: Any) -> None:
    """A user's executor and a thread pool work like a process pool."""
    executor = make()
    with Runtime("memory://", executor=executor):
        assert [square for square, _, _ in steps.squares(3)] == [0, 1, 4]
    executor.shutdown()


class Repeating(Executor):
    """Executes what it was sent twice, as an engine does that thinks a worker dead; the second result counts."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        data = pickle.dumps(fn)
        first, second = pickle.loads(data)(), pickle.loads(data)()
        assert first[0] == "value"
        future.set_result(second)
        return future


def test_what_an_engine_repeats_stays_in_doubt(tmp_path: Path) -> None:
    """A step in doubt that an executor repeats does not begin a second time."""
    with Runtime(url_of(tmp_path), executor=Repeating()) as runtime:
        with pytest.raises(StepOutcomeUnknown, match="its worker died"):
            steps.pays(str(tmp_path / "paid"))
        assert (tmp_path / "paid").read_text() == "x"
        (run,) = runtime.runs()
        assert [entry.action for entry in run.audit()] == ["begun"]
        runtime.resolve(run.id, steps.charges.path, rerun=True)
        with pytest.raises(StepOutcomeUnknown):
            steps.pays(str(tmp_path / "paid"))
        assert (tmp_path / "paid").read_text() == "xx"


def test_what_an_engine_repeats_replays_what_was_recorded(tmp_path: Path) -> None:
    """If an executor repeats a body, its inner steps and store operations take effect once."""
    with Runtime(url_of(tmp_path), executor=Repeating()) as runtime:
        assert steps.counts(1) == ([(1, 100)], 1)
        (run,) = runtime.runs()
        assert sum(step.path == steps.nested.path for step in run.steps()) == 1
        assert len(run.logs()) == 1


class Never(Executor):
    """Accepts work and begins none."""

    def __init__(self) -> None:
        self.submitted = threading.Event()
        self.future: Future[Any] = Future()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted.set()
        return self.future


def test_cancel_withdraws_what_has_not_begun() -> None:
    """Cancelling a run withdraws bodies that no worker has begun, and the run ends."""
    executor = Never()
    with Runtime("memory://", executor=executor):
        run = steps.pays.start("nowhere")
        assert executor.submitted.wait(60)
        run.cancel()
        run.exception(60)
        assert run.status == RunStatus.CANCELLED
        assert executor.future.cancelled()
