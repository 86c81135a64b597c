"""Steps on any executor: threads, and worker processes started either way."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import worker_steps as steps

from flowdsl import Runtime
from flowdsl.errors import StorageError

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
    """Results come back in input order from other processes, with either storage."""
    with Runtime(url_of(tmp_path) if shared else "memory://", executor=pool):
        found = steps.squares(6)
    assert [square for square, _, _ in found] == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {pid for _, pid, _ in found}


def test_store_steps_and_logs_work_in_workers(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """Increments of all workers are 1..n, nested steps are recorded, and each log line is kept once."""
    with Runtime(url_of(tmp_path), executor=pool) as runtime:
        found, total = steps.counts(8)
        (run,) = runtime.runs(workflow=steps.counts)
        assert sorted(count for count, _ in found) == list(range(1, 9))
        assert [inner for _, inner in found] == [100 + x for x in range(8)]
        assert total == 8
        assert sorted(line.fields["x"] for line in run.logs()) == list(range(8))
        assert sum(step.path == steps.nested.path for step in run.steps()) == 8


def test_memory_storage_is_refused_in_workers(pool: ProcessPoolExecutor) -> None:
    """A store call in a worker cannot reach memory storage, and a typed error says so."""
    with (
        Runtime("memory://", executor=pool),
        pytest.raises(StorageError, match="worker process cannot reach it"),
    ):
        steps.counts(1)


def test_killed_worker_is_a_failed_attempt(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """When its process is killed the step is tried again in a new pool, and the run goes on."""
    with Runtime(url_of(tmp_path), executor=pool) as runtime:
        context = pool._mp_context  # the shared pool is not to be broken for the others
        with ProcessPoolExecutor(1, context) as fragile, Runtime(runtime.storage, executor=fragile):
            assert steps.survives(str(tmp_path / "flag")) == "survived"
        (run,) = runtime.runs(workflow=steps.survives)
        assert [step.attempts for step in run.steps()] == [2]


def test_exceptions_come_back_as_themselves(pool: ProcessPoolExecutor) -> None:
    """A worker's exception arrives with its type and attributes."""
    with Runtime("memory://", executor=pool), pytest.raises(steps.Declined) as caught:
        steps.declined()
    assert caught.value.code == 7


@pytest.mark.parametrize("make", [Inline, lambda: ThreadPoolExecutor(2)])
def test_whatever_implements_the_interface(make: Any) -> None:
    """An executor of one's own and a thread pool do the same."""
    executor = make()
    with Runtime("memory://", executor=executor):
        assert [square for square, _, _ in steps.squares(3)] == [0, 1, 4]
    executor.shutdown()
