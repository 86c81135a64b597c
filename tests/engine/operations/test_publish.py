"""``publish``, ``latest`` and ``stream``: what a run shows to others while it executes and after its end."""

import asyncio
import threading

import pytest
from support import Relay, script, spawn
from verbtools import with_a_crash_at_each_commit

from flowdsl import Runtime, current_run, publish, step, wait_for, workflow
from flowdsl.errors import FlowError, WaitTimeout
from flowdsl.storage import MemoryStorage
from flowdsl.storage.base import Publish
from flowdsl.testing import VirtualClock


def test_items_are_read_in_order_from_any_place(runtime, flavour):
    """``stream`` gives all items in order, ``after=n`` skips the first n, and ``latest`` gives the last."""

    @flavour.workflow(id="w")
    def w():
        for n in range(5):
            publish("numbers", n)
        publish("words", "a")

    flavour.call(w)
    run = runtime.run("w")
    assert list(run.stream("numbers")) == [0, 1, 2, 3, 4]
    assert list(run.stream("numbers", after=3)) == [3, 4]
    assert list(run.stream("numbers", after=9)) == []
    assert run.latest("numbers") == 4
    assert run.latest("words") == "a"
    assert run.latest("nothing") is None
    assert list(run.stream("nothing", follow=True)) == []  # the run has ended


def test_a_replay_publishes_nothing_twice(flavour):
    """A crash at each commit leaves each item once, in order."""

    @flavour.step
    def work(n):
        publish("done", f"in step {n}")
        return n

    @flavour.workflow(id="w")
    def w():
        for n in range(3):
            publish("done", n)
            yield work(n)
        publish("done", "end")
        return "ok"

    expected = [0, "in step 0", 1, "in step 1", 2, "in step 2", "end"]
    for rt, result in with_a_crash_at_each_commit(MemoryStorage, lambda rt: flavour.call(w)):
        assert result == "ok"
        assert list(rt.run("w").stream("done")) == expected


def test_a_retried_step_publishes_once(runtime):
    """A step that is retried publishes the item of one call once."""
    fails = [True, True]

    @step
    def work():
        publish("tries", "begun")
        if fails and fails.pop():
            raise OSError("again")

    @workflow(id="w")
    def w():
        work()

    w()
    assert list(runtime.run("w").stream("tries")) == ["begun"]


def test_items_are_durable_before_a_body_acts_upon_them(storage):
    """Before a step begins, other processes can read what was published."""
    seen = []

    with Runtime(storage) as rt, Runtime(storage) as other:

        @step
        def look():
            seen.append(list(other.run("w").stream("c")))

        @workflow(id="w")
        def w():
            publish("c", 1)
            look()
            publish("c", 2)
            look()

        w()
        assert seen == [[1], [1, 2]]
        assert list(rt.run("w").stream("c")) == [1, 2]


def test_follow_waits_for_what_comes(storage):
    """``follow=True`` gives items as they are published, and ends with the run."""

    @workflow(id="w")
    def w():
        publish("c", "first")
        wait_for("go")
        publish("c", "second")

    with Runtime(storage) as rt:
        run = w.start()
        stream = iter(rt.run("w").stream("c", follow=True))
        assert next(stream) == "first"
        run.signal("go")
        assert list(stream) == ["second"]


def test_a_stream_can_be_iterated_in_async_code(storage):
    """``async for`` follows without blocking the loop, and continues with ``after=``."""

    @workflow(id="w")
    async def w():
        from flowdsl import aio

        for n in range(3):
            publish("c", n)
            await aio.wait_for("go")

    async def main():
        async with Runtime(storage):
            run = w.start()
            seen = []
            async for item in run.stream("c", follow=True):
                seen.append(item)
                if len(seen) == 2:
                    break
                run.signal("go")
            run.signal("go")
            async for item in run.stream("c", after=len(seen), follow=True):
                seen.append(item)
                run.signal("go")
            return seen, [item async for item in run.stream("c")]

    assert asyncio.run(main()) == ([0, 1, 2], [0, 1, 2])


