"""Commands that execute no code load nothing that was stored."""

import gc

import pytest

from flowdsl import Runtime, step, workflow


class Trap:
    """Leaves a mark wherever it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return _spring, (self.path,)

    def __flow_key__(self):
        return "trap"

    def __repr__(self):
        return "Trap()"


def _spring(path):
    with open(path, "a") as file:
        file.write("x")
    return Trap(path)


@pytest.fixture
def trap(folder, url):
    """A file that any unpickling of the stored arguments, results or errors makes."""
    mark = folder / "mark"

    @step(name="trap.step")
    def work(trap):
        return trap

    @workflow(name="trap.flow", id="run-{number}")
    def flow(number, trap):
        result = work(trap)  # noqa: F821 - ruff takes the del below for one of here
        if number == 2:
            raise RuntimeError(result)
        if number == 3:
            raise KeyboardInterrupt
        return result

    with Runtime(url):
        flow(1, Trap(str(mark)))
        with pytest.raises(RuntimeError):
            flow(2, Trap(str(mark)))
        with pytest.raises(KeyboardInterrupt):
            flow(3, Trap(str(mark)))
    assert mark.exists()  # the trap works: storing checks that a result loads again
    mark.unlink()
    del flow, work  # names are held weakly: from now on the code is not loaded, as in a real command
    gc.collect()
    return mark


@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["runs", "--json"],
        ["show", "run-1"],
        ["show", "run-2", "--json"],
        ["steps", "run-1"],
        ["steps", "run-2", "--json"],
        ["logs", "run-1"],
        ["watch", "run-1"],
        ["export", "run-2"],
        ["signal", "run-3", "go", "--payload", "1"],
        ["doctor"],
        ["cancel", "run-3"],
        ["delete", "run-1", "--yes"],
        ["prune", "--older-than", "0s", "--status", "failed", "--dry-run"],
        ["prune", "--older-than", "0s", "--status", "failed"],
    ],
)
def test_nothing_is_unpickled(trap, command, invoke):
    """Commands that show, export, signal, cancel and delete load no payload."""
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert not trap.exists()


def test_previews_show_what_is_stored(trap, invoke):
    """Shown values are the stored previews."""
    assert "trap=Trap()" in invoke("runs").stdout
    assert "Trap()" in invoke("show", "run-1").stdout
