"""``flowdsl worker``: real processes that execute what is enqueued, and how they end."""

import json
import signal
import textwrap

import pytest

from flowdsl import Runtime

from .test_json import FIELDS

CLERK = """
    import time
    from pathlib import Path
    from flowdsl import configure, step, workflow

    if Path("configured").exists():
        configure("sqlite:///own.db")

    @step
    def work(name):
        print("the body prints")
        Path("began").touch()
        while not Path("go").exists():
            time.sleep(0.01)
        return name.upper()

    @workflow
    def job(name):
        return work(name)
"""


@pytest.fixture
def clerk(folder, monkeypatch, imports):
    """The module, imported here too."""
    (folder / "clerk.py").write_text(textwrap.dedent(CLERK))
    monkeypatch.syspath_prepend(str(folder))
    import clerk

    return clerk


def until(found):
    """Wait for what *found* tells, looking again and again."""
    while not found():
        signal.sigtimedwait([], 0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_executes_until_it_is_told(number, code, clerk, folder, url, spawn):
    """A worker executes enqueued runs, lets them end, and exits; it prints only its document."""
    process = spawn("worker", "clerk", "--queues", "a,b", "--queue", "c", "--lease", "60 sec", "--json")
    with Runtime(url) as runtime:
        run = clerk.job.options(queue="b").enqueue("x")
        until((folder / "began").exists)
        (worker,) = runtime.workers()
        assert (set(worker.queues), worker.executing) == ({"a", "b", "c"}, (run.id,))
        process.send_signal(number)
        (folder / "go").touch()
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert set(json.loads(out)) == FIELDS["worker"]
        assert run.result(timeout=60) == "X"
        assert runtime.workers() == []


def test_what_does_not_end_in_time_is_given_back(clerk, folder, url, spawn):
    """After the drain the process exits, and another worker can take the unfinished run."""
    process = spawn("worker", "--app", "clerk.py", "--drain", "0.1 sec")
    with Runtime(url) as runtime:
        run = clerk.job.enqueue("x")
        until((folder / "began").exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert runtime.run(run.id).status == "running"


def test_told_a_second_time_it_ends_without_the_drain(clerk, folder, url, spawn):
    """A second signal exits at once, and the run is given back although its body does not stop."""
    process = spawn("worker", "--app", "clerk.py", "--drain", "1 hour")
    with Runtime(url) as runtime:
        run = clerk.job.enqueue("x")
        until((folder / "began").exists)
        while runtime.storage.get_run(run.id).owner is not None:
            process.send_signal(signal.SIGTERM)
            signal.sigtimedwait([], 0.2)
        process.communicate(timeout=60)
        record = runtime.storage.get_run(run.id)
        assert (record.status, record.owner, record.recoveries) == ("running", None, 0)
        assert runtime.workers() == []


def test_the_runtime_of_the_module_is_used(clerk, folder, spawn):
    """A worker uses the runtime that the module configures, unless the command names a storage."""
    (folder / "configured").touch()
    with Runtime("sqlite:///own.db"):
        run = clerk.job.enqueue("x")
        (folder / "go").touch()
        process = spawn("worker", "clerk")
        assert run.result(timeout=60) == "X"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_what_is_wrong(folder, fault):
    """Exactly one module is required, and queue names must not be empty."""
    assert "name one module that defines the workflows" in fault("worker", code=2)
    assert "name one module that defines the workflows" in fault("worker", "a", "--app", "b", code=2)
    assert "names with commas" in fault("worker", "a", "--queues", "x,,y", code=2)
    assert "no module 'nowhere'" in fault("worker", "nowhere")
