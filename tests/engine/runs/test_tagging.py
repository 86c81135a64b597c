"""``run.tag``: tags that a run gets while it lives."""

import pytest
from support import Relay, sqlite_storage

from flowdsl import Runtime, current_run, step, workflow
from flowdsl.errors import CorruptPayload, RunNotFound
from flowdsl.storage import MemoryStorage
from flowdsl.storage.operations import AddTags, UpdateRun


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


class Meanwhile(Relay):
    """Calls ``work`` once, just before tags are written."""

    work = None

    def commit(self, operations, /):
        if self.work is not None and any(
            isinstance(one, AddTags) or (isinstance(one, UpdateRun) and "tags" in one.changes)
            for one in operations
        ):
            work, self.work = self.work, None
            work()
        return self.inner.commit(operations)


@pytest.mark.parametrize("make", [lambda _: MemoryStorage(), lambda path: sqlite_storage(path / "flow.db")])
def test_tags_of_others_are_kept(tmp_path, make):
    """Tags that somebody else adds at the same moment stay, from whatever process they come."""

    @workflow(id="w", tags={"shop": "north"})
    def w():
        pass

    with make(tmp_path) as inner:
        storage = Meanwhile(inner)
        with Runtime(storage) as runtime, Runtime(inner) as other:
            w()
            runtime.run("w")
            storage.work = lambda: other.run("w").tag(b="2", shop="south")
            runtime.run("w").tag(a="1")
            assert storage.work is None
            assert runtime.run("w").tags == {"shop": "south", "a": "1", "b": "2"}


def test_a_storage_that_does_not_merge_tags(tmp_path):
    """A storage that knows nothing of adding tags gets them all, as an update of the run."""

    class Older(MemoryStorage):
        merges_tags = False

        def commit(self, operations, /):
            assert not any(isinstance(one, AddTags) for one in operations)
            return super().commit(operations)

    @workflow(id="w", tags={"shop": "north"})
    def w():
        current_run().tag(a="1")

    with Runtime(Older()) as runtime:
        w()
        runtime.run("w").tag(b="2")
        assert runtime.run("w").tags == {"shop": "north", "a": "1", "b": "2"}


def test_no_run_to_tag(runtime):
    """A run that is gone gets no tags, and says so."""

    @workflow(id="w")
    def w():
        pass

    w()
    run = runtime.run("w")
    runtime.delete("w")
    with pytest.raises(RunNotFound, match="no run 'w'"):
        run.tag(a="1")


def test_an_altered_run_gets_no_tags(monkeypatch):
    """With a secret, a run that somebody has altered is refused, and stays as it is."""
    monkeypatch.setenv("FLOWDSL_SECRET_KEY", "known to us")

    @workflow(id="w")
    def w():
        pass

    with MemoryStorage() as storage, Runtime(storage) as runtime:
        w()
        run = runtime.run("w")
        run.tag(a="1")
        storage.commit([UpdateRun("w", {"workflow": "another"})])
        with pytest.raises(CorruptPayload):
            run.tag(b="2")
        assert storage.get_run("w").tags == {"a": "1"}
