"""Live progress and redefinition in a kernel."""

from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("nbclient")

from kernels import execute, texts

BEGIN = """
%load_ext flowdsl.notebook
import asyncio, time
import flowdsl.notebook.watching
from flowdsl import *
@step
def fetch(x):
    return x
@step
def save(x):
    time.sleep(0.2)
    return x
@workflow
def job(n):
    return sum(save(fetch(x)) for x in range(n))
@step
async def ping(x):
    await asyncio.sleep(0.2)
    return x
@workflow
async def crawl(n):
    return [await ping(x) for x in range(n)]
"""
QUICK = """
flowdsl.notebook.watching._watching[0]._after = 600.0  # so that a slow machine takes it for quick
job(1)
"""
CHANGED = """
@step
def save(x):
    time.sleep(0.2)
    return x + 1
"""


def test_cells_show_their_runs_and_what_they_change(tmp_path: Path) -> None:
    """A long run has one output in its own cell, a quick run has none, and a cell that changes a recorded step
    says so once."""
    cells = (BEGIN, QUICK, "job(6)", "await crawl(6)", CHANGED, CHANGED, BEGIN, "job")
    defined, quick, slow, awaited, changed, again, back, shown = execute(
        tmp_path, *cells, FLOWDSL_NOTEBOOK="live"
    )
    assert texts(defined, "text/html") == ""
    assert texts(quick, "text/html") == ""
    for outputs, name in ((slow, "job"), (awaited, "crawl")):
        frames = [one for one in outputs if "text/html" in one.get("data", {})]
        assert len(frames) == 1
        assert 'data-status="completed"' in frames[0].data["text/html"]
        assert name in frames[0].data["text/plain"]
    assert 'data-match="changed"' in texts(changed, "text/html")
    assert "save" in texts(changed, "text/plain")
    assert texts(again, "text/html") == ""
    assert texts(back, "text/html") == ""
    assert 'data-match="same"' in texts(shown, "text/html")
    assert not [one for one in (*defined, *quick, *slow, *awaited, *changed) if one.output_type == "error"]
