"""Decorated functions, futures, runtimes and lists of runs as a notebook shows them."""

import gc
import re
import threading
from typing import Any

import pytest

from flowdsl import Retry, Run, Runtime, step, workflow
from flowdsl.drawing.lists import MOST
from flowdsl.storage import SQLiteStorage


def matches(html: str) -> dict[str, str]:
    """Which step is said to match how."""
    rows = re.findall(r'data-match="(\w+)".*?<td>(\w+)', html)
    return {name: match for match, name in rows}


def define(source: str) -> dict[str, Any]:
    """Execute a cell."""
    names: dict[str, Any] = {"__name__": "book"}
    exec(compile("from flowdsl import *\n" + source, "<cell>", "exec"), names)
    return names


CELL = """
@step
def fetch(x): return x
@step
def save(x): return x
@step
def report(x): return x
@workflow
def job(x):
    "Fetch and save."
    return report(save(fetch(x)))
"""


def test_a_workflow_says_which_recorded_steps_are_what_they_were(runtime: Runtime):
    """A workflow shows which recorded steps are the same, changed or gone, and how to execute one again."""
    first = define(CELL)
    first["job"](1)
    html = first["job"]._repr_html_()
    assert matches(html) == {"fetch": "same", "save": "same", "report": "same"}
    assert "Fetch and save." in html
    assert "fork" not in html
    first.clear()
    gc.collect()  # what a kernel that restarted does not have any more
    again = define(
        CELL.replace("def save(x): return x", "def save(x): return x + 1").replace("report", "tell")
    )
    html = again["job"]._repr_html_()
    assert matches(html) == {"fetch": "same", "save": "changed", "report": "gone"}
    assert "forget" in html
    assert "rt.fork(" in html
    assert "before=&#x27;book.save&#x27;" in html


def test_a_loop_is_one_row_a_name(runtime: Runtime):
    """A loop of many calls is one row for each name."""

    @step
    def roll(n):
        return n

    @workflow
    def game():
        for n in range(100):
            roll(n)

    game()
    html = game._repr_html_()
    assert html.count("data-match=") == 1
    assert "× 100" in html


def test_a_step_shows_what_it_is(runtime: Runtime):
    """A step shows its signature, the first line of its docstring, its options, and its runs by ``rt.do``."""

    @step(retry=Retry(attempts=5), timeout="5 min")
    def charge(order, *, fee=1):
        """Take the money.

        Only once.
        """
        return order

    html = charge._repr_html_()
    assert "charge(order, *, fee=1)" in html
    assert "Take the money." in html
    assert "Only once." not in html
    assert "timeout=300.0" in html
    assert "Retry(attempts=5" in html
    assert "data-run-id" not in html
    runtime.do(charge, 7)
    (run,) = runtime.runs()
    assert f'data-run-id="{run.id}"' in charge._repr_html_()


def test_looking_makes_no_database(tmp_path, monkeypatch):
    """Showing a function makes neither a runtime nor a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWDSL_STORAGE")
    cell = define(CELL)
    assert "no run is recorded" in cell["job"]._repr_html_()
    assert "fetch(x)" in cell["fetch"]._repr_html_()
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_runs_is_a_table(runtime: Runtime):
    """A list of runs, or a slice of it, is a table with state, name, arguments and outcome, and counts what
    does not fit."""
    job = define(CELL)["job"]
    for n in range(3):
        job(n)
    runs = runtime.runs()
    assert runs == list(runs)
    html = runs._repr_html_()
    assert [f'data-run-id="{run.id}"' in html for run in runs] == [True] * 3
    assert html.count('data-status="completed"') == 3
    assert runs[:1]._repr_html_().count("data-run-id") == 1
    assert isinstance(runs[0], Run)
    assert "0 runs" in runtime.runs(status="failed")._repr_html_()
    many = type(runs)(list(runs) * 100)
    assert many._repr_html_().count("data-run-id") == MOST
    assert f"and {300 - MOST} more" in many._repr_html_()


def test_a_runtime_shows_its_newest_runs(tmp_path):
    """A runtime shows its newest runs and the kind of its storage, but no path and no password."""
    job = define(CELL)["job"]
    with Runtime(f"sqlite:///{tmp_path}/flow.db", name="shop") as runtime:
        assert "no run is stored" in runtime._repr_html_()
        job(1)
        html = runtime._repr_html_()
        assert "data-run-id" in html
        assert "SQLite" in html
        assert str(tmp_path) not in html
    assert "closed" in runtime._repr_html_()


def test_a_future_shows_how_it_stands(runtime: Runtime):
    """A future shows its state, without waiting for it and without asking for its result."""
    gate = threading.Event()
    shown = []

    @step(retry=Retry(attempts=1))
    def slow(fails):
        gate.wait(60)
        if fails:
            raise OSError

    @workflow
    def w():
        futures = [slow.submit(fails) for fails in (False, True)]
        shown.append([future._repr_html_() for future in futures])
        gate.set()
        for future in futures:
            future.settled()
        shown.append([future._repr_html_() for future in futures])

    w()
    before, after = shown
    assert all("running" in html or "pending" in html for html in before)
    assert "completed" in after[0]
    assert "failed" in after[1]
    (run,) = runtime.runs()
    assert f'data-run-id="{run.id}"' in after[0]
    assert "slow" in after[0]


class Counting(SQLiteStorage):
    """Counts what is read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.reads: list[str] = []
        super().__init__(*args, **kwargs)

    def get_run(self, *args: Any, **kwargs: Any) -> Any:
        self.reads.append("get_run")
        return super().get_run(*args, **kwargs)

    def list_runs(self, *args: Any, **kwargs: Any) -> Any:
        self.reads.append("list_runs")
        return super().list_runs(*args, **kwargs)

    def list_steps(self, *args: Any, **kwargs: Any) -> Any:
        self.reads.append("list_steps")
        return super().list_steps(*args, **kwargs)


def test_a_look_reads_once(tmp_path):
    """Showing a run reads its row and journal once; showing a list reads nothing."""
    job = define(CELL)["job"]
    with Counting(tmp_path / "flow.db") as storage, Runtime(storage) as runtime:
        job(1)
        runs = runtime.runs()
        for one, expected in (
            (runs[0], ["get_run", "list_steps"]),
            (runs, []),
            (runtime, ["list_runs"]),
            (job, ["list_runs", "list_steps"]),
        ):
            storage.reads.clear()
            one._repr_html_()
            assert storage.reads == expected


@pytest.mark.parametrize("broken", ["run", "runtime", "workflow", "runs"])
def test_what_cannot_be_read_is_said_instead_of_raised(tmp_path, broken):
    """An exception while drawing is shown in words, because a notebook would show a traceback or nothing."""
    job = define(CELL)["job"]
    runtime = Runtime(f"sqlite:///{tmp_path}/flow.db")
    with runtime:
        job(1)
        runs = runtime.runs()
        looked_at = {"run": runtime.run(runs[0].id), "runtime": runtime, "workflow": job, "runs": runs}[
            broken
        ]
        runtime.storage.close()
        html = looked_at._repr_html_()
    assert html.startswith('<div class="flowdsl"')


def test_values_that_nobody_may_read_are_a_dash():
    """With hidden values, arguments and results are dashes in every list."""
    job = define(CELL)["job"]
    with Runtime("memory://", previews=False) as runtime:
        job("4111-1111")
        (run,) = runtime.runs()
        for html in (run._repr_html_(), runtime.runs()._repr_html_(), runtime._repr_html_()):
            assert "4111" not in html
            assert "<code>–</code>" in html
