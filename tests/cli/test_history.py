"""``flowdsl logs``, ``flowdsl export`` and ``flowdsl fork``; and what can be done with an export."""

import json
import math
import subprocess
import sys
import textwrap
from datetime import UTC, datetime

import pytest
from attrs import evolve

from flowdsl import Runtime, log, now, step, store, uuid4, workflow
from flowdsl.core.history import export_run, read_export
from flowdsl.core.records import Run, Signal, Step
from flowdsl.core.status import RunStatus
from flowdsl.errors import CorruptPayload, RunNotFound, SchemaMismatch
from flowdsl.handle import LogLine


class Diary:
    """A workflow that logs, and what its step executed."""

    def __init__(self, url):
        self.url = url
        self.executed = []

        @step(name="diary.write")
        def write(page):
            self.executed.append(page)
            log("writing\x1b[31m", page=page, ink=[1, 2])
            return page * 2

        @workflow(name="diary.keep", id="diary-{pages}", tags={"team": "日本"})
        def keep(pages):
            log("begins", part=math.inf)
            store.set("pages", pages)
            return [[write(page) for page in range(pages)], str(uuid4()), now().year]

        self.keep = keep

    def __call__(self, pages):
        with Runtime(self.url):
            return self.keep(pages)


@pytest.fixture
def diary(url):
    """The diary, whose runs are in the default storage."""
    return Diary(url)


def test_logs(diary, invoke, answer):
    """Each line has its time, its step, its message and its fields, harmless to a terminal."""
    diary(2)
    lines = [line[19:].strip() for line in invoke("logs", "diary-2").stdout.splitlines()]
    assert lines == [
        "begins part=inf",
        r"write  writing\x1b[31m page=0 ink=[1, 2]",
        r"write  writing\x1b[31m page=1 ink=[1, 2]",
    ]
    first, second, _ = answer("logs", "diary-2")
    assert (first["message"], first["fields"], first["step"], first["path"]) == (
        "begins",
        {"part": "inf"},
        None,
        None,
    )
    assert (second["path"], second["fields"]) == ("diary.write", {"page": 0, "ink": "[1, 2]"})
    assert r"write  writing\x1b[31m page=0 ink=[1, 2]" in invoke("show", "diary-2").stdout


def test_a_run_without_logs(shop, invoke, answer):
    """A run that logged nothing has an empty list, and a note says so."""
    run = shop.sell("x")
    result = invoke("logs", run.id)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{run.id} has logged nothing\n")
    assert answer("logs", run.id) == []


def test_log_lines_are_views(diary, url):
    """``Run.logs()`` gives lines with an aware time, a message, fields and the scope of the call."""
    diary(1)
    with Runtime(url) as runtime:
        run = runtime.run("diary-1")
        assert run is not None
        first, second = run.logs()
        assert first.at.tzinfo is UTC
        assert (first.message, first.fields, first.step) == ("begins", {"part": math.inf}, None)
        assert second.step in {step.key for step in run.steps() if step.path == "diary.write"}
    odd = LogLine.of(Step("a", "b", "flowdsl.log", kind="log", preview="x", extra="[1"))
    assert odd == LogLine(datetime.fromtimestamp(0, UTC), "x", {}, None)


def test_export_is_complete(diary, answer, invoke, url):
    """The document has the run, its steps and its signals, and equals that of the runtime."""
    diary(2)
    document = answer("export", "diary-2")
    assert list(document) == ["format", "version", "run", "steps", "signals"]
    assert (document["format"], document["version"]) == ("flowdsl history", 1)
    assert document["run"]["workflow"] == "diary.keep"
    assert document["run"]["tags"] == {"team": "日本"}
    assert [step["path"] for step in document["steps"] if step["kind"] == "step"] == ["diary.write"] * 2
    assert "owner" not in document["run"]
    assert json.loads(invoke("export", "diary-2").stdout) == document
    with Runtime(url) as runtime:
        assert runtime.export("diary-2") == document
        with pytest.raises(RunNotFound):
            runtime.export("nothing")


def test_an_export_can_be_replayed(diary, answer):
    """From an export in another storage, the same code gives the same result and executes nothing."""
    result = diary(3)
    history = read_export(answer("export", "diary-3"))
    with Runtime("memory://") as runtime:
        runtime.storage.set_run(evolve(history.run, status=RunStatus.RUNNING, result=None, finished_at=None))
        for one in history.steps:
            runtime.storage.set_step(one)
        assert diary.keep(3) == result
        assert len(runtime.storage.list_steps("diary-3")) == len(history.steps)
    assert diary.executed == [0, 1, 2]


