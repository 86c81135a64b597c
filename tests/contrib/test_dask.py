"""Steps and runs on a Dask cluster of two processes on this machine."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowdsl import Runtime
from flowdsl.errors import StepOutcomeUnknown

distributed = pytest.importorskip("distributed")

import dask_steps as steps  # noqa: E402
import worker_steps  # noqa: E402
from dask.utils import key_split  # noqa: E402

from flowdsl.contrib.dask import DaskExecutor  # noqa: E402

DEADLINE = 60.0  # seconds, for whatever ends at once when it has happened


@pytest.fixture(scope="module")
def executor() -> Iterator[DaskExecutor]:
    """Two workers with a thread each; every port is whatever is free."""
    import dask

    patience = {"distributed.comm.timeouts.connect": "60s", "distributed.comm.timeouts.tcp": "60s"}
    with (
        dask.config.set(patience),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        DaskExecutor(client) as executor,
    ):
        client.run(sys.path.insert, 0, str(Path(__file__).parent))
        client.run(sys.path.insert, 0, str(Path(worker_steps.__file__).parent))
        yield executor


def url_of(tmp_path: Path) -> str:
    """A database that processes can share."""
    return f"sqlite:///{tmp_path}/flow.db?synchronous=normal"


def count(folder: Path, what: str) -> int:
    """How often a body began."""
    return len((folder / what).read_text()) if (folder / what).exists() else 0


def until(happened: Any) -> None:
    """Wait until *happened* says so."""
    end = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def prefixes(executor: DaskExecutor) -> set[str]:
    """The prefixes of keys that the scheduler has seen."""
    return set(executor.client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes)))


def test_steps_execute_on_workers(executor: DaskExecutor, tmp_path: Path) -> None:
    """Steps execute in other processes, with store, nested steps and logs, and the keys of tasks begin with
    the step's path."""
    with Runtime(url_of(tmp_path), executor=executor) as runtime:
        found = worker_steps.squares(6)
        assert [square for square, _, _ in found] == [0, 1, 4, 9, 16, 25]
        counts, total = worker_steps.counts(6)
        (run,) = runtime.runs(workflow=worker_steps.counts)
        assert sorted(count for count, _ in counts) == list(range(1, 7))
        assert total == 6
        assert sorted(line.fields["x"] for line in run.logs()) == list(range(6))
        assert sum(step.path == worker_steps.nested.path for step in run.steps()) == 6
    assert {worker_steps.square.path, worker_steps.counting.path} <= prefixes(executor)
    assert key_split(f"{worker_steps.square.path}-{'0' * 32}") == worker_steps.square.path


def test_a_killed_worker_repeats_no_completed_step(executor: DaskExecutor, tmp_path: Path) -> None:
    """When a worker dies, another worker continues the run from its records."""
    with Runtime(url_of(tmp_path)) as runtime:
        assert executor.submit(steps.order, str(tmp_path)).result(DEADLINE) == (0, 1)
        (run,) = runtime.runs()
        assert run.status == "completed"
    assert (count(tmp_path, "reserve"), count(tmp_path, "pack")) == (1, 2)


def test_in_doubt_holds_although_dask_repeats_tasks(executor: DaskExecutor, tmp_path: Path) -> None:
    """A step in doubt does not begin a second time, and the audit says where it began."""
    with Runtime(url_of(tmp_path), executor=executor) as runtime:
        with pytest.raises(StepOutcomeUnknown, match="its worker died"):
            steps.pays(str(tmp_path))
        assert count(tmp_path, "charge") == 1
        (run,) = runtime.runs()
        assert run.status == "running"
        assert [entry.action for entry in run.audit()] == ["begun"]
        runtime.resolve(run.id, steps.charge.path, result="charged")
        assert steps.pays(str(tmp_path)) == "charged"
    assert count(tmp_path, "charge") == 1


def test_in_doubt_needs_a_storage_that_workers_reach(executor: DaskExecutor, tmp_path: Path) -> None:
    """With ``memory://`` a step in doubt is refused, because nothing could notice a second execution."""
    with Runtime("memory://", executor=executor), pytest.raises(TypeError, match="workers can reach"):
        steps.pays(str(tmp_path))
    assert count(tmp_path, "charge") == 0


def test_cancel_withdraws_what_has_not_begun(executor: DaskExecutor, tmp_path: Path) -> None:
    """A cancel waits for two bodies that have begun, and the other four never begin."""
    with Runtime(url_of(tmp_path), executor=executor):
        run = steps.crowd.start(str(tmp_path))
        until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        run.cancel()
        until(lambda: len(executor._live) == 2)
        (tmp_path / "go").touch()
        run.exception()
        assert run.status == "cancelled"
        assert sum(step.status == "completed" for step in run.steps()) == 2
    until(lambda: not executor._live)
    assert len(list(tmp_path.glob("begun-*"))) == 2


def test_whole_runs(executor: DaskExecutor, tmp_path: Path) -> None:
    """Each submission is a run of its own, sync or async; a workflow with an id executes once."""
    with Runtime(url_of(tmp_path)) as runtime:
        assert list(executor.map(steps.double, [1, 2, 2])) == [2, 4, 4]
        assert len(runtime.runs(workflow=steps.double)) == 3
        again = [executor.submit(worker_steps.squares.options(id="once"), 1).result() for _ in "ab"]
        assert again[0] == again[1]
        assert len(runtime.runs(workflow=worker_steps.squares)) == 1
        assert executor.submit(max, 1, 2).result() == 2
        with pytest.raises(worker_steps.Declined) as caught:
            executor.submit(worker_steps.declined).result()
        assert caught.value.code == 7
    with Runtime("memory://"), pytest.raises(TypeError, match="storage that workers can reach"):
        executor.submit(steps.double, 1)


def test_what_is_wrong(executor: DaskExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong client, work after shutdown, and a missing extra are refused with the reason."""
    with pytest.raises(TypeError, match=r"distributed\.Client"):
        DaskExecutor("tcp://scheduler:8786")
    ended = DaskExecutor(executor.client)
    ended.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        ended.submit(max, 1, 2)
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "flowdsl.contrib.dask")
    with pytest.raises(ImportError, match=r"pip install 'flowdsl\[dask\]'"):
        __import__("flowdsl.contrib.dask")
