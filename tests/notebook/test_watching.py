"""Runs shown while they execute."""

import io
import threading
from contextvars import copy_context
from typing import Any

import pytest

import flowdsl.notebook
from flowdsl import Retry, Runtime, step, workflow
from flowdsl.notebook import watching
from flowdsl.notebook.frames import html, line
from flowdsl.notebook.watching import READ, TerminalScreen, WatchedRun, Watcher


@step
def unit(n):
    """A step."""
    return n


@step(retry=Retry(attempts=1))
def broken(n):
    """A step that fails."""
    raise ValueError("no")


@workflow
def child(n):
    """A run in a run."""
    return unit(n)


class Screen:
    """Keeps what is drawn, as text: the state and the line of each run of each frame."""

    at_once = False

    def __init__(self) -> None:
        self.frames: list[list[tuple[str, str]]] = []
        self.html: list[str] = []
        self.closed = False

    def draw(self, shown: list[WatchedRun]) -> None:
        self.frames.append([(one.frame.state, line(one.frame)) for one in shown])
        self.html += [html(one.frame) for one in shown]

    def close(self) -> None:
        self.closed = True


class Clock:
    """Real time that tests move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Still(Watcher):
    """Draws when the test says so: it has no thread."""

    def _work(self) -> None: ...


@pytest.fixture
def clock_of_frames() -> Clock:
    """The clock of the watcher."""
    return Clock()


def watched(screen: Screen, after: float, clock: Clock) -> Watcher:
    """A watcher whose frames the test draws."""
    return Still(screen, after, clock)


def test_a_run_is_shown_once_it_takes_longer(storage, clock_of_frames):
    """A run is shown when it has taken long enough, then at each frame, and once more at its end."""
    screen = Screen()
    watcher = watched(screen, 0.5, clock_of_frames)
    waits = []

    @workflow
    def w(n):
        unit(1)
        waits.append(watcher.tick())
        clock_of_frames.now += 0.6
        waits.append(watcher.tick())
        unit(2)
        return n

    with Runtime(storage, hooks=watcher):
        w(7)
    assert waits == [0.5, watching.FRAME]
    watcher.tick()
    watcher.close()
    states = [frame[0][0] for frame in screen.frames]
    assert states == ["running", "completed"]
    assert "● w(n=7) 1 step," in screen.frames[0][0][1]
    assert "✓ w(n=7) 2 steps" in screen.frames[1][0][1]
    assert screen.closed


def test_a_quick_run_is_not_shown_but_with_after_0(storage, clock_of_frames):
    """A quick run is not shown, and with ``after=0`` every run is."""
    for after, count in ((0.5, 0), (0, 1)):
        screen = Screen()
        watcher = watched(screen, after, clock_of_frames)
        with Runtime(storage, hooks=watcher):
            child.options(fresh=True)(1)
        watcher.close()
        assert len(screen.frames) == count


def test_a_child_is_seen_in_its_root(storage, clock_of_frames):
    """A child is part of the output of its root run."""
    screen = Screen()
    watcher = watched(screen, 0, clock_of_frames)

    @workflow
    def root():
        child(1)
        watcher.tick()

    with Runtime(storage, hooks=watcher):
        root()
    watcher.close()
    assert all(len(frame) == 1 and "root(" in frame[0][1] for frame in screen.frames)


def test_a_frame_says_what_failed(storage, clock_of_frames):
    """A frame shows state, counts by name and the error, as well-formed markup without a script."""
    screen = Screen()
    watcher = watched(screen, 0, clock_of_frames)

    @workflow
    def w():
        unit(1)
        unit(2)
        broken(3)

    with Runtime(storage, hooks=watcher), pytest.raises(ValueError):
        w()
    watcher.close()
    ((state, text),) = screen.frames[-1]
    assert state == "failed"
    assert "2 steps, 1 failed" in text
    assert 'data-status="failed"' in screen.html[-1]
    assert "ValueError: no" in screen.html[-1]
    assert "<td>unit</td>" in screen.html[-1]
    assert "✓ 2" in screen.html[-1]
    assert "<script" not in screen.html[-1]


def test_of_many_records_only_the_last_are_read(storage, clock_of_frames):
    """Of many records only the last are read, so each frame takes the same time."""
    screen = Screen()
    watcher = watched(screen, 0, clock_of_frames)
    read: list[int] = []

    class Counting(type(storage)):  # type: ignore[misc]
        def list_steps(self, *args: Any, **kwargs: Any) -> Any:
            found = super().list_steps(*args, **kwargs)
            read.append(len(found))
            return found

    @workflow
    def w():
        for n in range(12 * READ):
            unit(n)
        storage.__class__, real = Counting, storage.__class__
        watcher.tick()
        storage.__class__ = real

    with Runtime(storage, hooks=watcher):
        w()
    watcher.close()
    assert sum(read) <= 2 * READ + 40
    text = screen.frames[0][0][1]
    assert "about" in text
    assert "unit" in text


def our_threads() -> list[str]:
    """The threads that draw."""
    return [thread.name for thread in threading.enumerate() if thread.name == "flowdsl-live"]


def test_nothing_exists_where_nobody_looks():
    """If standard error is no terminal, there is no hook and no thread."""
    with flowdsl.notebook.live(after=0), Runtime("memory://"):
        child(1)
        assert not our_threads()
        assert not watching._watching


class Terminal(io.StringIO):
    """Standard error of a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line(monkeypatch):
    """A terminal shows one line, replaced in place and ended by a line feed."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("flowdsl.notebook.watching._columns", lambda: 60)
    with flowdsl.notebook.live(after=0), Runtime("memory://"):
        child(1)
        assert len(our_threads()) == 1
        with flowdsl.notebook.live(after=0):
            child(2)
    assert not our_threads()
    text = terminal.getvalue()
    assert "child(n=2)" in text
    assert text.endswith("\n")
    assert all(len(part) <= 60 for part in text.replace("\n", "\r").split("\r"))
    assert not watching._watching


def test_the_line_of_a_run_ends_before_its_caller_goes_on(storage, clock_of_frames):
    """In a terminal the last frame of a run stands on a line of its own before its result is printed."""
    out = io.StringIO()
    watcher = watched(TerminalScreen(out), 0, clock_of_frames)

    @workflow
    def w(n):
        unit(n)
        watcher.tick()
        return n

    with Runtime(storage, hooks=watcher):
        print(w(1), file=out)
        print(w.options(fresh=True)(2), file=out)
    watcher.close()
    lines = [line.rpartition("\r")[2] for line in out.getvalue().split("\n")[:-1]]
    assert [line.split(",")[0].rstrip() for line in lines] == ["✓ w(n=1) 1 step", "1", "✓ w(n=2) 1 step", "2"]


def test_of_several_runs_the_terminal_shows_one_and_counts_the_others(storage, clock_of_frames):
    """Of several runs the terminal shows one and counts the others."""
    terminal = Terminal()
    watcher = watched(TerminalScreen(terminal), 0, clock_of_frames)  # type: ignore[arg-type]
    gate, began = threading.Event(), threading.Barrier(4)

    @workflow
    def w(n):
        began.wait(60)
        gate.wait(60)

    with Runtime(storage, hooks=watcher):
        runs = [w.start(n) for n in range(3)]
        began.wait(60)
        watcher.tick()
        gate.set()
        for run in runs:
            run.result(60)
    watcher.close()
    assert "(+2 more)" in terminal.getvalue()


def test_a_duration_is_checked():
    """``after`` is checked as any duration."""
    with pytest.raises(ValueError), flowdsl.notebook.live(after=-1):
        pass


def test_the_output_of_a_cell_is_that_of_no_other_cell(monkeypatch):
    """Two cells never share the name of an output, although what the first one watched is gone from memory."""
    names = []
    monkeypatch.setattr(watching, "show", lambda content, name: names.append(name))
    with Runtime("memory://") as runtime:

        @workflow(id="w")
        def w(): ...

        w()
        one = WatchedRun(runtime.run("w"), 0.0, copy_context())
        for _ in range(2):  # a new object in the place of the old one
            watching.NotebookScreen().draw([one])
    assert len(set(names)) == 2
