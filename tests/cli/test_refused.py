"""Records that the seal refuses: commands name them, once, and go on with the others."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hostile import furnish


@pytest.fixture
def altered(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed database, in which somebody has changed a run and a schedule."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "only we know")
    furnish(url)
    with closing(sqlite3.connect(".flowdsl/flow.db")) as database:
        database.execute("DELETE FROM runs WHERE id = 'left'")
        database.execute("UPDATE runs SET workflow = 'shop.evil' WHERE id = 'order-1'")
        database.execute("UPDATE schedules SET spec = 'x'")
        database.commit()


def test_a_list_names_what_it_leaves_out(altered: None, invoke: Any) -> None:
    """A list shows the other records, and names the refused one once on standard error."""
    done = invoke("runs")
    assert done.exit_code == 0
    assert "order-2" in done.stdout
    assert done.stderr.count("left out: run order-1 is not as it was written") == 1
    done = invoke("schedules")
    assert "left out: schedule 'nightly' is not as it was written" in done.stderr


def test_the_run_itself_is_an_error(altered: None, fault: Any) -> None:
    """Every command about a refused run is an error that names the record."""
    for command in ("show", "steps", "logs", "export", "cancel"):
        assert "error: run order-1 is not as it was written" in fault(command, "order-1")


def test_doctor_finds_it(altered: None, invoke: Any) -> None:
    """``flowdsl doctor`` reports a refused record as a problem, with exit code 1."""
    done = invoke("doctor")
    assert done.exit_code == 1
    assert "not used: run order-1 is not as it was written" in done.stdout
