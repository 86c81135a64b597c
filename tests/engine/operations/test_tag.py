"""``run.tag``: tags that a run gets while it lives."""

import pytest

from flowdsl import current_run, step, workflow


def test_tags_are_filterable_at_once(runtime):
    """Tags from the body and from outside are found at once; new values replace old ones."""

    @workflow(id="w", tags={"shop": "north"})
    def w():
        current_run().tag(customer="Ada", shop="south")
        return [run.id for run in runtime.runs(tags={"customer": "Ada"})]

    assert w() == ["w"]
    run = runtime.run("w")
    assert run.tags == {"shop": "south", "customer": "Ada"}
    run.tag(seen="yes")
    assert [one.id for one in runtime.runs(tags=["seen"])] == ["w"]
    assert runtime.runs(tags={"shop": "north"}) == []


def test_names_that_were_plain_stay(runtime):
    """Tags without a value stay beside new ones."""

    @workflow(id="w", tags=("urgent",))
    def w():
        current_run().tag(customer="Ada")

    w()
    assert [one.id for one in runtime.runs(tags="urgent")] == ["w"]
    assert [one.id for one in runtime.runs(tags={"customer": "Ada"})] == ["w"]


def test_values_are_texts(runtime):
    """A value that is no text is a ``TypeError``, and no tag changes."""

    @workflow(id="w")
    def w():
        pass

    w()
    with pytest.raises(TypeError):
        runtime.run("w").tag(n=1)
    assert not runtime.run("w").tags


def test_a_step_may_tag_too(runtime):
    """A step may tag, and a retry writes the same tag again."""

    @step
    def mark():
        current_run().tag(stage="packed")

    @workflow(id="w")
    def w():
        mark()

    w()
    assert runtime.run("w").tags == {"stage": "packed"}
