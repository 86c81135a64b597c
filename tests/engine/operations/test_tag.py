"""``run.tag``: tags that a run gets while it lives."""

import pytest

from flowdsl import current_run, step, workflow


def test_tags_are_filterable_at_once(runtime):
    """From the body and from outside; old ones stay, the same name is replaced."""

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
    """Tags without a value keep their names beside new ones."""

    @workflow(id="w", tags=("urgent",))
    def w():
        current_run().tag(customer="Ada")

    w()
    assert [one.id for one in runtime.runs(tags="urgent")] == ["w"]
    assert [one.id for one in runtime.runs(tags={"customer": "Ada"})] == ["w"]


def test_values_are_texts(runtime):
    """Anything else is a ``TypeError``, and nothing changes."""

    @workflow(id="w")
    def w():
        pass

    w()
    with pytest.raises(TypeError):
        runtime.run("w").tag(n=1)
    assert not runtime.run("w").tags


def test_a_step_may_tag_too(runtime):
    """A tag is written once more on a retry, which changes nothing."""

    @step
    def mark():
        current_run().tag(stage="packed")

    @workflow(id="w")
    def w():
        mark()

    w()
    assert runtime.run("w").tags == {"stage": "packed"}
