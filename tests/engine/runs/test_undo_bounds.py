"""What undo reverses and what it leaves alone: by options, by origin, by memo."""

import pytest
from support import Effects

from flowdsl import Retry, Runtime, StepStatus, step, workflow


@step(name="bounds.fails", retry=Retry(attempts=1))
def fails():
    """Let the run fail."""
    raise ValueError


@pytest.fixture
def book(effects: Effects):
    """A step that can be undone."""

    @step(name="bounds.book", undo=lambda what: effects("release", what))
    def book(what):
        effects("book", what)
        return what

    return book


def test_a_call_may_say_that_nothing_undoes_it(runtime: Runtime, book, effects: Effects):
    """``options(undo=None)`` prevents the undo of that call only."""

    @workflow(id="w")
    def w():
        book.options(undo=None)("kept")
        book("taken back")
        fails()

    with pytest.raises(ValueError):
        w()
    assert effects.log[2:] == [("release", "taken back")]


def test_a_child_that_has_ended_is_undone_as_its_calls_said(runtime: Runtime, book, effects: Effects):
    """A child that ended long ago is undone by the function in ``options(undo=…)``, even a local one."""

    @workflow
    def child():
        book.options(undo=lambda what: effects("by the call", what))("room")

    @workflow(id="w")
    def w():
        child()
        fails()

    with pytest.raises(ValueError):
        w()
    assert effects == [("book", "room"), ("by the call", "room")]


def test_what_an_undo_has_done_is_not_undone(runtime: Runtime, book, effects: Effects):
    """Steps and children that an undo calls are never undone, after a kill or a later failure."""
    dies = [True]

    @step
    def both(what):
        book(f"inside {what}")

    @workflow
    def child(what):
        book(f"by a child {what}")

    @step
    def release(what):
        both(what)
        child(what)
        if dies:
            dies.clear()
            raise KeyboardInterrupt

    @step(undo=release)
    def reserve(what):
        return what

    @workflow(id="w")
    def w():
        reserve("room")
        fails()

    with pytest.raises(KeyboardInterrupt):
        w()
    with pytest.raises(ValueError):
        w()
    with pytest.raises(ValueError):
        runtime.retry("w").result()
    assert [what for what, _ in effects.log] == ["book"] * 4


def test_a_result_that_another_run_has_shared_is_its_own_to_undo(runtime: Runtime, effects: Effects):
    """A memo result is undone only by the run that made it, and is then no longer shared."""

    @step(memo=True, undo=lambda what: effects("release", what))
    def book(what):
        effects("book", what)
        return what

    @workflow
    def w(what, ends_well):
        book(what)
        if not ends_well:
            fails()

    w("room", True)
    with pytest.raises(ValueError):
        w("room", False)
    assert effects == [("book", "room")]
    with pytest.raises(ValueError):
        w("table", False)
    w("table", True)
    assert effects.log[1:] == [("book", "table"), ("release", "table"), ("book", "table")]
    assert [s.status for s in runtime.runs(limit=1)[0].steps()] == [StepStatus.COMPLETED]
