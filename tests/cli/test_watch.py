"""``flowdsl watch``: in a terminal, piped, and as JSON."""

import json
import signal
import time

import pytest
from attrs import evolve
from rich.cells import cell_len

from flowdsl.core.records import Run, Step
from flowdsl.core.status import RunStatus, StepStatus
from flowdsl.storage import open_storage
from flowdsl.storage.base import DeleteRun, OpenRun, PutStep, UpdateRun

ELSEWHERE = "elsewhere|boot|namespace|4711|1|token"
PAY = Step("a", "1" * 40, "shop.pay", status=StepStatus.PENDING, attempts=0, args="cents=4990")
PAID = PAY._replace(status=StepStatus.COMPLETED, attempts=1, preview="'paid'", completed_at=1.0)
NAP = Step(
    "a", "2" * 40, "flowdsl.sleep", kind="sleep", status=StepStatus.PENDING, extra='{"until": 1900000000.0}'
)
LINE = Step(
    "a", "3" * 40, "flowdsl.log", kind="log", preview="three\x1b[31m parcels", extra='{"fields": {"kg": 7}}'
)
AUDIT = Step("a", "4" * 40, "flowdsl.resolve", kind="audit", preview="eve@host", args="shop.pay: rerun")
COUNT = Step("a", "5" * 40, "flowdsl.store.set", kind="store")


class Elsewhere:
    """A run that a process on another host executes, which is the test."""

    def __init__(self, url):
        self.storage = open_storage(url)
        now = time.time()
        run = Run("a", "shop.order", "k", status=RunStatus.RUNNING, args_preview="number=17", owner=ELSEWHERE)
        self.storage.commit([OpenRun(evolve(run, created_at=now), 10_000.0)])

    def put(self, *steps):
        """Record steps in one commit."""
        now = time.time()
        self.storage.commit(
            [PutStep(s._replace(created_at=now, completed_at=s.completed_at and now)) for s in steps]
        )

    def end(self, status, **changes):
        """The run has ended so."""
        self.storage.commit(
            [UpdateRun("a", {"status": status, "finished_at": time.time(), **changes}, release=True)]
        )


@pytest.fixture
def elsewhere(url, folder):
    """A run that is executed elsewhere."""
    (folder / ".flowdsl").mkdir()
    made = Elsewhere(url)
    yield made
    made.storage.close()


def _said(line):
    """A line without its time, which is on the clock of the reader."""
    assert line[4] == line[7] == "-"
    return " ".join(line[19:].split())


def test_piped_there_is_a_line_for_each_change(elsewhere, spawn):
    """In a pipe, steps, log lines, audit entries and the end are printed once, as they happen."""
    elsewhere.put(PAY)
    process = spawn("watch", "a")
    assert _said(process.stdout.readline()) == "● running a 0 done, 1 begun"
    assert _said(process.stdout.readline()) == "● running pay cents=4990"
    elsewhere.put(PAID, COUNT)
    assert _said(process.stdout.readline()) == "✓ completed pay cents=4990 → 'paid'"
    elsewhere.put(LINE, AUDIT, NAP)
    assert _said(process.stdout.readline()) == r"log three\x1b[31m parcels kg=7"
    assert _said(process.stdout.readline()) == "audit resolve shop.pay: rerun by eve@host"
    assert _said(process.stdout.readline()) == "○ waiting sleep until 2030-03-17 17:46:40"
    elsewhere.end(RunStatus.COMPLETED, result_preview="'done'")
    stdout, stderr = process.communicate()
    assert _said(stdout.removesuffix("\n")) == "✓ completed a 1 done → 'done'"
    assert (process.returncode, stderr) == (0, "")


