"""``flowdsl fork``."""

import json
import sys
import textwrap

import forked
import pytest

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
    forked.run([sys.executable, "travel.py"], check=True, capture_output=True)
    (run,) = answer("runs")
    return run["id"]


def test_fork_without_code(trip, spawn, answer):
    """The new run is made but not executed, and the printed command executes it from the step on."""
    stdout, stderr = spawn("fork", trip, "--before", "pay").communicate()
    made, following = stdout.splitlines()
    new = made.split()[1]
    assert (made, stderr) == (f"made {new}  1 recorded before", "")
    assert following == f"next: flowdsl resume {new} --app travel"
    found = answer("show", new)
    assert (found["status"], found["forked_from"]) == ("interrupted", trip)
    resumed, _ = spawn(*following.split()[2:]).communicate()
    assert resumed.splitlines()[:2] == ["pays 100", "books LH2"]
    assert "2 executed, 1 recorded before" in resumed
    assert answer("show", new)["audit"][0]["path"] == "flowdsl.fork"
    assert answer("show", trip)["status"] == "completed"


def test_fork_with_code(trip, spawn):
    """With --app the new run executes at once, under the given id."""
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
        (["--before", "deliver"], 1, "no step 'deliver' is recorded"),
        (["--before", "pya"], 1, "(did you mean 'pay'?)"),
        (["--before", ""], 2, "empty"),
        (["--before", "pay", "--id", "TRIP"], 1, "a fork needs an id of its own"),
        (["--before", "pay", "--app", "nowhere"], 1, "no module 'nowhere'"),
        ([], 2, "--before"),
    ],
)
def test_forks_that_cannot_be_made(options, code, said, trip, spawn, answer):
    """An unknown step, an id in use, and a missing module make no run."""
    process = spawn("fork", trip, *(trip if option == "TRIP" else option for option in options))
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (code, "")
    assert stderr.startswith("error: ")
    assert said in stderr
    assert len(answer("runs")) == 1
