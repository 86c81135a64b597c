"""The examples, run as a user runs them: as scripts in an empty directory, with warnings as errors."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def start(directory: Path, script: str, *args: str) -> "subprocess.Popen[str]":
    """Start an example that keeps its records in *directory*."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWDSL_")}
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *args]
    return subprocess.Popen(
        command, cwd=directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(directory: Path, script: str, *args: str) -> str:
    """Run an example to its end; what it printed."""
    process = start(directory, script, *args)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    return printed


def test_index_writes_the_table_and_the_plot(tmp_path: Path) -> None:
    """Each file of the library has its line in the table, and the plot is an image."""
    printed = run(tmp_path, "index_stdlib.py", "--limit", "30")

    with (tmp_path / "out" / "modules.csv").open(newline="") as table:
        rows = {row["module"]: row for row in csv.DictReader(table)}
    assert len(rows) == 30
    assert int(rows["__future__"]["classes"]) == 1
    assert not any(row["error"] for row in rows.values())
    plot = ElementTree.parse(tmp_path / "out" / "packages.svg").getroot()
    assert plot.tag == "{http://www.w3.org/2000/svg}svg"
    assert "33 steps executed, 0 replayed." in printed


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
def test_index_continues_where_it_was_stopped(tmp_path: Path, kind: str) -> None:
    """Whether it is killed or interrupted, the next call says what it replays and executes only the rest."""
    process = start(tmp_path, "index_stdlib.py", "--limit", "300")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("100 of 303 steps"):
            process.send_signal(getattr(signal, kind))
            break
    process.communicate(timeout=60)
    assert process.returncode == (130 if kind == "SIGINT" else -signal.SIGKILL)

    printed = run(tmp_path, "index_stdlib.py", "--limit", "300")
    continuing = re.search(
        r"^continuing run \S+ of .*: (\d+) recorded steps are replayed$", printed, re.MULTILINE
    )
    assert continuing, printed
    replayed = int(continuing[1])
    assert 100 <= replayed < 303
    assert f"{303 - replayed} steps executed, {replayed} replayed." in printed


def test_index_runs_anew_once_it_has_completed(tmp_path: Path) -> None:
    """A run that ended is not continued: the next call indexes again."""
    for _ in range(2):
        assert "8 steps executed, 0 replayed." in run(tmp_path, "index_stdlib.py", "--limit", "5")


def test_checkout_tells_the_whole_story(tmp_path: Path) -> None:
    """The checkout fails while the bank is down, continues when it is up, and then has its result."""
    printed = run(tmp_path, "checkout.py", "--order", "7")

    assert printed.count("the warehouse puts 1 teapot aside") == 1
    assert printed.count("another attempt in") == 2
    assert "=> the checkout failed: connection refused" in printed
    assert "[reserve: not executed, the record says 'reservation-7']" in printed
    assert printed.count("the bank takes 29.50 €") == 1
    assert printed.count("=> {'reservation': 'reservation-7', 'payment': 'payment-7'}") == 2


def test_checkout_continues_in_another_process(tmp_path: Path) -> None:
    """What one process reserved, the next one does not reserve again."""
    act = ("checkout.py", "--order", "7", "--bank")
    failed, mended, again = run(tmp_path, *act, "down"), run(tmp_path, *act, "up"), run(tmp_path, *act, "up")

    assert "the warehouse puts" in failed
    assert "the warehouse puts" not in mended
    assert "the bank takes" in mended
    assert "the bank takes" not in again
    assert again.endswith("=> {'reservation': 'reservation-7', 'payment': 'payment-7'}\n")
