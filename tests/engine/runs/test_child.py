"""Runs in runs."""

import pytest
from support import ONCE, Declined, Effects, Flavour

from flowdsl import Runtime


def test_a_child_is_a_run_of_its_own(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A child's id derives from the parent's step key, and handle, parent and children name each other."""

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def child(x):
        return (yield f(x))

    @flavour.workflow(id="p")
    def parent():
        a = yield child(1)
        b = yield child(1)
        return a, b

    assert flavour.call(parent) == (1, 2)
    run = runtime.run("p")
    children = run.children()
    assert [c.parent for c in children] == [run, run]
    assert len({c.id for c in children}) == 2
    assert [(s.kind, s.status) for s in run.steps()] == [("child", "completed")] * 2
    assert flavour.call(parent) == (1, 2)
    assert len(effects) == 2


def test_a_child_that_was_interrupted_continues_with_its_parent(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """An interrupted child continues with its parent, by the same call."""
    stop = [True]

    @flavour.step
    def f(x):
        return effects("f", x)

    @flavour.workflow
    def child():
        a = yield f(1)
        if stop.pop() if stop else False:
            raise KeyboardInterrupt
        b = yield f(2)
        return a, b

    @flavour.workflow
    def parent():
        return (yield child())

    with pytest.raises(KeyboardInterrupt):
        flavour.call(parent)
    assert flavour.call(parent) == (1, 1)
    assert len(runtime.runs()) == 2
    assert len(effects) == 2


def test_a_failed_child_continues_when_its_parent_is_called_again(
    runtime: Runtime, flavour: Flavour, effects: Effects
):
    """When the parent is called again, the child's open step executes, and its other steps are replayed."""
    fixed = []

    @flavour.step
    def good():
        return effects("good")

    @flavour.step(retry=ONCE)
    def bad():
        effects("bad")
        if not fixed:
            raise Declined("no")
        return "fine"

    @flavour.workflow
    def child():
        yield good()
        return (yield bad())

    @flavour.workflow
    def parent():
        return (yield child())

    with pytest.raises(Declined, match="no"):
        flavour.call(parent)
    fixed.append(True)
    assert flavour.call(parent) == "fine"
    assert effects == ["good", "bad", "bad"]
    assert {str(r.status) for r in runtime.runs()} == {"completed"}


def test_a_divergent_child_is_no_failure_of_the_parent(runtime: Runtime, flavour: Flavour, effects: Effects):
    """A divergence in a child stops the parent too, and does not fail it."""
    from flowdsl.errors import NondeterminismError

    args = [1]

    @flavour.step
    def f(x):
        return x

    @flavour.workflow
    def child():
        yield f(args[0])
        if args[0] == 1:
            raise KeyboardInterrupt

    @flavour.workflow
    def parent():
        try:
            yield child()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
        return "swallowed"

    with pytest.raises(KeyboardInterrupt):
        flavour.call(parent)
    args[0] = 2
    with pytest.raises(NondeterminismError):
        flavour.call(parent)
    assert {str(r.status) for r in runtime.runs()} == {"running"}