def test_json_is_a_document_on_each_line(elsewhere, spawn):
    """With --json each change is one line that names its event; store operations are left out."""
    process = spawn("watch", "a", "--json")
    first = json.loads(process.stdout.readline())
    assert (first["event"], first["status"], first["id"]) == ("run", "running", "a")
    assert first["progress"] == {"done": 0, "failed": 0, "known": 0}
    elsewhere.put(COUNT, LINE, AUDIT, PAID)
    found = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [one["event"] for one in found] == ["log", "audit", "step"]
    assert (found[0]["message"], found[0]["fields"]) == ("three\x1b[31m parcels", {"kg": 7})
    assert (found[2]["path"], found[2]["result"]) == ("shop.pay", "'paid'")
    elsewhere.end(RunStatus.FAILED, error_preview="ValueError: no")
    stdout, stderr = process.communicate()
    last = json.loads(stdout)
    assert (process.returncode, stderr) == (1, "")
    assert (last["status"], last["error"], last["progress"]["done"]) == ("failed", "ValueError: no", 1)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_in_a_terminal_the_picture_follows(width, elsewhere, terminal):
    """In a terminal the picture shows executing steps and then the end, and no line is too wide."""
    elsewhere.put(PAY, NAP, LINE)
    stages = ["● running", "1 done", "✓ completed"]
    acts = [lambda: elsewhere.put(PAID), lambda: elsewhere.end(RunStatus.COMPLETED, result_preview="'done'")]

    def follow(text):
        if acts and stages[len(stages) - len(acts) - 1] in text and "kg=7" in text:
            acts.pop(0)()

    seen = terminal("watch", "a", width=width, seen_so_far=follow)
    assert seen.code == 0
    assert max(map(cell_len, seen.text.replace("\r", "\n").splitlines())) <= width
    assert "shop.order(number=17)" in seen.text
    assert "pay" in seen.text
    assert "○ waiting" in seen.text
    assert "\x1b[31m parcels" not in seen.raw
    last = seen.text[seen.text.rindex("✓ completed") :]
    assert "1 done" in last
    assert "result    'done'" in last
    assert seen.raw.rstrip().endswith("\x1b[?25h")  # the cursor is there again


def test_a_picture_fits_the_height(elsewhere, terminal):
    """The picture shows as many of a hundred steps and log lines as fit the height."""
    elsewhere.put(*(PAY._replace(key=f"{n:040}") for n in range(100)))
    elsewhere.put(*(LINE._replace(key=f"log-{n}", preview=f"line {n}") for n in range(100)))

    def follow(text):
        if "more" in text and "line 99" in text:
            elsewhere.end(RunStatus.CANCELLED)

    seen = terminal("watch", "a", width=100, seen_so_far=follow)
    first = seen.text[: seen.text.index("line 99")]
    assert "100 begun" in first
    assert first.count("\n") < 50
    assert seen.code == 1
    assert "error: run a was cancelled" in seen.text


def test_ctrl_c_ends_the_watching(elsewhere, spawn, answer):
    """Ctrl-C exits with 130, prints nothing, and does not change the run."""
    process = spawn("watch", "a")
    assert "running" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert (stdout, stderr.strip()) == ("", "")
    assert process.returncode == 130
    assert answer("show", "a")["status"] == "running"


def test_a_run_that_nobody_executes(elsewhere, spawn):
    """A run whose process is gone is shown as interrupted, and is watched until somebody continues it."""
    process = spawn("watch", "a")
    assert "● running" in process.stdout.readline()
    elsewhere.storage.commit([UpdateRun("a", release=True)])
    assert "! interrupted" in process.stdout.readline()
    elsewhere.end(RunStatus.COMPLETED)
    assert "✓ completed" in process.communicate()[0]
    assert process.returncode == 0


def test_a_run_that_is_deleted(elsewhere, spawn):
    """A run that is deleted while it is watched is one line of error."""
    process = spawn("watch", "a")
    assert "running" in process.stdout.readline()
    elsewhere.storage.commit([DeleteRun("a")])
    assert process.communicate() == ("", "error: no run 'a' in this storage any more\n")
    assert process.returncode == 1


def test_a_run_that_has_ended(shop, invoke, answer):
    """A run that has ended is one line with its exit code, and an unknown run is an error."""
    sold, failed = shop.sell("x"), shop.fail("y")
    result = invoke("watch", sold.id)
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    result = invoke("watch", failed.id)
    assert (result.exit_code, result.stdout.count("\n")) == (1, 1)
    assert result.stderr == (
        f"error: run {failed.id} failed: CardDeclined: no money for y\nnext: flowdsl retry {failed.id} --app shop\n"
    )
    assert invoke("watch", "nothing").exit_code == 1
