"""The storage that the documentation shows keeps the contract that ships, and agrees with ours."""

import importlib.metadata
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from flowdsl import Runtime, step, workflow
from flowdsl.storage import MemoryStorage, Storage
from flowdsl.testing import CrashingStorage, SimulatedCrash, StorageContract, StorageMachine, effects

PAGE = Path(__file__).parent.parent.parent / "docs" / "backends.md"
MODULE = "storage_of_the_documentation"


def documented() -> Any:
    """``LogStorage`` of the page, in a module of its own, so that it can be pickled."""
    module = sys.modules.get(MODULE)
    if module is None:
        module = sys.modules[MODULE] = ModuleType(MODULE)
        (code, *_) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
        exec(compile(code, str(PAGE), "exec"), module.__dict__)
    return module.LogStorage  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scheme, as an installed package registers it."""
    plugin = importlib.metadata.EntryPoint("log", f"{MODULE}:LogStorage.from_url", "flowdsl.storage")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [plugin])


class TestContract(StorageContract):
    def make_storage(self, directory: Path) -> Storage:
        return documented()(directory / "runs")


class Machine(StorageMachine):
    def make_storages(self) -> tuple[Storage, Storage]:
        return MemoryStorage(), documented()(self.directory / "runs")


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def test_runs_continue_on_it(tmp_path: Path) -> None:
    """A run that died goes on on the documented storage, opened by its URL."""

    @step
    def add(n: int) -> int:
        return n

    @workflow
    def total() -> int:
        return add(1) + add(2)

    storage = CrashingStorage(documented()(tmp_path / "runs"), at=2, when="after")
    with effects() as done:
        with pytest.raises(SimulatedCrash), Runtime(storage):
            total()
        with Runtime(f"log://{tmp_path}/runs") as runtime:
            assert total() == 3
            assert [run.status for run in runtime.runs()] == ["completed"]
    assert done.names == ["add", "add"]


def test_what_a_dead_process_has_half_written_is_cut_off(tmp_path: Path) -> None:
    """A torn entry at the end of the file is no commit."""
    first = documented()(tmp_path / "runs")
    with Runtime(first):
        run_id = workflow(lambda: 5, name="five").start().id
    whole = (tmp_path / "runs").read_bytes()
    (tmp_path / "runs").write_bytes(whole[:-3])
    second = documented()(tmp_path / "runs")
    with Runtime(second) as runtime:
        assert runtime.run(run_id) is not None
        workflow(lambda: 6, name="six")()
    third = documented()(tmp_path / "runs")
    assert {run.workflow for run in third.list_runs()} == {"five", "six"}
