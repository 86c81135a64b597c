"""Which notebook is this: who continues whose runs."""

from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("nbclient")

from kernels import execute, texts

FAILING = """
from flowdsl import *
@step
def fetch(x): return "result of the first notebook"
@step(retry=Retry(attempts=1))
def save(x): raise OSError("disk")
@workflow
def job(x): return save(fetch(x))
"""
PASSING = """
from flowdsl import *
@step
def fetch(x): return "result of the second notebook"
@step
def save(x): return x
@workflow
def job(x): return save(fetch(x))
"""
NAMED = "import flowdsl.notebook; flowdsl.notebook.name('sweep')\n"


def test_two_unnamed_notebooks_of_one_directory_never_meet(tmp_path: Path) -> None:
    """Two unnamed notebooks of one directory have their own runs, each warns once, and a shared id
    conflicts."""
    first = execute(tmp_path, FAILING + "job(1)", "job(1)", "job.options(id='mine')(1)")
    assert "OSError" in texts(first[0], "error")
    assert texts(first[0], "stderr").count("FLOWDSL_NOTEBOOK") == 1
    assert "FLOWDSL_NOTEBOOK" not in texts(first[1], "stderr")
    second = execute(tmp_path, PASSING + "job(1)", "job.options(id='mine')(1)")
    assert texts(second[0], "text/plain") == "'result of the second notebook'"
    assert "FLOWDSL_NOTEBOOK" in texts(second[0], "stderr")
    conflict = texts(second[1], "error")
    assert conflict.startswith("RunConflict")
    assert "FLOWDSL_NOTEBOOK" in conflict


def test_a_named_notebook_continues_in_the_next_kernel(tmp_path: Path) -> None:
    """A named notebook continues its runs in the next kernel, whether the environment or a call names it."""
    execute(tmp_path, FAILING + "job(1)", FLOWDSL_NOTEBOOK="sweep")
    (outputs,) = execute(tmp_path, NAMED + PASSING + "job(1)")
    assert texts(outputs, "text/plain") == "'result of the first notebook'"
    assert "FLOWDSL_NOTEBOOK" not in texts(outputs, "stderr")


def test_a_name_may_come_after_the_decorators_but_not_after_a_run(tmp_path: Path) -> None:
    """A name given after decorators renames them, and a run that has begun keeps its name."""
    cells = (PASSING, NAMED, "job(1)", "job.path, fetch.path", NAMED, NAMED.replace("sweep", "other"))
    *_, ran, paths, same, other = execute(tmp_path, *cells)
    assert "FLOWDSL_NOTEBOOK" not in texts(ran, "stderr")
    assert texts(paths, "text/plain") == "('notebook:sweep.job', 'notebook:sweep.fetch')"
    assert texts(same, "error") == ""
    assert texts(other, "error").startswith("FlowError: a run of this kernel was begun as 'notebook:sweep'")