def test_latest_waits_at_most_its_timeout(storage):
    """``latest`` with ``timeout=`` waits for the first item, and then raises ``WaitTimeout``."""

    @workflow(id="w")
    def w():
        wait_for("go")
        publish("c", "here")
        wait_for("end")

    with Runtime(storage):
        run = w.start()
        with pytest.raises(WaitTimeout):
            run.latest("c", timeout=0.01)
        timer = threading.Timer(0.0, run.signal, ("go",))
        timer.start()
        assert run.latest("c", timeout=60) == "here"
        timer.join()
        run.signal("end")


def test_items_go_with_their_run(runtime):
    """Items stay after the end of the run, and are deleted with it."""

    @workflow(id="w")
    def w():
        publish("c", 1)

    w()
    run = runtime.run("w")
    assert list(run.stream("c")) == [1]
    runtime.delete("w")
    assert runtime.storage.list_items("w", "c") == []


def test_outside_a_run_there_is_nothing_to_publish_to(runtime):
    """``publish`` outside a run is refused, and the message says where it belongs."""
    with pytest.raises(FlowError, match="inside a run"):
        publish("c", 1)


@pytest.mark.parametrize("channel", ["", None, 7])
def test_the_channel_is_a_text(runtime, channel):
    """The name of a channel is a non-empty text."""

    @workflow
    def w():
        publish(channel, 1)

    with pytest.raises((TypeError, ValueError)):
        w()


def test_another_process_reads_what_a_killed_one_published(tmp_path):
    """After a real kill the items are there, and the continued run adds the rest, none twice."""
    code = script(
        tmp_path / "publishes.py",
        """
        import sys
        from flowdsl import Runtime, publish, step, workflow
        @step
        def work(n):
            if n == 2 and sys.argv[1] == "first":
                print("stuck", flush=True)
                sys.stdin.read()
        @workflow(id="w")
        def w():
            for n in range(4):
                publish("c", n)
                work(n)
        with Runtime("sqlite:///flow.db"): w()
        """,
    )
    first = spawn(code, "first")
    assert first.stdout.readline() == "stuck\n"
    first.kill()
    first.communicate()
    with Runtime(f"sqlite:///{tmp_path}/flow.db") as rt:
        assert list(rt.run("w").stream("c")) == [0, 1, 2]
        second = spawn(code, "second")
        assert second.communicate(timeout=60)[1] == ""
        assert list(rt.run("w").stream("c")) == [0, 1, 2, 3]


def test_the_present_run_reads_its_own_channel():
    """A body can read what it has published itself."""
    with Runtime("memory://", clock=VirtualClock()):

        @workflow
        def w():
            publish("c", 1)
            return current_run().latest("c")

        assert w() == 1


class CountsItems(Relay):
    """Counts the commits that store items, and notes the numbers of the items."""

    def __init__(self):
        super().__init__(MemoryStorage())
        self.published = set()  # a flush and a commit that meet write some twice
        self.publishing = 0

    def commit(self, operations, /):
        items = {op.item.n for op in operations if isinstance(op, Publish)}
        self.published |= items
        self.publishing += bool(items)
        return self.inner.commit(operations)


def test_items_are_stored_with_the_next_commit():
    """10,000 items take few commits, and the items so far are durable before a body begins."""
    seen = []

    @step
    def look():
        seen.append(len(storage.published))

    @workflow
    def talkative():
        for n in range(10_000):
            publish("n", n)
        look()

    storage = CountsItems()
    with Runtime(storage):
        run = talkative.start()
        run.result()
        assert seen == [10_000]
        assert storage.published == set(range(1, 10_001))
        assert storage.publishing <= 2_000  # one in a tenth of a second, or one
        assert list(run.stream("n", after=9_998)) == [9_998, 9_999]