def test_an_export_reads_as_what_was_written():
    """Every field that says something about the run survives writing and reading, whatever it holds."""
    run = Run(
        "a", "w", "k", number=3, status=RunStatus.FAILED, args=b"\0\xff", tags=("x", "y"), created_at=1.25,
        finished_at=2.5, deadline=3.75, open_failures=("s",), retryable=False, error=b"", undoing="failed",
        floor=8, version="2",
    )  # fmt: skip
    steps = [
        Step("a", "s", "w.s", seq=7, payload=b"", concurrent=True, created_at=1.5, extra='{"child": "b"}'),
        Step("a", "t", "w.t", seq=9, kind="wait", attempts=0, extra='{"odd":  NaN}', defaults="d", draws=2),
    ]
    signals = [Signal("i", "a", "go", b"p", "1", "eve", "key", 1.5, seq=4, taken_by="t")]
    history = read_export(json.loads(json.dumps(export_run(run, steps, signals), allow_nan=False)))
    assert history.run == evolve(run, floor=2)
    assert history.steps == (steps[0]._replace(seq=1), steps[1]._replace(seq=2))
    assert history.signals == (evolve(signals[0], seq=1),)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"format": "other"}, ValueError, "flowdsl export RUN"),
        ({"version": 2}, SchemaMismatch, "reads up to 1"),
        ({"run": {}}, ValueError, "lacks"),
        ({"steps": [7]}, ValueError, "lacks"),
        ({"run": {"id": "a", "workflow": "w", "key": "k", "args": "?"}}, CorruptPayload, "base64"),
        ({"run": {"id": "a", "workflow": "w", "key": "k", "status": "done"}}, ValueError, "done"),
    ],
)
def test_what_is_no_export(change, error, said):
    """A document of something else, a newer one and a damaged one are refused with a reason."""
    document = {**export_run(Run("a", "w", "k"), [], []), **change}
    with pytest.raises(error, match=said):
        read_export(document)
    with pytest.raises(ValueError):
        read_export([])


# ------------------------------------------------------------------------------------------------------- fork

TRIP = """
    import sys
    from flowdsl import step, workflow

    @step
    def book(flight):
        print("books", flight, flush=True)
        return flight

    @step
    def pay(cents):
        print("pays", cents, flush=True)
        return cents

    @workflow
    def trip(there, back):
        return [book(there), pay(100), book(back)]

    if __name__ == "__main__":
        trip("LH1", "LH2")
"""


@pytest.fixture
def trip(folder, answer):
    """A trip that was made, by its id."""
    (folder / "travel.py").write_text(textwrap.dedent(TRIP))
    subprocess.run([sys.executable, "travel.py"], check=True, capture_output=True)
    (run,) = answer("runs")
    return run["id"]


def test_fork_without_code(trip, spawn, answer):
    """The new run is made and not executed; the command that is printed executes it from the step on."""
    stdout, stderr = spawn("fork", trip, "--before", "pay").communicate()
    made, following = stdout.splitlines()
    new = made.split()[1]
    assert (made, stderr) == (f"made {new}  1 recorded before", "")
    assert following == f"  next  flowdsl resume {new} --app travel"
    found = answer("show", new)
    assert (found["status"], found["forked_from"]) == ("interrupted", trip)
    resumed, _ = spawn(*following.split()[2:]).communicate()
    assert resumed.splitlines()[:2] == ["pays 100", "books LH2"]
    assert "2 executed, 1 recorded before" in resumed
    assert answer("show", new)["audit"][0]["path"] == "flowdsl.fork"
    assert answer("show", trip)["status"] == "completed"


def test_fork_with_code(trip, spawn):
    """With a module, the new run executes at once, under the id that is asked for."""
    process = spawn("fork", trip, "--before", "book", "--id", "again", "--app", "travel.py", "--json")
    stdout, stderr = process.communicate()
    document = json.loads(stdout)
    assert (process.returncode, document["id"], document["status"]) == (0, "again", "completed")
    assert (document["executed"], document["replayed"]) == (3, 0)
    assert (document["forked_from"], document["result"]) == (trip, "['LH1', 100, 'LH2']")
    assert stderr.splitlines() == ["books LH1", "pays 100", "books LH2"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--before", "deliver"], 1, "has no step 'deliver'"),
        (["--before", ""], 2, "empty"),
        (["--before", "pay", "--id", "TRIP"], 1, "a fork needs an id of its own"),
        (["--before", "pay", "--app", "nowhere"], 1, "no module 'nowhere'"),
        ([], 2, "--before"),
    ],
)
def test_forks_that_cannot_be_made(options, code, said, trip, spawn, answer):
    """A step that is not there, an id that is taken and a module that is missing make no run."""
    process = spawn("fork", trip, *(trip if option == "TRIP" else option for option in options))
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr.count("\n")) == (code, "", 1)
    assert said in stderr
    assert len(answer("runs")) == 1
