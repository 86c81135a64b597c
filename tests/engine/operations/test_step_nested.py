"""Steps that call steps."""

import pytest
from support import Effects, Flavour

from flowdsl import Retry, Runtime, step, workflow


def test_steps_nest_and_inner_records_stand_in_the_scope_of_the_outer(runtime: Runtime, flavour: Flavour):
    """The scope of a step called in a step is the outer step."""

    @flavour.step
    def inner(x):
        return x + 1

    @flavour.step
    def outer(x):
        a = yield inner(x)
        b = yield inner(x)
        return a + b

    @flavour.workflow
    def w():
        first = yield outer(1)
        second = yield inner(1)
        return first, second

    assert flavour.call(w) == (4, 2)
    (run,) = runtime.runs()
    steps = {(s.path.rpartition(".")[2], s.scope, s.occurrence) for s in run.steps()}
    key = outer.key(1)
    assert steps == {("inner", key, 0), ("inner", key, 1), ("outer", "", 0), ("inner", "", 0)}
    assert [s.path.rpartition(".")[2] for s in run.steps()] == ["inner", "inner", "outer", "inner"]


def test_when_the_outer_step_is_retried_the_inner_results_are_replayed(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A retry of the outer step replays the inner steps."""

    @flavour.step
    def inner(x):
        return effects("inner", x)

    @flavour.step
    def outer():
        a = yield inner(1)
        if effects("outer") < 3:
            raise OSError("not yet")
        b = yield inner(2)
        return a, b

    @flavour.workflow
    def w():
        return (yield outer())

    assert flavour.call(w) == (1, 1)
    assert effects == [("inner", 1), "outer", "outer", "outer", ("inner", 2)]


def test_a_failed_inner_step_is_executed_again_when_the_outer_one_is_retried(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """A failed inner step executes again when the outer step is retried."""

    @flavour.step(retry=Retry(attempts=1))
    def inner():
        if effects("inner") == 1:
            raise OSError("first time")
        return "fine"

    @flavour.step(retry=Retry(attempts=3))
    def outer():
        return (yield inner())

    @flavour.workflow
    def w():
        return (yield outer())

    assert flavour.call(w) == "fine"
    assert effects.count("inner") == 2


def test_an_inner_success_is_kept_although_it_failed_in_an_earlier_attempt(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """An inner step that failed in the first attempt and completed in the second is not open."""
    fixed = []

    @flavour.step(retry=Retry(attempts=1))
    def inner():
        if effects("inner") == 1:
            raise OSError("first time")
        return "fine"

    @flavour.step(retry=Retry(attempts=2))
    def outer():
        value = yield inner()
        if not fixed:
            raise OSError("after inner")
        return value

    @flavour.workflow
    def w():
        return (yield outer())

    with pytest.raises(OSError, match="after inner"):
        flavour.call(w)
    fixed.append(True)
    assert flavour.call(w) == "fine"
    assert effects.count("inner") == 2


def test_a_step_that_was_answered_by_its_own_record_does_not_enter_its_body(
    runtime: Runtime, effects: Effects
):
    """If a recorded step is replayed, its inner records are unused, without a warning."""
    stop = [True]

    @step
    def inner():
        return effects("inner")

    @step
    def outer():
        return inner() + inner()

    @workflow
    def w():
        value = outer()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        w()
    assert w() == 3
    assert effects.count("inner") == 2


def test_a_crash_inside_an_outer_step_keeps_its_inner_records(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """After a crash the outer step executes again, and its recorded inner steps do not."""
    stop = [True]

    @flavour.step
    def inner():
        return effects("inner")

    @flavour.step
    def outer():
        effects("outer")
        value = yield inner()
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        return value

    @flavour.workflow
    def w():
        return (yield outer())

    with pytest.raises(KeyboardInterrupt):
        flavour.call(w)
    assert flavour.call(w) == 1
    assert effects == ["outer", "inner", "outer"]
