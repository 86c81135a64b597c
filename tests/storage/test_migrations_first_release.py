"""A database that the first release wrote opens, is migrated in place, and its runs go on."""

import gzip
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flowdsl import Retry, Runtime, step, store, wait_for, workflow
from flowdsl.storage import SQLiteStorage
from flowdsl.testing import effects

WRITTEN = Path(__file__).parent / "data" / "first_release.db.gz"
"""Four runs: completed, failed in its second step, killed in its second step, and killed while it waited."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the database."""
    path = tmp_path / "flow.db"
    with gzip.open(WRITTEN) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    return path


def test_what_was_recorded_is_read(path: Path) -> None:
    """Runs, ordered steps, messages and stores of the first release are read unchanged."""
    with SQLiteStorage(path) as storage:
        statuses = {run.id: str(run.status) for run in storage.list_runs()}
        assert statuses == {
            "completed": "completed",
            "failed": "failed",
            "running": "running",
            "waiting": "running",
        }
        journal = [(step.seq, step.path, str(step.status)) for step in storage.list_steps("failed")]
        assert journal == [
            (1, "shop.reserve", "completed"),
            (2, "flowdsl.store.set", "completed"),
            (3, "shop.charge", "failed"),
        ]
        assert [(signal.name, signal.taken_by) for signal in storage.list_signals("waiting")] == [
            ("other", None)
        ]
        run = storage.get_run("completed")
        assert run is not None
        assert (run.generation, run.queue, run.seal, run.args != b"") == (1, None, b"", True)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA user_version").fetchone()[0] >= 3


def test_its_runs_go_on(path: Path) -> None:
    """Runs of the first release go on, and completed steps do not execute again."""

    @step(name="shop.reserve")
    def reserve(order):
        raise AssertionError("it was recorded")

    @step(name="shop.charge", retry=Retry(attempts=1))
    def charge(order):
        return f"charged {order}"

    @workflow(name="shop.checkout")
    def checkout(order):
        reserved = reserve(order)
        store.set("order", order)
        charged = charge(order)
        return [reserved, charged]

    @workflow(name="shop.approve")
    def approve(order):
        reserve(order)
        return wait_for("approved", timeout=None)

    with effects() as done, Runtime(f"sqlite:///{path}") as rt:
        for run_id, order in (("completed", "a"), ("failed", "b"), ("running", "c")):
            assert checkout.options(id=run_id)(order) == [f"reserved {order}", f"charged {order}"]
        rt.signal("waiting", "approved", "yes")
        assert approve.options(id="waiting")("d") == "yes"
        assert rt.run("failed").state() == rt.run("completed").state() == {}
        assert {str(run.status) for run in rt.runs()} == {"completed"}
    assert done.names == ["charge"] * 2
