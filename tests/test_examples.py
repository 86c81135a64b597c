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

from flowdsl.testing import kill_after

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


def lives(directory: Path, script: str, *args: str, commits: int | list[int]) -> list[str]:
    """Run an example, kill it after its n-th commit, run it again, and so on; what each of them printed."""
    storage = {"FLOWDSL_STORAGE": f"sqlite:///{directory}/flow.db"}
    report = kill_after(EXAMPLES / script, *args, commits=commits, env=storage, cwd=directory)
    assert report.kills > 0
    return [life.stdout for life in report.lives]


def flowdsl(directory: Path, *args: str) -> str:
    """Run a command of flowdsl on the records in *directory*; what it printed."""
    command = [sys.executable, "-m", "flowdsl.cli", *args]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOWDSL_")}
    done = subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


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


def test_an_approval_is_reminded_after_three_days_and_given_up_after_seven(tmp_path: Path) -> None:
    """One is answered after its reminder, the other never; both were asked and reminded once."""
    told = run(tmp_path, "approval.py").splitlines()

    assert [line for line in told if "may we buy a desk?" in line] == [
        "  mail to bob: may we buy a desk?",
        "  mail to bob: still waiting: may we buy a desk?",
    ]
    assert (
        told.index("day 3")
        < told.index("  mail to bob: still waiting: may we buy a desk?")
        < told.index("day 4")
    )
    assert sum("may we buy a chair?" in line for line in told) == 2
    assert told[-2:] == ["chair: ordered, approved by ann", "desk: no answer in 7 days"]


def test_an_approval_goes_on_waiting_in_another_process(tmp_path: Path) -> None:
    """It is killed while it waits; the decision comes while nobody executes it, and the next process takes it."""
    process = start(tmp_path, "approval.py", "chair")
    assert process.stdout is not None
    while "may we buy" not in process.stdout.readline():
        assert process.poll() is None
    while "wait_for" not in flowdsl(tmp_path, "steps", "approval-chair"):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)

    flowdsl(tmp_path, "signal", "approval-chair", "decision", "--payload", '{"yes": true, "by": "ann"}')
    told = run(tmp_path, "approval.py", "chair")
    assert "mail" not in told
    assert told.endswith("chair: ordered, approved by ann\n")


SAGA = ("order_saga.py", "--order", "7", "--pause", "0", "--courier")


def test_a_saga_takes_back_and_executes_again(tmp_path: Path) -> None:
    """What was completed is undone, newest first; once the cause is mended, a retry does it all again."""
    failed, mended = run(tmp_path, *SAGA, "drives"), run(tmp_path, *SAGA, "flies")

    order = [
        "aside",
        "the bank takes",
        "the bank gives",
        "back\n    =>",
        "7 failed: nobody drives to the moon",
    ]
    places = [failed.index(what) for what in order]
    assert places == sorted(places)
    assert [line.split() for line in failed.splitlines()[-5:]] == [
        ["ship", "step", "failed"],
        ["refund", "undo", "completed"],
        ["charge", "step", "undone"],
        ["release", "undo", "completed"],
        ["reserve", "step", "undone"],
    ]
    assert "=> on its way" in mended
    assert mended.count("aside") == mended.count("the bank takes") == 1


def test_a_saga_killed_anywhere_takes_everything_back_once(tmp_path: Path) -> None:
    """Killed after every second commit, while it does and while it undoes, each thing happens once all the same."""
    told = "".join(lives(tmp_path, *SAGA, "drives", commits=[2] * 8))

    for happened in ("aside", "the bank takes", "the bank gives", "tent back", "7 failed"):
        assert told.count(happened) == 1, told


def test_duplicates_are_found_and_counted_once(tmp_path: Path) -> None:
    """Three files, two of them equal, one empty; killed on the way, none is counted twice."""
    shelf = tmp_path / "shelf" / "deep"
    shelf.mkdir(parents=True)
    for name, text in {"a": "tea" * 50, "b": "coffee", "c": "tea" * 50, "d": ""}.items():
        (shelf / name).write_text(text)

    printed = lives(tmp_path, "find_duplicates.py", str(shelf.parent), commits=[4, 4])[-1]
    assert re.search(r"^continuing run .* steps are replayed$", printed, re.MULTILINE), printed
    assert f"4 files, 0.0 MB below {shelf.parent}\n" in printed
    assert "1 are empty; 1 contents are there more than once\n" in printed
    assert printed.endswith("150 B  2 ×  deep/a\n")


def test_an_agent_pays_for_no_turn_twice(tmp_path: Path) -> None:
    """Killed at several moments, the agent has asked its model three times and each tool once in the end."""
    told = "".join(lives(tmp_path, "agent.py", "json", "--pause", "0", commits=[2, 3, 6]))

    assert told.count("model  calls") + told.count("model  json/encoder.py is the longest") == 3, told
    assert told.count("tool  list_modules") == 1
    assert told.endswith("tokens)\n")
    assert "tool  count_lines('json', 'invented.py')" in told  # it fails, and the model is told so


def test_an_import_is_repaired_by_a_fork(tmp_path: Path) -> None:
    """A row that fails stops the import; the fork keeps the rates, reads the mended file and loads all of it."""
    told = run(tmp_path, "etl.py")

    assert "=> failed: line 188, order 1187: invalid literal for int() with base 10: '1O'" in told
    assert told.count("bought the rate of") == 5
    assert told.count("read 320 rows") == 2
    assert told.count("loaded 320 rows") == 1
    assert re.search(r"=> 320 orders, by run import_orders-\w+-2\n", told)
    assert sum(int(found) for found in re.findall(r" (\d+) orders  ", told)) == 320
    assert run(tmp_path, "etl.py").count("loaded 320 rows") == 1  # and again, from the beginning


def test_an_import_is_repaired_from_the_command_line(tmp_path: Path) -> None:
    """Killed while it buys rates it continues; then the act of the fork is that of the command line."""
    told = "".join(lives(tmp_path, "etl.py", "--act", "import", commits=[3, 3]))
    assert told.count("bought the rate of") == 5
    run(tmp_path, "etl.py", "--act", "mend")

    on_file = ("--storage", f"sqlite:///{tmp_path}/flow.db")
    app = ("--before", "extract", "--app", str(EXAMPLES / "etl.py"))
    printed = flowdsl(tmp_path, "fork", "import_orders", *app, *on_file)
    assert "bought" not in printed
    assert "loaded 320 rows" in printed
